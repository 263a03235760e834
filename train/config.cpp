// TrainConfig as JSON: written in full, so that a checkpoint tells everything, and read strictly, so that a typing error is not a default.
// The sections mirror the structs of train/config.h one to one.
#include "train/config.h"

#include "layers/json.h"

namespace vg {

Json to_json(const TrainConfig& c) {
  const OptimizerConfig& o = c.optimizer;
  const ScheduleConfig& s = c.schedule;
  const AugmentConfig& a = c.augment;
  return {{"network", to_json(c.network)},
          {"optimizer",
           {{"kind", o.kind}, {"beta1", o.beta1}, {"beta2", o.beta2}, {"eps", o.eps}, {"weight_decay", o.weight_decay}, {"nesterov", o.nesterov}, {"clip_norm", o.clip_norm}}},
          {"schedule",
           {{"kind", s.kind}, {"rate", s.rate}, {"final_rate", s.final_rate}, {"power", s.power}, {"warmup", s.warmup}, {"rise", s.rise},
            {"start_divisor", s.start_divisor}, {"final_divisor", s.final_divisor}, {"low_momentum", s.low_momentum}, {"high_momentum", s.high_momentum}}},
          {"loss",
           {{"ce_weight", c.loss.ce_weight}, {"dice_weight", c.loss.dice_weight}, {"smooth_numerator", c.loss.smooth_numerator},
            {"smooth_denominator", c.loss.smooth_denominator}, {"background", c.loss.background}, {"per_sample", c.loss.per_sample}}},
          {"augment",
           {{"flip", a.flip}, {"intensity", a.intensity}, {"noise", a.noise}, {"affine", a.affine}, {"rotation", a.rotation}, {"scaling", a.scaling}}},
          {"batch", c.batch}, {"patch", c.patch}, {"foreground", c.foreground}, {"epochs", c.epochs}, {"steps", c.steps},
          {"steps_per_epoch", c.steps_per_epoch}, {"overlap", c.overlap}, {"seed", c.seed}};
}

TrainConfig train_config_from_json(const Json& j, const std::string& where) {
  TrainConfig c;
  JsonFields f(j, where);
  const auto section = [&](const char* key, auto&& read) {
    if (!f.has(key)) return;
    JsonFields inner(f.json(key), where + "." + key);
    read(inner);
    inner.done();
  };
  if (f.has("network")) c.network = unet_config_from_json(f.json("network"), where + ".network");
  section("optimizer", [&](JsonFields& s) {
    OptimizerConfig& o = c.optimizer;
    s.get_to("kind", o.kind), s.get_to("beta1", o.beta1), s.get_to("beta2", o.beta2), s.get_to("eps", o.eps);
    s.get_to("weight_decay", o.weight_decay), s.get_to("nesterov", o.nesterov), s.get_to("clip_norm", o.clip_norm);
  });
  section("schedule", [&](JsonFields& s) {
    ScheduleConfig& o = c.schedule;
    s.get_to("kind", o.kind), s.get_to("rate", o.rate), s.get_to("final_rate", o.final_rate), s.get_to("power", o.power), s.get_to("warmup", o.warmup);
    s.get_to("rise", o.rise), s.get_to("start_divisor", o.start_divisor), s.get_to("final_divisor", o.final_divisor);
    s.get_to("low_momentum", o.low_momentum), s.get_to("high_momentum", o.high_momentum);
  });
  section("loss", [&](JsonFields& s) {
    DiceCeParams& o = c.loss;
    s.get_to("ce_weight", o.ce_weight), s.get_to("dice_weight", o.dice_weight), s.get_to("smooth_numerator", o.smooth_numerator);
    s.get_to("smooth_denominator", o.smooth_denominator), s.get_to("background", o.background), s.get_to("per_sample", o.per_sample);
  });
  section("augment", [&](JsonFields& s) {
    AugmentConfig& o = c.augment;
    s.get_to("flip", o.flip), s.get_to("intensity", o.intensity), s.get_to("noise", o.noise), s.get_to("affine", o.affine);
    s.get_to("rotation", o.rotation), s.get_to("scaling", o.scaling);
  });
  f.get_to("batch", c.batch), f.get_to("patch", c.patch), f.get_to("foreground", c.foreground), f.get_to("epochs", c.epochs), f.get_to("steps", c.steps);
  f.get_to("steps_per_epoch", c.steps_per_epoch), f.get_to("overlap", c.overlap), f.get_to("seed", c.seed);
  f.done();
  if (c.batch < 1 || c.batch > 4096 || c.epochs < 0 || c.steps < 0 || c.steps_per_epoch < 0 || c.foreground < 0.0 || c.foreground > 1.0 || c.overlap < 0.0 || c.overlap >= 1.0)
    fail(ErrorCode::bad_file, "{}: batch {}, epochs {}, steps {}, foreground {}, overlap {}: out of range", where, c.batch, c.epochs, c.steps, c.foreground, c.overlap);
  if (!c.patch.empty() && c.patch.size() != 2 && c.patch.size() != 3) fail(ErrorCode::bad_file, "{}: patch has {} extents, wanted 2 or 3", where, c.patch.size());
  return c;
}

}  // namespace vg

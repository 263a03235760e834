// TrainConfig as JSON: written in full, so that a checkpoint tells everything, and read strictly, so that a typing error is not a default.
// The sections mirror the structs of train/config.h one to one.
#include "train/config.h"

#include "layers/json.h"

namespace vg {

namespace {

constexpr double kMostBending = 0.4;  // of the control points' distance

void check(const TrainConfig& c, const std::string& where) {
  const auto among = [&](const char* key, const std::string& value, std::initializer_list<const char*> known) {
    std::string list;
    for (const char* k : known) {
      if (value == k) return;
      list += (list.empty() ? "" : ", ") + std::string(k);
    }
    fail(ErrorCode::bad_file, "{}: {} is \"{}\" (known: {})", where, key, value, list);
  };
  among("optimizer.kind", c.optimizer.kind, {"adamw", "adam", "sgd"});
  among("schedule.kind", c.schedule.kind, {"constant", "poly", "cosine", "one_cycle"});
  const auto within = [&](const char* key, double value, double low, double high) {
    if (!(value >= low && value <= high)) fail(ErrorCode::bad_file, "{}: {} is {}, wanted {} to {}", where, key, value, low, high);
  };
  among("precision", c.precision, {"fp32", "tf32", "bf16", "fp16"});
  within("loss_scale", c.loss_scale, 1.0, 0x1p64), within("scale_interval", c.scale_interval, 1, 1e9);
  within("optimizer.beta1", c.optimizer.beta1, 0.0, 1.0), within("optimizer.beta2", c.optimizer.beta2, 0.0, 1.0);
  within("optimizer.clip_norm", c.optimizer.clip_norm, 0.0, 1e30), within("schedule.rate", c.schedule.rate, 0.0, 1e30);
  within("schedule.rise", c.schedule.rise, 0.0, 1.0), within("augment.intensity", c.augment.intensity, 0.0, 1.0);
  within("augment.noise", c.augment.noise, 0.0, 1.0), within("augment.affine", c.augment.affine, 0.0, 1.0);
  within("augment.scaling", c.augment.scaling, 0.0, 10.0), within("augment.elastic", c.augment.elastic, 0.0, 1.0);
  within("augment.elastic_spacing", c.augment.elastic_spacing, 4.0, 4096.0);
  within("augment.elastic_magnitude", c.augment.elastic_magnitude, 0.0, kMostBending * c.augment.elastic_spacing);
  within("batch", c.batch, 1, 4096), within("foreground", c.foreground, 0.0, 1.0), within("overlap", c.overlap, 0.0, 0.99);
  const std::pair<const char*, std::int64_t> counts[] = {
      {"epochs", c.epochs}, {"steps", c.steps}, {"steps_per_epoch", c.steps_per_epoch}, {"schedule.warmup", c.schedule.warmup}};
  for (const auto& [key, value] : counts)
    if (value < 0) fail(ErrorCode::bad_file, "{}: {} is {}, wanted 0 or more", where, key, value);
  if (!c.patch.empty() && c.patch.size() != 2 && c.patch.size() != 3) fail(ErrorCode::bad_file, "{}: patch has {} extents, wanted 2 or 3", where, c.patch.size());
}

}  // namespace

Graph network_for(TrainConfig& c, int spatial_dims, int in_channels, int classes) {
  if (c.dynamic_unet) {
    require(spatial_dims == 2, "training: network dynamic_unet is for slices, the data are volumes");
    c.dynamic_unet->in_channels = in_channels, c.dynamic_unet->classes = classes;
    return dynamic_unet(*c.dynamic_unet);
  }
  c.network.spatial_dims = spatial_dims, c.network.in_channels = in_channels, c.network.classes = classes;
  return unet(c.network);
}

Json to_json(const TrainConfig& c) {
  const OptimizerConfig& o = c.optimizer;
  const ScheduleConfig& s = c.schedule;
  const AugmentConfig& a = c.augment;
  return {{"network", c.dynamic_unet ? to_json(*c.dynamic_unet) : to_json(c.network)},
          {"optimizer",
           {{"kind", o.kind}, {"beta1", o.beta1}, {"beta2", o.beta2}, {"eps", o.eps}, {"weight_decay", o.weight_decay}, {"nesterov", o.nesterov}, {"clip_norm", o.clip_norm}}},
          {"schedule",
           {{"kind", s.kind}, {"rate", s.rate}, {"final_rate", s.final_rate}, {"power", s.power}, {"warmup", s.warmup}, {"rise", s.rise},
            {"start_divisor", s.start_divisor}, {"final_divisor", s.final_divisor}, {"low_momentum", s.low_momentum}, {"high_momentum", s.high_momentum}}},
          {"loss",
           {{"ce_weight", c.loss.ce_weight}, {"dice_weight", c.loss.dice_weight}, {"smooth_numerator", c.loss.smooth_numerator},
            {"smooth_denominator", c.loss.smooth_denominator}, {"background", c.loss.background}, {"per_sample", c.loss.per_sample}}},
          {"augment",
           {{"flip", a.flip}, {"intensity", a.intensity}, {"noise", a.noise}, {"affine", a.affine}, {"rotation", a.rotation}, {"scaling", a.scaling},
            {"elastic", a.elastic}, {"elastic_spacing", a.elastic_spacing}, {"elastic_magnitude", a.elastic_magnitude}}},
          {"batch", c.batch}, {"patch", c.patch}, {"foreground", c.foreground}, {"epochs", c.epochs}, {"steps", c.steps},
          {"steps_per_epoch", c.steps_per_epoch}, {"overlap", c.overlap}, {"seed", c.seed}, {"exact", c.exact},
          {"precision", c.precision}, {"loss_scale", c.loss_scale}, {"scale_interval", c.scale_interval}};
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
  if (f.has("network")) {
    const Json& network = f.json("network");
    if (network.is_object() && network.value("network", Json()) == "dynamic_unet")
      c.dynamic_unet = dynamic_unet_config_from_json(network, where + ".network");
    else
      c.network = unet_config_from_json(network, where + ".network");
  }
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
    s.get_to("rotation", o.rotation), s.get_to("scaling", o.scaling), s.get_to("elastic", o.elastic);
    s.get_to("elastic_spacing", o.elastic_spacing), s.get_to("elastic_magnitude", o.elastic_magnitude);
  });
  f.get_to("batch", c.batch), f.get_to("patch", c.patch), f.get_to("foreground", c.foreground), f.get_to("epochs", c.epochs), f.get_to("steps", c.steps);
  f.get_to("steps_per_epoch", c.steps_per_epoch), f.get_to("overlap", c.overlap), f.get_to("seed", c.seed), f.get_to("exact", c.exact);
  f.get_to("precision", c.precision), f.get_to("loss_scale", c.loss_scale), f.get_to("scale_interval", c.scale_interval);
  f.done();
  check(c, where);
  return c;
}

}  // namespace vg

// The loop of train/trainer.h.
#include "train/trainer.h"

#include <cmath>
#include <filesystem>

#include "infer/metrics.h"
#include "infer/predict.h"
#include "infer/self_test.h"
#include "kernels/optim.h"
#include "layers/json.h"
#include "tensor/os.h"
#include "train/run_folder.h"
#include "train/step.h"

namespace vg {
namespace {

constexpr const char* kAdvice = "A lower rate or gradient clipping helps most often";

void validate(Context& ctx, Network& net, const Dataset& data, const TrainConfig& config, const std::array<std::int64_t, 3>& patch, EpochInfo& e) {
  const double start = os::wall_seconds();
  PredictOptions options;
  if (data.spatial_dims == 3) std::copy(patch.begin(), patch.end(), options.window);
  options.overlap = config.overlap;
  DiceAccumulator score;
  for (const Sample& s : data.validation) score.add(s.labels, predict(ctx, net, s.image, options).labels);
  for (const auto& [label, entry] : score.entries()) e.label_dice[label] = entry.pooled();
  e.dice = score.mean_pooled(score.foreground());
  e.dice_present = score.mean_pooled(score.present());
  e.dice_common = score.mean_pooled(score.common());
  e.validation_seconds = os::wall_seconds() - start;
}

Model to_model(const Network& net, const Dataset& data, const TrainConfig& config, const std::array<std::int64_t, 3>& patch) {
  Model m;
  m.graph = net.graph;
  m.weights = save_weights(net);
  m.labels = data.classes;
  Recipe recipe = data.recipe;
  if (data.spatial_dims == 3) recipe.window.assign(patch.begin(), patch.end());
  recipe.overlap = config.overlap;
  m.recipe = to_json(recipe);
  m.provenance = {{"data", data.provenance}, {"config", to_json(config)}, {"program", "voxgrad " VG_VERSION}};
  return m;
}

// Numbers in JSON are written so that reading gives the same bits back.
void save_checkpoint(const std::string& path, Model m, const Optimizer& optimizer, const TrainState& s) {
  m.other["train.state"] = Json{{"step", s.step}, {"optimizer_steps", optimizer.steps()}, {"loss_sum", s.loss_sum}, {"ce_sum", s.ce_sum},
                                {"dice_sum", s.dice_sum}, {"best", s.best}}.dump();
  m.extra.emplace_back("state.first", copy_to(optimizer.first_moment(), kCpu));
  if (optimizer.has_second_moment()) m.extra.emplace_back("state.second", copy_to(optimizer.second_moment(), kCpu));
  if (optimizer.scales_losses()) m.extra.emplace_back("state.loss_scale", copy_to(optimizer.loss_scale(), kCpu));
  write_model(path, m);
}

TrainState load_checkpoint(const std::string& path, Network& net, Optimizer& optimizer, const TrainConfig& config, const Dataset& data) {
  const Model m = read_model(path);
  const auto found = m.other.find("train.state");
  if (found == m.other.end()) fail(ErrorCode::bad_file, "{}: a model, but not a checkpoint (no training state)", path);
  // Written in full again: what did not exist yet when the run was started has its default.
  const Json then = to_json(train_config_from_json(m.provenance.value("config", Json::object()), path + ": config")), now = to_json(config);
  for (const auto& item : now.items())
    require(then.contains(item.key()) && then[item.key()] == item.value(), "{}: was started with {} = {}, but now it is {}; resume with the same configuration",
            path, item.key(), then.value(item.key(), Json()).dump(), item.value().dump());
  const Json data_then = m.provenance.value("data", Json::object());
  require(data_then == data.provenance, "{}: was trained on {}, but now the data are {}; resume with the same data", path, data_then.dump(), data.provenance.dump());
  TrainState s;
  const Json state = parse_json(found->second, path + ": train.state");
  JsonFields f(state, path + ": train.state");
  f.get_to("step", s.step), f.get_to("optimizer_steps", s.optimizer_steps), f.get_to("loss_sum", s.loss_sum), f.get_to("ce_sum", s.ce_sum);
  f.get_to("dice_sum", s.dice_sum), f.get_to("best", s.best);
  f.done();
  load_weights(net, m.weights, path);
  Tensor first, second, scale;
  for (const auto& [name, tensor] : m.extra) (name == "state.first" ? first : name == "state.loss_scale" ? scale : second) = tensor;
  optimizer.restore(s.optimizer_steps, first, second);
  if (optimizer.scales_losses()) {
    if (!scale.defined() || scale.shape() != optimizer.loss_scale().shape()) fail(ErrorCode::bad_file, "{}: no state of the loss scale", path);
    optimizer.restore_loss_scale(scale);
  }
  return s;
}

void load_initial(const std::string& path, Network& net) {
  load_weights(net, is_model_file(path) ? read_model(path).weights : read_safetensors(path).tensors, path);
}

// What a training that fails leaves behind.
std::string kept(const std::string& last) {
  return std::filesystem::exists(last) ? last + " holds an earlier state" : "nothing was saved yet";
}

// A step can have a finite loss and yet ruin the weights: a checkpoint must not replace a good one by them.
void require_finite(Context& ctx, ParamList& params, std::int64_t step, const std::string& last) {
  Tensor norm({1}, DType::f32, ctx.device);
  sum_squares(ctx.exec(), norm, params.flat());
  if (!std::isfinite(to_host<float>(norm)[0]))
    fail(ErrorCode::numeric, "training: the weights are no numbers any more after step {}; {}. {}", step, kept(last), kAdvice);
}

void check_data(const Dataset& data) {
  require(data.classes.size() >= 2 && data.classes.size() <= 256, "training: {} classes, wanted 2..256", data.classes.size());
  require(!data.training.empty(), "training: the data set has no training samples");
}

}  // namespace

TrainResult train(Context& ctx, const Dataset& data, TrainConfig config, const TrainOptions& options) {
  check_data(data);
  ctx.convolution.allow = config.exact ? ConvAlgorithm::Allow::exact : ConvAlgorithm::Allow::fast;
  Network net(network_for(config, data.spatial_dims, static_cast<int>(data.channels.size()), static_cast<int>(data.classes.size())), ctx.device, true);
  net.params.initialise(config.seed);
  if (!options.initial_weights.empty()) load_initial(options.initial_weights, net);

  const std::vector<int> divisor = net.graph.divisor();
  std::array<std::int64_t, 3> patch = default_patch(data, divisor);
  if (!config.patch.empty()) {
    require(config.patch.size() == static_cast<std::size_t>(data.spatial_dims), "training: patch has {} extents, the data {}", config.patch.size(), data.spatial_dims);
    for (std::size_t a = 0; a < config.patch.size(); ++a) patch[3 - config.patch.size() + a] = config.patch[a];
    for (std::size_t a = 0; a < 3; ++a)
      require(patch[a] >= 1 && patch[a] % divisor[a] == 0, "training: a patch extent of {} is not a multiple of {}", patch[a], divisor[a]);
  }
  const BatchSource batches(data, config, patch, options.order);
  const std::int64_t per_epoch = batches.steps_per_epoch(), total = config.steps > 0 ? config.steps : config.epochs * per_epoch;
  Optimizer optimizer(config.optimizer, net.params);
  const DType precision = config.precision == "bf16" ? DType::bf16 : config.precision == "fp16" ? DType::f16 : DType::f32;
  if (precision != DType::f32 && ctx.device == kCpu)
    fail(ErrorCode::unsupported, "training: precision {} is computed on a GPU (and on sim), the cpu computes fp32", config.precision);
  ctx.convolution.tf32 = false;
  if (config.precision == "tf32") allow_tf32(ctx.convolution, ctx.device);
  if (precision == DType::f16) optimizer.scale_losses(config.loss_scale, config.scale_interval);

  RunFolder folder(options.folder, options.resume);
  TrainState state;
  if (options.resume) state = load_checkpoint(folder.last(), net, optimizer, config, data);
  folder.read_log(state.step);
  folder.write_config(to_json(config));

  TrainResult result{.finished = false, .step = state.step, .total = total, .best_dice = state.best, .parameters = net.params.trainable_elements()};
  const double started = os::wall_seconds();
  double train_seconds = 0, train_cpu = 0, saved = started;
  Feeder feeder(ctx.device, batches, state.step, total);
  TrainStep step(ctx, net, optimizer, config.loss, precision);
  bool stopped = false;
  while (state.step < total && !stopped) {
    const double wall = os::wall_seconds(), cpu = os::cpu_seconds();
    const Rates rates = rates_at(config.schedule, state.step, total);
    step.run(feeder.next(), rates);
    feeder.prefetch();
    const TrainStep::Losses loss = step.losses();
    if (!std::isfinite(loss.total))
      fail(ErrorCode::numeric, "training: the loss is {} at step {} (cross-entropy {}, 1 - Dice {}); {}. {}", loss.total, state.step + 1, loss.ce, loss.dice,
           kept(folder.last()), kAdvice);

    ++state.step;
    state.loss_sum += loss.total, state.ce_sum += loss.ce, state.dice_sum += loss.dice;
    const double now = os::wall_seconds();
    train_seconds += now - wall, train_cpu += os::cpu_seconds() - cpu;
    if (options.on_step) options.on_step({state.step, total, loss.total, loss.ce, loss.dice, rates.rate, now - wall});

    const bool epoch_ends = state.step % per_epoch == 0 || state.step == total;
    stopped = (options.stop && options.stop()) || (options.time_limit > 0 && now - started > options.time_limit);
    const bool saves = epoch_ends || stopped || now - saved > options.save_every;
    if (saves) require_finite(ctx, net.params, state.step, folder.last());
    if (epoch_ends) {
      const double steps = static_cast<double>((state.step - 1) % per_epoch + 1);
      EpochInfo e{.epoch = (state.step - 1) / per_epoch + 1, .step = state.step, .total = total, .loss = state.loss_sum / steps, .ce = state.ce_sum / steps,
                  .dice_loss = state.dice_sum / steps, .rate = rates.rate, .dice = NAN, .dice_present = NAN, .dice_common = NAN, .label_dice = {},
                  .train_seconds = train_seconds, .train_cpu_seconds = train_cpu, .validation_seconds = 0, .best = false};
      if (!data.validation.empty()) step.give_memory_back(), validate(ctx, net, data, config, patch, e);
      e.best = std::isnan(e.dice) || e.dice > state.best;
      if (e.best && !std::isnan(e.dice)) state.best = e.dice;
      state.loss_sum = state.ce_sum = state.dice_sum = 0;
      // The checkpoint last: whoever resumes from it finds log and best model at least as new.
      if (e.best) {
        Model model = to_model(net, data, config, patch);
        add_golden(model);  // the model that people will use can test itself on their machine
        write_model(folder.best(), model);
      }
      folder.add_row(e);
      if (options.on_epoch) options.on_epoch(e);
    }
    if (saves) {
      save_checkpoint(folder.last(), to_model(net, data, config, patch), optimizer, state);
      saved = os::wall_seconds();
    }
  }
  result.finished = state.step >= total;
  result.step = state.step, result.best_dice = state.best;
  return result;
}

}  // namespace vg

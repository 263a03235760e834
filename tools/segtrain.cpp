// segtrain: trains a segmentation network on slices, on a folder in nnU-Net's layout, or on phantoms.
#include <csignal>
#include <cstdlib>

#include "layers/json.h"
#include "tools/gpu_options.h"
#include "train/trainer.h"

namespace {

using namespace vg;

struct Arguments {
  std::string data, run = "run", config, device = "auto", split, fold, lut, view = "axial", init, order, progress, precision;
  std::vector<std::int64_t> grid = {128, 144};
  int threads = 0, phantoms = 160;
  std::int64_t epochs = -1, steps = -1, seed = -1, batch = -1;
  double rate = -1, time_limit = 0, spacing = 1.25;
  bool resume = false, quiet = false, phantom = false, plan = false, exact = false;
  GpuOptions gpu;
};

// "2" or "2/5".
bool read_fold(const std::string& text, SplitOptions& split) {
  char* end = nullptr;
  split.fold = static_cast<int>(std::strtol(text.c_str(), &end, 10));
  const char* folds = *end == '/' ? end + 1 : nullptr;
  split.folds = folds ? static_cast<int>(std::strtol(folds, &end, 10)) : 5;
  return end != text.c_str() && end != folds && *end == '\0' && split.fold >= 0 && split.fold < split.folds;
}

Dataset load(const Arguments& a) {
  SplitOptions split{.file = a.split};
  if (!a.fold.empty()) read_fold(a.fold, split);
  if (a.phantom) {
    PhantomDatasetOptions o;
    o.training = a.phantoms, o.validation = std::max(1, a.phantoms / 6);
    o.grid = a.grid.size() == 2 ? Shape{1, a.grid[0], a.grid[1]} : Shape{a.grid[0], a.grid[1], a.grid[2]};
    o.spacing = a.spacing;
    o.seed = static_cast<std::uint64_t>(std::max<std::int64_t>(0, a.seed));
    return make_phantom_dataset(o);
  }
  if (CLI::ExistingFile(a.data + "/dataset.json").empty()) return load_folder(a.data, {.split = split});
  return load_slices(a.data, {.view = a.view, .lut = a.lut, .split = split});
}

TrainConfig configure(const Arguments& a) {
  TrainConfig c;
  if (!a.config.empty()) c = train_config_from_json(parse_json(os::read_text(a.config), a.config), a.config);
  if (a.epochs >= 0) c.epochs = a.epochs, c.steps = 0;
  if (a.steps >= 0) c.steps = a.steps;
  if (a.seed >= 0) c.seed = static_cast<std::uint64_t>(a.seed);
  if (a.batch > 0) c.batch = static_cast<int>(a.batch);
  c.exact = c.exact || a.exact;
  if (!a.precision.empty()) c.precision = a.precision;
  if (a.rate > 0) c.schedule.rate = a.rate;
  return c;
}

// A list of batches: JSON [[sample names of the first step], ...].
std::vector<std::int32_t> read_order(const std::string& path, const Dataset& data, int batch) {
  std::map<std::string, std::int32_t> index;
  for (std::size_t i = 0; i < data.training.size(); ++i) index[data.training[i].name] = static_cast<std::int32_t>(i);
  std::vector<std::int32_t> order;
  const Json steps = parse_json(os::read_text(path), path);
  for (const Json& step : steps) {
    if (!step.is_array() || step.size() != static_cast<std::size_t>(batch)) fail(ErrorCode::bad_file, "{}: {}: wanted {} names", path, step.dump(), batch);
    for (const Json& name : step) {
      const auto found = name.is_string() ? index.find(name.get<std::string>()) : index.end();
      if (found == index.end()) fail(ErrorCode::bad_file, "{}: no training sample is called {}", path, name.dump());
      order.push_back(found->second);
    }
  }
  return order;
}

int segtrain(const Arguments& a) {
  if (a.threads > 0) set_threads(a.threads);
  const bool json = a.progress == "json", quiet = a.quiet || json;
  const Device device = choose_device(a.device, quiet);
  const ConvAlgorithm convolution = use_gpu_options(a.gpu, device, quiet);
  const TrainConfig config = configure(a);  // before the data, which can take minutes
  const Dataset data = load(a);
  if (!quiet) {
    std::fprintf(stderr, "data: %zu for training, %zu for validation, %zu classes, %zu skipped\n", data.training.size(), data.validation.size(), data.classes.size(),
                 data.skipped.size());
    for (const std::string& s : data.skipped) std::fprintf(stderr, "  skipped %s\n", s.c_str());
  }
  if (a.plan) {
    TrainConfig c = config;
    const Graph g = network_for(c, data.spatial_dims, static_cast<int>(data.channels.size()), static_cast<int>(data.classes.size()));
    Shape s = data.training[0].image.shape();
    s[0] = config.batch;
    for (int i = 0; i < 3; ++i) s[i + 1] = !config.patch.empty() && i >= 3 - static_cast<int>(config.patch.size()) ? config.patch[static_cast<std::size_t>(i) - 3 + config.patch.size()] : (s[i + 1] + g.divisor()[static_cast<std::size_t>(i)] - 1) / g.divisor()[static_cast<std::size_t>(i)] * g.divisor()[static_cast<std::size_t>(i)];
    std::printf("%s", to_table(g, plan(g, s, {config.exact ? ConvAlgorithm::Allow::exact : ConvAlgorithm::Allow::fast, {}}), measure_rates(), true).c_str());
    return 0;
  }
  os::catch_interrupts();
  ProgressBar bar(quiet);
  TrainOptions o;
  o.folder = a.run, o.resume = a.resume, o.initial_weights = a.init, o.time_limit = a.time_limit;
  if (!a.order.empty()) o.order = read_order(a.order, data, config.batch);
  o.stop = [] { return os::interrupt_signal() != 0; };
  o.on_step = [&](const StepInfo& s) {
    if (json)
      std::printf("%s\n", Json{{"step", s.step}, {"of", s.total}, {"loss", s.loss}, {"ce", s.ce}, {"dice_loss", s.dice_loss}, {"rate", s.rate}, {"seconds", s.seconds}}.dump().c_str()), std::fflush(stdout);
    else
      bar.draw(static_cast<double>(s.step) / static_cast<double>(s.total), fmt::format("step {}/{}  loss {:.4f}  {:.2f} s/step", s.step, s.total, s.loss, s.seconds));
  };
  o.on_epoch = [&](const EpochInfo& e) {
    if (json) {
      std::printf("%s\n", Json{{"epoch", e.epoch}, {"step", e.step}, {"loss", e.loss}, {"dice", e.dice}, {"dice_present", e.dice_present}, {"dice_common", e.dice_common}, {"train_seconds", e.train_seconds}, {"train_cpu_seconds", e.train_cpu_seconds}}.dump().c_str());
      std::fflush(stdout);
    } else if (!quiet) {
      bar.clear();
      std::fprintf(stderr, "epoch %ld  step %ld/%ld  loss %.4f  Dice: common %.4f  present %.4f  all %.4f  (%s training, %.0f s validation)%s\n", static_cast<long>(e.epoch),
                   static_cast<long>(e.step), static_cast<long>(e.total), e.loss, e.dice_common, e.dice_present, e.dice, duration(e.train_seconds).c_str(), e.validation_seconds, e.best ? "  best" : "");
    }
  };
  Context ctx(device);
  ctx.convolution = convolution;
  const TrainResult r = train(ctx, data, config, o);
  bar.clear();
  if (!quiet) {
    const std::string best = r.best_dice < 0 ? "" : fmt::format("best validation Dice {:.4f}; ", r.best_dice);
    std::fprintf(stderr, "%s at step %ld of %ld; %s%ld parameters; %s/last.safetensors, %s/best.safetensors\n", r.finished ? "finished" : "stopped and saved",
                 static_cast<long>(r.step), static_cast<long>(r.total), best.c_str(), static_cast<long>(r.parameters), a.run.c_str(), a.run.c_str());
    if (device.kind == DeviceKind::cuda) std::fprintf(stderr, "GPU memory: at most %s in use\n", in_gib(memory_stats(device).peak).c_str());
    std::fprintf(stderr, "research use, not a medical device\n");
  }
  return os::interrupt_signal() && !r.finished ? 128 + os::interrupt_signal() : 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Trains a segmentation network. DATA: a folder of slices (VIEW/NAME-2d_VIEW.png and VIEW-mask/...), or a folder in nnU-Net's layout.", "segtrain");
  app.add_option("data", a.data, "folder with training data");
  app.add_option("-o,--output", a.run, "run folder (last.safetensors, best.safetensors, log.csv, curves.svg)")->capture_default_str();
  app.add_option("--config", a.config, "training configuration (JSON)");
  app.add_option("--view", a.view, "slices: which view")->capture_default_str();
  app.add_option("--lut", a.lut, "slices: colour table (FreeSurferColorLUT.txt)");
  app.add_option("--split", a.split, "JSON with the names that validate");
  app.add_option("--fold", a.fold, "k/K: fold k of K validates (default 0/5)");
  app.add_flag("--phantom", a.phantom, "train on synthetic heads made on the spot");
  app.add_option("--phantoms", a.phantoms, "how many synthetic heads")->capture_default_str();
  app.add_option("--grid", a.grid, "size of the synthetic heads: D H W, or H W for slices")->expected(2, 3);
  app.add_option("--spacing", a.spacing, "voxel size of the synthetic heads in mm; 0: the whole head in view")->capture_default_str();
  app.add_option("-d,--device", a.device, "auto, cpu, sim, cuda, cuda:N")->capture_default_str();
  app.add_option("-t,--threads", a.threads, "threads of the cpu device (default: all)")->check(CLI::NonNegativeNumber);
  app.add_option("--epochs", a.epochs, "passes over the data")->check(CLI::NonNegativeNumber);
  app.add_option("--steps", a.steps, "optimizer steps (instead of epochs)")->check(CLI::NonNegativeNumber);
  app.add_option("--batch", a.batch, "images per step")->check(CLI::PositiveNumber);
  app.add_option("--rate", a.rate, "peak learning rate")->check(CLI::PositiveNumber);
  app.add_option("--seed", a.seed, "of weights, order and augmentation")->check(CLI::NonNegativeNumber);
  app.add_flag("--exact", a.exact, "convolutions round no coarser than the plain sum; slower");
  app.add_option("--precision", a.precision, "of activations: fp32, or on a GPU (and sim) bf16, fp16; tf32: fp32, multiplied by cuDNN as tf32")->check(CLI::IsMember({"fp32", "tf32", "bf16", "fp16"}));
  app.add_option("--time-limit", a.time_limit, "seconds, after which the run is saved and stopped");
  app.add_option("--init", a.init, "weights to start from (model or safetensors file)");
  app.add_option("--order", a.order, "JSON list of batches, each a list of sample names");
  app.add_flag("--resume", a.resume, "continue the run in the run folder");
  app.add_flag("--plan", a.plan, "print the network with shapes and costs, and stop");
  app.add_option("--progress", a.progress, "json: one line a step on stdout")->check(CLI::IsMember({"json", "bar"}));
  add_gpu_options(app, a.gpu);
  app.add_flag("-q,--quiet", a.quiet, "print nothing but errors");
  app.callback([&] {
    usage(a.phantom || !a.data.empty(), "DATA", "nothing to train on: name a folder, or use --phantom");
    usage_size("--max-vram", a.gpu.max_memory);
    SplitOptions ignored;
    usage(a.fold.empty() || read_fold(a.fold, ignored), "--fold", "wanted k or k/K with 0 <= k < K, got " + a.fold);
  });
  return run_program(app, argc, argv, [&] { return segtrain(a); });
}

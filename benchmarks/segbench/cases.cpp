// Building and running the cases of cases.h.
#include "benchmarks/segbench/cases.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "benchmarks/segbench/child.h"
#include "infer/import.h"
#include "layers/dynamic_unet.h"
#include "layers/unet.h"
#include "nifti/volume.h"
#include "tensor/os.h"
#include "train/dataset.h"

namespace vg::bench {
namespace {

UnetConfig dynunet(int spatial_dims, int classes, std::vector<int> features) {
  UnetConfig c;
  c.spatial_dims = spatial_dims, c.classes = classes, c.features = std::move(features), c.norm_affine = false;
  return c;
}

constexpr DiceCeParams kMonaiDiceCe = {.background = true, .per_sample = true};  // DiceCELoss(to_onehot_y=True, softmax=True)

}  // namespace

std::string data_folder(const CaseOptions& o) {
  if (!o.data.empty()) return o.data;
  const std::string given = os::environment("VG_TEST_DATA");
  return given.empty() ? "../shared/data" : given;
}

const std::vector<std::string>& train_cases() {
  static const std::vector<std::string> names = {"unet3d", "monai_unet", "dynunet2d", "ixi", "tiny"};
  return names;
}
const std::vector<std::string>& infer_cases() {
  static const std::vector<std::string> names = {"mesh128", "mesh256", "mesh256_head"};
  return names;
}
const std::vector<std::string>& speedup_cases() {
  static const std::vector<std::string> names = {"origin", "dynunet2d", "unet3d", "mesh256", "slices", "tiny"};
  return names;
}
bool is_train_case(const std::string& name) {
  return name == "origin" || std::find(train_cases().begin(), train_cases().end(), name) != train_cases().end();
}

namespace {
std::unique_ptr<Network> origin_network(int classes, Device device) {
  auto net = std::make_unique<Network>(dynamic_unet({.in_channels = 3, .classes = classes}), device, true);
  net->params.initialise(1);
  return net;
}
}  // namespace

void TrainCase::random_batch(std::int64_t n, std::int64_t d, std::int64_t h, std::int64_t w, std::int64_t channels, int classes) {
  Random random(1);
  x_ = Tensor({n, d, h, w, channels}, DType::f32, kCpu), y_ = Tensor({n, d, h, w, 1}, DType::u8, kCpu);
  for (std::int64_t i = 0; i < x_.elements(); ++i) x_.data<float>()[i] = random.uniform();
  for (std::int64_t i = 0; i < y_.elements(); ++i) y_.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(random.below(static_cast<std::uint32_t>(std::min(classes, 256))));
}

TrainCase::TrainCase(const std::string& name, const CaseOptions& options) : ctx_(options.device) {
  ctx_.convolution.allow = options.allow;
  if (options.tf32) allow_tf32(ctx_.convolution, options.device);
  UnetConfig c;
  OptimizerConfig o;
  if (name == "unet3d" || name == "monai_unet") {
    c = dynunet(3, 33, {16, 32, 64, 128, 256});
    if (name == "monai_unet") c.style = "unet", c.activation = "prelu", c.residual_units = 2;
    o.kind = "adam", o.weight_decay = 0.0, loss_ = kMonaiDiceCe;
    random_batch(1, 96, 96, 96, 1, c.classes);
  } else if (name == "dynunet2d" || name == "origin") {
    const int classes = name == "origin" ? 374 : 44;
    random_batch(2, 1, 256, 256, 3, classes);
    net_ = origin_network(classes, options.device);
  } else if (name == "ixi") {
    const Dataset data = load_slices(data_folder(options) + "/ixi-slices", {});
    c = dynunet(2, static_cast<int>(data.classes.size()), {16, 32, 64, 128, 256});
    rate_ = 4e-3 / 25;  // where its one-cycle schedule starts
    const Shape one = data.training.at(0).image.shape();
    const std::int64_t batch = 8;
    x_ = Tensor({batch, 1, one.h(), one.w(), 1}, DType::f32, kCpu), y_ = Tensor({batch, 1, one.h(), one.w(), 1}, DType::u8, kCpu);
    for (std::int64_t n = 0; n < batch; ++n) {
      const Sample& s = data.training.at(static_cast<std::size_t>(n));
      Tensor x = x_.range(n * one.elements(), one), y = y_.range(n * one.elements(), s.labels.shape());
      copy(x, s.image), copy(y, s.labels);
    }
  } else if (name == "tiny") {
    c = dynunet(3, 3, {4, 6, 8});
    random_batch(2, 16, 16, 16, 1, c.classes);
  } else {
    fail(ErrorCode::invalid_argument, "case {}: not a training case (known: unet3d, monai_unet, dynunet2d, origin, ixi, tiny)", name);
  }
  if (!net_) {
    net_ = std::make_unique<Network>(unet(c), options.device, true);
    net_->params.initialise(1);
  }
  x_ = copy_to(x_, options.device), y_ = copy_to(y_, options.device);
  optimizer_ = std::make_unique<Optimizer>(o, net_->params);
  step_ = std::make_unique<TrainStep>(ctx_, *net_, *optimizer_, loss_, options.precision);
}

float TrainCase::step() {
  step_->run({x_, y_}, {rate_, -1.0});
  const float value = step_->losses().total;
  if (!std::isfinite(value)) fail(ErrorCode::numeric, "training step: the loss is {}", value);
  return value;
}

std::string TrainCase::describe() const {
  return fmt::format("{} parameters, input {}, {} classes", net_->params.trainable_elements(), to_string(x_.shape()), net_->graph.out_channels());
}

void TrainCase::export_to(const std::string& folder) const {
  write_safetensors(folder + "/weights.safetensors", {.tensors = save_weights(*net_), .metadata = {}});
  write_safetensors(folder + "/batch.safetensors",
                    {.tensors = {{"x", x_}, {"y", y_}}, .metadata = {{"classes", std::to_string(net_->graph.out_channels())}, {"rate", std::to_string(rate_)}}});
}

InferCase::InferCase(const std::string& name, const CaseOptions& options) : ctx_(options.device), scan_(data_folder(options) + "/t1/t1_crop.nii.gz"), whole_(name.starts_with("mesh256")), head_only_(name == "mesh256_head"), precision_(options.precision) {
  ctx_.convolution.allow = options.allow;
  if (options.tf32) allow_tf32(ctx_.convolution, options.device);
  if (name == "slices") {
    net_ = origin_network(44, options.device);
    image_ = Tensor({64, 1, 256, 256, 3}, DType::f32, kCpu);
    Random random(1);
    for (std::int64_t i = 0; i < image_.elements(); ++i) image_.data<float>()[i] = random.uniform();
    return;
  }
  if (std::find(infer_cases().begin(), infer_cases().end(), name) == infer_cases().end())
    fail(ErrorCode::invalid_argument, "case {}: not an inference case (known: {})", name, fmt::join(infer_cases(), ", "));
  const std::string models = data_folder(options) + "/models/";
  const TemporaryFolder folder;
  write_model(folder / "subcortical.safetensors",
              import_meshnet({.weights = models + "subcortical.safetensors", .config = models + "subcortical.json", .golden = false}));
  segmenter_ = std::make_unique<Segmenter>(folder / "subcortical.safetensors", options.device);
  if (whole_) return;
  constexpr std::int64_t kSize = 128;
  const Tensor image = normalise(read_volume(scan_).voxels, segmenter_->recipe);
  const Shape& s = image.shape();
  require(s.d() >= kSize && s.h() >= kSize && s.w() >= kSize, "{}: {} voxels, wanted at least 128^3", scan_, to_string(s));
  image_ = Tensor({1, kSize, kSize, kSize, 1}, DType::f32, kCpu);
  const std::int64_t z0 = (s.d() - kSize) / 2, y0 = (s.h() - kSize) / 2, x0 = (s.w() - kSize) / 2;
  for (std::int64_t z = 0; z < kSize; ++z)
    for (std::int64_t y = 0; y < kSize; ++y)
      std::copy_n(image.data<float>() + ((z0 + z) * s.h() + y0 + y) * s.w() + x0, kSize, image_.data<float>() + (z * kSize + y) * kSize);
}

void InferCase::run() {
  if (!whole_) {
    const double start = os::wall_seconds();
    PredictOptions how;
    if (!net_) how = predict_options(segmenter_->recipe);
    how.precision = precision_;
    const Prediction p = predict(ctx_, net_ ? *net_ : segmenter_->net, image_, how);
    network_seconds_ = os::wall_seconds() - start;
    labels_.assign(p.labels.data<std::uint8_t>(), p.labels.data<std::uint8_t>() + p.labels.elements());
    return;
  }
  SegmentOptions options;
  options.head_only = head_only_, options.precision = precision_;
  Volume scan = read_volume(scan_);
  shape_ = scan.voxels.shape();
  const Segmentation s = segment(ctx_, *segmenter_, std::move(scan), options);
  network_seconds_ = s.network_seconds;
  std::map<std::int32_t, std::uint8_t> index_of;
  for (int k = 0; k < segmenter_->net.graph.out_channels(); ++k) index_of[segmenter_->id_of(k)] = static_cast<std::uint8_t>(k);
  const Tensor& ids = s.labels.voxels;
  labels_.resize(static_cast<std::size_t>(ids.elements()));
  std::int32_t last = ids.data<std::int32_t>()[0];
  std::uint8_t index = index_of.at(last);
  for (std::size_t i = 0; i < labels_.size(); ++i) {
    const std::int32_t id = ids.data<std::int32_t>()[i];
    if (id != last) last = id, index = index_of.at(id);
    labels_[i] = index;
  }
}

std::vector<ChainLayer> InferCase::chain() const {
  if (!segmenter_) return {};
  const auto chain = plane_chain(segmenter_->net.graph, whole_ ? shape_ : image_.shape());
  require(chain.has_value(), "{}: not a chain of convolutions", scan_);
  return *chain;
}

std::string InferCase::describe() const {
  if (net_) return fmt::format("{} parameters, {}, tensor to labels", net_->params.trainable_elements(), to_string(image_.shape()));
  return fmt::format("MeshNet subcortical, {} parameters, {}", segmenter_->net.params.trainable_elements(), whole_ ? head_only_ ? "t1_crop.nii.gz, file to labels where the scan is not background" : "t1_crop.nii.gz, file to labels" : "128^3, tensor to labels");
}

}  // namespace vg::bench

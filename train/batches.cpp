// Shuffling, patch positions, assembly of batches.
#include "train/batches.h"

#include <algorithm>
#include <numeric>

#include "kernels/resample.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

// Uses of the seed that must not share a stream; parameters use the streams from 0 up (layers/params.cpp).
constexpr std::uint64_t kShuffle = std::uint64_t{1} << 60, kPatch = std::uint64_t{2} << 60;
constexpr std::size_t kPlacesPerClass = 512;

}  // namespace

std::array<std::int64_t, 3> default_patch(const Dataset& data, std::span<const int> divisor) {
  std::array<std::int64_t, 3> p{1, 1, 1};
  for (const Sample& s : data.training)
    for (std::size_t a = 0; a < 3; ++a) p[a] = std::max(p[a], s.image.shape()[static_cast<int>(a) + 1]);
  for (std::size_t a = 0; a < 3; ++a) {
    if (data.spatial_dims == 3) p[a] = std::min<std::int64_t>(p[a], 96);
    p[a] = (p[a] + divisor[a] - 1) / divisor[a] * divisor[a];
  }
  return p;
}

BatchSource::BatchSource(const Dataset& data, const TrainConfig& config, std::array<std::int64_t, 3> patch, std::vector<std::int32_t> order)
    : data_(data), config_(config), patch_(patch), order_(std::move(order)), swap_(swap_table(data)) {
  const auto count = static_cast<std::int64_t>(data.training.size());
  require(count > 0, "training: the data set has no training samples");
  for (std::int32_t i : order_) require(i >= 0 && i < count, "training: the given order names sample {}, but there are {}", i, count);
  steps_per_epoch_ = config.steps_per_epoch > 0 ? config.steps_per_epoch : std::max<std::int64_t>(1, count / config.batch);
  for (const Sample& s : data.training)
    for (std::size_t a = 0; a < 3; ++a) cuts_ |= patch[a] < s.image.shape()[static_cast<int>(a) + 1];
  if (config.augment.elastic > 0.0) {
    const std::int64_t points = control_points(patch[2], config.augment.elastic_spacing);
    require(points <= 512, "training: elastic_spacing {} gives {} control points along {} voxels, at most 512 are possible",
            config.augment.elastic_spacing, points, patch[2]);
  }
  if (!cuts_ || config.foreground <= 0.0) return;
  places_.resize(data.training.size());
  parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Tensor& labels = data_.training[static_cast<std::size_t>(i)].labels;
      auto& places = places_[static_cast<std::size_t>(i)];
      places.resize(data_.classes.size());
      std::vector<std::int64_t> seen(data_.classes.size());
      // Reservoir sampling: every voxel of a class is kept with the same probability.
      Random random(config_.seed, kPatch + static_cast<std::uint64_t>(i));
      for (std::int64_t v = 0; v < labels.elements(); ++v) {
        const std::size_t k = labels.data<std::uint8_t>()[v];
        if (k == 0) continue;
        ++seen[k];
        if (places[k].size() < kPlacesPerClass) {
          places[k].push_back(v);
        } else if (const std::uint32_t at = random.below(static_cast<std::uint32_t>(seen[k])); at < kPlacesPerClass) {
          places[k][at] = v;
        }
      }
      std::erase_if(places, [](const auto& list) { return list.empty(); });
    }
  });
}

int BatchSource::sample_of(std::int64_t step, int item) const {
  if (!order_.empty()) {
    const std::size_t at = static_cast<std::size_t>(step * config_.batch + item);
    require(at < order_.size(), "training: the given order has {} batches, step {} wants one more",
            order_.size() / static_cast<std::size_t>(config_.batch), step);
    return order_[at];
  }
  // Passes over the data: `whole` samples each, all of them in a new order; what does not fill a batch is left out until the next pass.
  const auto count = static_cast<std::int64_t>(data_.training.size());
  const std::int64_t batches = std::max<std::int64_t>(1, count / config_.batch), pass = step / batches;
  std::vector<int> shuffled(static_cast<std::size_t>(count));
  std::iota(shuffled.begin(), shuffled.end(), 0);
  Random(config_.seed, kShuffle + static_cast<std::uint64_t>(pass)).shuffle(shuffled.begin(), shuffled.end());
  return shuffled[static_cast<std::size_t>(((step % batches) * config_.batch + item) % count)];
}

PatchPlan BatchSource::plan_of(std::int64_t step, int item, int index) const {
  const Sample& sample = data_.training[static_cast<std::size_t>(index)];
  const Shape& s = sample.image.shape();
  Random random(config_.seed, 3 * kShuffle + static_cast<std::uint64_t>(step) * 65536 + static_cast<std::uint64_t>(item));
  std::array<double, 3> centre;
  std::int64_t focus = -1;
  if (!places_.empty() && random.uniform() < static_cast<float>(config_.foreground)) {
    const auto& classes = places_[static_cast<std::size_t>(index)];
    if (!classes.empty()) {
      const auto& list = classes[random.below(static_cast<std::uint32_t>(classes.size()))];
      focus = list[random.below(static_cast<std::uint32_t>(list.size()))];
    }
  }
  const std::int64_t at[3] = {focus / (s.h() * s.w()), focus / s.w() % s.h(), focus % s.w()};
  for (std::size_t a = 0; a < 3; ++a) {
    const std::int64_t extent = s[static_cast<int>(a) + 1], room = extent - patch_[a];
    std::int64_t start = room < 0 ? room / 2 : 0;  // a patch larger than the image is centred on it
    if (room > 0) start = focus >= 0 ? std::clamp<std::int64_t>(at[a] - patch_[a] / 2, 0, room) : random.below(static_cast<std::uint32_t>(room + 1));
    centre[a] = static_cast<double>(start) + static_cast<double>(patch_[a] - 1) / 2.0;
  }
  return draw_plan(random, config_.augment, data_, centre, patch_);
}

Shape BatchSource::image_shape() const { return {config_.batch, patch_[0], patch_[1], patch_[2], static_cast<std::int64_t>(data_.channels.size())}; }
Shape BatchSource::label_shape() const { return {config_.batch, patch_[0], patch_[1], patch_[2], 1}; }

Tensor patch_of(const Tensor& batch, std::size_t item) {
  Shape one = batch.shape();
  one[0] = 1;
  return batch.range(static_cast<std::int64_t>(item) * one.elements(), one);
}

Batch BatchSource::at(std::int64_t step) const {
  Batch b;
  b.images = Tensor(image_shape(), DType::f32, kCpu), b.labels = Tensor(label_shape(), DType::u8, kCpu);
  for (int i = 0; i < config_.batch; ++i) b.samples.push_back(sample_of(step, i));
  parallel_for(config_.batch, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto item = static_cast<std::size_t>(i);
      const int sample = b.samples[item];
      Tensor image = patch_of(b.images, item), labels = patch_of(b.labels, item);
      make_patch(data_.training[static_cast<std::size_t>(sample)], plan_of(step, static_cast<int>(i), sample), swap_, image, labels);
    }
  });
  return b;
}

CutBatch BatchSource::drawn(std::int64_t step) const {
  constexpr std::int64_t kLine = 256;  // bytes that an array begins at a multiple of
  CutBatch b;
  std::int64_t bytes = 0;
  const auto reserve = [&](std::int64_t size) {
    const std::int64_t at = bytes;
    bytes += (size + kLine - 1) / kLine * kLine;
    return at;
  };
  for (int i = 0; i < config_.batch; ++i) {
    b.samples.push_back(sample_of(step, i));
    const Sample& sample = data_.training[static_cast<std::size_t>(b.samples.back())];
    CutBatch::Item item{.plan = plan_of(step, i, b.samples.back()), .box = {}};
    item.box = reach(item.plan, patch_, sample.image.shape());
    b.items.push_back(std::move(item));
  }
  for (const bool plain : {false, true}) {
    for (CutBatch::Item& item : b.items) {
      if (item.plan.plain() != plain) continue;
      const std::int64_t voxels = item.box.extents[0] * item.box.extents[1] * item.box.extents[2];
      item.image = reserve(voxels * image_shape().c() * static_cast<std::int64_t>(sizeof(float))), item.labels = reserve(voxels);
      item.control = reserve(static_cast<std::int64_t>(item.plan.bend.control.size() * sizeof(float)));
    }
    if (!plain) b.reads = bytes;
  }
  b.bytes = bytes;
  return b;
}

CutBatch BatchSource::cut(std::int64_t step) const {
  CutBatch b = drawn(step);
  b.memory = Tensor({b.bytes}, DType::u8, kCpu);
  auto* memory = b.memory.data<std::uint8_t>();
  parallel_for(config_.batch, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const CutBatch::Item& item = b.items[static_cast<std::size_t>(i)];
      copy_box(data_.training[static_cast<std::size_t>(b.samples[static_cast<std::size_t>(i)])], item.box,
               reinterpret_cast<float*>(memory + item.image), memory + item.labels);
      std::copy(item.plan.bend.control.begin(), item.plan.bend.control.end(), reinterpret_cast<float*>(memory + item.control));
    }
  });
  return b;
}

void BatchSource::make(const Exec& ex, const CutBatch& batch, Tensor& memory, const Tensor& swap, Tensor& images, Tensor& labels) const {
  for (std::size_t i = 0; i < batch.items.size(); ++i) {
    const CutBatch::Item& item = batch.items[i];
    Tensor image = patch_of(images, i), label = patch_of(labels, i);
    if (!item.plan.plain()) {
      auto* bytes = memory.data<std::uint8_t>();
      const auto& e = item.box.extents;
      const Tensor from_image = wrap(bytes + item.image, {1, e[0], e[1], e[2], images.shape().c()}, DType::f32, ex.device),
                   from_labels = wrap(bytes + item.labels, {1, e[0], e[1], e[2], 1}, DType::u8, ex.device),
                   control = item.plan.bend.control.empty() ? Tensor() : wrap(bytes + item.control, item.plan.bend.grid, DType::f32, ex.device);
      resample(ex, image, label, from_image, from_labels, control, item.plan.place.mirrored ? swap : Tensor(), resample_params(item.plan, item.box.start));
    }
    vary_intensity(ex, image, item.plan.intensity);
  }
}

}  // namespace vg

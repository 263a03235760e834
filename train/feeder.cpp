// The order of events behind train/feeder.h. A place is written when the step that used it last has been computed, and read when its copy is done; both
// waits are the GPU's, not the host's.
#include "train/feeder.h"

#include <algorithm>

namespace vg {
namespace {

constexpr std::int64_t kForeseen = 64;  // steps whose draws say how much memory patches are made of

}  // namespace

Feeder::Feeder(Device device, const BatchSource& batches, std::int64_t first, std::int64_t end)
    : device_(device), batches_(batches), loading_step_(first), end_(end), stream_(device), scratch_(device), places_{Place(device), Place(device)} {
  load();
  if (device == kCpu) return;
  swap_ = copy_to(batches.swap(), device);
  std::int64_t reads = 0;
  for (std::int64_t step = first; batches.varies_place() && step < std::min(end, first + kForeseen); ++step) reads = std::max(reads, batches.drawn(step).reads);
  for (Place& p : places_) {
    p.images = Tensor(batches.image_shape(), DType::f32, device), p.labels = Tensor(batches.label_shape(), DType::u8, device);
    p.memory = Tensor({reads}, DType::u8, device);
    p.used.record(nullptr);  // whose memory it was before
  }
}

// The copies are done before the places' memory goes back to the pool, which knows the default stream alone.
Feeder::~Feeder() {
  if (loading_.valid()) loading_.wait();
  try {
    for (const Place& p : places_) p.copied.wait();
  } catch (const Error&) {  // a broken device copies nothing any more
  }
}

void Feeder::load() {
  if (loading_step_ >= end_) return;
  loading_ = std::async(std::launch::async, [this, step = loading_step_] {
    return device_ == kCpu ? Loaded{batches_.at(step), {}} : Loaded{{}, batches_.cut(step)};
  });
}

void Feeder::upload() {
  Loaded loaded = loading_.get();
  ++loading_step_;
  load();
  Place& p = places_[next_];
  if (device_ == kCpu) {
    p.images = loaded.batch.images, p.labels = loaded.batch.labels;
  } else {
    p.batch = std::move(loaded.cut);
    if (p.memory.elements() < p.batch.reads) {
      p.memory = Tensor({p.batch.reads}, DType::u8, device_);
      p.used.record(nullptr);
    }
    p.used.hold(stream_.handle());
    const Tensor& from = p.batch.memory;
    if (p.batch.reads > 0) {
      Tensor to = p.memory.range(0, {p.batch.reads});
      copy(to, from.range(0, {p.batch.reads}), stream_.handle());
    }
    for (std::size_t i = 0; i < p.batch.items.size(); ++i) {
      const CutBatch::Item& item = p.batch.items[i];
      if (!item.plan.plain()) continue;
      auto* bytes = p.batch.memory.data<std::uint8_t>();
      Tensor image = patch_of(p.images, i), labels = patch_of(p.labels, i);
      copy(image, wrap(bytes + item.image, image.shape(), DType::f32), stream_.handle());
      copy(labels, wrap(bytes + item.labels, labels.shape(), DType::u8), stream_.handle());
    }
    p.copied.record(stream_.handle());
    p.batch.memory = Tensor();
  }
  uploaded_ = true;
}

Feeder::Fed Feeder::next() {
  if (!uploaded_) upload();
  Place& p = places_[next_];
  p.copied.hold(nullptr);
  if (!(device_ == kCpu)) batches_.make(Exec{device_, &scratch_}, p.batch, p.memory, swap_, p.images, p.labels);
  next_ = 1 - next_, uploaded_ = false;
  return {p.images, p.labels};
}

void Feeder::prefetch() {
  places_[1 - next_].used.record(nullptr);  // by the step that was just queued
  if (loading_.valid()) upload();
}

}  // namespace vg

// The order of events behind train/feeder.h. A place is written when the step that used it last has been computed, and read when its copy is done; both
// waits are the GPU's, not the host's.
#include "train/feeder.h"

namespace vg {
namespace {

// `to` becomes a tensor like `like`, if it is not one.
void fit(Tensor& to, const Tensor& like, Device device) {
  if (!to.defined() || !(to.shape() == like.shape())) to = Tensor(like.shape(), like.dtype(), device);
}

}  // namespace

Feeder::Feeder(Device device, const BatchSource& batches, std::int64_t first, std::int64_t end)
    : device_(device), batches_(batches), loading_step_(first), end_(end), stream_(device), places_{Place(device), Place(device)} {
  if (first < end) loading_ = std::async(std::launch::async, [this, first] { return batches_.at(first); });
}

// The copies are done before the places' memory goes back to the pool, which knows the default stream alone.
Feeder::~Feeder() {
  if (loading_.valid()) loading_.wait();
  try {
    for (const Place& p : places_) p.copied.wait();
  } catch (const Error&) {  // a broken device copies nothing any more
  }
}

void Feeder::upload() {
  const Batch batch = loading_.get();
  if (++loading_step_ < end_) loading_ = std::async(std::launch::async, [this, step = loading_step_] { return batches_.at(step); });
  Place& p = places_[next_];
  p.host_labels = batch.labels;
  if (device_ == kCpu) {
    p.images = batch.images, p.labels = batch.labels;
  } else {
    const bool fresh = !p.images.defined() || !(p.images.shape() == batch.images.shape());
    fit(p.images, batch.images, device_), fit(p.labels, batch.labels, device_);
    if (fresh) p.used.record(nullptr);  // whose memory it was before
    p.used.hold(stream_.handle());
    copy(p.images, batch.images, stream_.handle());
    copy(p.labels, batch.labels, stream_.handle());
    p.copied.record(stream_.handle());
  }
  uploaded_ = true;
}

Feeder::Fed Feeder::next() {
  if (!uploaded_) upload();
  Place& p = places_[next_];
  p.copied.hold(nullptr);
  next_ = 1 - next_, uploaded_ = false;
  return {p.images, p.labels, p.host_labels};
}

void Feeder::prefetch() {
  places_[1 - next_].used.record(nullptr);  // by the step that was just queued
  if (loading_.valid()) upload();
}

}  // namespace vg

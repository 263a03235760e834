// Recordings over DeviceApi and the pool, which sets the memory of recorded work aside.
#include "tensor/recording.h"

#include "tensor/error.h"
#include "tensor/storage.h"

namespace vg {
namespace {

void check(const char* message, Device d, const char* what) {
  if (message) fail(ErrorCode::no_device, "{}: {} failed: {}", to_string(d), what, message);
}

}  // namespace

Recording::~Recording() {
  if (graph_) device_api(device_).drop_recording(device_, graph_);
  stop_holding(device_, this);
}

void Recording::record(std::function<void()> work) {
  require(!recorded(), "a recording is made once");
  const DeviceApi& api = device_api(device_);
  if (device_.on_host()) {
    work_ = std::move(work);
    return;
  }
  check(api.begin_recording(device_), device_, "recording");
  hold_memory(device_, this);
  try {
    work();
  } catch (...) {
    void* part = nullptr;
    api.end_recording(device_, &part);
    if (part) api.drop_recording(device_, part);
    hold_memory(device_, nullptr);
    stop_holding(device_, this);
    throw;
  }
  hold_memory(device_, nullptr);
  check(api.end_recording(device_, &graph_), device_, "recording");
  work_ = std::move(work);
}

void Recording::replay() const {
  require(recorded(), "replay: nothing was recorded");
  if (graph_)
    check(device_api(device_).replay(device_, graph_), device_, "replay");
  else
    work_();
}

void Repeated::run() {
  if (device_.on_host() || (!recording_ && !called_)) {
    work_();
    called_ = true;
    return;
  }
  if (!recording_) {
    auto made = std::make_unique<Recording>(device_);
    made->record(work_);
    recording_ = std::move(made);
  }
  recording_->replay();
}

}  // namespace vg

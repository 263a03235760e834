// Streams and marks over DeviceApi: owners that report failure, and are silent when they die.
#include "tensor/stream.h"

#include "tensor/error.h"

namespace vg {
namespace {

void check(const char* message, Device d, const char* what) {
  if (message) fail(ErrorCode::no_device, "{}: {} failed: {}", to_string(d), what, message);
}

}  // namespace

Stream::Stream(Device d) : device_(d) { check(device_api(d).make_stream(d, &handle_), d, "making a stream"); }
Stream::~Stream() {
  if (handle_) device_api(device_).drop_stream(device_, handle_);
}

Mark::~Mark() {
  if (handle_) device_api(device_).drop_mark(device_, handle_);
}
void Mark::record(void* stream) { check(device_api(device_).record(device_, &handle_, stream), device_, "marking a stream"); }
void Mark::hold(void* stream) const {
  if (handle_) check(device_api(device_).wait(device_, handle_, stream), device_, "waiting between streams");
}
void Mark::wait() const {
  if (handle_) check(device_api(device_).wait_on_host(device_, handle_), device_, "waiting");
}

}  // namespace vg

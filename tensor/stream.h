// Streams: queues of a GPU's work that run side by side, and marks that order them. The default stream (a null handle) is where a device's work goes
// unless something else is said; memory belongs to it: a tensor's block may have been used by earlier work there, and may go to later work there as
// soon as the tensor dies. So another stream waits for a mark of the default stream before it first touches a tensor, and the default stream
// waits for one of that stream before the tensor dies:
//
//   Mark made(device), copied(device);
//   Tensor x(shape, dtype, device);   made.record(nullptr);
//   made.hold(loading.handle());      copy(x, from, loading.handle());      copied.record(loading.handle());
//   copied.hold(nullptr);             use(x) on the default stream
//
// On cpu and sim every call is done when it returns, and all of this does nothing.
#pragma once
#include <utility>

#include "tensor/device.h"

namespace vg {

// A stream of its own, not ordered with the default one.
class Stream {
 public:
  explicit Stream(Device d);  // throws no_device
  ~Stream();                  // work that is queued is still done
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  void* handle() const { return handle_; }
  Device device() const { return device_; }

 private:
  Device device_;
  void* handle_ = nullptr;
};

// A point in a stream's work. One that was never recorded is passed.
class Mark {
 public:
  explicit Mark(Device d) : device_(d) {}
  ~Mark();
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  void record(void* stream);      // everything queued on `stream` so far; throws no_device, as the others
  void hold(void* stream) const;  // what is queued on `stream` from now on starts after the mark
  void wait() const;              // the host waits

 private:
  Device device_;
  void* handle_ = nullptr;
};

}  // namespace vg

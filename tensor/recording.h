// Work that is repeated without being asked for again: a training step is some hundred launches, and on a small network the GPU is done before the host has
// made them. Recorded once, it becomes one call. What changes from time to time lies in device memory, written before each replay.
//
//   work();                     // once for real: scratch memory grows to its size
//   Recording step(device);
//   step.record(work);          // on cuda: noted, not done
//   copy(input, next); step.replay();
//
// Memory that `work` takes or gives back while it is recorded belongs to the recording until that dies: the replays use the same addresses. Tensors
// from before must outlive it. Host memory takes no part: a copy to or from it throws. No other thread uses the device meanwhile. On cpu and sim a
// replay calls `work` again.
#pragma once
#include <functional>

#include "tensor/device.h"

namespace vg {

class Recording {
 public:
  explicit Recording(Device d) : device_(d) {}
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  void record(std::function<void()> work);  // once. Throws no_device, or what `work` throws; then nothing is recorded
  void replay() const;                      // on the default stream
  bool recorded() const { return static_cast<bool>(work_); }

 private:
  Device device_;
  void* graph_ = nullptr;
  std::function<void()> work_;
};

}  // namespace vg

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
#include <memory>
#include <utility>

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

// The same work again and again, as cheaply as the device can: on a GPU the first run is called, the second recorded, and from then on replayed. On cpu and
// sim every run is a call.
class Repeated {
 public:
  Repeated(Device d, std::function<void()> work) : device_(d), work_(std::move(work)) {}
  Repeated(const Repeated&) = delete;  // `work` mostly knows the object that it is a part of
  Repeated& operator=(const Repeated&) = delete;
  void run();
  bool replays() const { return recording_ != nullptr; }
  // Gives back the memory that a recording keeps; the next run makes another.
  void give_memory_back() { recording_.reset(); }
  // For work whose tensors have other shapes from now on.
  void start_over() { recording_.reset(), called_ = false; }

 private:
  Device device_;
  std::function<void()> work_;
  bool called_ = false;  // scratch memory and plans are there then
  std::unique_ptr<Recording> recording_;
};

}  // namespace vg

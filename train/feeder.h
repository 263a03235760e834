// Batches on the device, one ahead of training: a thread cuts the next batch while the device computes, its copy to a GPU runs on a stream of its
// own beside the kernels of the step before, and the GPU turns, bends and brightens the patches itself. Two places on the device take turns.
#pragma once
#include <future>

#include "kernels/scratch.h"
#include "tensor/stream.h"
#include "train/batches.h"

namespace vg {

class Feeder {
 public:
  // Steps first .. end - 1 of `batches`, which must outlive this.
  Feeder(Device device, const BatchSource& batches, std::int64_t first, std::int64_t end);
  ~Feeder();
  Feeder(const Feeder&) = delete;
  Feeder& operator=(const Feeder&) = delete;

  struct Fed {
    Tensor images, labels;  // on the device, in order with its default stream
  };
  // The batch of the next step. Valid until the call after the next.
  Fed next();
  // Says that all work of the step has been queued; starts the copy of the next batch. To be called before the host waits for the step's results.
  void prefetch();

 private:
  struct Place {
    explicit Place(Device d) : used(d), copied(d) {}
    Tensor images, labels, memory;  // memory: what patches are made of
    CutBatch batch;
    Mark used, copied;  // on the default stream, on the loading stream
  };
  // On the cpu the thread makes the whole batch.
  struct Loaded {
    Batch batch;
    CutBatch cut;
  };
  void load();
  void upload();

  Device device_;
  const BatchSource& batches_;
  std::int64_t loading_step_, end_;  // loading_step_: the one that `loading_` cuts
  std::future<Loaded> loading_;
  Stream stream_;
  ScratchOwner scratch_;
  Tensor swap_;
  Place places_[2];
  int next_ = 0;           // the place of the next step
  bool uploaded_ = false;  // is its copy on the way?
};

}  // namespace vg

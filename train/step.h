// One training step as work that repeats: forward, losses, backward, optimizer. On a GPU the first step is launched kernel by kernel, the second is recorded,
// and from then on a step is one call to the driver (tensor/recording.h): the launches of a small network take longer than its arithmetic. For that, all that
// changes from step to step (batch, rates, loss scale) lies in tensors that stay.
#pragma once
#include <vector>

#include "kernels/loss.h"
#include "layers/graph.h"
#include "tensor/recording.h"
#include "train/feeder.h"
#include "train/optimizer.h"

namespace vg {

class TrainStep {
 public:
  // All must outlive this. `precision`: of activations (Context::precision).
  TrainStep(Context& ctx, Network& net, Optimizer& optimizer, const DiceCeParams& loss, DType precision);

  // Queues the step. The batch may be overwritten when what is queued has been done.
  void run(const Feeder::Fed& batch, const Rates& rates);
  struct Losses {
    float total = 0, ce = 0, dice = 0;  // weighted sum over all heads; cross-entropy and 1 - Dice of the full-resolution head
  };
  Losses losses() const;  // of the last step; waits for it
  // Gives back the memory that a recorded step keeps between steps, for work of another kind; the next step is recorded anew.
  void give_memory_back() { step_.give_memory_back(); }

 private:
  void compute();

  Context& ctx_;
  Network& net_;
  Optimizer& optimizer_;
  DiceCeParams loss_;
  DType precision_;
  Tensor images_, seed_, parts_;  // parts_: (3) total, cross-entropy, 1 - Dice
  std::vector<Tensor> labels_;    // for each head, the finest first
  Repeated step_;
};

}  // namespace vg

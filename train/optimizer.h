// Adam, AdamW and SGD over the flat parameter buffer. The state is two vectors and a step count; all three go into a checkpoint.
#pragma once
#include "layers/context.h"
#include "layers/params.h"
#include "train/schedule.h"

namespace vg {

struct OptimizerConfig {
  std::string kind = "adamw";  // "adamw", "adam", "sgd"
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;  // sgd: beta1 is the momentum
  double weight_decay = 0.01;
  bool nesterov = false;
  double clip_norm = 0.0;  // largest norm of the whole gradient; 0: none
};

class Optimizer {
 public:
  Optimizer(const OptimizerConfig& config, ParamList& params);  // throws invalid_argument for an unknown kind
  // One update from params.flat_grad(). `rates.momentum` >= 0 takes beta1's place. With a loss scale the gradient is that of scale * loss, and the step is
  // skipped on the device if it overflowed; the bias corrections count only steps that were taken.
  void step(Context& ctx, const Rates& rates) { begin_step(rates), apply(ctx); }
  // Its halves: what changes from step to step, written to device memory; and the kernels, which a recording can repeat.
  void begin_step(const Rates& rates);
  void apply(Context& ctx);

  // Dynamic loss scaling for f16. The state (kernels/optim.h, LossScaleState) lives on the device.
  void scale_losses(double scale, std::int32_t interval);
  bool scales_losses() const { return loss_scale_.defined(); }
  const Tensor& loss_scale() const { return loss_scale_; }
  void restore_loss_scale(const Tensor& state) { copy(loss_scale_, state); }

  std::int64_t steps() const { return steps_; }
  bool has_second_moment() const { return second_.defined(); }
  const Tensor& first_moment() const { return first_; }
  const Tensor& second_moment() const { return second_; }
  // Continues from a checkpoint's state. Throws bad_file if the lengths differ.
  void restore(std::int64_t steps, const Tensor& first, const Tensor& second);

 private:
  OptimizerConfig c_;
  ParamList& params_;
  Tensor first_, second_, scalars_, norm_, loss_scale_;
  std::int32_t scale_interval_ = 0;
  std::int64_t steps_ = 0;
};

}  // namespace vg

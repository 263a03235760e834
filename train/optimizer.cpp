// Host side of the optimizers: what changes from step to step becomes six device scalars; the kernels do the rest.
#include "train/optimizer.h"

#include <cmath>

#include "kernels/optim.h"

namespace vg {

Optimizer::Optimizer(const OptimizerConfig& config, ParamList& params) : c_(config), params_(params) {
  require(c_.kind == "adamw" || c_.kind == "adam" || c_.kind == "sgd", "optimizer \"{}\" (known: adamw, adam, sgd)", c_.kind);
  const Device device = params.flat().device();
  first_ = zeros(params.flat().shape(), DType::f32, device);
  if (c_.kind != "sgd") second_ = zeros(params.flat().shape(), DType::f32, device);
  scalars_ = Tensor({kOptimScalars}, DType::f32, device);
  norm_ = Tensor({1}, DType::f32, device);
}

void Optimizer::begin_step(const Rates& rates) {
  ++steps_;
  // Rounded to float first, as the kernel uses them: 1 - beta^t must belong to the same beta, or the first steps are wrong by up to 1e-4.
  const double beta1 = static_cast<float>(rates.momentum >= 0.0 ? rates.momentum : c_.beta1), beta2 = static_cast<float>(c_.beta2);
  const auto t = static_cast<double>(steps_);
  float host[kOptimScalars] = {};
  host[kLearningRate] = static_cast<float>(rates.rate);
  host[kBias1] = static_cast<float>(1.0 - std::pow(beta1, t));
  host[kBias2] = static_cast<float>(1.0 - std::pow(beta2, t));
  host[kGradScale] = 1.0f;
  host[kBeta1] = static_cast<float>(beta1);
  host[kStep] = static_cast<float>(steps_);
  copy(scalars_, wrap(host, {kOptimScalars}, DType::f32));
}

void Optimizer::apply(Context& ctx) {
  const Exec ex = ctx.exec();
  if (scales_losses()) {
    sum_squares(ex, norm_, params_.flat_grad());
    loss_scale_step(ex, scalars_, loss_scale_, norm_, LossScaleParams{.interval = scale_interval_, .max_norm = static_cast<float>(c_.clip_norm), .beta2 = static_cast<float>(c_.beta2)});
  } else if (c_.clip_norm > 0.0) {
    sum_squares(ex, norm_, params_.flat_grad());
    clip_scale(ex, scalars_, norm_, ClipParams{static_cast<float>(c_.clip_norm), 1.0f});
  }
  if (c_.kind == "sgd") {
    sgd_step(ex, params_.flat(), first_, params_.flat_grad(), scalars_, SgdParams{static_cast<float>(c_.weight_decay), c_.nesterov});
    return;
  }
  const AdamParams p{.beta2 = static_cast<float>(c_.beta2), .eps = static_cast<float>(c_.eps), .weight_decay = static_cast<float>(c_.weight_decay),
                     .decoupled = c_.kind == "adamw"};
  adam_step(ex, params_.flat(), first_, second_, params_.flat_grad(), scalars_, p);
}

void Optimizer::scale_losses(double scale, std::int32_t interval) {
  loss_scale_ = from_host(std::vector<float>{static_cast<float>(scale), 0.0f, 0.0f}, {kLossScaleState}, params_.flat().device());
  scale_interval_ = interval;
}

void Optimizer::restore(std::int64_t steps, const Tensor& first, const Tensor& second) {
  const auto same = [](const Tensor& a, const Tensor& b) { return a.defined() == b.defined() && (!a.defined() || a.shape() == b.shape()); };
  if (steps < 0 || !same(first, first_) || !same(second, second_))
    fail(ErrorCode::bad_file, "the checkpoint's optimizer state has {} and {} numbers, this {} wants {} and {}", first.elements(), second.elements(), c_.kind,
         first_.elements(), second_.elements());
  steps_ = steps;
  copy(first_, first);
  if (second_.defined()) copy(second_, second);
}

}  // namespace vg

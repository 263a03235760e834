// Optimizers over one flat buffer: all parameters of a network, their gradients and moments, are four vectors of the same length.
// What changes every step arrives as device scalars, so that a captured CUDA graph stays valid.
#pragma once
#include "kernels/kernel.h"

namespace vg {

// scalars: (kOptimScalars) f32 on the device. kBias1 = 1 - beta1^t, kBias2 = 1 - beta2^t; beta1 is here because one-cycle schedules move it.
// kSkip: not 0 when the step is to be left out, w, m and v as they are (loss_scale_step saw an overflow). kStep: t, which counts skipped steps, too.
enum OptimScalar { kLearningRate = 0, kBias1 = 1, kBias2 = 2, kGradScale = 3, kBeta1 = 4, kSkip = 5, kStep = 6, kOptimScalars = 7 };

struct AdamParams {
  float beta2 = 0.999f, eps = 1e-8f, weight_decay = 0.0f;
  bool decoupled = true;  // AdamW (Loshchilov, Hutter, arXiv:1711.05101); false: Adam with L2 in the gradient (Kingma, Ba, arXiv:1412.6980)
};
//   g = scale g [+ decay w]    m = beta1 m + (1 - beta1) g    v = beta2 v + (1 - beta2) g^2
//   w = w [(1 - lr decay)] - lr / bias1 * m / (sqrt(v / bias2) + eps)                                               all: (P) f32
VG_KERNEL(adam_step, Tensor& w, Tensor& m, Tensor& v, const Tensor& g, const Tensor& scalars, const AdamParams& p);

struct SgdParams {
  float weight_decay = 0.0f;
  bool nesterov = false;
};
//   g = scale g + decay w    m = beta1 m + g    w = w - lr (nesterov ? g + beta1 m : m)        beta1: the momentum
VG_KERNEL(sgd_step, Tensor& w, Tensor& m, const Tensor& g, const Tensor& scalars, const SgdParams& p);

// out[0] = sum of x^2, in chunks of fixed size, then a fixed tree.                                          out: (1)  x: (P)
VG_KERNEL(sum_squares, Tensor& out, const Tensor& x);

struct ClipParams {
  float max_norm = 0.0f;       // 0: no clipping
  float inverse_scale = 1.0f;  // 1 / loss scale
};
// scalars[kGradScale] = inverse_scale * min(1, max_norm / (norm + 1e-6)),  norm = sqrt(sum) inverse_scale      (PyTorch's clip_grad_norm_)
VG_KERNEL(clip_scale, Tensor& scalars, const Tensor& sum, const ClipParams& p);

// Dynamic loss scaling (Micikevicius et al., arXiv:1710.03740): f16 gradients are computed of scale * loss, so that small ones do not become 0.
// state: (kLossScaleState) f32 on the device; nothing of it has to come to the host. sum: sum of squares of the scaled gradient.
//   finite sum: scalars[kGradScale] = min(1, max_norm / (norm + 1e-6)) / scale, scalars[kSkip] = 0; after `interval` such steps in a row scale *= growth
//   otherwise:  scalars[kSkip] = 1, scale *= backoff
// Only the device knows how many steps were skipped, s: once there are any, kBias1 and kBias2 become those of t - s, of the steps that m and v have seen.
enum LossScaleState { kScale = 0, kGoodSteps = 1, kSkippedSteps = 2, kLossScaleState = 3 };
struct LossScaleParams {
  float growth = 2.0f, backoff = 0.5f;
  std::int32_t interval = 2000;
  float max_norm = 0.0f;  // of the gradient, as in ClipParams
  float beta2 = 0.0f;     // AdamParams
};
// 1 - beta^n
constexpr float bias_correction(float beta, std::int64_t n) {
  double power = 1.0;
  for (double factor = beta; n > 0; n /= 2, factor *= factor)
    if (n % 2 != 0) power *= factor;
  return static_cast<float>(1.0 - power);
}
// The rule, for every device. total: the sum; norm: of the gradient without its scale.
constexpr void next_loss_scale(float* scalars, float* state, float total, float norm, const LossScaleParams& p) {
  const float scale = state[kScale], factor = p.max_norm / (norm + 1e-6f);
  if (total - total == 0.0f) {  // finite
    scalars[kGradScale] = (p.max_norm > 0.0f && factor < 1.0f ? factor : 1.0f) / scale;
    scalars[kSkip] = 0.0f;
    if (state[kSkippedSteps] > 0.0f) {
      const auto seen = static_cast<std::int64_t>(scalars[kStep]) - static_cast<std::int64_t>(state[kSkippedSteps]);
      scalars[kBias1] = bias_correction(scalars[kBeta1], seen), scalars[kBias2] = bias_correction(p.beta2, seen);
    }
    const bool grows = state[kGoodSteps] + 1.0f >= static_cast<float>(p.interval);
    state[kScale] = grows ? scale * p.growth : scale;
    state[kGoodSteps] = grows ? 0.0f : state[kGoodSteps] + 1.0f;
  } else {
    scalars[kSkip] = 1.0f;
    state[kScale] = scale * p.backoff;
    state[kGoodSteps] = 0.0f;
    state[kSkippedSteps] += 1.0f;
  }
}
VG_KERNEL(loss_scale_step, Tensor& scalars, Tensor& state, const Tensor& sum, const LossScaleParams& p);

}  // namespace vg

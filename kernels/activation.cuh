// f(x) and f'(x) of every activation on the device. The kind is a run-time value: it is the same for all threads, so the branch costs a few
// instructions in kernels that wait for memory, and one kernel serves all kinds.
#pragma once
#include "kernels/activation.h"
#include "kernels/device.cuh"

namespace vg {
namespace VG_NS {

inline constexpr float kSqrtHalf = 0.70710678118654752f, kInverseSqrt2Pi = 0.39894228040143268f, kSqrt2OverPi = 0.79788456080286536f;

// prelu is leaky_relu whose alpha is the channel's slope.
__device__ inline float activate(ActivationKind kind, float alpha, float x) {
  switch (kind) {
    case ActivationKind::identity: return x;
    case ActivationKind::relu: return x < 0.0f ? 0.0f : x;  // NaN stays NaN
    case ActivationKind::leaky_relu:
    case ActivationKind::prelu: return x < 0.0f ? alpha * x : x;
    case ActivationKind::elu: return x < 0.0f ? alpha * expm1f(x) : x;
    case ActivationKind::gelu: return 0.5f * x * (1.0f + erff(x * kSqrtHalf));
    case ActivationKind::gelu_tanh: return 0.5f * x * (1.0f + tanhf(kSqrt2OverPi * (x + 0.044715f * x * x * x)));
    case ActivationKind::silu: return x / (1.0f + expf(-x));
    case ActivationKind::sigmoid: return 1.0f / (1.0f + expf(-x));
  }
  return x;
}

// At x = 0: relu' = 0, leaky_relu' = alpha, elu' = alpha.
__device__ inline float activate_slope(ActivationKind kind, float alpha, float x) {
  switch (kind) {
    case ActivationKind::identity: return 1.0f;
    case ActivationKind::relu: return x > 0.0f ? 1.0f : 0.0f;
    case ActivationKind::leaky_relu:
    case ActivationKind::prelu: return x > 0.0f ? 1.0f : alpha;
    case ActivationKind::elu: return x > 0.0f ? 1.0f : alpha * expf(x);
    case ActivationKind::gelu: return 0.5f * (1.0f + erff(x * kSqrtHalf)) + x * kInverseSqrt2Pi * expf(-0.5f * x * x);
    case ActivationKind::gelu_tanh: {
      const float t = tanhf(kSqrt2OverPi * (x + 0.044715f * x * x * x));
      return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kSqrt2OverPi * (1.0f + 3.0f * 0.044715f * x * x);
    }
    case ActivationKind::silu: {
      const float s = 1.0f / (1.0f + expf(-x));
      return s * (1.0f + x * (1.0f - s));
    }
    case ActivationKind::sigmoid: {
      const float s = 1.0f / (1.0f + expf(-x));
      return s * (1.0f - s);
    }
  }
  return 1.0f;
}

}  // namespace VG_NS
}  // namespace vg

// The activation functions in double precision, as kernels/activation.h defines them.
#pragma once
#include <cmath>

#include "kernels/activation.h"

namespace vg::test {

inline constexpr Activation kActivations[] = {{ActivationKind::identity, 0.01f},  {ActivationKind::relu, 0.01f},
                                              {ActivationKind::leaky_relu, 0.2f}, {ActivationKind::elu, 1.5f},
                                              {ActivationKind::gelu, 0.01f},      {ActivationKind::gelu_tanh, 0.01f},
                                              {ActivationKind::silu, 0.01f},      {ActivationKind::sigmoid, 0.01f}};

// Is f' discontinuous at 0?
inline bool has_kink(const Activation& p) {
  return p.kind == ActivationKind::relu || p.kind == ActivationKind::leaky_relu || p.kind == ActivationKind::elu ||
         p.kind == ActivationKind::prelu;
}

// slope: prelu's
inline double activation(const Activation& p, double x, double slope = 0.25) {
  switch (p.kind) {
    case ActivationKind::identity: return x;
    case ActivationKind::relu: return x < 0 ? 0 : x;  // NaN stays NaN
    case ActivationKind::leaky_relu: return x < 0 ? static_cast<double>(p.alpha) * x : x;
    case ActivationKind::elu: return x < 0 ? static_cast<double>(p.alpha) * std::expm1(x) : x;
    case ActivationKind::gelu: return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case ActivationKind::gelu_tanh: return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ActivationKind::silu: return x / (1 + std::exp(-x));
    case ActivationKind::sigmoid: return 1 / (1 + std::exp(-x));
    case ActivationKind::prelu: return x < 0 ? slope * x : x;
  }
  return 0;
}

}  // namespace vg::test

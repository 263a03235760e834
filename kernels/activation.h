// Activation functions, alone and as the last step of a convolution or a normalisation.
#pragma once
#include "kernels/kernel.h"

namespace vg {

enum class ActivationKind : std::int32_t { identity, relu, leaky_relu, elu, gelu, gelu_tanh, silu, sigmoid, prelu };

struct Activation {
  ActivationKind kind = ActivationKind::identity;
  float alpha = 0.01f;  // leaky_relu: slope for x < 0; elu: the limit is -alpha
};

// y = f(x), element by element; y may be x (in place).                                             x, y: (N, D, H, W, C)
//   relu max(x, 0)   leaky_relu x < 0 ? alpha x : x   elu x < 0 ? alpha (exp(x) - 1) : x   silu x / (1 + exp(-x))   sigmoid 1 / (1 + exp(-x))
//   gelu x/2 (1 + erf(x / sqrt 2))   gelu_tanh x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))       Hendrycks, Gimpel, arXiv:1606.08415
//   prelu x < 0 ? slope[c] x : x                               slope: (C) or (1), undefined for the others  He et al., arXiv:1502.01852
VG_KERNEL(activation_forward, Tensor& y, const Tensor& x, const Tensor& slope, const Activation& p);

// dx = dy f'(x)        dslope[c] = sum over n, voxels of dy min(x, 0), per sample first, then a binary tree over the samples
// At x = 0 as PyTorch: relu' = 0, leaky_relu' = alpha, elu' = alpha, prelu' = slope. dx may be dy's memory when beta is 0.
VG_KERNEL(activation_backward, const Grad& dx, const Grad& dslope, const Tensor& dy, const Tensor& x, const Tensor& slope, const Activation& p);

}  // namespace vg

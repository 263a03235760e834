// Instance and batch normalisation with the activation that follows. The statistics are a step of their own: inference with running statistics
// needs only the second, and the convolution that makes x may have made its statistics, too (conv.h, conv_forward_statistics).
//
//   instance: mean, rstd: (N, C)      Ulyanov, Vedaldi, Lempitsky, arXiv:1607.08022
//   batch:    mean, rstd: (1, C)      Ioffe, Szegedy, arXiv:1502.03167
//   y = f(gamma (x - mean) rstd + beta),   rstd = 1 / sqrt(var + eps),   var biased (divided by the count)
#pragma once
#include "kernels/activation.h"

namespace vg {

struct NormParams {
  float eps = 1e-5f;
  Activation activation;    // not prelu
  bool constant = false;    // norm_backward: mean and rstd do not depend on x (running statistics)
  // norm_backward: `x` holds y, from which z = y, or y / alpha where y < 0, and h = (z - beta) / gamma are found again: forward may then have
  // overwritten x. Only for identity and leaky_relu with alpha > 0, and gamma far enough from 0 (Rota Bulo et al., arXiv:1712.02616).
  bool from_output = false;
};

// mean's first extent says which: N for instance, 1 for batch (per sample first, then a binary tree over the samples).    x: (N, D, H, W, C)
VG_KERNEL(norm_statistics, Tensor& mean, Tensor& rstd, const Tensor& x, const NormParams& p);

// gamma, beta: (C), both or neither. y may be x.
VG_KERNEL(norm_apply, Tensor& y, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& gamma, const Tensor& beta, const NormParams& p);

// With g = dy f'(z) gamma, z the value before the activation (recomputed from x), h = (x - mean) rstd:
//   dx = rstd (g - mean(g) - h mean(g h))   over the same voxels as the statistics; rstd g when p.constant
//   dgamma = sum dy f'(z) h,  dbeta = sum dy f'(z)       per sample first, then a binary tree over the samples
// dx may be dy's memory when its beta is 0.
VG_KERNEL(norm_backward, const Grad& dx, const Grad& dgamma, const Grad& dbeta, const Tensor& dy, const Tensor& x, const Tensor& mean,
          const Tensor& rstd, const Tensor& gamma, const Tensor& beta, const NormParams& p);

// Batch norm's memory: running = (1 - momentum) running + momentum batch, with the unbiased variance of `count` values per channel.   all: (C)
struct RunningParams {
  float momentum = 0.1f, eps = 1e-5f;
  std::int64_t count = 0;
};
VG_KERNEL(norm_update_running, Tensor& running_mean, Tensor& running_var, const Tensor& mean, const Tensor& rstd, const RunningParams& p);
// rstd = 1 / sqrt(var + eps)                                                                                                           (C)
VG_KERNEL(norm_rstd, Tensor& rstd, const Tensor& var, const RunningParams& p);

}  // namespace vg

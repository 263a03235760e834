// Max pooling. Windows may overlap and may hang over the border (padding counts as -infinity). The winner of a tie is the first in (d, h, w)
// order; NaN wins. Backward finds the winners again instead of storing indices: x is kept anyway, for the convolution before it.
#pragma once
#include "kernels/kernel.h"

namespace vg {

struct PoolParams {
  std::int32_t kernel[3] = {2, 2, 2}, stride[3] = {2, 2, 2}, pad[3] = {0, 0, 0};  // D, H, W; pad on the low side
};

// y[n, z, c] = max over taps k of x[n, z*stride - pad + k, c]                            x: (N, D, H, W, C)  y: (N, D', H', W', C)
VG_KERNEL(maxpool_forward, Tensor& y, const Tensor& x, const PoolParams& p);
// dx[n, u, c] = sum of dy over the windows that u won
VG_KERNEL(maxpool_backward, const Grad& dx, const Tensor& dy, const Tensor& x, const PoolParams& p);

}  // namespace vg

// Upsampling by whole factors: nearest (repeat) or linear (bi- and trilinear, align_corners = false as PyTorch's interpolate).
#pragma once
#include "kernels/kernel.h"

namespace vg {

struct UpsampleParams {
  std::int32_t factor[3] = {2, 2, 2};  // D, H, W
  bool linear = false;
};

// nearest: y[u] = x[u / factor]     linear: source coordinate (u + 1/2) / factor - 1/2, clamped to the volume, per axis
// x: (N, D, H, W, C)  y: (N, D fD, H fH, W fW, C)
VG_KERNEL(upsample_forward, Tensor& y, const Tensor& x, const UpsampleParams& p);
// dx[v] = sum over u of dy[u] * weight(u, v): gathered per v, so no atomics and one order
VG_KERNEL(upsample_backward, const Grad& dx, const Tensor& dy, const UpsampleParams& p);

}  // namespace vg

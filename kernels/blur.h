// The small mean that takes the checkerboard out of a pixel shuffle (Sugawara et al., arXiv:1806.02658): stride 1, the window ends at the voxel
// itself, and before the first voxel lies its copy. PyTorch: AvgPool2d(2, stride=1) after ReplicationPad2d((1, 0, 1, 0)).
#pragma once
#include "kernels/kernel.h"

namespace vg {

struct BlurParams {
  std::int32_t kernel[3] = {1, 2, 2};  // K: D, H, W
};

// y[u] = 1 / (KD KH KW) sum over taps t, 0 <= t < K, of x[max(u - t, 0)], per axis and channel          x, y: (N, D, H, W, C)
VG_KERNEL(blur_forward, Tensor& y, const Tensor& x, const BlurParams& p);
// dx[v] = 1 / (KD KH KW) sum over u of dy[u] * (how many taps of u read v): gathered per v, so no atomics and one order
VG_KERNEL(blur_backward, const Grad& dx, const Tensor& dy, const BlurParams& p);

}  // namespace vg

// Depth to space: channels become a finer grid (sub-pixel convolution, Shi et al., arXiv:1609.05158). A permutation, so backward is its inverse.
#pragma once
#include "kernels/kernel.h"

namespace vg {

struct PixelShuffleParams {
  std::int32_t factor[3] = {1, 2, 2};  // f: D, H, W
};

// y[n, d fD + i, h fH + j, w fW + k, c] = x[n, d, h, w, ((c fD + i) fH + j) fW + k]          the channel order of PyTorch's PixelShuffle
// x: (N, D, H, W, C fD fH fW)  y: (N, D', H', W', C) with f (D - 1) < D' <= f D: what would lie beyond y's far border is dropped
VG_KERNEL(pixel_shuffle_forward, Tensor& y, const Tensor& x, const PixelShuffleParams& p);
// dx: dy in x's order, 0 for what was dropped
VG_KERNEL(pixel_shuffle_backward, const Grad& dx, const Tensor& dy, const PixelShuffleParams& p);

}  // namespace vg

// Inference on images that are larger than the network's input: windows are cut out, their scores are blended, and voxels are decided, all where the
// network runs, so that class scores never leave the device. Window and image meet at `start`: the image's voxel that is the window's first; it may
// lie outside the image.
#pragma once
#include "kernels/kernel.h"

namespace vg {

struct WindowParams {
  std::int64_t start[3] = {0, 0, 0};  // D, H, W
};
// window[z, y, x, c] = image[start + (z, y, x), c], 0 outside the image           window: (1, d, h, w, C)  image: (1, D, H, W, C) f32
VG_KERNEL(cut_window, Tensor& window, const Tensor& image, const WindowParams& p);

struct BlendParams {
  std::int64_t start[3] = {0, 0, 0};
  std::int64_t depth = 0;  // of the image: planes beyond are left out, as are rows and columns beyond those of `sums`
};
// sums[(start0 + z) mod R, start1 + y, start2 + x, c] += weight_d[z] weight_h[y] weight_w[x] scores[z, y, x, c]
// sums: (1, R, H, W, C) f32, a ring of R >= d planes of the image   scores: (1, d, h, w, C) f32   weights: (d + h + w) f32, one after the other
VG_KERNEL(blend_window, Tensor& sums, const Tensor& scores, const Tensor& weights, const BlendParams& p);

struct DecideParams {
  std::int64_t from[3] = {0, 0, 0};  // the scores' voxel that belongs to the labels' first
};
// With s = scores[n, (from0 + z) mod R, from1 + y, from2 + x, :] and p = softmax(s / (total_d[z] total_h[y] total_w[x])):
//   labels[n, z, y, x, k] = the class with the (k + 1)-th largest score, of equals the first     confidence[.., k] = p[labels[.., k]]
//   entropy[n, z, y, x] = - sum p log p, in nats (0 .. log C)
// labels: (N, D, H, W, K) u8 (C <= 256) or i32, K <= C   confidence: the same, f32   entropy: (N, D, H, W, 1) f32; the last two undefined: not wanted
// scores: (N, R, H', W', C), R >= D   totals: (D + H + W) f32, one after the other; undefined: 1
VG_KERNEL(decide, Tensor& labels, Tensor& confidence, Tensor& entropy, const Tensor& scores, const Tensor& totals, const DecideParams& p);

}  // namespace vg

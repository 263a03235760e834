// Memory-bound odds and ends: fill, add, accumulate, channel copies.
#pragma once
#include "kernels/kernel.h"

namespace vg {

struct FillParams {
  float value = 0.0f;
};
VG_KERNEL(fill, Tensor& y, const FillParams& p);  // y: f32, any shape

// y = a + b; y may be a or b. On devices other than cpu, here and below, all tensors of a call may be bf16 or f16.
VG_KERNEL(add, Tensor& y, const Tensor& a, const Tensor& b);

// y = x as another type: f32, bf16 and f16 in any pairing, rounded to nearest even.
VG_KERNEL(cast, Tensor& y, const Tensor& x);

struct ScaleParams {
  float scale = 1.0f;
};
// dx = beta dx + scale dy: how gradients of a value with several uses meet.
VG_KERNEL(accumulate, const Grad& dx, const Tensor& dy, const ScaleParams& p);

struct ChannelParams {
  std::int32_t first_to = 0, first_from = 0, count = 0;
};
// to[..., first_to + c] = from[..., first_from + c] for c < count (plus beta times what was there); other channels of `to` are left alone.
// Concatenation is two of these, its gradient two more.                                         to: (N, D, H, W, C)  from: (N, D, H, W, C')
VG_KERNEL(copy_channels, const Grad& to, const Tensor& from, const ChannelParams& p);

}  // namespace vg

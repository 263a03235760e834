// Differentiable operations. Each checks shapes, calls kernels, and (with a tape) records one closure; the implementation files hold forward
// beside backward. With no tape and an input that nobody else holds, elementwise operations work in place.
#pragma once
#include "kernels/activation.h"
#include "kernels/blur.h"
#include "kernels/conv.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "kernels/pixel_shuffle.h"
#include "kernels/pool.h"
#include "kernels/upsample.h"
#include "layers/context.h"
#include "layers/params.h"
#include "layers/tape.h"

namespace vg {

struct ConvOptions {
  std::int32_t stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  std::int32_t pad_low[3] = {0, 0, 0}, pad_high[3] = {0, 0, 0};
  Activation activation;  // fused; on a tape only what recorded_in_conv allows
  // A norm follows and wants statistics: of each sample, or of the batch. They come with the result (Value::statistics). Without an activation only.
  enum class Norm : std::uint8_t { none, instance, batch } norm = Norm::none;
  float norm_eps = 0.0f;
};

// y: (N, D', H', W', O), D' = floor((D + pad_low + pad_high - dilation (k - 1) - 1) / stride) + 1.        x1 may be undefined (one input)
// weight: (O, I, kD, kH, kW)  bias: (O) or null
Value conv(Context& ctx, Value x0, Value x1, Param& weight, Param* bias, const ConvOptions& o);
Shape conv_shape(const Shape& x, const Shape& weight, const ConvOptions& o);  // throws invalid_argument
// May a convolution on a tape end with this activation? If its gradient follows from the value after it: the value before is not kept.
bool recorded_in_conv(const Activation& f);

// weight: (I, O, kD, kH, kW) as PyTorch's ConvTranspose. D' = (D - 1) stride - pad_low - pad_high + dilation (k - 1) + 1 + output_pad
// (an output_pad is pad_high reduced by as much).
Value conv_transpose(Context& ctx, Value x, Param& weight, Param* bias, const ConvOptions& o);
Shape conv_transpose_shape(const Shape& x, const Shape& weight, const ConvOptions& o);

// y = f(norm(x)). gamma, beta: (C), both or neither. Statistics that come with x are taken if they are of this kind and eps.
Value instance_norm(Context& ctx, Value x, Param* gamma, Param* beta, const NormParams& p);
// Training: batch statistics, and running ones are updated; otherwise the running ones.
Value batch_norm(Context& ctx, Value x, Param* gamma, Param* beta, Param& running_mean, Param& running_var, float momentum, const NormParams& p);

Value activation(Context& ctx, Value x, Param* slope, const Activation& p);  // slope: prelu only
Value max_pool(Context& ctx, Value x, const PoolParams& p, const std::int32_t (&pad_high)[3]);
Shape max_pool_shape(const Shape& x, const PoolParams& p, const std::int32_t (&pad_high)[3]);
Value upsample(Context& ctx, Value x, const UpsampleParams& p);
Shape upsample_shape(const Shape& x, const UpsampleParams& p);
// Extents times the factors; or those of `like`, which may be smaller by less than a factor (what is beyond is dropped).
Value pixel_shuffle(Context& ctx, Value x, const PixelShuffleParams& p, const Shape* like = nullptr);
Shape pixel_shuffle_shape(const Shape& x, const PixelShuffleParams& p, const Shape* like = nullptr);
Value blur(Context& ctx, Value x, const BlurParams& p);
Value cast_to(Context& ctx, Value x, DType type);  // f32, bf16, f16; x itself where it has that type
Value sum(Context& ctx, Value a, Value b);  // a + b
Value concat(Context& ctx, Value a, Value b);  // along channels

struct DiceCe {
  Value loss;     // (1): the value that backward starts from
  Tensor result;  // (4): loss, ce, 1 - dice, voxels counted
  Tensor sums;    // (N, C, 3): I, P, T per sample and class
};
// logits: (N, D, H, W, C)  labels: (N, D, H, W, 1) u8 or i32
DiceCe dice_ce(Context& ctx, Value logits, Tensor labels, const DiceCeParams& p);

}  // namespace vg

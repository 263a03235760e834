// Convolution in 1-D to 3-D (unused axes have extent 1), up to two inputs (a concatenation that never exists in memory), and the two gradients.
// Transposed convolution is the same three kernels with roles exchanged (conv_backward_data runs forward).
//
//   y[n, z, o] = b[o] + sum over taps k, channels i of  x[n, z*stride - pad + k*dilation, i] * w[o, i, k]         (x is 0 outside)
//
// x0: (N, D, H, W, I0)  x1: (N, D, H, W, I1) or undefined; channel i of the pair is x0's for i < I0, else x1's
// w: (O, I0+I1, kD, kH, kW), PyTorch's order   b: (O) or undefined   y: (N, D', H', W', O)
// x0, x1 and y (dy and dx) are f32, or on devices other than cpu all bf16 or all f16; w, b, dw and db are f32 and rounded where they are multiplied.
// The caller gives y's extents: usually floor((in + pad_low + pad_high - dilation (k-1) - 1) / stride) + 1. Only the low pad is a parameter.
#pragma once
#include "kernels/norm.h"

namespace vg {

struct ConvParams {
  std::int32_t stride[3] = {1, 1, 1};    // D, H, W
  std::int32_t dilation[3] = {1, 1, 1};
  std::int32_t pad[3] = {0, 0, 0};       // low side
  Activation activation;                 // applied to y (conv_forward) when there is no tape to need the value before; not prelu
};

VG_KERNEL(conv_forward, Tensor& y, const Tensor& x0, const Tensor& x1, const Tensor& w, const Tensor& b, const ConvParams& p);

// conv_forward, p.activation being identity, and norm_statistics of y as it is stored: where the tensor cores' kernel makes y, they are made on the way,
// and y need not be read again.                                                                  mean, rstd: (N, O), or (1, O) of the batch
VG_KERNEL(conv_forward_statistics, Tensor& y, Tensor& mean, Tensor& rstd, const Tensor& x0, const Tensor& x1, const Tensor& w, const Tensor& b,
          const ConvParams& p, const NormParams& norm);

// dx[n, u, i] = b[i] + sum over o, taps k with z*stride - pad + k*dilation = u of  dy[n, z, o] * w[o, i, k]
// The gradient with respect to the inputs (b undefined); with a bias and dx0 alone it is transposed convolution's forward pass,
// whose PyTorch weight (I_t, O_t, ...) is this w as it stands: O = I_t, I = O_t.
VG_KERNEL(conv_backward_data, const Grad& dx0, const Grad& dx1, const Tensor& dy, const Tensor& w, const Tensor& b, const ConvParams& p);

// Bytes of scratch memory that the two take on the cpu, for planners. x: all input channels; y: the extents of the output.
std::size_t conv_forward_scratch(const Shape& y, const Shape& x, const Shape& w, const ConvParams& p, const ConvAlgorithm& algorithm);
std::size_t conv_backward_data_scratch(const Shape& dx, const Shape& dy, const Shape& w, const ConvParams& p, const ConvAlgorithm& algorithm);

// dw[o, i, k] = sum over n, z of dy[n, z, o] * x[n, z*stride - pad + k*dilation, i]
// Deterministic: fixed chunks within a sample, then a fixed binary tree over the samples; the same bits for any number of threads.
VG_KERNEL(conv_backward_weight, const Grad& dw, const Tensor& dy, const Tensor& x0, const Tensor& x1, const ConvParams& p);

// db[c] = sum over n, voxels of dy[n, z, c], in the same order.                                   dy: (N, D, H, W, C)  db: (C)
VG_KERNEL(channel_sum, const Grad& db, const Tensor& dy);

}  // namespace vg

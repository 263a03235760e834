// The second half of a weight gradient: partial sums of chunks of voxels are added in a fixed order.
#pragma once
#include "kernels/half.cuh"

namespace vg {
namespace VG_NS {

// dw[o, i, tap] = beta dw + sum over samples (a binary tree) of the sum over chunks. A block owns 32 neighbouring elements e = (r, o) of the padded
// matrix; kLanes threads share the chunks of each. Overwrites partial[n, 0, e].
template <int kLanes>
__global__ __launch_bounds__(32 * kLanes) void conv_weight_sum_kernel(float* __restrict__ dw, float beta, float* __restrict__ partial,
                                                                      int samples, int chunks, std::int64_t elements, int padded, int depth,
                                                                      int channels, int columns) {
  SIMT_SHARED(float, lanes, [kLanes][32]);
  const int x = static_cast<int>(threadIdx.x) % 32, y = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t e = static_cast<std::int64_t>(blockIdx.x) * 32 + x, stride = chunks * elements;
  for (int n = 0; n < samples; ++n) {
    const float* own = partial + n * stride + e;
    float sum = 0.0f;
    if (e < elements)
      for (int k = y; k < chunks; k += kLanes) sum += own[k * elements];
    lanes[y][x] = sum;
    __syncthreads();
    SIMT_UNROLL for (int span = kLanes / 2; span > 0; span /= 2) {
      if (y < span) lanes[y][x] += lanes[y + span][x];
      __syncthreads();
    }
    if (y == 0 && e < elements) partial[n * stride + e] = lanes[0][x];  // the thread that alone writes lanes[0][x]
  }
  const int r = static_cast<int>(e / padded), o = static_cast<int>(e % padded);
  if (y != 0 || r >= depth || o >= columns) return;
  float* own = partial + e;
  for (int step = 1; step < samples; step *= 2)
    for (int n = 0; n + step < samples; n += 2 * step) own[n * stride] += own[(n + step) * stride];
  const int taps = depth / channels, tap = r / channels, channel = r % channels;
  store<1>(dw + (static_cast<std::int64_t>(o) * channels + channel) * taps + tap, Pack<1>{{own[0]}}, beta);
}

}  // namespace VG_NS
}  // namespace vg

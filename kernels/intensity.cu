// Brightness on the device: the range in one pass over the patch (smallest and largest are the same in any order), everything else in a second. A thread
// takes four numbers, which is what one call of the generator makes.
#include "kernels/intensity.h"

#include "kernels/device.cuh"
#include "kernels/simt_reduce.h"
#include "tensor/random.h"

namespace vg {
namespace VG_NS {

inline constexpr unsigned kRangeBlocks = 256;  // at most kThreads: the second pass reads one partial result per thread

// Four numbers, or what is left of them; returns how many. kFours: `from` is aligned to them.
template <bool kFours>
__device__ inline int load_some(float (&to)[4], const float* from, std::int64_t left) {
  if (kFours && left >= 4) {
    const Pack<4> four = load<4>(from);
    SIMT_UNROLL for (int j = 0; j < 4; ++j) to[j] = four.v[j];
    return 4;
  }
  const int count = left < 4 ? static_cast<int>(left) : 4;
  SIMT_UNROLL for (int j = 0; j < 4; ++j) to[j] = j < count ? from[j] : 0.0f;
  return count;
}

// partial[block] = (-smallest, largest)
template <bool kFours>
__global__ __launch_bounds__(kThreads) void range_kernel(float2* __restrict__ partial, const float* __restrict__ image, std::int64_t n) {
  float most[2] = {-INFINITY, -INFINITY};
  for (std::int64_t i = flat_begin<4>(); i < n; i += flat_step<4>()) {
    float x[4];
    const int count = load_some<kFours>(x, image + i, n - i);
    SIMT_UNROLL for (int j = 0; j < 4; ++j)
      if (j < count) most[0] = fmaxf(most[0], -x[j]), most[1] = fmaxf(most[1], x[j]);
  }
  simt::block_reduce(most, -INFINITY, simt::Max());
  if (threadIdx.x == 0) partial[blockIdx.x] = {most[0], most[1]};
}

// sin and cos of a whole turn's part, turn in [0, 1): the nearest quarter, and polynomials within an eighth of it (coefficients: Cephes, sinf.c).
__device__ inline void sin_cos_of_turn(float turn, float& sine, float& cosine) {
  const float quarters = turn * 4.0f, whole = floorf(quarters + 0.5f), a = (quarters - whole) * 1.57079632679489662f, a2 = a * a;
  const float s = a + a * a2 * (-1.6666654611e-1f + a2 * (8.3321608736e-3f - 1.9515295891e-4f * a2));
  const float c = 1.0f - 0.5f * a2 + a2 * a2 * (4.166664568298827e-2f + a2 * (-1.388731625493765e-3f + 2.443315711809948e-5f * a2));
  const int quarter = static_cast<int>(whole);
  const float one = quarter & 1 ? c : s, other = quarter & 1 ? s : c;
  sine = quarter & 2 ? -one : one;
  cosine = (quarter + 1) & 2 ? -other : other;
}

__device__ inline void add_noise(float (&x)[4], std::uint64_t key, std::int64_t group, float deviation) {
  const Philox4 bits = philox(key, 0, static_cast<std::uint64_t>(group));
  SIMT_UNROLL for (int j = 0; j < 4; j += 2) {
    const float u = (static_cast<float>(bits.v[j] >> 8) + 1.0f) * 0x1p-24f;
    const float radius = sqrtf(-2.0f * logf(u)) * deviation;
    float sine, cosine;
    sin_cos_of_turn(static_cast<float>(bits.v[j + 1] >> 8) * 0x1p-24f, sine, cosine);
    x[j] += radius * cosine;
    x[j + 1] += radius * sine;
  }
}

// `partials`: how many, 0 where the range does not matter.
template <bool kFours>
__global__ __launch_bounds__(kThreads) void vary_intensity_kernel(float* __restrict__ image, const float2* __restrict__ partial, int partials, std::int64_t n,
                                                                  IntensityParams p) {
  float low = 0.0f, range = 1.0f;
  if (partials > 0) {
    const int thread = static_cast<int>(threadIdx.x);
    const float2 own = thread < partials ? partial[thread] : make_float2(-INFINITY, -INFINITY);
    float most[2] = {own.x, own.y};
    simt::block_reduce(most, -INFINITY, simt::Max());
    low = -most[0];
    range = fmaxf(most[1] - low, 1e-6f);
  }
  const float per_range = 1.0f / range;
  for (std::int64_t i = flat_begin<4>(); i < n; i += flat_step<4>()) {
    float x[4];
    const int count = load_some<kFours>(x, image + i, n - i);
    if (partials > 0)
      SIMT_UNROLL for (int j = 0; j < 4; ++j) x[j] = low + range * exp2f(p.gamma * log2f(fmaxf((x[j] - low) * per_range, 0.0f)));  // 0 becomes 2^-inf
    SIMT_UNROLL for (int j = 0; j < 4; ++j) x[j] = x[j] * p.contrast + p.brightness;
    if (p.noise != 0.0f) add_noise(x, p.key, i / 4, p.noise);
    if (kFours && count == 4) {
      Pack<4> four;
      SIMT_UNROLL for (int j = 0; j < 4; ++j) four.v[j] = x[j];
      store<4>(image + i, four);
    } else {
      SIMT_UNROLL for (int j = 0; j < 4; ++j)
        if (j < count) image[i + j] = x[j];
    }
  }
}

void vary_intensity(const Exec& ex, Tensor& image, const IntensityParams& p) {
  const std::int64_t n = image.elements();
  if (n == 0 || !p.changes()) return;
  float* data = image.data<float>();
  const bool fours = aligned16(data);
  const unsigned blocks = flat_blocks(n, true), range_blocks = blocks < kRangeBlocks ? blocks : kRangeBlocks;
  float2* partial = nullptr;
  if (p.gamma != 1.0f) {
    partial = ex.scratch->reserve<float2>(range_blocks);
    const auto range_any = fours ? range_kernel<true> : range_kernel<false>;
    VG_LAUNCH(ex, range_any, range_blocks, kThreads, 0, partial, data, n);
  }
  const auto vary_intensity_any = fours ? vary_intensity_kernel<true> : vary_intensity_kernel<false>;
  VG_LAUNCH(ex, vary_intensity_any, blocks, kThreads, 0, data, partial, partial ? static_cast<int>(range_blocks) : 0, n, p);
}

}  // namespace VG_NS

VG_DEVICE_IMPL(vary_intensity);

}  // namespace vg

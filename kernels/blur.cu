// The blur. A thread owns one voxel and V channels and adds up what it needs; the repeated reads come from the cache. Backward gathers: voxel 0
// is the one that several taps of one output read.
#include "kernels/blur.h"

#include "kernels/half.cuh"

namespace vg {
namespace VG_NS {

// How many of output u's K taps read voxel v, v <= u < v + K.
__device__ inline int reads_of(int v, int u, int kernel) { return v == 0 ? kernel - u : 1; }
__device__ inline int clamped(int u) { return u > 0 ? u : 0; }
__device__ inline int end_of(int v, int kernel, int extent) { return v + kernel < extent ? v + kernel : extent; }

// grid: (chunks of voxels, groups of channels, samples).
template <int V, class T>
__global__ __launch_bounds__(kThreads, 3) void blur_forward_kernel(T* __restrict__ y, const T* __restrict__ x, BlurParams p, Extent e,
                                                                   int samples, std::int64_t channels, std::int64_t chunk, float scale) {
  const Column c = column_of_thread<V>(channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < e.voxels() ? begin + chunk : e.voxels();
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    const std::int64_t sample = n * e.voxels() * channels + c.first;
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const Voxel u = voxel_at(r, e);
      Pack<V> sum{};
      for (int a = 0; a < p.kernel[0]; ++a) {
        for (int b = 0; b < p.kernel[1]; ++b) {
          const T* line = x + sample + row_at(clamped(u.d - a), clamped(u.h - b), 0, e) * channels;
          for (int k = 0; k < p.kernel[2]; ++k) {
            const Pack<V> value = load<V>(line + clamped(u.w - k) * channels);
            SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] += value.v[j];
          }
        }
      }
      SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] *= scale;
      store<V>(y + sample + r * channels, sum);
    }
  }
}

template <int V, class T>
__global__ __launch_bounds__(kThreads, 3) void blur_backward_kernel(T* __restrict__ dx, const T* __restrict__ dy, BlurParams p, Extent e,
                                                                    int samples, std::int64_t channels, std::int64_t chunk, float scale,
                                                                    float beta) {
  const Column c = column_of_thread<V>(channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < e.voxels() ? begin + chunk : e.voxels();
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    const std::int64_t sample = n * e.voxels() * channels + c.first;
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const Voxel v = voxel_at(r, e);
      Pack<V> sum{};
      for (int a = v.d; a < end_of(v.d, p.kernel[0], e.d); ++a) {
        for (int b = v.h; b < end_of(v.h, p.kernel[1], e.h); ++b) {
          const T* line = dy + sample + row_at(a, b, 0, e) * channels;
          const int reads = reads_of(v.d, a, p.kernel[0]) * reads_of(v.h, b, p.kernel[1]);
          for (int k = v.w; k < end_of(v.w, p.kernel[2], e.w); ++k) {
            const float weight = static_cast<float>(reads * reads_of(v.w, k, p.kernel[2]));
            const Pack<V> g = load<V>(line + k * channels);
            SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] += weight * g.v[j];
          }
        }
      }
      SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] *= scale;
      store<V>(dx + sample + r * channels, sum, beta);
    }
  }
}

inline float scale_of(const BlurParams& p) { return 1.0f / static_cast<float>(std::int64_t{p.kernel[0]} * p.kernel[1] * p.kernel[2]); }

void blur_forward(const Exec& ex, Tensor& y, const Tensor& x, const BlurParams& p) {
  for_float_type(x.dtype(), "blur_forward", [&](auto zero) {
    using T = decltype(zero);
    const Shape& s = x.shape();
    assert(y.shape() == s);
    const bool fours = in_fours(s.c(), y.data<T>(), x.data<T>());
    const ColumnGrid g = column_grid(s.voxels(), s.c(), fours);
    const auto blur_forward_any = fours ? blur_forward_kernel<4, T> : blur_forward_kernel<1, T>;
    VG_LAUNCH(ex, blur_forward_any, g.grid(s.n()), kThreads, 0, y.data<T>(), x.data<T>(), p, extent_of(s), static_cast<int>(s.n()), s.c(),
              g.chunk, scale_of(p));
  });
}

void blur_backward(const Exec& ex, const Grad& dx, const Tensor& dy, const BlurParams& p) {
  for_float_type(dy.dtype(), "blur_backward", [&](auto zero) {
    using T = decltype(zero);
    if (!dx.wanted()) return;
    const Shape& s = dx.shape();
    assert(dy.shape() == s);
    const bool fours = in_fours(s.c(), data_of<T>(dx), dy.data<T>());
    const ColumnGrid g = column_grid(s.voxels(), s.c(), fours);
    const auto blur_backward_any = fours ? blur_backward_kernel<4, T> : blur_backward_kernel<1, T>;
    VG_LAUNCH(ex, blur_backward_any, g.grid(s.n()), kThreads, 0, data_of<T>(dx), dy.data<T>(), p, extent_of(s), static_cast<int>(s.n()),
              s.c(), g.chunk, scale_of(p), dx.beta);
  });
}

}  // namespace VG_NS

VG_DEVICE_IMPL(blur_forward);
VG_DEVICE_IMPL(blur_backward);

}  // namespace vg

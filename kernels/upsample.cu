// Upsampling by whole factors. Backward gathers: an input voxel knows which outputs drew from it, so it adds their shares in one order.
#include "kernels/upsample.h"

#include "kernels/half.cuh"

namespace vg {
namespace VG_NS {

// Where output u of one axis draws from: (1 - share) of `low` and share of `high`.
struct Source {
  int low, high;
  float share;
};
__device__ inline Source source_of(int u, int factor, int extent, bool linear) {
  if (!linear) return {u / factor, u / factor, 0.0f};
  const float at = (static_cast<float>(u) + 0.5f) / static_cast<float>(factor) - 0.5f, inside = at > 0.0f ? at : 0.0f;
  const int low = static_cast<int>(inside);
  return low + 1 < extent ? Source{low, low + 1, inside - static_cast<float>(low)} : Source{extent - 1, extent - 1, 0.0f};
}

// grid: (chunks of output voxels, groups of channels, samples).
template <int V, class T>
__global__ __launch_bounds__(kThreads, 3) void upsample_forward_kernel(T* __restrict__ y, const T* __restrict__ x, UpsampleParams p,
                                                                       Extent out, Extent in, int samples, std::int64_t channels,
                                                                       std::int64_t chunk) {
  const Column c = column_of_thread<V>(channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < out.voxels() ? begin + chunk : out.voxels();
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    const T* sample = x + n * in.voxels() * channels + c.first;
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const Voxel u = voxel_at(r, out);
      const Source d = source_of(u.d, p.factor[0], in.d, p.linear), h = source_of(u.h, p.factor[1], in.h, p.linear),
                   w = source_of(u.w, p.factor[2], in.w, p.linear);
      Pack<V> value;
      if (!p.linear) {
        value = load<V>(sample + row_at(d.low, h.low, w.low, in) * channels);
      } else {
        value = Pack<V>{};
        SIMT_UNROLL for (int corner = 0; corner < 8; ++corner) {
          const float weight =
              (corner & 4 ? d.share : 1.0f - d.share) * (corner & 2 ? h.share : 1.0f - h.share) * (corner & 1 ? w.share : 1.0f - w.share);
          if (weight == 0.0f) continue;  // an axis of extent 1, a border: nothing to read
          const std::int64_t at = row_at(corner & 4 ? d.high : d.low, corner & 2 ? h.high : h.low, corner & 1 ? w.high : w.low, in);
          const Pack<V> a = load<V>(sample + at * channels);
          SIMT_UNROLL for (int j = 0; j < V; ++j) value.v[j] += weight * a.v[j];
        }
      }
      store<V>(y + (n * out.voxels() + r) * channels + c.first, value);
    }
  }
}

void upsample_forward(const Exec& ex, Tensor& y, const Tensor& x, const UpsampleParams& p) {
  for_float_type(x.dtype(), "upsample_forward", [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t channels = x.shape().c();
    assert(y.shape().c() == channels && y.shape().d() == x.shape().d() * p.factor[0] && y.shape().h() == x.shape().h() * p.factor[1] &&
           y.shape().w() == x.shape().w() * p.factor[2]);
    const bool fours = in_fours(channels, y.data<T>(), x.data<T>());
    const ColumnGrid g = column_grid(y.shape().voxels(), channels, fours);
    const auto upsample_forward_any = fours ? upsample_forward_kernel<4, T> : upsample_forward_kernel<1, T>;
    VG_LAUNCH(ex, upsample_forward_any, g.grid(x.shape().n()), kThreads, 0, y.data<T>(), x.data<T>(), p, extent_of(y.shape()),
              extent_of(x.shape()), static_cast<int>(x.shape().n()), channels, g.chunk);
  });
}

// The outputs of one axis that may draw from input v, and how much one of them does.
//   nearest: factor v <= u < factor (v + 1)
//   linear:  |source(u) - v| < 1, that is factor v - factor/2 <= u < factor (v + 1) + factor/2 with the half rounded down
struct Readers {
  int begin, end;
};
__device__ inline Readers readers_of(int v, int factor, int extent, bool linear) {
  const int half = linear ? factor / 2 : 0, begin = factor * v - half, end = factor * (v + 1) + half, outputs = factor * extent;
  return {begin > 0 ? begin : 0, end < outputs ? end : outputs};
}
__device__ inline float share_of(int v, int u, int factor, int extent, bool linear) {
  if (!linear) return 1.0f;
  const Source s = source_of(u, factor, extent, true);
  return (s.low == v ? 1.0f - s.share : 0.0f) + (s.high == v ? s.share : 0.0f);
}

// grid: (chunks of input voxels, groups of channels, samples).
template <int V, class T>
__global__ __launch_bounds__(kThreads, 3) void upsample_backward_kernel(T* __restrict__ dx, const T* __restrict__ dy, UpsampleParams p,
                                                                        Extent out, Extent in, int samples, std::int64_t channels,
                                                                        std::int64_t chunk, float beta) {
  const Column c = column_of_thread<V>(channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < in.voxels() ? begin + chunk : in.voxels();
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    const T* gradient = dy + n * out.voxels() * channels + c.first;
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const Voxel v = voxel_at(r, in);
      const Readers d = readers_of(v.d, p.factor[0], in.d, p.linear), h = readers_of(v.h, p.factor[1], in.h, p.linear),
                    w = readers_of(v.w, p.factor[2], in.w, p.linear);
      Pack<V> sum{};
      for (int a = d.begin; a < d.end; ++a) {
        const float share_d = share_of(v.d, a, p.factor[0], in.d, p.linear);
        for (int b = h.begin; b < h.end; ++b) {
          const float share_dh = share_d * share_of(v.h, b, p.factor[1], in.h, p.linear);
          const T* line = gradient + row_at(a, b, 0, out) * channels;
          for (int k = w.begin; k < w.end; ++k) {
            const float share = share_dh * share_of(v.w, k, p.factor[2], in.w, p.linear);
            const Pack<V> g = load<V>(line + k * channels);
            SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] += share * g.v[j];
          }
        }
      }
      store<V>(dx + (n * in.voxels() + r) * channels + c.first, sum, beta);
    }
  }
}

void upsample_backward(const Exec& ex, const Grad& dx, const Tensor& dy, const UpsampleParams& p) {
  for_float_type(dy.dtype(), "upsample_backward", [&](auto zero) {
    using T = decltype(zero);
    if (!dx.wanted()) return;
    const Shape& x = dx.shape();
    const std::int64_t channels = x.c();
    assert(dy.shape().c() == channels);
    const bool fours = in_fours(channels, data_of<T>(dx), dy.data<T>());
    const ColumnGrid g = column_grid(x.voxels(), channels, fours);
    const auto upsample_backward_any = fours ? upsample_backward_kernel<4, T> : upsample_backward_kernel<1, T>;
    VG_LAUNCH(ex, upsample_backward_any, g.grid(x.n()), kThreads, 0, data_of<T>(dx), dy.data<T>(), p, extent_of(dy.shape()), extent_of(x),
              static_cast<int>(x.n()), channels, g.chunk, dx.beta);
  });
}

}  // namespace VG_NS

VG_DEVICE_IMPL(upsample_forward);
VG_DEVICE_IMPL(upsample_backward);

}  // namespace vg

// Depth to space. Both directions walk over the coarse tensor: a thread moves four neighbouring values of it in one access (with factor 2 in a
// plane the whole block of one channel), and each of the four goes to its own plane, where neighbouring threads are neighbouring channels.
#include "kernels/pixel_shuffle.h"

#include "kernels/half.cuh"

namespace vg {
namespace VG_NS {

// Where in the fine tensor (without samples) channel `q` of the coarse voxel `v` lies; -1: beyond its border.
__device__ inline std::int64_t place_of(const Voxel& v, int q, const PixelShuffleParams& p, const Extent& fine, std::int64_t channels) {
  const int fh = p.factor[1], fw = p.factor[2], taps = p.factor[0] * fh * fw, c = q / taps, t = q - c * taps;
  const int d = v.d * p.factor[0] + t / (fh * fw), h = v.h * fh + t / fw % fh, w = v.w * fw + t % fw;
  return d < fine.d && h < fine.h && w < fine.w ? row_at(d, h, w, fine) * channels + c : -1;
}

// grid: (chunks of coarse voxels, groups of coarse channels, samples). channels: of the fine tensor.
template <int V, class T>
__global__ __launch_bounds__(kThreads, 3) void pixel_shuffle_forward_kernel(T* __restrict__ y, const T* __restrict__ x,
                                                                            PixelShuffleParams p, Extent fine, Extent coarse, int samples,
                                                                            std::int64_t coarse_channels, std::int64_t channels,
                                                                            std::int64_t chunk) {
  const Column c = column_of_thread<V>(coarse_channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < coarse.voxels() ? begin + chunk : coarse.voxels();
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    T* sample = y + n * fine.voxels() * channels;
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const Voxel v = voxel_at(r, coarse);
      const Pack<V> value = load<V>(x + (n * coarse.voxels() + r) * coarse_channels + c.first);
      SIMT_UNROLL for (int j = 0; j < V; ++j) {
        const std::int64_t at = place_of(v, static_cast<int>(c.first) + j, p, fine, channels);
        if (at >= 0) sample[at] = from_float<T>(value.v[j]);
      }
    }
  }
}

template <int V, class T>
__global__ __launch_bounds__(kThreads, 3) void pixel_shuffle_backward_kernel(T* __restrict__ dx, const T* __restrict__ dy,
                                                                             PixelShuffleParams p, Extent fine, Extent coarse, int samples,
                                                                             std::int64_t coarse_channels, std::int64_t channels,
                                                                             std::int64_t chunk, float beta) {
  const Column c = column_of_thread<V>(coarse_channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < coarse.voxels() ? begin + chunk : coarse.voxels();
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    const T* sample = dy + n * fine.voxels() * channels;
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const Voxel v = voxel_at(r, coarse);
      Pack<V> g;
      SIMT_UNROLL for (int j = 0; j < V; ++j) {
        const std::int64_t at = place_of(v, static_cast<int>(c.first) + j, p, fine, channels);
        g.v[j] = at >= 0 ? to_float(sample[at]) : 0.0f;
      }
      store<V>(dx + (n * coarse.voxels() + r) * coarse_channels + c.first, g, beta);
    }
  }
}

void pixel_shuffle_forward(const Exec& ex, Tensor& y, const Tensor& x, const PixelShuffleParams& p) {
  for_float_type(x.dtype(), "pixel_shuffle_forward", [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t channels = x.shape().c();
    assert(channels == y.shape().c() * p.factor[0] * p.factor[1] * p.factor[2] && x.shape().n() == y.shape().n());
    const bool fours = in_fours(channels, x.data<T>());
    const ColumnGrid g = column_grid(x.shape().voxels(), channels, fours);
    const auto pixel_shuffle_forward_any = fours ? pixel_shuffle_forward_kernel<4, T> : pixel_shuffle_forward_kernel<1, T>;
    VG_LAUNCH(ex, pixel_shuffle_forward_any, g.grid(x.shape().n()), kThreads, 0, y.data<T>(), x.data<T>(), p, extent_of(y.shape()),
              extent_of(x.shape()), static_cast<int>(x.shape().n()), channels, y.shape().c(), g.chunk);
  });
}

void pixel_shuffle_backward(const Exec& ex, const Grad& dx, const Tensor& dy, const PixelShuffleParams& p) {
  for_float_type(dy.dtype(), "pixel_shuffle_backward", [&](auto zero) {
    using T = decltype(zero);
    if (!dx.wanted()) return;
    const Shape& x = dx.shape();
    assert(x.c() == dy.shape().c() * p.factor[0] * p.factor[1] * p.factor[2] && x.n() == dy.shape().n());
    const bool fours = in_fours(x.c(), data_of<T>(dx));
    const ColumnGrid g = column_grid(x.voxels(), x.c(), fours);
    const auto pixel_shuffle_backward_any = fours ? pixel_shuffle_backward_kernel<4, T> : pixel_shuffle_backward_kernel<1, T>;
    VG_LAUNCH(ex, pixel_shuffle_backward_any, g.grid(x.n()), kThreads, 0, data_of<T>(dx), dy.data<T>(), p, extent_of(dy.shape()),
              extent_of(x), static_cast<int>(x.n()), x.c(), dy.shape().c(), g.chunk, dx.beta);
  });
}

}  // namespace VG_NS

VG_DEVICE_IMPL(pixel_shuffle_forward);
VG_DEVICE_IMPL(pixel_shuffle_backward);

}  // namespace vg

// Max pooling. Forward: a thread scans its window. Backward is a gather too: an input voxel asks each window that covers it who won, so no index is
// stored and no two threads write the same place; the repeated reads of x come from the cache.
#include "kernels/pool.h"

#include <cmath>

#include "kernels/half.cuh"

namespace vg {
namespace VG_NS {

// Does b take the lead from a, which came earlier? NaN beats numbers; ties stay with the first.
__device__ inline bool takes_lead(float b, float a) { return b > a || (b != b && a == a); }

// The part of a window that lies inside the volume, along one axis.
struct Window {
  int begin, end;
};
__device__ inline Window window_at(int output, int kernel, int stride, int pad, int extent) {
  const int low = output * stride - pad, high = low + kernel;
  return {low > 0 ? low : 0, high < extent ? high : extent};
}

// grid: (chunks of output voxels, groups of channels, samples).
template <int V, class T>
__global__ __launch_bounds__(kThreads, 3) void maxpool_forward_kernel(T* __restrict__ y, const T* __restrict__ x, PoolParams p, Extent out,
                                                                      Extent in, int samples, std::int64_t channels, std::int64_t chunk) {
  const Column c = column_of_thread<V>(channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < out.voxels() ? begin + chunk : out.voxels();
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    const T* sample = x + n * in.voxels() * channels + c.first;
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const Voxel z = voxel_at(r, out);
      const Window d = window_at(z.d, p.kernel[0], p.stride[0], p.pad[0], in.d),
                   h = window_at(z.h, p.kernel[1], p.stride[1], p.pad[1], in.h),
                   w = window_at(z.w, p.kernel[2], p.stride[2], p.pad[2], in.w);
      Pack<V> best;
      SIMT_UNROLL for (int j = 0; j < V; ++j) best.v[j] = -INFINITY;
      for (int a = d.begin; a < d.end; ++a) {
        for (int b = h.begin; b < h.end; ++b) {
          const T* line = sample + row_at(a, b, 0, in) * channels;
          for (int k = w.begin; k < w.end; ++k) {
            const Pack<V> value = load<V>(line + k * channels);
            SIMT_UNROLL for (int j = 0; j < V; ++j) best.v[j] = takes_lead(value.v[j], best.v[j]) ? value.v[j] : best.v[j];
          }
        }
      }
      store<V>(y + (n * out.voxels() + r) * channels + c.first, best);
    }
  }
}

void maxpool_forward(const Exec& ex, Tensor& y, const Tensor& x, const PoolParams& p) {
  for_float_type(x.dtype(), "maxpool_forward", [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t channels = x.shape().c();
    assert(y.shape().n() == x.shape().n() && y.shape().c() == channels);
    const bool fours = in_fours(channels, y.data<T>(), x.data<T>());
    const ColumnGrid g = column_grid(y.shape().voxels(), channels, fours);
    const auto maxpool_forward_any = fours ? maxpool_forward_kernel<4, T> : maxpool_forward_kernel<1, T>;
    VG_LAUNCH(ex, maxpool_forward_any, g.grid(x.shape().n()), kThreads, 0, y.data<T>(), x.data<T>(), p, extent_of(y.shape()),
              extent_of(x.shape()), static_cast<int>(x.shape().n()), channels, g.chunk);
  });
}

// The outputs whose windows cover `input`: output * stride - pad <= input < output * stride - pad + kernel.
__device__ inline Window outputs_covering(int input, int kernel, int stride, int pad, int outputs) {
  const int first = input + pad - kernel + 1, last = (input + pad) / stride;
  return {first > 0 ? (first + stride - 1) / stride : 0, last + 1 < outputs ? last + 1 : outputs};
}

// grid: (chunks of input voxels, groups of channels, samples).
template <int V, class T>
__global__ __launch_bounds__(kThreads, 3) void maxpool_backward_kernel(T* __restrict__ dx, const T* __restrict__ dy,
                                                                       const T* __restrict__ x, PoolParams p, Extent out, Extent in,
                                                                       int samples, std::int64_t channels, std::int64_t chunk, float beta) {
  const Column c = column_of_thread<V>(channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < in.voxels() ? begin + chunk : in.voxels();
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    const T* sample = x + n * in.voxels() * channels + c.first;
    const T* gradient = dy + n * out.voxels() * channels + c.first;
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const Voxel u = voxel_at(r, in);
      const Pack<V> own = load<V>(sample + r * channels);
      Pack<V> sum{};
      const Window zd = outputs_covering(u.d, p.kernel[0], p.stride[0], p.pad[0], out.d);
      const Window zh = outputs_covering(u.h, p.kernel[1], p.stride[1], p.pad[1], out.h);
      const Window zw = outputs_covering(u.w, p.kernel[2], p.stride[2], p.pad[2], out.w);
      for (int od = zd.begin; od < zd.end; ++od) {
        const Window d = window_at(od, p.kernel[0], p.stride[0], p.pad[0], in.d);
        for (int oh = zh.begin; oh < zh.end; ++oh) {
          const Window h = window_at(oh, p.kernel[1], p.stride[1], p.pad[1], in.h);
          for (int ow = zw.begin; ow < zw.end; ++ow) {
            const Window w = window_at(ow, p.kernel[2], p.stride[2], p.pad[2], in.w);
            // u wins if nobody before it is as good and nobody after it is better.
            bool wins[V];
            SIMT_UNROLL for (int j = 0; j < V; ++j) wins[j] = true;
            for (int a = d.begin; a < d.end; ++a) {
              for (int b = h.begin; b < h.end; ++b) {
                for (int k = w.begin; k < w.end; ++k) {
                  const std::int64_t other = row_at(a, b, k, in);
                  if (other == r) continue;
                  const Pack<V> value = load<V>(sample + other * channels);
                  SIMT_UNROLL for (int j = 0; j < V; ++j) wins[j] =
                      wins[j] && (other < r ? takes_lead(own.v[j], value.v[j]) : !takes_lead(value.v[j], own.v[j]));
                }
              }
            }
            const Pack<V> g = load<V>(gradient + row_at(od, oh, ow, out) * channels);
            SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] += wins[j] ? g.v[j] : 0.0f;
          }
        }
      }
      store<V>(dx + (n * in.voxels() + r) * channels + c.first, sum, beta);
    }
  }
}

void maxpool_backward(const Exec& ex, const Grad& dx, const Tensor& dy, const Tensor& x, const PoolParams& p) {
  for_float_type(x.dtype(), "maxpool_backward", [&](auto zero) {
    using T = decltype(zero);
    if (!dx.wanted()) return;
    const std::int64_t channels = x.shape().c();
    assert(dx.shape() == x.shape() && dy.shape().c() == channels);
    const bool fours = in_fours(channels, data_of<T>(dx), dy.data<T>(), x.data<T>());
    const ColumnGrid g = column_grid(x.shape().voxels(), channels, fours);
    const auto maxpool_backward_any = fours ? maxpool_backward_kernel<4, T> : maxpool_backward_kernel<1, T>;
    VG_LAUNCH(ex, maxpool_backward_any, g.grid(x.shape().n()), kThreads, 0, data_of<T>(dx), dy.data<T>(), x.data<T>(), p,
              extent_of(dy.shape()), extent_of(x.shape()), static_cast<int>(x.shape().n()), channels, g.chunk, dx.beta);
  });
}

}  // namespace VG_NS

VG_DEVICE_IMPL(maxpool_forward);
VG_DEVICE_IMPL(maxpool_backward);

}  // namespace vg

// Activations on their own; fused ones are in norm.cu and conv.cu. Bound by memory.
#include "kernels/activation.h"

#include "kernels/activation.cuh"
#include "kernels/half.cuh"
#include "kernels/reduce.cuh"

namespace vg {
namespace VG_NS {

// All kinds but prelu. No __restrict__: y may be x.
template <int V, class T>
__global__ __launch_bounds__(kThreads) void activation_forward_kernel(T* y, const T* x, Activation f, std::int64_t n) {
  for (std::int64_t i = flat_begin<V>(); i < n; i += flat_step<V>()) {
    Pack<V> a = load<V>(x + i);
    SIMT_UNROLL for (int j = 0; j < V; ++j) a.v[j] = activate(f.kind, f.alpha, a.v[j]);
    store<V>(y + i, a);
  }
}

// The slopes of V channels; one slope for all where `shared`.
template <int V>
__device__ inline Pack<V> slopes_of(const float* __restrict__ slope, bool shared, std::int64_t channel) {
  Pack<V> s;
  SIMT_UNROLL for (int j = 0; j < V; ++j) s.v[j] = slope[shared ? 0 : channel + j];
  return s;
}

// rows: voxels of all samples.
template <int V, class T>
__global__ __launch_bounds__(kThreads) void prelu_forward_kernel(T* y, const T* x, const float* __restrict__ slope, bool shared,
                                                                 std::int64_t channels, std::int64_t rows, std::int64_t chunk) {
  const Column c = column_of_thread<V>(channels);
  if (!c.active) return;
  const Pack<V> s = slopes_of<V>(slope, shared, c.first);
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < rows ? begin + chunk : rows;
  for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
    Pack<V> a = load<V>(x + r * channels + c.first);
    SIMT_UNROLL for (int j = 0; j < V; ++j) a.v[j] = activate(ActivationKind::prelu, s.v[j], a.v[j]);
    store<V>(y + r * channels + c.first, a);
  }
}

void activation_forward(const Exec& ex, Tensor& y, const Tensor& x, const Tensor& slope, const Activation& p) {
  for_float_type(x.dtype(), "activation_forward", [&](auto zero) {
    using T = decltype(zero);
    assert(y.shape() == x.shape());
    T* out = y.data<T>();
    const T* in = x.data<T>();
    if (p.kind != ActivationKind::prelu) {
      const std::int64_t n = x.elements();
      const bool fours = in_fours(n, out, in);
      const auto activation_any = fours ? activation_forward_kernel<4, T> : activation_forward_kernel<1, T>;
      VG_LAUNCH(ex, activation_any, flat_blocks(n, fours), kThreads, 0, out, in, p, n);
      return;
    }
    const std::int64_t channels = x.shape().c(), rows = x.shape().n() * x.shape().voxels();
    assert(slope.elements() == 1 || slope.elements() == channels);
    const bool fours = in_fours(channels, out, in);
    const ColumnGrid g = column_grid(rows, channels, fours);
    const auto prelu_any = fours ? prelu_forward_kernel<4, T> : prelu_forward_kernel<1, T>;
    VG_LAUNCH(ex, prelu_any, g.grid(1), kThreads, 0, out, in, slope.data<float>(), slope.elements() == 1, channels, rows, g.chunk);
  });
}

// dx may be dy's memory.
template <int V, class T>
__global__ __launch_bounds__(kThreads) void activation_backward_kernel(T* dx, const T* dy, const T* __restrict__ x, Activation f,
                                                                       float beta, std::int64_t n) {
  for (std::int64_t i = flat_begin<V>(); i < n; i += flat_step<V>()) {
    const Pack<V> a = load<V>(x + i);
    Pack<V> g = load<V>(dy + i);
    SIMT_UNROLL for (int j = 0; j < V; ++j) g.v[j] *= activate_slope(f.kind, f.alpha, a.v[j]);
    store<V>(dx + i, g, beta);
  }
}

// dx where wanted (else null), and each block's share of dslope where wanted: partial[n, chunk, c].
template <int V, class T>
__global__ __launch_bounds__(kThreads) void prelu_backward_kernel(T* dx, const T* dy, const T* __restrict__ x,
                                                                  const float* __restrict__ slope, bool shared, float beta,
                                                                  float* __restrict__ partial, int samples, std::int64_t channels,
                                                                  std::int64_t voxels, std::int64_t chunk) {
  const Column c = column_of_thread<V>(channels);
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < voxels ? begin + chunk : voxels;
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    Sums<V> sum{};
    if (c.active) {
      const Pack<V> s = slopes_of<V>(slope, shared, c.first);
      for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
        const std::int64_t i = (n * voxels + r) * channels + c.first;
        const Pack<V> a = load<V>(x + i);
        Pack<V> g = load<V>(dy + i);
        SIMT_UNROLL for (int j = 0; j < V; ++j) {
          sum.v[j] += a.v[j] < 0.0f ? g.v[j] * a.v[j] : 0.0f;
          g.v[j] *= activate_slope(ActivationKind::prelu, s.v[j], a.v[j]);
        }
        if (dx) store<V>(dx + i, g, beta);
      }
    }
    if (!partial) continue;
    add_rows(sum, c);
    if (c.active && c.row == 0) store_sums<V>(partial + (static_cast<std::int64_t>(n) * gridDim.x + blockIdx.x) * channels + c.first, sum.v);
  }
}

void activation_backward(const Exec& ex, const Grad& dx, const Grad& dslope, const Tensor& dy, const Tensor& x, const Tensor& slope,
                         const Activation& p) {
  for_float_type(x.dtype(), "activation_backward", [&](auto zero) {
    using T = decltype(zero);
    const T *g = dy.data<T>(), *in = x.data<T>();
    T* out = data_or_null_of<T>(dx);
    if (p.kind != ActivationKind::prelu) {
      if (!out) return;
      const std::int64_t n = x.elements();
      const bool fours = in_fours(n, out, g, in);
      const auto activation_backward_any = fours ? activation_backward_kernel<4, T> : activation_backward_kernel<1, T>;
      VG_LAUNCH(ex, activation_backward_any, flat_blocks(n, fours), kThreads, 0, out, g, in, p, dx.beta, n);
      return;
    }
    if (!out && !dslope.wanted()) return;
    const std::int64_t channels = x.shape().c(), voxels = x.shape().voxels(), samples = x.shape().n();
    const bool fours = in_fours(channels, out, g, in), shared = slope.elements() == 1;
    const ColumnGrid grid = column_grid(voxels, channels, fours, kMaxChunks);
    float* partial = dslope.wanted() ? ex.scratch->reserve<float>(samples * channels * grid.chunks) : nullptr;
    const auto prelu_backward_any = fours ? prelu_backward_kernel<4, T> : prelu_backward_kernel<1, T>;
    VG_LAUNCH(ex, prelu_backward_any, grid.grid(samples), kThreads, 0, out, g, in, slope.data<float>(), shared, dx.beta, partial,
              static_cast<int>(samples), channels, voxels, grid.chunk);
    if (!partial) return;
    // One slope for all channels: its partial sums are those of every channel.
    sum_partials(ex, partial, samples, shared ? 1 : channels, (shared ? channels : 1) * std::int64_t{grid.chunks}, nullptr, nullptr,
                 dslope.data(), dslope.beta);
  });
}

}  // namespace VG_NS

VG_DEVICE_IMPL(activation_forward);
VG_DEVICE_IMPL(activation_backward);

}  // namespace vg

// Fill, add, accumulate and channel copies: one load, at most one addition, one store. Bound by memory, so all that matters is that every warp moves
// whole 128-byte lines.
#include "kernels/elementwise.h"

#include "kernels/half.cuh"

namespace vg {
namespace VG_NS {

template <int V, class T>
__global__ __launch_bounds__(kThreads) void fill_kernel(T* __restrict__ y, float value, std::int64_t n) {
  Pack<V> x;
  SIMT_UNROLL for (int j = 0; j < V; ++j) x.v[j] = value;
  for (std::int64_t i = flat_begin<V>(); i < n; i += flat_step<V>()) store<V>(y + i, x);
}

void fill(const Exec& ex, Tensor& y, const FillParams& p) {
  for_float_type(y.dtype(), "fill", [&](auto zero) {
    using T = decltype(zero);
    T* out = y.data<T>();
    const std::int64_t n = y.elements();
    const bool fours = in_fours(n, out);
    const auto fill_any = fours ? fill_kernel<4, T> : fill_kernel<1, T>;
    VG_LAUNCH(ex, fill_any, flat_blocks(n, fours), kThreads, 0, out, p.value, n);
  });
}

// No __restrict__: y may be a or b; every thread reads its elements before it writes them.
template <int V, class T>
__global__ __launch_bounds__(kThreads) void add_kernel(T* y, const T* a, const T* b, std::int64_t n) {
  for (std::int64_t i = flat_begin<V>(); i < n; i += flat_step<V>()) {
    Pack<V> sum = load<V>(a + i);
    const Pack<V> other = load<V>(b + i);
    SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] += other.v[j];
    store<V>(y + i, sum);
  }
}

void add(const Exec& ex, Tensor& y, const Tensor& a, const Tensor& b) {
  for_float_type(y.dtype(), "add", [&](auto zero) {
    using T = decltype(zero);
    assert(y.shape() == a.shape() && y.shape() == b.shape());
    T* out = y.data<T>();
    const std::int64_t n = y.elements();
    const bool fours = in_fours(n, out, a.data<T>(), b.data<T>());
    const auto add_any = fours ? add_kernel<4, T> : add_kernel<1, T>;
    VG_LAUNCH(ex, add_any, flat_blocks(n, fours), kThreads, 0, out, a.data<T>(), b.data<T>(), n);
  });
}

template <int V, class T>
__global__ __launch_bounds__(kThreads) void accumulate_kernel(T* dx, const T* dy, float beta, float scale, std::int64_t n) {
  for (std::int64_t i = flat_begin<V>(); i < n; i += flat_step<V>()) {
    Pack<V> g = load<V>(dy + i);
    SIMT_UNROLL for (int j = 0; j < V; ++j) g.v[j] *= scale;
    store<V>(dx + i, g, beta);
  }
}

void accumulate(const Exec& ex, const Grad& dx, const Tensor& dy, const ScaleParams& p) {
  for_float_type(dy.dtype(), "accumulate", [&](auto zero) {
    using T = decltype(zero);
    if (!dx.wanted()) return;
    assert(dx.shape() == dy.shape());
    const std::int64_t n = dy.elements();
    const bool fours = in_fours(n, data_of<T>(dx), dy.data<T>());
    const auto accumulate_any = fours ? accumulate_kernel<4, T> : accumulate_kernel<1, T>;
    VG_LAUNCH(ex, accumulate_any, flat_blocks(n, fours), kThreads, 0, data_of<T>(dx), dy.data<T>(), dx.beta, p.scale, n);
  });
}

template <int V, class To, class From>
__global__ __launch_bounds__(kThreads) void cast_kernel(To* __restrict__ y, const From* __restrict__ x, std::int64_t n) {
  for (std::int64_t i = flat_begin<V>(); i < n; i += flat_step<V>()) store<V>(y + i, load<V>(x + i));
}

void cast(const Exec& ex, Tensor& y, const Tensor& x) {
  assert(y.shape() == x.shape());
  for_float_type(y.dtype(), "cast", [&](auto to) {
    for_float_type(x.dtype(), "cast", [&](auto from) {
      using To = decltype(to);
      using From = decltype(from);
      To* out = y.data<To>();
      const From* in = x.data<From>();
      const std::int64_t n = x.elements();
      const bool fours = aligned16(out) && in_fours(n, in);
      const auto cast_any = fours ? cast_kernel<4, To, From> : cast_kernel<1, To, From>;
      VG_LAUNCH(ex, cast_any, flat_blocks(n, fours), kThreads, 0, out, in, n);
    });
  });
}

// rows: voxels of all samples. `to` and `from` point at their first channel.
template <int V, class T>
__global__ __launch_bounds__(kThreads) void copy_channels_kernel(T* __restrict__ to, std::int64_t to_stride, const T* __restrict__ from,
                                                                 std::int64_t from_stride, std::int64_t count, float beta,
                                                                 std::int64_t rows, std::int64_t chunk) {
  const Column c = column_of_thread<V>(count);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < rows ? begin + chunk : rows;
  for (std::int64_t r = begin + c.row; r < end; r += c.rows)
    store<V>(to + r * to_stride + c.first, load<V>(from + r * from_stride + c.first), beta);
}

void copy_channels(const Exec& ex, const Grad& to, const Tensor& from, const ChannelParams& p) {
  for_float_type(from.dtype(), "copy_channels", [&](auto zero) {
    using T = decltype(zero);
    if (!to.wanted()) return;
    const std::int64_t to_stride = to.shape().c(), from_stride = from.shape().c(), rows = from.shape().n() * from.shape().voxels();
    assert(to.shape().n() * to.shape().voxels() == rows && p.first_to + p.count <= to_stride && p.first_from + p.count <= from_stride);
    T* target = data_of<T>(to) + p.first_to;
    const T* source = from.data<T>() + p.first_from;
    const bool fours = in_fours(p.count, target, source) && to_stride % 4 == 0 && from_stride % 4 == 0;
    const ColumnGrid g = column_grid(rows, p.count, fours);
    const auto copy_channels_any = fours ? copy_channels_kernel<4, T> : copy_channels_kernel<1, T>;
    VG_LAUNCH(ex, copy_channels_any, g.grid(1), kThreads, 0, target, to_stride, source, from_stride, static_cast<std::int64_t>(p.count),
              to.beta, rows, g.chunk);
  });
}

}  // namespace VG_NS

VG_DEVICE_IMPL(fill);
VG_DEVICE_IMPL(add);
VG_DEVICE_IMPL(cast);
VG_DEVICE_IMPL(accumulate);
VG_DEVICE_IMPL(copy_channels);

}  // namespace vg

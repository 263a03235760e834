// Max pooling on the cpu: vectors over channels, tasks over rows of windows (forward, and backward when windows are disjoint) or over rows
// of the input (backward when they overlap: the winners are found once, then each row asks the windows that touch it, so no two tasks write
// the same place).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pool_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/pool.h"
#include "kernels/simd-inl.h"

#ifndef VG_POOL_CPU_SHAPES
#define VG_POOL_CPU_SHAPES
namespace vg {

// Index arithmetic of one call. Axes 0, 1, 2: D, H, W.
struct PoolShape {
  PoolShape(const Shape& x, const Shape& y, const PoolParams& p) : channels(x.c()), in{x.d(), x.h(), x.w()}, out{y.d(), y.h(), y.w()} {
    for (int a = 0; a < 3; ++a) kernel[a] = p.kernel[a], stride[a] = p.stride[a], pad[a] = p.pad[a];
  }
  std::int64_t channels, in[3], out[3], kernel[3], stride[3], pad[3];

  // Taps of window z on axis a that lie inside: [first, last)
  std::int64_t start(int a, std::int64_t z) const { return z * stride[a] - pad[a]; }
  std::int64_t first_tap(int a, std::int64_t z) const { return start(a, z) < 0 ? -start(a, z) : 0; }
  std::int64_t last_tap(int a, std::int64_t z) const { return start(a, z) + kernel[a] > in[a] ? in[a] - start(a, z) : kernel[a]; }
  // Windows on axis a that touch input u: [first, last)
  std::int64_t first_window(int a, std::int64_t u) const {
    const std::int64_t beyond = u + pad[a] - kernel[a];  // the last window that ends before u starts here or earlier
    return beyond < 0 ? 0 : beyond / stride[a] + 1;
  }
  std::int64_t last_window(int a, std::int64_t u) const {
    const std::int64_t last = (u + pad[a]) / stride[a] + 1;
    return last < out[a] ? last : out[a];
  }
};

}  // namespace vg
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// Does x beat the best so far? NaN beats every number; the first of equals stays.
HWY_INLINE MF beats(VF x, VF best) { return hn::Or(hn::Gt(x, best), hn::AndNot(hn::IsNaN(best), hn::IsNaN(x))); }

// The largest value in window (zd, zh, zw) for the lanes at channel c, and the number of the tap that holds it, counted in (d, h, w) order.
template <class P>
HWY_INLINE void winner(const PoolShape& s, const float* x, std::int64_t zd, std::int64_t zh, std::int64_t zw, std::int64_t c, P part,
                       VF& best, VF& tap) {
  best = set(-__builtin_inff());
  tap = set(-1.0f);  // a window that lies wholly in the padding has no winner
  bool first = true;
  for (std::int64_t kd = s.first_tap(0, zd); kd < s.last_tap(0, zd); ++kd)
    for (std::int64_t kh = s.first_tap(1, zh); kh < s.last_tap(1, zh); ++kh)
      for (std::int64_t kw = s.first_tap(2, zw); kw < s.last_tap(2, zw); ++kw) {
        const std::int64_t u = ((s.start(0, zd) + kd) * s.in[1] + s.start(1, zh) + kh) * s.in[2] + s.start(2, zw) + kw;
        const VF v = load(x + u * s.channels + c, part), number = set(static_cast<float>((kd * s.kernel[1] + kh) * s.kernel[2] + kw));
        const MF better = beats(v, best);
        tap = first ? number : hn::IfThenElse(better, number, tap);
        best = first ? v : hn::IfThenElse(better, v, best);
        first = false;
      }
}

// One row of outputs. x: the sample; y: the row.
void pool_row(const PoolShape& s, const float* x, float* y, std::int64_t zd, std::int64_t zh) {
  for (std::int64_t zw = 0; zw < s.out[2]; ++zw)
    for_vectors(s.channels, [&](std::int64_t c, auto part) HWY_ATTR {
      VF best, tap;
      winner(s, x, zd, zh, zw, c, part, best, tap);
      store(best, y + zw * s.channels + c, part);
    });
}

// One row of disjoint windows: every tap of a window is written, dy at the winner and 0 elsewhere.
template <bool kAdd>
HWY_INLINE void scatter_row(const PoolShape& s, const float* x, const float* dy, float* dx, std::int64_t zd, std::int64_t zh) {
  for (std::int64_t zw = 0; zw < s.out[2]; ++zw)
    for_vectors(s.channels, [&](std::int64_t c, auto part) HWY_ATTR {
      VF best, tap;
      winner(s, x, zd, zh, zw, c, part, best, tap);
      const VF g = load(dy + zw * s.channels + c, part);
      for (std::int64_t kd = s.first_tap(0, zd); kd < s.last_tap(0, zd); ++kd)
        for (std::int64_t kh = s.first_tap(1, zh); kh < s.last_tap(1, zh); ++kh)
          for (std::int64_t kw = s.first_tap(2, zw); kw < s.last_tap(2, zw); ++kw) {
            const std::int64_t u = ((s.start(0, zd) + kd) * s.in[1] + s.start(1, zh) + kh) * s.in[2] + s.start(2, zw) + kw;
            const VF number = set(static_cast<float>((kd * s.kernel[1] + kh) * s.kernel[2] + kw));
            put<kAdd>(hn::IfThenElseZero(hn::Eq(tap, number), g), dx + u * s.channels + c, part);
          }
    });
}
void pool_scatter_row(const PoolShape& s, const float* x, const float* dy, float* dx, bool add, std::int64_t zd, std::int64_t zh) {
  add ? scatter_row<true>(s, x, dy, dx, zd, zh) : scatter_row<false>(s, x, dy, dx, zd, zh);
}

// The winners of one row of windows, as numbers of taps.
void pool_winners_row(const PoolShape& s, const float* x, float* winners, std::int64_t zd, std::int64_t zh) {
  for (std::int64_t zw = 0; zw < s.out[2]; ++zw)
    for_vectors(s.channels, [&](std::int64_t c, auto part) HWY_ATTR {
      VF best, tap;
      winner(s, x, zd, zh, zw, c, part, best, tap);
      store(tap, winners + zw * s.channels + c, part);
    });
}

// One row (ud, uh) of dx from all windows that touch it. row: in[2] * channels floats, cleared by the caller. winners, dy: the sample.
void pool_gather_row(const PoolShape& s, const float* winners, const float* dy, float* row, std::int64_t ud, std::int64_t uh) {
  for (std::int64_t zd = s.first_window(0, ud); zd < s.last_window(0, ud); ++zd)
    for (std::int64_t zh = s.first_window(1, uh); zh < s.last_window(1, uh); ++zh) {
      const std::int64_t first =
          ((ud - s.start(0, zd)) * s.kernel[1] + uh - s.start(1, zh)) * s.kernel[2];  // the number of this row's first tap
      for (std::int64_t zw = 0; zw < s.out[2]; ++zw) {
        const std::int64_t at = ((zd * s.out[1] + zh) * s.out[2] + zw) * s.channels;
        for_vectors(s.channels, [&](std::int64_t c, auto part) HWY_ATTR {
          const VF g = load(dy + at + c, part), tap = load(winners + at + c, part);
          for (std::int64_t kw = s.first_tap(2, zw); kw < s.last_tap(2, zw); ++kw) {
            const VF mine = hn::IfThenElseZero(hn::Eq(tap, set(static_cast<float>(first + kw))), g);
            put<true>(mine, row + (s.start(2, zw) + kw) * s.channels + c, part);
          }
        });
      }
    }
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"
#include "kernels/elementwise.h"

namespace vg {
namespace {

HWY_EXPORT(pool_row);
HWY_EXPORT(pool_scatter_row);
HWY_EXPORT(pool_winners_row);
HWY_EXPORT(pool_gather_row);

}  // namespace

namespace cpu {

void maxpool_forward(const Exec&, Tensor& y, const Tensor& x, const PoolParams& p) {
  const PoolShape s(x.shape(), y.shape(), p);
  assert(x.shape().n() == y.shape().n() && x.shape().c() == y.shape().c());
  const std::int64_t C = s.channels, x_sample = x.shape().voxels() * C, y_row = s.out[2] * C;
  for_rows(y.shape().n() * s.out[0] * s.out[1], y_row * p.kernel[0] * p.kernel[1] * p.kernel[2], [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) HWY_DYNAMIC_DISPATCH(pool_row)
    (s, x.data<float>() + r / s.out[1] / s.out[0] * x_sample, y.data<float>() + r * y_row, r / s.out[1] % s.out[0], r % s.out[1]);
  });
}

void maxpool_backward(const Exec& ex, const Grad& dx, const Tensor& dy, const Tensor& x, const PoolParams& p) {
  if (!dx.wanted()) return;
  const PoolShape s(x.shape(), dy.shape(), p);
  const std::int64_t C = s.channels, x_sample = x.shape().voxels() * C, x_row = s.in[2] * C, dy_row = s.out[2] * C;
  bool disjoint = true, covering = true;
  for (int a = 0; a < 3; ++a) {
    disjoint = disjoint && s.kernel[a] <= s.stride[a];
    covering = covering && s.kernel[a] == s.stride[a] && s.start(a, s.out[a]) >= s.in[a];
  }
  if (disjoint) {
    if (!covering && dx.beta == 0.0f) {
      Tensor target = dx.tensor;
      cpu::fill(ex, target, {0.0f});
    }
    for_rows(dy.shape().n() * s.out[0] * s.out[1], dy_row * p.kernel[0] * p.kernel[1] * p.kernel[2],
             [&](std::int64_t begin, std::int64_t end) {
               for (std::int64_t r = begin; r < end; ++r) {
                 const std::int64_t sample = r / s.out[1] / s.out[0] * x_sample;
                 HWY_DYNAMIC_DISPATCH(pool_scatter_row)
                 (s, x.data<float>() + sample, dy.data<float>() + r * dy_row, dx.data() + sample, dx.beta != 0.0f, r / s.out[1] % s.out[0],
                  r % s.out[1]);
               }
             });
    return;
  }
  float* winners = ex.scratch->reserve<float>(dy.elements());
  for_rows(dy.shape().n() * s.out[0] * s.out[1], dy_row * p.kernel[0] * p.kernel[1] * p.kernel[2],
           [&](std::int64_t begin, std::int64_t end) {
             for (std::int64_t r = begin; r < end; ++r) HWY_DYNAMIC_DISPATCH(pool_winners_row)
             (s, x.data<float>() + r / s.out[1] / s.out[0] * x_sample, winners + r * dy_row, r / s.out[1] % s.out[0], r % s.out[1]);
           });
  for_rows(x.shape().n() * s.in[0] * s.in[1], x_row * p.kernel[0] * p.kernel[1], [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(static_cast<std::size_t>(x_row));
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t sample = r / s.in[1] / s.in[0] * s.out[0] * s.out[1] * dy_row;
      std::fill(row.begin(), row.end(), 0.0f);
      HWY_DYNAMIC_DISPATCH(pool_gather_row)
      (s, winners + sample, dy.data<float>() + sample, row.data(), r / s.in[1] % s.in[0], r % s.in[1]);
      float* to = dx.data() + r * x_row;
      for (std::int64_t i = 0; i < x_row; ++i) to[i] = dx.beta != 0.0f ? to[i] + row[i] : row[i];
    }
  });
}

}  // namespace cpu

VG_KERNEL_HOME(maxpool_forward);
VG_KERNEL_HOME(maxpool_backward);
VG_IMPL(cpu, cpu, maxpool_forward);
VG_IMPL(cpu, cpu, maxpool_backward);

}  // namespace vg
#endif

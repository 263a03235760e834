// The vector kernels of Winograd convolution: B^T on inputs, A^T on outputs, G on weights, for F(1), F(2, 3) and F(4, 3) per axis; channels
// lie along vectors. One source, compiled for every Highway target.
#include "kernels/conv_cpu_winograd.h"
#include "kernels/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv_cpu_transform.cpp"
#include "hwy/foreach_target.h"  // must precede highway.h
#include "hwy/highway.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

using cpu::WinogradKernels;
using std::int64_t;

// One axis. in: B^T d (in place of d), out: A^T m, weights: G g, of Toom and Cook's construction. F(2, 3): points 0, 1, -1, infinity.
template <int M>
struct Filter;

template <>
struct Filter<1> {
  static constexpr int kPoints = 1, kTaps = 1;
  static HWY_INLINE void in(VF (&)[1]) {}
  static HWY_INLINE void out(const VF (&m)[1], VF (&y)[1]) { y[0] = m[0]; }
  static HWY_INLINE void weights(const VF (&g)[1], VF (&u)[1]) { u[0] = g[0]; }
  static HWY_INLINE void grad(const VF (&y)[1], VF (&t)[1]) { t[0] = y[0]; }
  static HWY_INLINE void weight_grad(const VF (&u)[1], VF (&g)[1]) { g[0] = u[0]; }
};

template <>
struct Filter<2> {
  static constexpr int kPoints = 4, kTaps = 3;
  static HWY_INLINE void in(VF (&d)[4]) {
    const VF t0 = hn::Sub(d[0], d[2]), t1 = hn::Add(d[1], d[2]), t2 = hn::Sub(d[2], d[1]), t3 = hn::Sub(d[1], d[3]);
    d[0] = t0, d[1] = t1, d[2] = t2, d[3] = t3;
  }
  static HWY_INLINE void out(const VF (&m)[4], VF (&y)[2]) {
    y[0] = hn::Add(hn::Add(m[0], m[1]), m[2]);
    y[1] = hn::Sub(hn::Sub(m[1], m[2]), m[3]);
  }
  static HWY_INLINE void weights(const VF (&g)[3], VF (&u)[4]) {
    const VF half = set(0.5f), s = hn::Mul(half, hn::Add(g[0], g[2])), d = hn::Mul(half, g[1]);
    u[0] = g[0], u[1] = hn::Add(s, d), u[2] = hn::Sub(s, d), u[3] = g[2];
  }
  static HWY_INLINE void grad(const VF (&y)[2], VF (&t)[4]) {
    t[0] = y[0], t[1] = hn::Add(y[0], y[1]), t[2] = hn::Sub(y[0], y[1]), t[3] = hn::Neg(y[1]);
  }
  static HWY_INLINE void weight_grad(const VF (&u)[4], VF (&g)[3]) {
    const VF half = set(0.5f), s = hn::Mul(half, hn::Add(u[1], u[2]));
    g[0] = hn::Add(u[0], s), g[1] = hn::Mul(half, hn::Sub(u[1], u[2])), g[2] = hn::Add(u[3], s);
  }
};

// Points 0, +-a, +-b, infinity with a = sqrt(1/2), b = sqrt(2). The usual 0, +-1, +-2, infinity need no irrational numbers but round six times
// as coarsely in 3-D (measured; the sizes of the powers of the points are what matters).
template <>
struct Filter<4> {
  static constexpr int kPoints = 6, kTaps = 3;
  static constexpr float a = 0.707106781f, b = 1.414213562f;  // a a = 1/2, b b = 2, a b = 1
  static HWY_INLINE void in(VF (&d)[6]) {
    const VF half = set(0.5f), two = set(2.0f), sum = set(2.5f), va = set(a), vb = set(b);
    const VF p = hn::NegMulAdd(two, d[2], d[4]), q = hn::NegMulAdd(two, d[1], d[3]);
    const VF r = hn::NegMulAdd(half, d[2], d[4]), s = hn::NegMulAdd(half, d[1], d[3]);
    const VF t0 = hn::Add(d[0], hn::NegMulAdd(sum, d[2], d[4])), t5 = hn::Add(d[1], hn::NegMulAdd(sum, d[3], d[5]));
    d[0] = t0, d[1] = hn::MulAdd(va, q, p), d[2] = hn::NegMulAdd(va, q, p), d[3] = hn::MulAdd(vb, s, r), d[4] = hn::NegMulAdd(vb, s, r), d[5] = t5;
  }
  static HWY_INLINE void out(const VF (&m)[6], VF (&y)[4]) {
    const VF s = hn::Add(m[1], m[2]), d = hn::Sub(m[1], m[2]), u = hn::Add(m[3], m[4]), v = hn::Sub(m[3], m[4]);
    y[0] = hn::Add(m[0], hn::Add(s, u));
    y[1] = hn::MulAdd(set(a), d, hn::Mul(set(b), v));
    y[2] = hn::MulAdd(set(0.5f), s, hn::Add(u, u));
    y[3] = hn::MulAdd(set(0.5f * a), d, hn::MulAdd(set(2 * b), v, m[5]));
  }
  static HWY_INLINE void weights(const VF (&g)[3], VF (&u)[6]) {
    const VF third = set(-2.0f / 3), sixth = set(1.0f / 6);  // 1 / (2 a a (a a - b b)), 1 / (2 b b (b b - a a))
    const VF s = hn::Mul(third, hn::MulAdd(set(0.5f), g[2], g[0])), d = hn::Mul(set(-2.0f / 3 * a), g[1]);
    const VF e = hn::Mul(sixth, hn::MulAdd(set(2.0f), g[2], g[0])), f = hn::Mul(set(b / 6), g[1]);
    u[0] = g[0], u[1] = hn::Add(s, d), u[2] = hn::Sub(s, d), u[3] = hn::Add(e, f), u[4] = hn::Sub(e, f), u[5] = g[2];
  }
  static HWY_INLINE void grad(const VF (&y)[4], VF (&t)[6]) {
    const VF e = hn::MulAdd(set(0.5f), y[2], y[0]), o = hn::Mul(set(a), hn::MulAdd(set(0.5f), y[3], y[1]));
    const VF f = hn::MulAdd(set(2.0f), y[2], y[0]), p = hn::Mul(set(b), hn::MulAdd(set(2.0f), y[3], y[1]));
    t[0] = y[0], t[1] = hn::Add(e, o), t[2] = hn::Sub(e, o), t[3] = hn::Add(f, p), t[4] = hn::Sub(f, p), t[5] = y[3];
  }
  static HWY_INLINE void weight_grad(const VF (&u)[6], VF (&g)[3]) {
    const VF s = hn::Mul(set(-2.0f / 3), hn::Add(u[1], u[2])), d = hn::Mul(set(-2.0f / 3 * a), hn::Sub(u[1], u[2]));
    const VF e = hn::Mul(set(1.0f / 6), hn::Add(u[3], u[4]));
    g[0] = hn::Add(u[0], hn::Add(s, e)), g[1] = hn::MulAdd(set(b / 6), hn::Sub(u[3], u[4]), d);
    g[2] = hn::Add(u[5], hn::MulAdd(set(0.5f), s, hn::Add(e, e)));
  }
};

// One vector of channels: from `from[row]` + at, to `to` + point * t_q.
template <int MZ, int MY, class Part>
HWY_INLINE void in_point(const float* const* rows, int64_t at, Part part, float* to, int64_t t_q) {
  constexpr int Z = Filter<MZ>::kPoints, Y = Filter<MY>::kPoints;
  VF d[Z][Y];
  HWY_UNROLL(6)
  for (int y = 0; y < Y; ++y) {
    VF column[Z];
    HWY_UNROLL(6)
    for (int z = 0; z < Z; ++z) column[z] = load(rows[z * Y + y] + at, part);
    Filter<MZ>::in(column);
    HWY_UNROLL(6)
    for (int z = 0; z < Z; ++z) d[z][y] = column[z];
  }
  HWY_UNROLL(6)
  for (int z = 0; z < Z; ++z) {
    Filter<MY>::in(d[z]);
    HWY_UNROLL(6)
    for (int y = 0; y < Y; ++y) hn::StoreU(d[z][y], F(), to + y * t_q);
    to += Y * t_q;
  }
}

template <int MZ, int MY>
void in_rows(const float* const* rows, int64_t count, int64_t step, int64_t channels, float* t, int64_t t_q, int64_t t_x) {
  const int64_t whole = channels / kLanes * kLanes;
  const Part rest{static_cast<std::size_t>(channels - whole)};
  for (int64_t x = 0; x < count; ++x, t += t_x) {
    for (int64_t c = 0; c < whole; c += kLanes) in_point<MZ, MY>(rows, x * step + c, All{}, t + c, t_q);
    if (rest.lanes) in_point<MZ, MY>(rows, x * step + whole, rest, t + whole, t_q);
  }
}

template <int MZ, int MY, class Part>
HWY_INLINE void grad_point(const float* const* rows, int64_t at, Part part, float* to, int64_t t_q) {
  constexpr int Z = Filter<MZ>::kPoints, Y = Filter<MY>::kPoints;
  VF h[Z][MY];
  HWY_UNROLL(4)
  for (int y = 0; y < MY; ++y) {
    VF column[MZ], points[Z];
    HWY_UNROLL(4)
    for (int z = 0; z < MZ; ++z) column[z] = load(rows[z * MY + y] + at, part);
    Filter<MZ>::grad(column, points);
    HWY_UNROLL(6)
    for (int z = 0; z < Z; ++z) h[z][y] = points[z];
  }
  HWY_UNROLL(6)
  for (int z = 0; z < Z; ++z) {
    VF points[Y];
    Filter<MY>::grad(h[z], points);
    HWY_UNROLL(6)
    for (int y = 0; y < Y; ++y) hn::StoreU(points[y], F(), to + y * t_q);
    to += Y * t_q;
  }
}

template <int MZ, int MY>
void grad_rows(const float* const* rows, int64_t count, int64_t step, int64_t channels, float* t, int64_t t_q, int64_t t_x) {
  const int64_t whole = channels / kLanes * kLanes;
  const Part rest{static_cast<std::size_t>(channels - whole)};
  for (int64_t x = 0; x < count; ++x, t += t_x) {
    for (int64_t c = 0; c < whole; c += kLanes) grad_point<MZ, MY>(rows, x * step + c, All{}, t + c, t_q);
    if (rest.lanes) grad_point<MZ, MY>(rows, x * step + whole, rest, t + whole, t_q);
  }
}

template <int M>
void grad_columns(const float* t, const int64_t* starts, int64_t tiles, int64_t tap, int64_t width, float* v, int64_t v_p, int64_t v_tile) {
  constexpr int N = Filter<M>::kPoints;
  for (int64_t i = 0; i < tiles; ++i)
    for (int64_t c = 0; c < width; c += kLanes) {
      const float* from = t + starts[i] + c;
      VF y[M], d[N];
      HWY_UNROLL(4)
      for (int j = 0; j < M; ++j) y[j] = hn::LoadU(F(), from + j * tap);
      Filter<M>::grad(y, d);
      float* const to = v + i * v_tile + c;
      HWY_UNROLL(6)
      for (int k = 0; k < N; ++k) hn::StoreU(d[k], F(), to + k * v_p);
    }
}

template <int M>
void in_columns(const float* t, const int64_t* starts, int64_t tiles, int64_t tap, int64_t width, float* v, int64_t v_p, int64_t v_tile) {
  constexpr int N = Filter<M>::kPoints;
  for (int64_t i = 0; i < tiles; ++i)
    for (int64_t c = 0; c < width; c += kLanes) {
      const float* from = t + starts[i] + c;
      VF d[N];
      HWY_UNROLL(6)
      for (int k = 0; k < N; ++k) d[k] = hn::LoadU(F(), from + k * tap);
      Filter<M>::in(d);
      float* const to = v + i * v_tile + c;
      HWY_UNROLL(6)
      for (int k = 0; k < N; ++k) hn::StoreU(d[k], F(), to + k * v_p);
    }
}

template <int M>
void out_columns(const float* m, int64_t m_p, int64_t m_tile, const int64_t* starts, int64_t tiles, int64_t tap, int64_t width, float* r) {
  constexpr int N = Filter<M>::kPoints;
  for (int64_t i = 0; i < tiles; ++i)
    for (int64_t c = 0; c < width; c += kLanes) {
      const float* from = m + i * m_tile + c;
      VF d[N], y[M];
      HWY_UNROLL(6)
      for (int k = 0; k < N; ++k) d[k] = hn::LoadU(F(), from + k * m_p);
      Filter<M>::out(d, y);
      float* const to = r + starts[i] + c;
      HWY_UNROLL(4)
      for (int j = 0; j < M; ++j) hn::StoreU(y[j], F(), to + j * tap);
    }
}

template <int MZ, int MY>
void out_rows(const float* r, int64_t r_q, int64_t r_x, int64_t count, const float* bias, int64_t width, float* const* rows, int64_t step) {
  constexpr int Z = Filter<MZ>::kPoints, Y = Filter<MY>::kPoints;
  for (int64_t x = 0; x < count; ++x)
    for (int64_t c = 0; c < width; c += kLanes) {
      const float* from = r + x * r_x + c;
      VF h[MZ][Y];
      HWY_UNROLL(6)
      for (int y = 0; y < Y; ++y) {
        VF column[Z], sums[MZ];
        HWY_UNROLL(6)
        for (int z = 0; z < Z; ++z) column[z] = hn::LoadU(F(), from + (z * Y + y) * r_q);
        Filter<MZ>::out(column, sums);
        HWY_UNROLL(4)
        for (int z = 0; z < MZ; ++z) h[z][y] = sums[z];
      }
      const VF b = hn::LoadU(F(), bias + c);
      HWY_UNROLL(4)
      for (int z = 0; z < MZ; ++z) {
        VF sums[MY];
        Filter<MY>::out(h[z], sums);
        HWY_UNROLL(4)
        for (int y = 0; y < MY; ++y) hn::StoreU(hn::Add(sums[y], b), F(), rows[z * MY + y] + x * step + c);
      }
    }
}

template <int MZ, int MY, int MX>
void weights(const float* w, int64_t width, float* u, int64_t u_step) {
  using FZ = Filter<MZ>;
  using FY = Filter<MY>;
  using FX = Filter<MX>;
  constexpr int TZ = FZ::kTaps, TY = FY::kTaps, TX = FX::kTaps, Z = FZ::kPoints, Y = FY::kPoints, X = FX::kPoints;
  for (int64_t c = 0; c < width; c += kLanes) {
    VF plane[Z][TY][TX], row[Y][TX];
    for (int y = 0; y < TY; ++y)
      for (int x = 0; x < TX; ++x) {
        VF g[TZ], out[Z];
        for (int z = 0; z < TZ; ++z) g[z] = hn::LoadU(F(), w + ((z * TY + y) * TX + x) * width + c);
        FZ::weights(g, out);
        for (int z = 0; z < Z; ++z) plane[z][y][x] = out[z];
      }
    for (int z = 0; z < Z; ++z) {
      for (int x = 0; x < TX; ++x) {
        VF g[TY], out[Y];
        for (int y = 0; y < TY; ++y) g[y] = plane[z][y][x];
        FY::weights(g, out);
        for (int y = 0; y < Y; ++y) row[y][x] = out[y];
      }
      for (int y = 0; y < Y; ++y) {
        VF out[X];
        FX::weights(row[y], out);
        for (int x = 0; x < X; ++x) hn::StoreU(out[x], F(), u + ((z * Y + y) * X + x) * u_step + c);
      }
    }
  }
}

template <int MZ, int MY, int MX>
void weight_grad(const float* u, int64_t u_step, int64_t width, float* w, int64_t w_step) {
  using FZ = Filter<MZ>;
  using FY = Filter<MY>;
  using FX = Filter<MX>;
  constexpr int TZ = FZ::kTaps, TY = FY::kTaps, TX = FX::kTaps, Z = FZ::kPoints, Y = FY::kPoints, X = FX::kPoints;
  for (int64_t c = 0; c < width; c += kLanes) {
    VF plane[Z][TY][TX];
    for (int z = 0; z < Z; ++z) {
      VF row[TX][Y];
      for (int y = 0; y < Y; ++y) {
        VF points[X], taps[TX];
        for (int x = 0; x < X; ++x) points[x] = hn::LoadU(F(), u + ((z * Y + y) * X + x) * u_step + c);
        FX::weight_grad(points, taps);
        for (int x = 0; x < TX; ++x) row[x][y] = taps[x];
      }
      for (int x = 0; x < TX; ++x) {
        VF taps[TY];
        FY::weight_grad(row[x], taps);
        for (int y = 0; y < TY; ++y) plane[z][y][x] = taps[y];
      }
    }
    for (int y = 0; y < TY; ++y)
      for (int x = 0; x < TX; ++x) {
        VF points[Z], taps[TZ];
        for (int z = 0; z < Z; ++z) points[z] = plane[z][y][x];
        FZ::weight_grad(points, taps);
        for (int z = 0; z < TZ; ++z) hn::StoreU(taps[z], F(), w + ((z * TY + y) * TX + x) * w_step + c);
      }
  }
}

template <int MZ, int MY>
void fill(WinogradKernels& k) {
  constexpr int z = WinogradKernels::index(MZ), y = WinogradKernels::index(MY);
  k.in_rows[z][y] = in_rows<MZ, MY>;
  k.out_rows[z][y] = out_rows<MZ, MY>;
  k.grad_rows[z][y] = grad_rows<MZ, MY>;
  k.weight_grad[z][y][1] = weight_grad<MZ, MY, 2>;
  k.weight_grad[z][y][2] = weight_grad<MZ, MY, 4>;
  k.weights[z][y][1] = weights<MZ, MY, 2>;
  k.weights[z][y][2] = weights<MZ, MY, 4>;
}

}  // namespace

const WinogradKernels* make_winograd_kernels() {
  static const WinogradKernels kernels = [] {
    WinogradKernels k = {};
    fill<1, 1>(k), fill<1, 2>(k), fill<1, 4>(k), fill<2, 2>(k), fill<2, 4>(k), fill<4, 4>(k);
    k.in_columns[1] = in_columns<2>, k.in_columns[2] = in_columns<4>;
    k.grad_columns[1] = grad_columns<2>, k.grad_columns[2] = grad_columns<4>;
    k.out_columns[1] = out_columns<2>, k.out_columns[2] = out_columns<4>;
    return k;
  }();
  return &kernels;
}

}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vg {
HWY_EXPORT(make_winograd_kernels);
const cpu::WinogradKernels& cpu::winograd_kernels() { return *HWY_DYNAMIC_DISPATCH(make_winograd_kernels)(); }
}  // namespace vg
#endif

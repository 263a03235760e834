// Max pooling against a naive loop: overlapping and disjoint windows, padding, remainders, ties, NaN.
#include "kernels/pool.h"

#include <cmath>
#include <limits>

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(maxpool_forward);
VG_COVERS(maxpool_backward);

struct Case {
  Shape x;
  PoolParams p;
};
const Case kCases[] = {
    {{2, 4, 6, 8, 16}, {}},
    {{1, 5, 7, 9, 3}, {}},                                   // remainders that no window reaches
    {{2, 1, 17, 33, 1}, {{1, 2, 2}, {1, 2, 2}, {0, 0, 0}}},  // 2-D
    {{1, 1, 8, 8, 44}, {{1, 2, 2}, {1, 2, 2}, {0, 0, 0}}},
    {{1, 7, 7, 7, 5}, {{3, 3, 3}, {2, 2, 2}, {1, 1, 1}}},    // overlapping and padded
    {{2, 1, 9, 17, 33}, {{1, 3, 3}, {1, 1, 1}, {0, 1, 1}}},  // stride 1
    {{1, 6, 5, 4, 2}, {{2, 3, 1}, {3, 2, 1}, {0, 1, 0}}},    // gaps along D, overlap along H, nothing along W
    {{1, 6, 6, 6, 30}, {{2, 2, 2}, {3, 3, 3}, {1, 0, 1}}},   // disjoint, gaps, padding
    {{1, 1, 1, 1, 7}, {{1, 1, 1}, {1, 1, 1}, {0, 0, 0}}},
    {{1, 17, 17, 7, 16}, {{2, 2, 1}, {2, 2, 1}, {0, 0, 0}}},
    {{3, 2, 2, 2, 17}, {{2, 2, 2}, {2, 2, 2}, {0, 0, 0}}},
    {{1, 1, 1, 33, 5}, {{1, 1, 4}, {1, 1, 3}, {0, 0, 2}}},
};

Shape pooled(const Case& c) {
  const auto extent = [&](int a, std::int64_t in) { return (in + 2 * c.p.pad[a] - c.p.kernel[a]) / c.p.stride[a] + 1; };
  return {c.x.n(), extent(0, c.x.d()), extent(1, c.x.h()), extent(2, c.x.w()), c.x.c()};
}

// y, and for each output the index of the winner in x (-1: none).
std::vector<double> reference(const Case& c, const std::vector<float>& x, std::vector<std::int64_t>& winner) {
  const Shape s = pooled(c);
  std::vector<double> y;
  winner.clear();
  for (std::int64_t n = 0; n < s.n(); ++n)
    for (std::int64_t d = 0; d < s.d(); ++d)
      for (std::int64_t h = 0; h < s.h(); ++h)
        for (std::int64_t w = 0; w < s.w(); ++w)
          for (std::int64_t k = 0; k < s.c(); ++k) {
            float best = -std::numeric_limits<float>::infinity();
            std::int64_t at = -1;
            for (std::int64_t i = 0; i < c.p.kernel[0]; ++i)
              for (std::int64_t j = 0; j < c.p.kernel[1]; ++j)
                for (std::int64_t l = 0; l < c.p.kernel[2]; ++l) {
                  const std::int64_t a = d * c.p.stride[0] - c.p.pad[0] + i, b = h * c.p.stride[1] - c.p.pad[1] + j,
                                     e = w * c.p.stride[2] - c.p.pad[2] + l;
                  if (a < 0 || b < 0 || e < 0 || a >= c.x.d() || b >= c.x.h() || e >= c.x.w()) continue;
                  const std::int64_t u = (((n * c.x.d() + a) * c.x.h() + b) * c.x.w() + e) * c.x.c() + k;
                  if (at < 0 || x[u] > best || (std::isnan(x[u]) && !std::isnan(best))) best = x[u], at = u;
                }
            y.push_back(static_cast<double>(best));
            winner.push_back(at);
          }
  return y;
}

TEST(Pool, ForwardAndBackward) {
  for (const Case& c : kCases) {
    const Shape s = pooled(c);
    for (bool ties : {false, true}) {
      SCOPED_TRACE(to_string(c.x) + " -> " + to_string(s) + (ties ? " with ties" : ""));
      std::vector<float> x = normals(c.x.elements(), 1);
      if (ties)
        for (float& v : x) v = std::round(v);
      const std::vector<float> dy = normals(s.elements(), 2);
      std::vector<std::int64_t> winner;
      const std::vector<double> y = reference(c, x, winner);
      std::vector<double> dx(x.size());
      for (std::size_t i = 0; i < winner.size(); ++i)
        if (winner[i] >= 0) dx[winner[i]] += dy[i];
      Bits bits;
      for (const KernelRun& run : runs_of(maxpool_forward)) {
        SCOPED_TRACE(run.name);
        Tensor out = run.blank(s);
        maxpool_forward(run.exec(), out, run.put(x, c.x), c.p);
        expect_close(out, y, {.relative = 0, .trivial = ties});
        bits.same(run, out, "y");
      }
      for (const KernelRun& run : runs_of(maxpool_backward))
        for (float beta : {0.0f, 1.0f}) {
          SCOPED_TRACE(run.name + " beta " + std::to_string(beta));
          const Output grad = run.output(c.x, beta);
          maxpool_backward(run.exec(), grad.grad, run.put(dy, s), run.put(x, c.x), c.p);
          expect_close(grad, dx, {.relative = 1e-6, .trivial = true});  // at most one value in eight is not zero
          bits.same(run, grad.grad.tensor, "dx" + std::to_string(beta));
        }
      double largest = 0;
      for (double v : dx) largest = std::max(largest, std::fabs(v));
      EXPECT_GT(largest, 0.1);
    }
  }
}

TEST(Pool, NaNWinsAndTakesTheGradient) {
  const Shape shape{1, 2, 2, 2, 2}, out{1, 1, 1, 1, 2};
  std::vector<float> x = normals(16, 3);
  x[10] = std::nanf("");  // voxel 5, channel 0
  x[3] = 9;               // voxel 1, channel 1
  for (const KernelRun& run : runs_of(maxpool_forward)) {
    SCOPED_TRACE(run.name);
    Tensor y = run.blank(out);
    maxpool_forward(run.exec(), y, run.put(x, shape), PoolParams{});
    expect_close(y, {std::nan(""), 9}, {.relative = 0});
  }
  for (const KernelRun& run : runs_of(maxpool_backward)) {
    SCOPED_TRACE(run.name);
    const Output dx = run.output(shape, 0);
    maxpool_backward(run.exec(), dx.grad, run.put({2, 3}, out), run.put(x, shape), PoolParams{});
    std::vector<double> want(16);
    want[10] = 2, want[3] = 3;
    expect_close(dx, want, {.relative = 0});
  }
}

TEST(Pool, MinusInfinityEverywhereIsAValue) {
  const Shape shape{1, 2, 2, 2, 1}, out{1, 1, 1, 1, 1};
  const std::vector<float> x(8, -std::numeric_limits<float>::infinity());
  for (const KernelRun& run : runs_of(maxpool_forward)) {
    SCOPED_TRACE(run.name);
    Tensor y = run.blank(out);
    maxpool_forward(run.exec(), y, run.put(x, shape), PoolParams{});
    EXPECT_EQ(to_host<float>(y)[0], -std::numeric_limits<float>::infinity());
  }
}

}  // namespace
}  // namespace vg::test

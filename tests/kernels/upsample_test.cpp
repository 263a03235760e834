// Upsampling against naive loops, the gradient against the transpose of the forward map, and against values from PyTorch.
#include "kernels/upsample.h"

#include <algorithm>
#include <cmath>

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(upsample_forward);
VG_COVERS(upsample_backward);

struct Case {
  Shape x;
  UpsampleParams p;
};
const Case kCases[] = {
    {{2, 3, 4, 5, 16}, {}},          {{1, 1, 7, 17, 1}, {{1, 2, 2}}}, {{1, 3, 1, 7, 5}, {{3, 1, 2}}}, {{2, 1, 5, 3, 33}, {{1, 4, 3}}},
    {{1, 1, 1, 1, 7}, {}},           {{1, 2, 3, 2, 44}, {{1, 1, 1}}}, {{1, 7, 5, 3, 2}, {{2, 2, 2}}}, {{1, 1, 33, 17, 3}, {{1, 2, 2}}},
    {{1, 4, 4, 4, 30}, {{2, 3, 5}}},
};

Shape stretched(const Case& c) { return {c.x.n(), c.x.d() * c.p.factor[0], c.x.h() * c.p.factor[1], c.x.w() * c.p.factor[2], c.x.c()}; }

// weight of input v in output u along one axis
double weight(std::int64_t u, std::int64_t v, std::int64_t extent, std::int64_t factor, bool linear) {
  if (!linear) return u / factor == v;
  const double at = std::clamp((static_cast<double>(u) + 0.5) / static_cast<double>(factor) - 0.5, 0.0, static_cast<double>(extent - 1));
  return std::max(0.0, 1 - std::fabs(at - static_cast<double>(v)));
}

// body(output index, input index, weight) for every pair with a weight
template <class Body>
void for_pairs(const Case& c, const Body& body) {
  const Shape &x = c.x, y = stretched(c);
  for (std::int64_t n = 0; n < x.n(); ++n)
    for (std::int64_t d = 0; d < y.d(); ++d)
      for (std::int64_t h = 0; h < y.h(); ++h)
        for (std::int64_t w = 0; w < y.w(); ++w)
          for (std::int64_t i = std::max<std::int64_t>(0, d / c.p.factor[0] - 1); i < std::min(x.d(), d / c.p.factor[0] + 2); ++i)
            for (std::int64_t j = std::max<std::int64_t>(0, h / c.p.factor[1] - 1); j < std::min(x.h(), h / c.p.factor[1] + 2); ++j)
              for (std::int64_t k = std::max<std::int64_t>(0, w / c.p.factor[2] - 1); k < std::min(x.w(), w / c.p.factor[2] + 2); ++k) {
                const double t = weight(d, i, x.d(), c.p.factor[0], c.p.linear) * weight(h, j, x.h(), c.p.factor[1], c.p.linear) *
                                 weight(w, k, x.w(), c.p.factor[2], c.p.linear);
                for (std::int64_t ch = 0; t != 0 && ch < x.c(); ++ch)
                  body((((n * y.d() + d) * y.h() + h) * y.w() + w) * y.c() + ch, (((n * x.d() + i) * x.h() + j) * x.w() + k) * x.c() + ch,
                       t);
              }
}

TEST(Upsample, ForwardAndBackward) {
  for (Case c : kCases)
    for (bool linear : {false, true}) {
      c.p.linear = linear;
      const Shape s = stretched(c);
      SCOPED_TRACE(to_string(c.x) + " -> " + to_string(s) + (linear ? " linear" : " nearest"));
      const std::vector<float> x = normals(c.x.elements(), 1), dy = normals(s.elements(), 2);
      std::vector<double> y(dy.size()), dx(x.size());
      for_pairs(c, [&](std::int64_t out, std::int64_t in, double t) {
        y[out] += t * x[in];
        dx[in] += t * dy[out];
      });
      Bits bits;
      for (const KernelRun& run : runs_of(upsample_forward)) {
        SCOPED_TRACE(run.name);
        Tensor out = run.blank(s);
        upsample_forward(run.exec(), out, run.put(x, c.x), c.p);
        expect_close(out, y, {.relative = linear ? 1e-6 : 0});
        bits.same(run, out, "y");
      }
      for (const KernelRun& run : runs_of(upsample_backward))
        for (float beta : {0.0f, 1.0f}) {
          SCOPED_TRACE(run.name + " beta " + std::to_string(beta));
          const Output grad = run.output(c.x, beta);
          upsample_backward(run.exec(), grad.grad, run.put(dy, s), c.p);
          expect_close(grad, dx, {.relative = 1e-6});
          bits.same(run, grad.grad.tensor, "dx" + std::to_string(beta));
        }
    }
}

// torch.nn.functional.interpolate(torch.tensor([[[1., 2., 4.]]]), scale_factor=2 and 3, mode="linear", align_corners=False)
TEST(Upsample, LinearIsPyTorchs) {
  for (const KernelRun& run : runs_of(upsample_forward)) {
    SCOPED_TRACE(run.name);
    Tensor two = run.blank({1, 1, 1, 6, 1}), three = run.blank({1, 1, 1, 9, 1});
    upsample_forward(run.exec(), two, run.put({1, 2, 4}, {1, 1, 1, 3, 1}), UpsampleParams{{1, 1, 2}, true});
    expect_close(two, {1.0, 1.25, 1.75, 2.5, 3.5, 4.0}, {.relative = 1e-6});
    upsample_forward(run.exec(), three, run.put({1, 2, 4}, {1, 1, 1, 3, 1}), UpsampleParams{{1, 1, 3}, true});
    expect_close(three, {1.0, 1.0, 4.0 / 3, 5.0 / 3, 2.0, 8.0 / 3, 10.0 / 3, 4.0, 4.0}, {.relative = 1e-6});
  }
}

// A value next to infinity keeps its own: what has no weight is not read.
TEST(Upsample, InfinityStaysWhereItIs) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const KernelRun& run : runs_of(upsample_forward)) {
    SCOPED_TRACE(run.name);
    Tensor y = run.blank({1, 1, 1, 6, 1});
    upsample_forward(run.exec(), y, run.put({1, 2, inf}, {1, 1, 1, 3, 1}), UpsampleParams{{1, 1, 2}, true});
    expect_close(y, {1.0, 1.25, 1.75, inf, inf, inf}, {.relative = 1e-6});
  }
}

}  // namespace
}  // namespace vg::test

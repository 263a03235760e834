// The blur against a naive loop, its gradient against the transpose of the forward map, and values from PyTorch.
#include "kernels/blur.h"

#include <algorithm>

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(blur_forward);
VG_COVERS(blur_backward);

struct Case {
  Shape s;
  BlurParams p;
};
const Case kCases[] = {
    {{2, 1, 8, 6, 16}, {}},         {{1, 1, 7, 17, 33}, {}},        {{2, 1, 1, 1, 7}, {}},           {{1, 1, 33, 1, 5}, {}},
    {{1, 4, 5, 6, 3}, {{2, 2, 2}}}, {{1, 3, 7, 2, 4}, {{3, 1, 4}}}, {{1, 2, 3, 5, 44}, {{5, 3, 1}}},  // windows longer than the volume
    {{1, 1, 17, 16, 1}, {}},        {{3, 2, 2, 3, 6}, {{1, 1, 1}}},
};

// body(index of y, index of x), once for every tap
template <class Body>
void for_taps(const Case& c, const Body& body) {
  const Shape& s = c.s;
  const auto at = [&](std::int64_t n, std::int64_t d, std::int64_t h, std::int64_t w, std::int64_t k) {
    return (((n * s.d() + d) * s.h() + h) * s.w() + w) * s.c() + k;
  };
  const auto back = [](std::int64_t u, std::int64_t t) { return std::max<std::int64_t>(u - t, 0); };
  for (std::int64_t n = 0; n < s.n(); ++n)
    for (std::int64_t d = 0; d < s.d(); ++d)
      for (std::int64_t h = 0; h < s.h(); ++h)
        for (std::int64_t w = 0; w < s.w(); ++w)
          for (std::int64_t k = 0; k < s.c(); ++k)
            for (std::int64_t i = 0; i < c.p.kernel[0]; ++i)
              for (std::int64_t j = 0; j < c.p.kernel[1]; ++j)
                for (std::int64_t l = 0; l < c.p.kernel[2]; ++l) body(at(n, d, h, w, k), at(n, back(d, i), back(h, j), back(w, l), k));
}

TEST(Blur, ForwardAndBackward) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(to_string(c.s) + ", " + std::to_string(c.p.kernel[0]) + "x" + std::to_string(c.p.kernel[1]) + "x" +
                 std::to_string(c.p.kernel[2]));
    const std::vector<float> x = normals(c.s.elements(), 1), dy = normals(c.s.elements(), 2);
    const double share = 1.0 / (c.p.kernel[0] * c.p.kernel[1] * c.p.kernel[2]);
    std::vector<double> y(x.size()), dx(x.size());
    for_taps(c, [&](std::int64_t out, std::int64_t in) { y[out] += share * x[in], dx[in] += share * dy[out]; });
    Bits bits;
    for (const KernelRun& run : runs_of(blur_forward)) {
      SCOPED_TRACE(run.name);
      Tensor out = run.blank(c.s);
      blur_forward(run.exec(), out, run.put(x, c.s), c.p);
      expect_close(out, y, {.relative = 1e-6});
      bits.same(run, out, "y");
    }
    for (const KernelRun& run : runs_of(blur_backward))
      for (float beta : {0.0f, 1.0f}) {
        SCOPED_TRACE(run.name + " beta " + std::to_string(beta));
        const Output grad = run.output(c.s, beta);
        blur_backward(run.exec(), grad.grad, run.put(dy, c.s), c.p);
        expect_close(grad, dx, {.relative = 1e-6});
        bits.same(run, grad.grad.tensor, "dx" + std::to_string(beta));
      }
  }
}

// torch.nn.AvgPool2d(2, stride=1)(torch.nn.ReplicationPad2d((1, 0, 1, 0))(torch.tensor([[[[1., 2., 4.], [8., 16., 32.]]]])))
TEST(Blur, IsThatOfPyTorch) {
  for (const KernelRun& run : runs_of(blur_forward)) {
    SCOPED_TRACE(run.name);
    Tensor y = run.blank({1, 1, 2, 3, 1});
    blur_forward(run.exec(), y, run.put({1, 2, 4, 8, 16, 32}, {1, 1, 2, 3, 1}), BlurParams{});
    expect_close(y, {1, 1.5, 3, 4.5, 6.75, 13.5}, {.relative = 1e-6});
  }
}

}  // namespace
}  // namespace vg::test

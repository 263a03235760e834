// Pixel shuffle against a naive loop and against PyTorch's order: factors on every axis, borders that cut the last block, gradients.
#include "kernels/pixel_shuffle.h"

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(pixel_shuffle_forward);
VG_COVERS(pixel_shuffle_backward);

struct Case {
  Shape y;
  PixelShuffleParams p;
};
const Case kCases[] = {
    {{2, 1, 8, 6, 16}, {}},         {{1, 1, 7, 9, 33}, {}},                                           // the last row and column are cut
    {{3, 1, 1, 1, 5}, {}},                                                                            // three quarters are cut
    {{1, 1, 2, 17, 1}, {}},         {{1, 1, 14, 4, 96}, {}},         {{2, 4, 6, 2, 7}, {{2, 2, 2}}},  // eight taps
    {{1, 3, 5, 7, 4}, {{2, 3, 2}}},                                                                   // twelve, all axes cut
    {{1, 5, 3, 4, 3}, {{1, 1, 4}}},                                                                   // four in a row
    {{2, 1, 6, 9, 2}, {{1, 3, 3}}}, {{1, 7, 5, 3, 17}, {{1, 1, 1}}},                                  // a copy
};

Shape coarse(const Case& c) {
  const auto up = [&](std::int64_t n, int a) { return (n + c.p.factor[a] - 1) / c.p.factor[a]; };
  return {c.y.n(), up(c.y.d(), 0), up(c.y.h(), 1), up(c.y.w(), 2), c.y.c() * c.p.factor[0] * c.p.factor[1] * c.p.factor[2]};
}

// For each value of y its index in x.
std::vector<std::int64_t> sources(const Case& c) {
  const Shape x = coarse(c), &y = c.y;
  const auto& f = c.p.factor;
  std::vector<std::int64_t> from;
  for (std::int64_t n = 0; n < y.n(); ++n)
    for (std::int64_t d = 0; d < y.d(); ++d)
      for (std::int64_t h = 0; h < y.h(); ++h)
        for (std::int64_t w = 0; w < y.w(); ++w)
          for (std::int64_t k = 0; k < y.c(); ++k) {
            const std::int64_t channel = ((k * f[0] + d % f[0]) * f[1] + h % f[1]) * f[2] + w % f[2];
            from.push_back((((n * x.d() + d / f[0]) * x.h() + h / f[1]) * x.w() + w / f[2]) * x.c() + channel);
          }
  return from;
}

TEST(PixelShuffle, ForwardAndBackward) {
  for (const Case& c : kCases) {
    const Shape s = coarse(c);
    SCOPED_TRACE(to_string(s) + " -> " + to_string(c.y));
    const std::vector<float> x = normals(s.elements(), 1), dy = normals(c.y.elements(), 2);
    const std::vector<std::int64_t> from = sources(c);
    std::vector<double> y(dy.size()), dx(x.size());
    for (std::size_t i = 0; i < from.size(); ++i) y[i] = x[from[i]], dx[from[i]] += dy[i];
    Bits bits;
    for (const KernelRun& run : runs_of(pixel_shuffle_forward)) {
      SCOPED_TRACE(run.name);
      Tensor out = run.blank(c.y);
      pixel_shuffle_forward(run.exec(), out, run.put(x, s), c.p);
      expect_close(out, y, {.relative = 0});
      bits.same(run, out, "y");
    }
    for (const KernelRun& run : runs_of(pixel_shuffle_backward))
      for (float beta : {0.0f, 1.0f}) {
        SCOPED_TRACE(run.name + " beta " + std::to_string(beta));
        const Output grad = run.output(s, beta);
        pixel_shuffle_backward(run.exec(), grad.grad, run.put(dy, c.y), c.p);
        expect_close(grad, dx, {.relative = 1e-6, .trivial = c.y.voxels() == 1});
        bits.same(run, grad.grad.tensor, "dx" + std::to_string(beta));
      }
  }
}

// torch.nn.PixelShuffle(2)(torch.arange(8.).reshape(1, 8, 1, 1)): channel 0 is [[0, 1], [2, 3]], channel 1 is [[4, 5], [6, 7]]
TEST(PixelShuffle, ChannelsAreInPyTorchsOrder) {
  for (const KernelRun& run : runs_of(pixel_shuffle_forward)) {
    SCOPED_TRACE(run.name);
    Tensor y = run.blank({1, 1, 2, 2, 2});
    pixel_shuffle_forward(run.exec(), y, run.put({0, 1, 2, 3, 4, 5, 6, 7}, {1, 1, 1, 1, 8}), PixelShuffleParams{});
    expect_close(y, {0, 4, 1, 5, 2, 6, 3, 7}, {.relative = 0});
  }
}

}  // namespace
}  // namespace vg::test

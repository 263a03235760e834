// Convolution, its two gradients and channel sums against a double-precision reference written as the formulas in kernels/conv.h. The
// reference's own gradients are checked by finite differences of its forward pass.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/conv.h"
#include "tests/kernels/conv_reference.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

using namespace conv;

VG_COVERS(conv_forward);
VG_COVERS(conv_backward_data);
VG_COVERS(conv_backward_weight);
VG_COVERS(channel_sum);

// One run of a kernel by one algorithm. Where Winograd is possible, the cpu proves every tile, and the matrix unit where there is one.
struct Way {
  KernelRun run;
  ConvAlgorithm how;
  double relative;  // error that is allowed
  Exec exec() const {
    Exec ex = run.exec();
    ex.convolution = how;
    return ex;
  }
};

std::vector<Way> ways_of(const KernelBase& kernel, const Case& c, double relative) {
  using Allow = ConvAlgorithm::Allow;
  bool winograd = c.kernel[2] == 3;
  for (int a = 0; a < 3; ++a) winograd = winograd && c.stride[a] == 1 && (c.kernel[a] == 1 || c.kernel[a] == 3);
  std::vector<Way> ways;
  for (const KernelRun& run : runs_of(kernel)) {
    if (!c.on_all && run.device != kCpu) continue;
    ways.push_back({run, {Allow::direct, {}}, relative});
    if (run.device == kCpu) {
      ways.push_back({run, {Allow::fast, {-1, -1, -1}}, relative + 1.2e-5});  // three products of halves: 2^-17 each is left out
      ways.back().run.name += ", matrix unit", ways.back().run.group += ", matrix unit";
    }
    if (!winograd || run.device != kCpu) continue;
    ways.push_back({run, {Allow::fast, {2, 2, 2}}, 3 * relative});
    ways.push_back({run, {Allow::fast, {2, 4, 4}}, 4 * relative});
    ways.push_back({run, {Allow::fast, {4, 4, 4}}, 8 * relative});
    for (std::size_t i = ways.size() - 3; i < ways.size(); ++i) {
      const std::string tile = fmt::format(", F({},{},{})", ways[i].how.tile[0], ways[i].how.tile[1], ways[i].how.tile[2]);
      ways[i].run.name += tile, ways[i].run.group += tile;
    }
  }
  return ways;
}

class Convolution : public ::testing::TestWithParam<Case> {
 protected:
  const Case c = GetParam();
  const std::vector<float> x = normals(c.x_shape(c.inputs()).elements(), 1), w = normals(c.w_shape().elements(), 2), b = normals(c.o, 3),
                           dy = normals(c.y_shape().elements(), 4);
  Tensor x0(const test::KernelRun& run) const { return run.put(columns(x, c.inputs(), 0, c.i0), c.x_shape(c.i0)); }
  Tensor x1(const test::KernelRun& run) const { return c.i1 ? run.put(columns(x, c.inputs(), c.i0, c.i1), c.x_shape(c.i1)) : Tensor(); }
};

TEST_P(Convolution, Forward) {
  Doubles want = forward(c, doubles(x), doubles(w), c.bias ? doubles(b) : Doubles());
  for (double& v : want) v = apply(c.activation, v);
  Bits bits;
  for (const Way& way : ways_of(conv_forward, c, 4e-6)) {
    const KernelRun& run = way.run;
    SCOPED_TRACE(run.name);
    Tensor y = run.blank(c.y_shape());
    conv_forward(way.exec(), y, x0(run), x1(run), run.put(w, c.w_shape()), c.bias ? run.put(b) : Tensor(), c.params());
    expect_close(y, want, {.relative = way.relative});
    bits.same(run, y);
  }
}

TEST_P(Convolution, BackwardData) {
  const Doubles want = backward_data(c, doubles(dy), doubles(w), {});
  ConvParams p = c.params();
  p.activation = {};
  const bool sparse = want.size() == 1 || c.stride[0] * c.stride[1] * c.stride[2] > c.taps();
  Bits bits;
  for (const Way& way : ways_of(conv_backward_data, c, 2e-6)) {
    const KernelRun& run = way.run;
    SCOPED_TRACE(run.name);
    for (int which = 1; which <= (c.i1 ? 3 : 1); ++which)
      for (const float beta : {0.0f, 1.0f}) {
        SCOPED_TRACE("wanted " + std::to_string(which) + ", beta " + std::to_string(beta));
        Output dx0, dx1;
        if (which & 1) dx0 = run.output(c.x_shape(c.i0), beta, 5);
        if (which & 2) dx1 = run.output(c.x_shape(c.i1), beta, 6);
        conv_backward_data(way.exec(), dx0.grad, dx1.grad, run.put(dy, c.y_shape()), run.put(w, c.w_shape()), Tensor(), p);
        const std::string what = std::to_string(which) + " " + std::to_string(beta);
        if (which & 1) expect_close(dx0, columns(want, c.inputs(), 0, c.i0), {.relative = way.relative, .trivial = sparse});
        if (which & 2) expect_close(dx1, columns(want, c.inputs(), c.i0, c.i1), {.relative = way.relative, .trivial = sparse});
        if (which & 1) bits.same(run, dx0.grad.tensor, "dx0 " + what);
        if (which & 2) bits.same(run, dx1.grad.tensor, "dx1 " + what);
      }
  }
}

TEST_P(Convolution, TransposedForward) {
  if (c.i1) return;  // transposed convolution has one output
  const std::vector<float> bias = normals(c.i0, 9);
  const Doubles want = backward_data(c, doubles(dy), doubles(w), doubles(bias));
  ConvParams p = c.params();
  p.activation = {};
  Bits bits;
  for (const Way& way : ways_of(conv_backward_data, c, 4e-6)) {
    const KernelRun& run = way.run;
    SCOPED_TRACE(run.name);
    Output y = run.output(c.x_shape(c.i0), 0.0f);
    conv_backward_data(way.exec(), y.grad, Grad{}, run.put(dy, c.y_shape()), run.put(w, c.w_shape()), run.put(bias), p);
    expect_close(y, want, {.relative = way.relative});
    bits.same(run, y.grad.tensor);
  }
}

TEST_P(Convolution, BackwardWeight) {
  const Doubles want = backward_weight(c, doubles(dy), doubles(x));
  const bool sparse = c.dilation[2] * (c.kernel[2] / 2) >= c.in[2];  // outer taps meet padding only
  ConvParams p = c.params();
  p.activation = {};
  Bits bits;
  for (const Way& way : ways_of(conv_backward_weight, c, 4e-6)) {
    const KernelRun& run = way.run;
    SCOPED_TRACE(run.name);
    for (const float beta : {0.0f, 1.0f}) {
      SCOPED_TRACE("beta " + std::to_string(beta));
      Output dw = run.output(c.w_shape(), beta);
      conv_backward_weight(way.exec(), dw.grad, run.put(dy, c.y_shape()), x0(run), x1(run), p);
      expect_close(dw, want, {.relative = way.relative, .trivial = sparse || want.size() == 1});
      bits.same(run, dw.grad.tensor, "dw " + std::to_string(beta));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Convolution, ::testing::ValuesIn(cases()));

// The reference's gradients of f = sum of y * r are what finite differences of its forward pass say.
TEST(ConvolutionReference, GradientsAreThoseOfTheForwardPass) {
  for (const Case& c : {Case{1, {1, 4, 5}, 2, 1, 2, {1, 3, 2}, {1, 2, 1}, {1, 1, 2}, {0, 1, 1}},
                        Case{2, {3, 2, 3}, 1, 0, 2, {2, 1, 3}, {1, 1, 2}, {1, 1, 1}, {1, 0, 1}}}) {
    const Doubles x = doubles(normals(c.x_shape(c.inputs()).elements(), 1)), w = doubles(normals(c.w_shape().elements(), 2)),
                  r = doubles(normals(c.y_shape().elements(), 3));
    const auto f = [&](const Doubles& xs, const Doubles& ws) {
      const Doubles y = forward(c, xs, ws, {});
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * r[i];
      return sum;
    };
    const Doubles dx = numeric_gradient([&](const Doubles&v) { return f(v, w); }, x),
                  dw = numeric_gradient([&](const Doubles&v) { return f(x, v); }, w);
    const Doubles dx_want = backward_data(c, r, w, {}), dw_want = backward_weight(c, r, x);
    for (std::size_t i = 0; i < dx.size(); ++i) EXPECT_NEAR(dx[i], dx_want[i], 1e-8);
    for (std::size_t i = 0; i < dw.size(); ++i) EXPECT_NEAR(dw[i], dw_want[i], 1e-8);
  }
}

// A sample's bits do not depend on its company.
TEST(ConvolutionBatch, SampleAloneGivesTheBitsThatItGivesInABatch) {
  const Case c{3, {1, 9, 31}, 5, 4, 19, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}};
  Case one = c;
  one.n = 1;
  const std::vector<float> x0 = normals(c.x_shape(c.i0).elements(), 1), x1 = normals(c.x_shape(c.i1).elements(), 2),
                           w = normals(c.w_shape().elements(), 3), b = normals(c.o, 4);
  const auto sample = [&](const std::vector<float>& all, std::int64_t n) {
    const auto size = static_cast<std::ptrdiff_t>(all.size() / 3);
    return std::vector<float>(all.begin() + n * size, all.begin() + (n + 1) * size);
  };
  for (const test::KernelRun& run : runs_of(conv_forward)) {
    SCOPED_TRACE(run.name);
    Tensor y = run.blank(c.y_shape());
    conv_forward(run.exec(), y, run.put(x0, c.x_shape(c.i0)), run.put(x1, c.x_shape(c.i1)), run.put(w, c.w_shape()), run.put(b),
                 c.params());
    synchronize(run.device);
    const std::vector<float> together = to_host<float>(y);
    for (std::int64_t n = 0; n < c.n; ++n) {
      Tensor alone = run.blank(one.y_shape());
      conv_forward(run.exec(), alone, run.put(sample(x0, n), one.x_shape(c.i0)), run.put(sample(x1, n), one.x_shape(c.i1)),
                   run.put(w, c.w_shape()), run.put(b), c.params());
      synchronize(run.device);
      EXPECT_EQ(to_host<float>(alone), sample(together, n)) << "sample " << n;
    }
  }
}

// A batch's weight gradient is the tree of its samples' gradients, to the bit: ((0+1)+(2+3))+4.
TEST(ConvolutionBatch, WeightGradientIsTheTreeOverSamples) {
  for (const Case& c : {Case{5, {1, 33, 40}, 6, 0, 18, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},  // several chunks a sample
                        Case{7, {1, 3, 5}, 33, 0, 40, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},   // more weights than voxels
                        Case{19, {1, 16, 16}, 512, 0, 512, {1, 1, 1}}}) {                            // more sums than fit into memory
    SCOPED_TRACE(to_string(c.w_shape()));
    Case one = c;
    one.n = 1;
    const std::vector<float> x = uniforms(c.x_shape(c.i0).elements(), 1, -1, 1), dy = uniforms(c.y_shape().elements(), 2, -1, 1);
    const KernelRun run("cpu", "cpu", kCpu);
    std::vector<std::vector<float>> sums;
    for (std::int64_t n = 0; n < c.n; ++n) {
      const auto part = [&](const std::vector<float>& all) {
        const auto size = static_cast<std::ptrdiff_t>(all.size()) / c.n;
        return std::vector<float>(all.begin() + n * size, all.begin() + (n + 1) * size);
      };
      Output dw = run.output(c.w_shape(), 0.0f);
      conv_backward_weight(run.exec(), dw.grad, run.put(part(dy), one.y_shape()), run.put(part(x), one.x_shape(c.i0)), Tensor(),
                           c.params());
      sums.push_back(to_host<float>(dw.grad.tensor));
    }
    for (std::size_t step = 1; step < sums.size(); step *= 2)
      for (std::size_t n = 0; n + step < sums.size(); n += 2 * step)
        for (std::size_t i = 0; i < sums[n].size(); ++i) sums[n][i] += sums[n + step][i];
    Output all = run.output(c.w_shape(), 0.0f);
    conv_backward_weight(run.exec(), all.grad, run.put(dy, c.y_shape()), run.put(x, c.x_shape(c.i0)), Tensor(), c.params());
    EXPECT_TRUE(to_host<float>(all.grad.tensor) == sums[0]);
  }
}

TEST(ChannelSum, AgainstDoubles) {
  for (const Shape& shape : {Shape{1, 1, 1, 1, 1}, Shape{2, 1, 7, 17, 1}, Shape{3, 1, 33, 33, 17}, Shape{1, 3, 7, 17, 33},
                             Shape{5, 1, 70, 90, 16}, Shape{2, 1, 3, 5, 130}}) {
    SCOPED_TRACE(to_string(shape));
    const std::vector<float> dy = normals(shape.elements(), 1, 0.5);
    Doubles want(static_cast<std::size_t>(shape.c()));
    for (std::size_t i = 0; i < dy.size(); ++i) want[i % want.size()] += dy[i];
    Bits bits;
    for (const test::KernelRun& run : runs_of(channel_sum))
      for (const float beta : {0.0f, 1.0f}) {
        SCOPED_TRACE(run.name);
        Output db = run.output({shape.c()}, beta);
        channel_sum(run.exec(), db.grad, run.put(dy, shape));
        expect_close(db, want, {.relative = 2e-6});
        bits.same(run, db.grad.tensor, std::to_string(beta));
      }
  }
}

}  // namespace
}  // namespace vg::test

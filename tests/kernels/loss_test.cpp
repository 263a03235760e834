// The fused loss against its definition in double precision: value, class sums, gradient by finite differences; softmax. Golden values
// from PyTorch and MONAI: loss_golden.py.
#include "kernels/loss.h"

#include <cmath>
#include <limits>

#include "tests/kernels/harness.h"
#include "tests/kernels/loss_golden.h"

namespace vg::test {
namespace {

VG_COVERS(dice_ce_forward);
VG_COVERS(dice_ce_backward);
VG_COVERS(softmax);

struct Case {
  Shape x;
  DType labels;
  DiceCeParams p;
};

// One of each option in some case; C on both sides of every vector width.
const Case kCases[] = {
    {{2, 1, 3, 5, 2}, DType::u8, {}},
    {{1, 1, 7, 17, 3}, DType::i32, {.background = true}},
    {{3, 2, 3, 3, 5}, DType::u8, {.per_sample = true, .ignore = 2}},
    {{2, 1, 1, 1, 7}, DType::u8, {.background = true, .per_sample = true}},
    {{1, 3, 3, 7, 8}, DType::i32, {.ce_weight = 0.3f, .dice_weight = 2.0f, .ignore = 255}},
    {{2, 1, 7, 3, 9}, DType::u8, {.smooth_numerator = 1.0f, .smooth_denominator = 2.0f}},
    {{1, 1, 17, 3, 16}, DType::u8, {.ignore = 0}},
    {{2, 1, 5, 7, 17}, DType::u8, {.dice_weight = 0.0f}},
    {{1, 1, 3, 17, 30}, DType::i32, {.ce_weight = 0.0f, .background = true}},
    {{2, 1, 3, 5, 33}, DType::u8, {.background = true, .per_sample = true, .ignore = 7}},
    {{1, 1, 5, 7, 44}, DType::u8, {}},
    {{1, 1, 1, 2, 300}, DType::i32, {}},
};

std::vector<std::int32_t> random_labels(const Case& c, std::uint64_t seed) {
  Random random(seed, 3);
  std::vector<std::int32_t> labels(static_cast<std::size_t>(c.x.n() * c.x.voxels()));
  for (std::int32_t& l : labels) {
    l = static_cast<std::int32_t>(random.below(static_cast<std::uint32_t>(c.x.c())));
    if (c.p.ignore >= 0 && random.below(4) == 0) l = c.p.ignore;
  }
  return labels;
}

struct Loss {
  double loss, ce, dice_loss, counted;
  std::vector<double> sums;  // (N, C, 3)
};

Loss reference(const Case& c, const std::vector<double>& x, const std::vector<std::int32_t>& labels) {
  const std::int64_t N = c.x.n(), V = c.x.voxels(), C = c.x.c();
  Loss r{0, 0, 0, 0, std::vector<double>(N * C * 3)};
  for (std::int64_t v = 0; v < N * V; ++v) {
    if (labels[v] == c.p.ignore) continue;
    const double* l = x.data() + v * C;
    const double largest = *std::max_element(l, l + C);
    double total = 0;
    for (std::int64_t k = 0; k < C; ++k) total += std::exp(l[k] - largest);
    double* sums = r.sums.data() + v / V * C * 3;
    for (std::int64_t k = 0; k < C; ++k) sums[k * 3 + 1] += std::exp(l[k] - largest) / total;
    sums[labels[v] * 3] += std::exp(l[labels[v]] - largest) / total;
    sums[labels[v] * 3 + 2] += 1;
    r.ce += std::log(total) + largest - l[labels[v]];
    r.counted += 1;
  }
  if (r.counted == 0) return r;
  r.ce /= r.counted;
  double dice = 0, terms = 0;
  for (std::int64_t n = 0; n < (c.p.per_sample ? N : 1); ++n)
    for (std::int64_t k = c.p.background ? 0 : 1; k < C; ++k, ++terms) {
      double ipt[3] = {};
      for (std::int64_t m = c.p.per_sample ? n : 0; m < (c.p.per_sample ? n + 1 : N); ++m)
        for (int j = 0; j < 3; ++j) ipt[j] += r.sums[(m * C + k) * 3 + j];
      dice += (2 * ipt[0] + static_cast<double>(c.p.smooth_numerator)) / (ipt[1] + ipt[2] + static_cast<double>(c.p.smooth_denominator));
    }
  r.dice_loss = 1 - dice / terms;
  r.loss = static_cast<double>(c.p.ce_weight) * r.ce + static_cast<double>(c.p.dice_weight) * r.dice_loss;
  return r;
}

std::string text(const Case& c) { return to_string(c.x) + " " + name_of(c.labels) + " ignore " + std::to_string(c.p.ignore); }
Shape label_shape(const Shape& x) { return {x.n(), x.d(), x.h(), x.w(), 1}; }

struct Forward {
  Tensor result, sums;
};
Forward forward(const KernelRun& run, const Case& c, const std::vector<float>& x, const std::vector<std::int32_t>& labels) {
  Forward f{run.blank({4}), run.blank({c.x.n(), c.x.c(), 3})};
  dice_ce_forward(run.exec(), f.result, f.sums, run.put(x, c.x), run.put_labels(labels, label_shape(c.x), c.labels), c.p);
  return f;
}

TEST(Loss, ForwardOnOddShapes) {
  std::vector<Case> cases(std::begin(kCases), std::end(kCases));
  cases.push_back({{3, 1, 65, 67, 5}, DType::u8, {}});  // several blocks in a sample
  cases.push_back({{2, 3, 33, 33, 44}, DType::u8, {.per_sample = true}});
  for (const Case& c : cases) {
    SCOPED_TRACE(text(c));
    const std::vector<float> x = normals(c.x.elements(), 1, 0, 2);
    const std::vector<std::int32_t> labels = random_labels(c, 2);
    const Loss want = reference(c, doubles(x), labels);
    Bits bits;
    for (const KernelRun& run : runs_of(dice_ce_forward)) {
      SCOPED_TRACE(run.name);
      const Forward got = forward(run, c, x, labels);
      const std::vector<float> result = to_host<float>(got.result);
      EXPECT_NEAR(result[0], want.loss, 2e-6 * std::fabs(want.loss));
      EXPECT_NEAR(result[1], want.ce, 2e-6 * want.ce);
      EXPECT_NEAR(result[2], want.dice_loss, 2e-6);
      EXPECT_EQ(result[3], want.counted);
      expect_close(got.sums, want.sums, {.relative = 2e-6});
      bits.same(run, got.result, "result"), bits.same(run, got.sums, "sums");
    }
  }
}

TEST(Loss, GradientAgainstFiniteDifferences) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(text(c));
    const std::vector<float> x = normals(c.x.elements(), 3, 0, 2);
    const std::vector<std::int32_t> labels = random_labels(c, 4);
    const double scale = 128;
    const auto want = numeric_gradient([&](const auto& v) { return scale * reference(c, v, labels).loss; }, doubles(x));
    Bits bits;
    for (const KernelRun& run : runs_of(dice_ce_backward))
      for (float beta : {0.0f, 1.0f}) {
        SCOPED_TRACE(run.name + " beta " + std::to_string(beta));
        const Forward f = forward(run, c, x, labels);
        const Output dx = run.output(c.x, beta);
        dice_ce_backward(run.exec(), dx.grad, run.put(x, c.x), run.put_labels(labels, label_shape(c.x), c.labels), f.sums, f.result,
                         run.put({static_cast<float>(scale)}), c.p);
        expect_close(dx, want, {.relative = 1e-4});
        bits.same(run, dx.grad.tensor, std::to_string(beta));
      }
  }
}

TEST(Loss, ExtremeLogits) {
  for (std::int64_t C : {3, 20}) {
    const Case c{{2, 1, 3, 7, C}, DType::u8, {}};
    std::vector<float> x = normals(c.x.elements(), 5, 0, 1e4);
    const std::vector<std::int32_t> labels = random_labels(c, 6);
    const Loss want = reference(c, doubles(x), labels);
    for (const KernelRun& run : runs_of(dice_ce_forward)) {
      SCOPED_TRACE(run.name);
      const Forward f = forward(run, c, x, labels);
      EXPECT_NEAR(to_host<float>(f.result)[0], want.loss, 1e-6 * want.loss);
      expect_close(f.sums, want.sums, {.relative = 2e-6});
      const Output dx = run.output(c.x, 0);
      dice_ce_backward(run.exec(), dx.grad, run.put(x, c.x), run.put_labels(labels, label_shape(c.x), c.labels), f.sums, f.result,
                       run.put({1.0f}), c.p);
      for (float g : to_host<float>(dx.grad.tensor)) ASSERT_TRUE(std::isfinite(g));
    }
  }
}

// NaN in an ignored voxel must not reach anything, and its gradient is zero, not unwritten.
TEST(Loss, IgnoredVoxelsAreLeftOutOfEverything) {
  for (std::int64_t C : {3, 20}) {
    const Case c{{2, 1, 5, 7, C}, DType::u8, {.ignore = 255}};
    std::vector<float> x = normals(c.x.elements(), 7);
    std::vector<std::int32_t> labels = random_labels(c, 8);
    const Loss want = reference(c, doubles(x), labels);
    for (std::size_t v = 0; v < labels.size(); ++v)
      if (labels[v] == 255) std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(v) * C, C, std::nanf(""));
    for (const KernelRun& run : runs_of(dice_ce_forward)) {
      SCOPED_TRACE(run.name);
      const Forward f = forward(run, c, x, labels);
      EXPECT_NEAR(to_host<float>(f.result)[0], want.loss, 2e-6 * want.loss);
      const Output dx = run.output(c.x, 0);
      dice_ce_backward(run.exec(), dx.grad, run.put(x, c.x), run.put_labels(labels, label_shape(c.x), c.labels), f.sums, f.result,
                       run.put({1.0f}), c.p);
      const std::vector<float> got = to_host<float>(dx.grad.tensor);
      for (std::size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i] == 0, labels[i / C] == 255) << i << ": " << got[i];
    }
  }
}

TEST(Loss, NothingCountedIsZero) {
  for (std::int64_t C : {3, 20}) {
    const Case c{{2, 1, 1, 7, C}, DType::i32, {.ignore = 1}};
    const std::vector<std::int32_t> labels(14, 1);
    const std::vector<float> x = normals(c.x.elements(), 9);
    for (const KernelRun& run : runs_of(dice_ce_forward)) {
      SCOPED_TRACE(run.name);
      const Forward f = forward(run, c, x, labels);
      expect_close(f.result, {0, 0, 0, 0}, {.trivial = true});
      const Output dx = run.output(c.x, 0);
      dice_ce_backward(run.exec(), dx.grad, run.put(x, c.x), run.put_labels(labels, label_shape(c.x), c.labels), f.sums, f.result,
                       run.put({1.0f}), c.p);
      expect_close(dx, std::vector<double>(x.size(), 0.0), {.trivial = true});
    }
  }
}

TEST(Loss, AgreesWithPyTorchAndMonai) {
  for (const Golden& g : kGolden) {
    SCOPED_TRACE(g.name);
    const Case c{{2, 1, 2, 3, 4}, DType::u8, g.p};
    for (const KernelRun& run : runs_of(dice_ce_backward)) {
      SCOPED_TRACE(run.name);
      const Forward f = forward(run, c, kGoldenLogits, kGoldenLabels);
      EXPECT_NEAR(to_host<float>(f.result)[0], g.loss, 1e-6);
      const Output dx = run.output(c.x, 0);
      dice_ce_backward(run.exec(), dx.grad, run.put(kGoldenLogits, c.x), run.put_labels(kGoldenLabels, label_shape(c.x), c.labels), f.sums,
                       f.result, run.put({1.0f}), c.p);
      expect_close(dx, g.gradient, {.relative = 1e-5});
    }
  }
}

TEST(Softmax, OfOddShapesAndExtremes) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(to_string(c.x));
    std::vector<float> x = normals(c.x.elements(), 10, 0, 3);
    x[0] = 1e4f, x[1] = -1e4f;
    std::vector<double> want(x.size());
    const std::size_t C = static_cast<std::size_t>(c.x.c());
    for (std::size_t v = 0; v < x.size(); v += C) {
      const double largest = *std::max_element(x.begin() + v, x.begin() + v + C);
      double total = 0;
      for (std::size_t k = 0; k < C; ++k) total += want[v + k] = std::exp(x[v + k] - largest);
      for (std::size_t k = 0; k < C; ++k) want[v + k] /= total;
    }
    Bits bits;
    for (const KernelRun& run : runs_of(softmax)) {
      SCOPED_TRACE(run.name);
      Tensor y = run.blank(c.x), in_place = run.put(x, c.x);
      softmax(run.exec(), y, run.put(x, c.x));
      expect_close(y, want, {.relative = 1e-6});
      bits.same(run, y);
      softmax(run.exec(), in_place, in_place);
      bits.same(run, in_place);
    }
  }
}

}  // namespace
}  // namespace vg::test

// Normalisation against its definition in double precision: statistics that survive a large mean, the fused activation, gradients against
// finite differences of the definition, running statistics.
#include "kernels/norm.h"

#include <cmath>

#include "tests/kernels/activation_reference.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(norm_statistics);
VG_COVERS(norm_apply);
VG_COVERS(norm_backward);
VG_COVERS(norm_update_running);
VG_COVERS(norm_rstd);

struct Statistics {
  std::vector<double> mean, rstd;  // (groups, C)
};

Statistics reference_statistics(const std::vector<double>& x, const Shape& s, bool batch, double eps) {
  const std::int64_t C = s.c(), V = s.voxels(), groups = batch ? 1 : s.n(), count = batch ? s.n() * V : V;
  Statistics st{std::vector<double>(groups * C), std::vector<double>(groups * C)};
  for (std::int64_t g = 0; g < groups; ++g)
    for (std::int64_t c = 0; c < C; ++c) {
      double sum = 0, squares = 0;
      for (std::int64_t v = 0; v < count; ++v) sum += x[(g * V + v) * C + c];
      const double mean = sum / static_cast<double>(count);
      for (std::int64_t v = 0; v < count; ++v) squares += std::pow(x[(g * V + v) * C + c] - mean, 2);
      st.mean[g * C + c] = mean;
      st.rstd[g * C + c] = 1 / std::sqrt(squares / static_cast<double>(count) + eps);
    }
  return st;
}

std::vector<double> reference_apply(const std::vector<double>& x, const Shape& s, const Statistics& st, const std::vector<double>& gamma,
                                    const std::vector<double>& beta, const Activation& f) {
  const std::int64_t C = s.c(), V = s.voxels(), groups = static_cast<std::int64_t>(st.mean.size()) / C;
  std::vector<double> y(x.size());
  for (std::int64_t i = 0; i < s.elements(); ++i) {
    const std::int64_t c = i % C, g = groups == 1 ? 0 : i / C / V;
    y[i] =
        activation(f, (x[i] - st.mean[g * C + c]) * st.rstd[g * C + c] * (gamma.empty() ? 1.0 : gamma[c]) + (beta.empty() ? 0.0 : beta[c]));
  }
  return y;
}

std::vector<float> floats(const std::vector<double>& v) { return {v.begin(), v.end()}; }

struct NormShape {
  Shape shape;
  bool batch;
};
const NormShape kShapes[] = {
    {{1, 1, 1, 7, 1}, false},     {{2, 1, 7, 17, 2}, false},    {{3, 3, 5, 7, 3}, true},    {{2, 5, 1, 7, 5}, true},
    {{2, 4, 17, 17, 16}, false},  {{1, 3, 7, 33, 30}, true},    {{5, 2, 3, 17, 33}, false}, {{3, 7, 17, 33, 44}, true},
    {{2, 1, 33, 33, 320}, false}, {{2, 17, 33, 33, 16}, false},
};

TEST(Norm, StatisticsOfOddShapes) {
  for (const NormShape& k : kShapes) {
    SCOPED_TRACE(to_string(k.shape) + (k.batch ? " batch" : " instance"));
    const std::int64_t C = k.shape.c(), groups = k.batch ? 1 : k.shape.n();
    std::vector<float> x = normals(k.shape.elements(), 1);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = x[i] * (1 + static_cast<float>(i % C)) + static_cast<float>(i % C);
    const Statistics want = reference_statistics(doubles(x), k.shape, k.batch, 1e-5);
    Bits bits;
    for (const KernelRun& run : runs_of(norm_statistics)) {
      SCOPED_TRACE(run.name);
      Tensor mean = run.blank({groups, C}), rstd = run.blank({groups, C});
      norm_statistics(run.exec(), mean, rstd, run.put(x, k.shape), NormParams{});
      expect_close(mean, want.mean, {.relative = 1e-5, .floor = 1e-6, .trivial = C == 1});
      expect_close(rstd, want.rstd, {.relative = 1e-5, .trivial = C == 1});
      bits.same(run, mean, "mean"), bits.same(run, rstd, "rstd");
    }
  }
}

TEST(Norm, StatisticsSurviveALargeMean) {
  const Shape shape{2, 17, 17, 17, 5};
  const std::vector<float> x = normals(shape.elements(), 2, 1000, 1);
  for (bool batch : {false, true}) {
    const Statistics want = reference_statistics(doubles(x), shape, batch, 1e-5);
    for (const KernelRun& run : runs_of(norm_statistics)) {
      SCOPED_TRACE(run.name);
      Tensor mean = run.blank({batch ? 1 : 2, 5}), rstd = run.blank({batch ? 1 : 2, 5});
      norm_statistics(run.exec(), mean, rstd, run.put(x, shape), NormParams{});
      expect_close(mean, want.mean, {.relative = 1e-6});
      expect_close(rstd, want.rstd, {.relative = 1e-5});
    }
  }
}

// A background of exact zeros and a small bright region at the end: a shift taken from the first voxels is far from the mean.
TEST(Norm, StatisticsOfAMostlyEmptyVolume) {
  const Shape shape{1, 33, 33, 33, 3};
  std::vector<float> x(static_cast<std::size_t>(shape.elements()), 0.0f);
  const std::vector<float> bright = normals(999, 3, 5000, 10);
  std::copy(bright.begin(), bright.end(), x.end() - 999);
  const Statistics want = reference_statistics(doubles(x), shape, false, 1e-5);
  for (const KernelRun& run : runs_of(norm_statistics)) {
    SCOPED_TRACE(run.name);
    Tensor mean = run.blank({1, 3}), rstd = run.blank({1, 3});
    norm_statistics(run.exec(), mean, rstd, run.put(x, shape), NormParams{});
    expect_close(mean, want.mean, {.relative = 1e-5});
    expect_close(rstd, want.rstd, {.relative = 1e-5});
  }
}

TEST(Norm, ConstantVolumeAndSingleVoxelHaveNoVariance) {
  for (const Shape& shape : {Shape{2, 3, 17, 7, 3}, Shape{2, 1, 1, 1, 3}}) {
    std::vector<float> x(static_cast<std::size_t>(shape.elements()));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.1f * static_cast<float>(i % 3 + 1);
    for (const KernelRun& run : runs_of(norm_statistics)) {
      SCOPED_TRACE(run.name);
      Tensor mean = run.blank({2, 3}), rstd = run.blank({2, 3});
      norm_statistics(run.exec(), mean, rstd, run.put(x, shape), NormParams{});
      expect_close(mean, {0.1, 0.2, 0.3, 0.1, 0.2, 0.3}, {.relative = 1e-6});
      expect_close(rstd, std::vector<double>(6, 1 / std::sqrt(1e-5)), {.relative = 1e-6, .trivial = true});
      if (!norm_apply.implemented(run.device.kind)) continue;
      Tensor y = run.blank(shape);
      norm_apply(run.exec(), y, run.put(x, shape), mean, rstd, Tensor(), Tensor(), NormParams{});
      expect_close(y, std::vector<double>(x.size(), 0.0), {.floor = 1e-4, .trivial = true});
    }
  }
}

TEST(Norm, ApplyWithEveryActivation) {
  for (const NormShape& k : kShapes) {
    const std::int64_t C = k.shape.c(), groups = k.batch ? 1 : k.shape.n();
    if (k.shape.elements() > 200000) continue;
    const std::vector<float> x = normals(k.shape.elements(), 4), gamma = uniforms(C, 5, 0.5, 2), beta = normals(C, 6),
                             mean = normals(groups * C, 7), rstd = uniforms(groups * C, 8, 0.5, 2);
    for (const Activation& f : kActivations) {
      const bool affine = f.kind != ActivationKind::relu;  // one of them without gamma and beta
      SCOPED_TRACE(to_string(k.shape) + " activation " + std::to_string(static_cast<int>(f.kind)));
      const std::vector<double> want =
          reference_apply(doubles(x), k.shape, {doubles(mean), doubles(rstd)}, affine ? doubles(gamma) : std::vector<double>(),
                          affine ? doubles(beta) : std::vector<double>(), f);
      Bits bits;
      for (const KernelRun& run : runs_of(norm_apply)) {
        SCOPED_TRACE(run.name);
        const Tensor mu = run.put(mean, {groups, C}), r = run.put(rstd, {groups, C});
        const Tensor g = affine ? run.put(gamma) : Tensor(), b = affine ? run.put(beta) : Tensor();
        Tensor y = run.blank(k.shape), in_place = run.put(x, k.shape);
        norm_apply(run.exec(), y, run.put(x, k.shape), mu, r, g, b, NormParams{.activation = f});
        expect_close(y, want, {.relative = 2e-6, .floor = 1e-7, .trivial = f.kind == ActivationKind::relu});
        bits.same(run, y);
        norm_apply(run.exec(), in_place, in_place, mu, r, g, b, NormParams{.activation = f});
        bits.same(run, in_place);
      }
    }
  }
}

// L = sum of weight y over one forward pass in double precision; what the tape would do.
double loss_of(const std::vector<double>& x, const Shape& s, bool batch, const std::vector<double>& gamma, const std::vector<double>& beta,
               const Activation& f, const std::vector<double>& weight, const Statistics* fixed) {
  const std::vector<double> y = reference_apply(x, s, fixed ? *fixed : reference_statistics(x, s, batch, 1e-5), gamma, beta, f);
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * weight[i];
  return sum;
}

TEST(Norm, GradientsAgainstFiniteDifferences) {
  const NormShape shapes[] = {{{2, 1, 3, 5, 3}, false}, {{3, 1, 1, 7, 2}, true}, {{1, 2, 2, 3, 5}, false}, {{2, 1, 1, 3, 17}, false}};
  for (const NormShape& k : shapes)
    for (const Activation& f : kActivations)
      for (bool constant : {false, true}) {
        if (constant && !k.batch) continue;
        SCOPED_TRACE(to_string(k.shape) + " activation " + std::to_string(static_cast<int>(f.kind)) + (constant ? " constant" : ""));
        const std::int64_t C = k.shape.c(), groups = k.batch ? 1 : k.shape.n();
        std::vector<float> x = normals(k.shape.elements(), 11);
        const std::vector<float> gamma = uniforms(C, 12, 0.5, 2), beta = normals(C, 13), dy = normals(k.shape.elements(), 14);
        Statistics st = reference_statistics(doubles(x), k.shape, k.batch, 1e-5);
        if (constant) st = {doubles(normals(C, 15)), doubles(uniforms(C, 16, 0.5, 2))};
        const Statistics* fixed = constant ? &st : nullptr;
        // Kinks have no derivative: no value may lie within the reach of a finite difference.
        if (has_kink(f)) {
          bool close = true;
          for (int tries = 0; close && tries < 20; ++tries) {
            if (tries)
              x = normals(k.shape.elements(), 100 + tries), st = constant ? st : reference_statistics(doubles(x), k.shape, k.batch, 1e-5);
            close = false;
            for (double z : reference_apply(doubles(x), k.shape, st, doubles(gamma), doubles(beta), {}))
              close = close || std::fabs(z) < 1e-3;
          }
          ASSERT_FALSE(close);
        }
        const double h = 1e-4;
        const auto dx = numeric_gradient(
            [&](const auto& v) { return loss_of(v, k.shape, k.batch, doubles(gamma), doubles(beta), f, doubles(dy), fixed); }, doubles(x),
            h);
        const auto dgamma =
            numeric_gradient([&](const auto& v) { return loss_of(doubles(x), k.shape, k.batch, v, doubles(beta), f, doubles(dy), fixed); },
                             doubles(gamma), h);
        const auto dbeta =
            numeric_gradient([&](const auto& v) { return loss_of(doubles(x), k.shape, k.batch, doubles(gamma), v, f, doubles(dy), fixed); },
                             doubles(beta), h);
        Bits bits;
        for (const KernelRun& run : runs_of(norm_backward))
          for (float add : {0.0f, 1.0f}) {
            SCOPED_TRACE(run.name + " beta " + std::to_string(add));
            const Output ox = run.output(k.shape, add, 21), og = run.output({C}, add, 22), ob = run.output({C}, add, 23);
            norm_backward(run.exec(), ox.grad, og.grad, ob.grad, run.put(dy, k.shape), run.put(x, k.shape),
                          run.put(floats(st.mean), {groups, C}), run.put(floats(st.rstd), {groups, C}), run.put(gamma), run.put(beta),
                          NormParams{.activation = f, .constant = constant});
            expect_close(ox, dx, {.relative = 1e-4});
            expect_close(og, dgamma, {.relative = 1e-4});
            expect_close(ob, dbeta, {.relative = 1e-4});
            const std::string which = add ? " added" : "";
            bits.same(run, ox.grad.tensor, "dx" + which), bits.same(run, og.grad.tensor, "dgamma" + which),
                bits.same(run, ob.grad.tensor, "dbeta" + which);
          }
      }
}

// The formula of kernels/norm.h in double precision, for shapes with several blocks, where finite differences would take too long.
TEST(Norm, GradientsOfLargerShapes) {
  const Activation f{ActivationKind::leaky_relu, 0.01f};
  for (const NormShape& k : kShapes) {
    SCOPED_TRACE(to_string(k.shape) + (k.batch ? " batch" : " instance"));
    const std::int64_t C = k.shape.c(), V = k.shape.voxels(), N = k.shape.n(), groups = k.batch ? 1 : N;
    if (k.shape.elements() < 1000) continue;
    const std::vector<float> x = normals(k.shape.elements(), 31, 2, 3), dy = normals(k.shape.elements(), 32),
                             gamma = uniforms(C, 33, 0.5, 2), beta = normals(C, 34);
    Statistics st = reference_statistics(doubles(x), k.shape, k.batch, 1e-5);
    const std::vector<float> mean = floats(st.mean), rstd = floats(st.rstd);
    st = {doubles(mean), doubles(rstd)};
    std::vector<double> dgamma(C), dbeta(C), g(x.size()), h(x.size()), g_sum(groups * C), gh_sum(groups * C), dx(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t c = i % C, j = (k.batch ? 0 : i / C / V) * C + c;
      h[i] = (x[i] - st.mean[j]) * st.rstd[j];
      const double z = (x[i] - mean[j]) * (gamma[c] * rstd[j]) + beta[c];  // in floats: the kink must fall on the same side
      const double slope = static_cast<float>(z) > 0 ? 1.0 : static_cast<double>(f.alpha);
      dgamma[c] += dy[i] * slope * h[i];
      dbeta[c] += dy[i] * slope;
      g[i] = dy[i] * slope * gamma[c];
      g_sum[j] += g[i];
      gh_sum[j] += g[i] * h[i];
    }
    const double count = static_cast<double>(k.batch ? N * V : V);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t j = (k.batch ? 0 : i / C / V) * C + i % C;
      dx[i] = st.rstd[j] * (g[i] - g_sum[j] / count - h[i] * gh_sum[j] / count);
    }
    Bits bits;
    for (const KernelRun& run : runs_of(norm_backward)) {
      SCOPED_TRACE(run.name);
      Tensor mu = run.put(mean, {groups, C}), r = run.put(rstd, {groups, C});
      const Output og = run.output({C}, 0), ob = run.output({C}, 0);
      Tensor gradient = run.put(dy, k.shape);  // dx in dy's memory
      norm_backward(run.exec(), Grad{gradient, 0}, og.grad, ob.grad, gradient, run.put(x, k.shape), mu, r, run.put(gamma), run.put(beta),
                    NormParams{.activation = f});
      expect_close(gradient, dx, {.relative = 1e-4});
      expect_close(og, dgamma, {.relative = 1e-5});
      expect_close(ob, dbeta, {.relative = 1e-5});
      bits.same(run, gradient, "dx"), bits.same(run, og.grad.tensor, "dgamma"), bits.same(run, ob.grad.tensor, "dbeta");
    }
  }
}

// Forward may overwrite x where backward can find it again: the gradients are those from x, up to rounding.
TEST(Norm, GradientsFromTheOutput) {
  for (const NormShape& k : kShapes)
    for (const Activation& f : {Activation{ActivationKind::leaky_relu, 0.01f}, Activation{ActivationKind::identity, 0.01f}})
      for (bool affine : {false, true}) {
        if (k.shape.elements() < 100 || k.shape.elements() > 200000) continue;
        SCOPED_TRACE(to_string(k.shape) + (k.batch ? " batch" : " instance") + (affine ? " affine" : ""));
        const std::int64_t C = k.shape.c(), groups = k.batch ? 1 : k.shape.n();
        const std::vector<float> x = normals(k.shape.elements(), 61, 2, 3), dy = normals(k.shape.elements(), 62);
        std::vector<float> gamma = uniforms(C, 63, 0.3, 2), beta = normals(C, 64);
        for (std::int64_t c = 0; c < C; c += 2) gamma[c] = -gamma[c];
        const Statistics st = reference_statistics(doubles(x), k.shape, k.batch, 1e-5);
        Bits bits;
        for (const KernelRun& run : runs_of(norm_backward)) {
          SCOPED_TRACE(run.name);
          const Tensor mu = run.put(floats(st.mean), {groups, C}), r = run.put(floats(st.rstd), {groups, C});
          const Tensor g = affine ? run.put(gamma) : Tensor(), b = affine ? run.put(beta) : Tensor();
          const Tensor input = run.put(x, k.shape);
          Tensor y = run.blank(k.shape);
          norm_apply(run.exec(), y, input, mu, r, g, b, NormParams{.activation = f});
          const Output dx = run.output(k.shape, 0), dgamma = run.output({C}, 0), dbeta = run.output({C}, 0), dx1 = run.output(k.shape, 0),
                       dgamma1 = run.output({C}, 0), dbeta1 = run.output({C}, 0);
          norm_backward(run.exec(), dx.grad, dgamma.grad, dbeta.grad, run.put(dy, k.shape), input, mu, r, g, b, NormParams{.activation = f});
          norm_backward(run.exec(), dx1.grad, dgamma1.grad, dbeta1.grad, run.put(dy, k.shape), y, mu, r, g, b,
                        NormParams{.activation = f, .from_output = true});
          expect_close(dx1, doubles(to_host<float>(dx.grad.tensor)), {.relative = 1e-5});
          expect_close(dgamma1, doubles(to_host<float>(dgamma.grad.tensor)), {.relative = 1e-5, .floor = 1e-4});
          expect_close(dbeta1, doubles(to_host<float>(dbeta.grad.tensor)), {.relative = 1e-5, .floor = 1e-4});
          bits.same(run, dx1.grad.tensor, "dx"), bits.same(run, dgamma1.grad.tensor, "dgamma"), bits.same(run, dbeta1.grad.tensor, "dbeta");
        }
      }
}

TEST(Norm, GradientsThatAreNotWanted) {
  const Shape shape{2, 1, 5, 7, 3};
  const std::vector<float> x = normals(shape.elements(), 41), dy = normals(shape.elements(), 42), mean = normals(6, 43),
                           rstd = uniforms(6, 44, 0.5, 2);
  for (const KernelRun& run : runs_of(norm_backward)) {
    SCOPED_TRACE(run.name);
    const auto call = [&](Grad dx, Grad dgamma, Grad dbeta) {
      norm_backward(run.exec(), dx, dgamma, dbeta, run.put(dy, shape), run.put(x, shape), run.put(mean, {2, 3}), run.put(rstd, {2, 3}),
                    Tensor(), Tensor(), NormParams{});
    };
    Bits bits;
    const Output a = run.output(shape, 0), b = run.output({3}, 0), c = run.output({3}, 0), a1 = run.output(shape, 0),
                 b1 = run.output({3}, 0), c1 = run.output({3}, 0);
    call(a.grad, b.grad, c.grad);
    call(a1.grad, {}, {});
    call({}, b1.grad, {});
    call({}, {}, c1.grad);
    bits.same(run, a.grad.tensor, "dx"), bits.same(run, a1.grad.tensor, "dx");
    bits.same(run, b.grad.tensor, "dgamma"), bits.same(run, b1.grad.tensor, "dgamma");
    bits.same(run, c.grad.tensor, "dbeta"), bits.same(run, c1.grad.tensor, "dbeta");
  }
}

TEST(Norm, RunningStatistics) {
  const std::vector<float> mean = normals(17, 51), variance = uniforms(17, 52, 0.1, 3), old_mean = normals(17, 53),
                           old_variance = uniforms(17, 54, 0.1, 3);
  const RunningParams p{.momentum = 0.1f, .eps = 1e-5f, .count = 21};
  std::vector<float> rstd;
  std::vector<double> want_mean, want_variance, want_rstd;
  for (int c = 0; c < 17; ++c) {
    rstd.push_back(static_cast<float>(1 / std::sqrt(variance[c] + 1e-5)));
    want_mean.push_back(0.9 * old_mean[c] + 0.1 * mean[c]);
    want_variance.push_back(0.9 * old_variance[c] + 0.1 * variance[c] * 21 / 20);
    want_rstd.push_back(1 / std::sqrt(old_variance[c] + 1e-5));
  }
  Bits bits;
  for (const KernelRun& run : runs_of(norm_update_running)) {
    SCOPED_TRACE(run.name);
    Tensor m = run.put(old_mean), v = run.put(old_variance);
    norm_update_running(run.exec(), m, v, run.put(mean, {1, 17}), run.put(rstd, {1, 17}), p);
    expect_close(m, want_mean, {.relative = 1e-6});
    expect_close(v, want_variance, {.relative = 1e-6});
    bits.same(run, m, "mean"), bits.same(run, v, "variance");
  }
  for (const KernelRun& run : runs_of(norm_rstd)) {
    SCOPED_TRACE(run.name);
    Tensor r = run.blank({17});
    norm_rstd(run.exec(), r, run.put(old_variance), p);
    expect_close(r, want_rstd, {.relative = 1e-6});
    bits.same(run, r, "rstd");
  }
}

}  // namespace
}  // namespace vg::test

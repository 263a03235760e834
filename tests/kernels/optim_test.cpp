// Optimizer steps over several steps against PyTorch's formulas in double precision; the gradient norm and its clipping factor.
#include "kernels/optim.h"

#include <cmath>

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(adam_step);
VG_COVERS(sgd_step);
VG_COVERS(sum_squares);
VG_COVERS(clip_scale);

std::vector<float> scalars(double lr, double beta1, double beta2, int step, double scale) {
  std::vector<float> s(kOptimScalars);
  s[kLearningRate] = static_cast<float>(lr), s[kBias1] = static_cast<float>(1 - std::pow(beta1, step));
  s[kBias2] = static_cast<float>(1 - std::pow(beta2, step)), s[kGradScale] = static_cast<float>(scale),
  s[kBeta1] = static_cast<float>(beta1);
  return s;
}

TEST(Optim, Adam) {
  for (std::int64_t count : {1, 7, 17, 33, 4096, 70001})
    for (bool decoupled : {true, false})
      for (double decay : {0.0, 0.1}) {
        SCOPED_TRACE(std::to_string(count) + (decoupled ? " decoupled" : " L2") + " decay " + std::to_string(decay));
        const AdamParams p{.weight_decay = static_cast<float>(decay), .decoupled = decoupled};
        const double scale = 0.5, beta1 = 0.9f, beta2 = 0.999f;  // as the kernel gets them
        const std::vector<float> start = normals(count, 1);
        std::vector<double> w = doubles(start), m(w.size()), v(w.size());
        for (int step = 1; step <= 3; ++step) {
          const std::vector<float> g = normals(count, 10 + step);
          const double lr = 0.01 / step;
          for (std::size_t i = 0; i < w.size(); ++i) {
            const double gradient = scale * g[i] + (decoupled ? 0 : decay * w[i]);
            m[i] = beta1 * m[i] + (1 - beta1) * gradient;
            v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
            w[i] = w[i] * (decoupled ? 1 - lr * decay : 1) -
                   lr / (1 - std::pow(beta1, step)) * m[i] / (std::sqrt(v[i] / (1 - std::pow(beta2, step))) + 1e-8);
          }
        }
        Bits bits;
        for (const KernelRun& run : runs_of(adam_step)) {
          SCOPED_TRACE(run.name);
          Tensor tw = run.put(start), tm = run.put(std::vector<float>(start.size())), tv = run.put(std::vector<float>(start.size()));
          for (int step = 1; step <= 3; ++step)
            adam_step(run.exec(), tw, tm, tv, run.put(normals(count, 10 + step)), run.put(scalars(0.01 / step, beta1, beta2, step, scale)),
                      p);
          expect_close(tw, w, {.relative = 1e-6});
          expect_close(tm, m, {.relative = 1e-6});
          expect_close(tv, v, {.relative = 1e-6});
          bits.same(run, tw, "w"), bits.same(run, tm, "m"), bits.same(run, tv, "v");
        }
      }
}

TEST(Optim, Sgd) {
  for (std::int64_t count : {1, 7, 17, 33, 4096, 70001})
    for (bool nesterov : {true, false})
      for (double momentum : {0.0, 0.9}) {
        SCOPED_TRACE(std::to_string(count) + (nesterov ? " nesterov" : "") + " momentum " + std::to_string(momentum));
        const SgdParams p{.weight_decay = 0.1f, .nesterov = nesterov};
        const double scale = 2, lr = 0.05;
        const std::vector<float> start = normals(count, 1);
        std::vector<double> w = doubles(start), m(w.size());
        for (int step = 1; step <= 3; ++step) {
          const std::vector<float> g = normals(count, 20 + step);
          for (std::size_t i = 0; i < w.size(); ++i) {
            const double gradient = scale * g[i] + 0.1 * w[i];
            m[i] = momentum * m[i] + gradient;
            w[i] -= lr * (nesterov ? gradient + momentum * m[i] : m[i]);
          }
        }
        Bits bits;
        for (const KernelRun& run : runs_of(sgd_step)) {
          SCOPED_TRACE(run.name);
          Tensor tw = run.put(start), tm = run.put(std::vector<float>(start.size()));
          for (int step = 1; step <= 3; ++step)
            sgd_step(run.exec(), tw, tm, run.put(normals(count, 20 + step)), run.put(scalars(lr, momentum, 0, step, scale)), p);
          expect_close(tw, w, {.relative = 1e-6});
          expect_close(tm, m, {.relative = 1e-6});
          bits.same(run, tw, "w"), bits.same(run, tm, "m");
        }
      }
}

TEST(Optim, SumSquares) {
  for (std::int64_t count : {1, 7, 17, 33, 1025, 65536, 65537, 500001}) {
    const std::vector<float> x = normals(count, 3, 0.1, 1);
    double want = 0;
    for (float v : x) want += static_cast<double>(v) * static_cast<double>(v);
    Bits bits;
    for (const KernelRun& run : runs_of(sum_squares)) {
      SCOPED_TRACE(run.name + " " + std::to_string(count));
      Tensor out = run.blank({1});
      sum_squares(run.exec(), out, run.put(x));
      expect_close(out, {want}, {.relative = 2e-6});
      bits.same(run, out);
    }
  }
}

TEST(Optim, SumSquaresShowsAnyNaN) {
  for (std::size_t at : {std::size_t{0}, std::size_t{33333}, std::size_t{70000}}) {
    std::vector<float> x = normals(70001, 4);
    x[at] = std::nanf("");
    for (const KernelRun& run : runs_of(sum_squares)) {
      Tensor out = run.put({1.0f});
      sum_squares(run.exec(), out, run.put(x));
      EXPECT_TRUE(std::isnan(to_host<float>(out)[0])) << run.name;
    }
  }
}

TEST(Optim, ClipScale) {
  struct Case {
    float sum, max_norm, inverse_scale;
    double want;
  };
  const Case cases[] = {{100.0f, 0.0f, 0.5f, 0.5},                // no clipping
                        {100.0f, 2.0f, 1.0f, 2 / (10 + 1e-6)},    // norm 10
                        {100.0f, 20.0f, 1.0f, 1.0},               // within
                        {1e6f, 1.0f, 0.01f, 0.01 / (10 + 1e-6)},  // the norm is measured without the loss scale
                        {0.0f, 1.0f, 0.25f, 0.25}};
  for (const Case& c : cases)
    for (const KernelRun& run : runs_of(clip_scale)) {
      SCOPED_TRACE(run.name);
      Tensor s = run.put({1, 2, 3, 4, 5, 0});
      clip_scale(run.exec(), s, run.put({c.sum}), ClipParams{c.max_norm, c.inverse_scale});
      expect_close(s, {1, 2, 3, c.want, 5, 0}, {.relative = 1e-7});
    }
}

}  // namespace
}  // namespace vg::test

// Activations against double precision: values and gradients, PyTorch's conventions at 0, extreme inputs, the parametric slope's gradient.
#include "kernels/activation.h"

#include "tests/kernels/activation_reference.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(activation_forward);
VG_COVERS(activation_backward);

constexpr Activation kPrelu{ActivationKind::prelu, 0.0f};
const Shape kShapes[] = {{1, 1, 1, 1, 7},  {2, 1, 7, 17, 1},   {1, 3, 5, 7, 2},   {2, 1, 3, 7, 3},    {1, 7, 1, 1, 5},
                         {3, 1, 7, 7, 16}, {1, 1, 33, 17, 30}, {2, 3, 7, 17, 33}, {1, 1, 17, 17, 44}, {2, 7, 33, 33, 5}};

std::string text(const Activation& p) { return "activation " + std::to_string(static_cast<int>(p.kind)); }

TEST(Activation, ForwardOnOddShapes) {
  for (const Shape& shape : kShapes)
    for (const Activation& f : kActivations) {
      SCOPED_TRACE(to_string(shape) + " " + text(f));
      const std::vector<float> x = normals(shape.elements(), 1, 0, 3);
      std::vector<double> want;
      for (float v : x) want.push_back(activation(f, static_cast<double>(v)));
      Bits bits;
      for (const KernelRun& run : runs_of(activation_forward)) {
        SCOPED_TRACE(run.name);
        Tensor y = run.blank(shape), in_place = run.put(x, shape);
        activation_forward(run.exec(), y, run.put(x, shape), Tensor(), f);
        expect_close(y, want, {.relative = 1e-6});
        bits.same(run, y);
        activation_forward(run.exec(), in_place, in_place, Tensor(), f);
        bits.same(run, in_place);
      }
    }
}

// dy f'(x), f' by a finite difference of the definition with dy = 1 per element.
TEST(Activation, BackwardAgainstFiniteDifferences) {
  for (const Shape& shape : kShapes)
    for (const Activation& f : kActivations) {
      SCOPED_TRACE(to_string(shape) + " " + text(f));
      std::vector<float> x = normals(shape.elements(), 2, 0, 2);
      for (float& v : x)
        if (std::fabs(v) < 0.01f) v = 0.5f;  // away from the kink
      const std::vector<float> dy = normals(shape.elements(), 3);
      std::vector<double> want;
      for (std::size_t i = 0; i < x.size(); ++i)
        want.push_back(dy[i] * numeric_gradient([&](const auto& v) { return activation(f, v[0]); }, {static_cast<double>(x[i])})[0]);
      Bits bits;
      for (const KernelRun& run : runs_of(activation_backward)) {
        SCOPED_TRACE(run.name);
        for (float beta : {0.0f, 1.0f}) {
          const Output dx = run.output(shape, beta);
          activation_backward(run.exec(), dx.grad, Grad{}, run.put(dy, shape), run.put(x, shape), Tensor(), f);
          expect_close(dx, want, {.relative = 2e-6});
          bits.same(run, dx.grad.tensor, beta ? "added" : "written");
        }
        const Tensor gradient = run.put(dy, shape);  // dx in dy's memory
        activation_backward(run.exec(), Grad{gradient, 0}, Grad{}, gradient, run.put(x, shape), Tensor(), f);
        bits.same(run, gradient, "written");
      }
    }
}

TEST(Activation, SlopesAtZeroAreThoseOfPyTorch) {
  const Shape shape{1, 1, 1, 1, 2};
  const auto slope_at_zero = [](ActivationKind kind) {
    switch (kind) {
      case ActivationKind::identity: return 1.0;
      case ActivationKind::relu: return 0.0;
      case ActivationKind::leaky_relu: return 0.3;
      case ActivationKind::elu: return 0.3;
      case ActivationKind::sigmoid: return 0.25;
      case ActivationKind::prelu: return 0.7;
      default: return 0.5;
    }
  };
  for (ActivationKind kind :
       {ActivationKind::identity, ActivationKind::relu, ActivationKind::leaky_relu, ActivationKind::elu, ActivationKind::gelu,
        ActivationKind::gelu_tanh, ActivationKind::silu, ActivationKind::sigmoid, ActivationKind::prelu})
    for (const KernelRun& run : runs_of(activation_backward)) {
      SCOPED_TRACE(run.name + " " + text({kind}));
      const Output dx = run.output(shape, 0);
      const Tensor slope = kind == ActivationKind::prelu ? run.put({0.7f}) : Tensor();
      activation_backward(run.exec(), dx.grad, Grad{}, run.put({1.0f, 3.0f}, shape), run.put({0.0f, -0.0f}, shape), slope,
                          Activation{kind, 0.3f});
      expect_close(dx, {slope_at_zero(kind), 3 * slope_at_zero(kind)}, {.relative = 1e-6, .floor = 1e-7, .trivial = true});
    }
}

TEST(Activation, ExtremeInputs) {
  const std::vector<float> x = {-1e4f, 1e4f, -200.0f, 200.0f, -88.0f, 88.0f, -1e-6f, 1e-6f, -20.0f, 20.0f, -1e30f, 3e-39f, std::nanf("")};
  const Shape shape{1, 1, 1, 1, static_cast<std::int64_t>(x.size())};
  for (const Activation& f : kActivations) {
    std::vector<double> want;
    for (float v : x) want.push_back(activation(f, static_cast<double>(v)));
    for (const KernelRun& run : runs_of(activation_forward)) {
      SCOPED_TRACE(run.name + " " + text(f));
      Tensor y = run.blank(shape);
      activation_forward(run.exec(), y, run.put(x, shape), Tensor(), f);
      const std::vector<float> got = to_host<float>(y);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (std::isnan(want[i])) {
          EXPECT_TRUE(std::isnan(got[i])) << x[i] << " -> " << got[i];
        } else {
          EXPECT_NEAR(static_cast<double>(got[i]), want[i], 1e-6 * std::fabs(want[i]) + 1e-5) << x[i];
        }
      }
    }
    for (const KernelRun& run : runs_of(activation_backward)) {
      SCOPED_TRACE(run.name + " " + text(f));
      const Output dx = run.output(shape, 0);
      activation_backward(run.exec(), dx.grad, Grad{}, run.put(std::vector<float>(x.size(), 1.0f), shape), run.put(x, shape), Tensor(), f);
      const std::vector<float> got = to_host<float>(dx.grad.tensor);
      for (std::size_t i = 0; i + 3 < x.size(); ++i)  // up to 20: what training can meet
        EXPECT_TRUE(std::isfinite(got[i]) && std::fabs(got[i]) < 1.6f) << x[i] << " -> " << got[i];
    }
  }
}

// A relative bound near zero, where exp(x) - 1 and 1 + erf(x) would cancel.
TEST(Activation, SmallInputsKeepTheirDigits) {
  std::vector<float> x;
  for (int i = 0; i < 64; ++i) x.push_back((i % 2 ? -1.0f : 1.0f) * std::pow(10.0f, -6.0f + static_cast<float>(i) * 0.1f));
  const Shape shape{1, 1, 1, 4, 16};
  for (const Activation& f : kActivations)
    for (const KernelRun& run : runs_of(activation_forward)) {
      SCOPED_TRACE(run.name + " " + text(f));
      Tensor y = run.blank(shape);
      activation_forward(run.exec(), y, run.put(x, shape), Tensor(), f);
      const std::vector<float> got = to_host<float>(y);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double want = activation(f, static_cast<double>(x[i]));
        EXPECT_NEAR(static_cast<double>(got[i]), want, 1e-6 * std::fabs(want) + 1e-38) << x[i];
      }
    }
}

TEST(Activation, ParametricRelu) {
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.push_back({2, 17, 33, 33, 5});  // several blocks in a sample
  for (const Shape& shape : shapes)
    for (bool shared : {false, true}) {
      SCOPED_TRACE(to_string(shape) + (shared ? " one slope" : " slope per channel"));
      const std::int64_t slopes = shared ? 1 : shape.c();
      std::vector<float> x = normals(shape.elements(), 4);
      for (float& v : x)
        if (std::fabs(v) < 0.01f) v = -0.5f;
      const std::vector<float> dy = normals(shape.elements(), 5), slope = uniforms(slopes, 6, -0.5, 1);
      std::vector<double> y, dx, dslope(static_cast<std::size_t>(slopes));
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t c = shared ? 0 : i % shape.c();
        y.push_back(activation(kPrelu, x[i], slope[c]));
        dx.push_back(dy[i] * static_cast<double>(x[i] > 0 ? 1.0f : slope[c]));
        dslope[c] += static_cast<double>(dy[i]) * std::min(0.0f, x[i]);
      }
      Bits bits;
      for (const KernelRun& run : runs_of(activation_forward)) {
        SCOPED_TRACE(run.name);
        Tensor out = run.blank(shape);
        activation_forward(run.exec(), out, run.put(x, shape), run.put(slope), kPrelu);
        expect_close(out, y, {.relative = 1e-6});
        bits.same(run, out, "y");
      }
      for (const KernelRun& run : runs_of(activation_backward))
        for (float beta : {0.0f, 1.0f}) {
          SCOPED_TRACE(run.name + " beta " + std::to_string(beta));
          const Output ox = run.output(shape, beta), os = run.output({slopes}, beta);
          activation_backward(run.exec(), ox.grad, os.grad, run.put(dy, shape), run.put(x, shape), run.put(slope), kPrelu);
          expect_close(ox, dx, {.relative = 1e-6});
          expect_close(os, dslope, {.relative = 1e-5});
          bits.same(run, ox.grad.tensor, "dx" + std::to_string(beta)), bits.same(run, os.grad.tensor, "dslope" + std::to_string(beta));
        }
      for (const KernelRun& run : runs_of(activation_backward)) {  // dx in dy's memory, with the slope's gradient
        SCOPED_TRACE(run.name);
        const Tensor gradient = run.put(dy, shape);
        const Output os = run.output({slopes}, 0);
        activation_backward(run.exec(), Grad{gradient, 0}, os.grad, gradient, run.put(x, shape), run.put(slope), kPrelu);
        bits.same(run, gradient, "dx" + std::to_string(0.0f)), bits.same(run, os.grad.tensor, "dslope" + std::to_string(0.0f));
      }
    }
}

}  // namespace
}  // namespace vg::test

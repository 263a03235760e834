// Convolution and its gradients on bf16 and f16 tensors (tensor cores): against the double reference on inputs and weights that are rounded as the kernel
// rounds them, so that what remains is the rounding of the result and the order of a float sum.
#include "kernels/conv.h"
#include "tests/kernels/conv_reference.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

using namespace conv;

// Beside the shapes that all implementations share: several boxes along every axis, chunks of both sources, tiles of columns, shared-out chunks, rows of three
// taps with and without dilation, strides whose classes differ in their taps.
const std::vector<Case>& half_cases() {
  using K = ActivationKind;
  static const std::vector<Case> list = [] {
    std::vector<Case> all;
    for (const Case& c : cases())
      if (c.on_all && c.dilation[2] < 16) all.push_back(c);
    const std::vector<Case> more = {
        {1, {5, 10, 17}, 32, 0, 32, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
        {2, {3, 6, 9}, 40, 24, 72, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {-1, -1, -1}, {K::elu, 1.0f}},
        {1, {4, 9, 11}, 96, 0, 24, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
        {1, {9, 9, 10}, 16, 8, 48, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}, {1, 1, 1}},
        {1, {8, 10, 12}, 64, 0, 40, {1, 1, 1}},
        {1, {5, 9, 10}, 24, 0, 32, {3, 3, 3}, {1, 1, 1}, {2, 4, 3}, {2, 4, 3}},
        {1, {5, 9, 20}, 32, 0, 16, {3, 1, 3}, {2, 1, 3}, {3, 1, 2}, {3, 0, 2}},
        {1, {1, 12, 17}, 24, 0, 66, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
        {1, {1, 5, 9}, 8, 0, 36, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
    };
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }();
  return list;
}

// Every third shape with f16: what differs between them is one instruction.
std::vector<std::tuple<Case, DType>> cases_and_types() {
  std::vector<std::tuple<Case, DType>> all;
  for (std::size_t i = 0; i < half_cases().size(); ++i) all.emplace_back(half_cases()[i], i % 3 == 0 ? DType::f16 : DType::bf16);
  return all;
}

std::vector<KernelRun> device_runs(const KernelBase& kernel) {
  std::vector<KernelRun> runs;
  for (const KernelRun& run : runs_of(kernel))
    if (run.device != kCpu) runs.push_back(run);
  return runs;
}

class HalfConvolution : public ::testing::TestWithParam<std::tuple<Case, DType>> {
 protected:
  const Case c = std::get<0>(GetParam());
  const DType type = std::get<1>(GetParam());
  const std::vector<float> x = rounded(normals(c.x_shape(c.inputs()).elements(), 1), type), w = normals(c.w_shape().elements(), 2),
                           w_rounded = rounded(w, type), b = normals(c.o, 3), dy = rounded(normals(c.y_shape().elements(), 4), type);
  const double relative = 1.001 * precision_of(type) + 4e-6;
  Tensor x0(const KernelRun& run) const { return run.put(columns(x, c.inputs(), 0, c.i0), c.x_shape(c.i0), type); }
  Tensor x1(const KernelRun& run) const { return c.i1 ? run.put(columns(x, c.inputs(), c.i0, c.i1), c.x_shape(c.i1), type) : Tensor(); }
};

TEST_P(HalfConvolution, Forward) {
  Doubles want = forward(c, doubles(x), doubles(w_rounded), c.bias ? doubles(b) : Doubles());
  for (double& v : want) v = apply(c.activation, v);
  Bits bits;
  for (const KernelRun& run : device_runs(conv_forward)) {
    SCOPED_TRACE(run.name);
    Tensor y = run.blank(c.y_shape(), type);
    conv_forward(run.exec(), y, x0(run), x1(run), run.put(w, c.w_shape()), c.bias ? run.put(b) : Tensor(), c.params());
    expect_close(y, want, {.relative = relative});
    bits.same(run, y);
  }
}

TEST_P(HalfConvolution, BackwardData) {
  const std::vector<float> bias = normals(c.inputs(), 9);
  const Doubles want = backward_data(c, doubles(dy), doubles(w_rounded), {}),
                want_bias = backward_data(c, doubles(dy), doubles(w_rounded), doubles(bias));
  ConvParams p = c.params();
  p.activation = {};
  const bool sparse = want.size() == 1 || c.stride[0] * c.stride[1] * c.stride[2] > c.taps();
  Bits bits;
  for (const KernelRun& run : device_runs(conv_backward_data)) {
    SCOPED_TRACE(run.name);
    for (int which = 1; which <= (c.i1 ? 3 : 1); ++which) {
      const float beta = which == 1 ? 0.0f : 1.0f;
      SCOPED_TRACE("wanted " + std::to_string(which) + ", beta " + std::to_string(beta));
      Output dx0, dx1;
      if (which & 1) dx0 = run.output(c.x_shape(c.i0), beta, 5, type);
      if (which & 2) dx1 = run.output(c.x_shape(c.i1), beta, 6, type);
      conv_backward_data(run.exec(), dx0.grad, dx1.grad, run.put(dy, c.y_shape(), type), run.put(w, c.w_shape()), Tensor(), p);
      if (which & 1) expect_close(dx0, columns(want, c.inputs(), 0, c.i0), {.relative = relative, .trivial = sparse});
      if (which & 2) expect_close(dx1, columns(want, c.inputs(), c.i0, c.i1), {.relative = relative, .trivial = sparse});
      if (which & 1) bits.same(run, dx0.grad.tensor, "dx0 " + std::to_string(which));
      if (which & 2) bits.same(run, dx1.grad.tensor, "dx1 " + std::to_string(which));
    }
    if (c.i1) continue;
    Output y = run.output(c.x_shape(c.i0), 0.0f, 7, type);  // transposed convolution
    conv_backward_data(run.exec(), y.grad, Grad{}, run.put(dy, c.y_shape(), type), run.put(w, c.w_shape()), run.put(bias), p);
    expect_close(y, want_bias, {.relative = relative, .trivial = sparse});
  }
}

TEST_P(HalfConvolution, BackwardWeight) {
  const Doubles want = backward_weight(c, doubles(dy), doubles(x));
  const bool sparse = c.dilation[2] * (c.kernel[2] / 2) >= c.in[2];  // outer taps meet padding only
  ConvParams p = c.params();
  p.activation = {};
  Bits bits;
  for (const KernelRun& run : device_runs(conv_backward_weight))
    for (const float beta : {0.0f, 1.0f}) {
      if (beta != 0.0f && c.w_shape().elements() > 10000) continue;  // time
      SCOPED_TRACE(run.name + ", beta " + std::to_string(beta));
      Output dw = run.output(c.w_shape(), beta);
      conv_backward_weight(run.exec(), dw.grad, run.put(dy, c.y_shape(), type), x0(run), x1(run), p);
      expect_close(dw, want, {.relative = 4e-6, .trivial = sparse || want.size() == 1});
      bits.same(run, dw.grad.tensor, "dw " + std::to_string(beta));
    }
}

INSTANTIATE_TEST_SUITE_P(All, HalfConvolution, ::testing::ValuesIn(cases_and_types()));

// Where shared memory holds the halo of no box, the forward pass refuses, and weight gradients are made without tensor cores.
TEST(HalfConvolutionWithoutRoom, WeightGradientIsRight) {
  for (const DType type : {DType::bf16, DType::f16})
    for (const std::int64_t inputs : {2, 5, 8}) {
      const Case c{1, {9, 17, 20}, inputs, 0, 7, {5, 5, 5}, {3, 3, 3}, {1, 1, 1}, {2, 2, 2}};
      const std::vector<float> x = rounded(normals(c.x_shape(c.i0).elements(), 1), type),
                               dy = rounded(normals(c.y_shape().elements(), 2), type);
      const Doubles want = backward_weight(c, doubles(dy), doubles(x));
      Bits bits;
      for (const KernelRun& run : device_runs(conv_backward_weight)) {
        SCOPED_TRACE(run.name);
        const Tensor on_device = run.put(x, c.x_shape(c.i0), type);
        Tensor y = run.blank(c.y_shape(), type);
        EXPECT_THROW(conv_forward(run.exec(), y, on_device, Tensor(), run.blank(c.w_shape()), Tensor(), c.params()), Error);
        Output dw = run.output(c.w_shape(), 0.0f);
        conv_backward_weight(run.exec(), dw.grad, run.put(dy, c.y_shape(), type), on_device, Tensor(), c.params());
        expect_close(dw, want, {.relative = 4e-6});
        bits.same(run, dw.grad.tensor);
      }
    }
}

// A sample's bits do not depend on its company.
TEST(HalfConvolutionBatch, SampleAloneGivesTheBitsThatItGivesInABatch) {
  const Case c{3, {1, 9, 31}, 40, 8, 24, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}};
  Case one = c;
  one.n = 1;
  const auto sample = [&](const std::vector<float>& all, std::int64_t n) {
    const auto size = static_cast<std::ptrdiff_t>(all.size() / 3);
    return std::vector<float>(all.begin() + n * size, all.begin() + (n + 1) * size);
  };
  const std::vector<float> x0 = normals(c.x_shape(c.i0).elements(), 1), x1 = normals(c.x_shape(c.i1).elements(), 2),
                           w = normals(c.w_shape().elements(), 3);
  for (const KernelRun& run : device_runs(conv_forward)) {
    Tensor y = run.blank(c.y_shape(), DType::bf16), alone = run.blank(one.y_shape(), DType::bf16);
    conv_forward(run.exec(), y, run.put(x0, c.x_shape(c.i0), DType::bf16), run.put(x1, c.x_shape(c.i1), DType::bf16),
                 run.put(w, c.w_shape()), Tensor(), c.params());
    const std::vector<float> together = floats_of(y);
    for (int n = 0; n < 3; ++n) {
      conv_forward(run.exec(), alone, run.put(sample(x0, n), one.x_shape(c.i0), DType::bf16),
                   run.put(sample(x1, n), one.x_shape(c.i1), DType::bf16), run.put(w, c.w_shape()), Tensor(), c.params());
      EXPECT_EQ(floats_of(alone), sample(together, n)) << run.name << ", sample " << n;
    }
  }
}

}  // namespace
}  // namespace vg::test

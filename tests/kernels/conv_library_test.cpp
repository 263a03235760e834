// Convolutions by the library (cuDNN, cuBLASLt) on a real GPU: all types against the double reference, on inputs and weights that are rounded as the library
// is given them. What it refuses, our own kernels compute. tests/cuda/convolution_test.cpp does the same to the door in front of it, without a GPU.
#include <algorithm>
#include <cmath>

#include "kernels/conv.h"
#include "tensor/device.h"
#include "tests/kernels/conv_reference.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

using namespace conv;

struct Arithmetic {
  DType type;
  bool tf32 = false;  // factors in f32 may be rounded to 10 bits
};
void PrintTo(const Arithmetic& a, std::ostream* os) { *os << (a.tf32 ? "tf32" : name_of(a.type)); }

class LibraryConvolution : public ::testing::TestWithParam<Arithmetic> {
 protected:
  void SetUp() override {
    for (const KernelRun& one : runs_of(conv_forward))
      if (one.device.kind == DeviceKind::cuda) run_.push_back(one);
    std::string why = "no GPU";
    if (run_.empty() || convolution_library(run_[0].device, &why).empty()) GTEST_SKIP() << why;
  }
  Exec exec() const {
    Exec ex = run().exec();
    ex.convolution.engine = ConvAlgorithm::Engine::library;
    ex.convolution.tf32 = GetParam().tf32;
    return ex;
  }
  const KernelRun& run() const { return run_[0]; }
  std::vector<KernelRun> run_;
};

// f32 sums may be computed as Winograd does; a half is rounded once for each input's sum and once more for what is added to it.
TEST_P(LibraryConvolution, AllPasses) {
  const auto [type, tf32] = GetParam();
  const auto within = [&, type = type, tf32 = tf32](int roundings) { return 2e-5 + (tf32 ? 0x1p-10 : type == DType::f32 ? 0.0 : roundings * precision_of(type)); };
  int coarser = 0;  // forward passes whose result tells that factors were rounded
  for (const Case& c : cases()) {
    if (!c.on_all) continue;
    SCOPED_TRACE(::testing::PrintToString(c));
    const std::vector<float> x = rounded(normals(c.x_shape(c.inputs()).elements(), 1), type), w = normals(c.w_shape().elements(), 2),
                             w_rounded = rounded(w, type), b = normals(c.o, 3), dy = rounded(normals(c.y_shape().elements(), 4), type);
    const Tensor x0 = run().put(columns(x, c.inputs(), 0, c.i0), c.x_shape(c.i0), type),
                 x1 = c.i1 ? run().put(columns(x, c.inputs(), c.i0, c.i1), c.x_shape(c.i1), type) : Tensor(), weights = run().put(w, c.w_shape()),
                 gradient = run().put(dy, c.y_shape(), type);
    Doubles want = forward(c, doubles(x), doubles(w_rounded), c.bias ? doubles(b) : Doubles());
    for (double& v : want) v = apply(c.activation, v);
    Tensor y = run().blank(c.y_shape(), type);
    conv_forward(exec(), y, x0, x1, weights, c.bias ? run().put(b) : Tensor(), c.params());
    expect_close(y, want, {.relative = within(c.i1 ? 3 : 2), .trivial = true});
    if (tf32) {
      const std::vector<float> got = floats_of(y);
      double most = 0.0, error = 0.0;
      for (std::size_t i = 0; i < got.size(); ++i) most = std::max(most, std::fabs(want[i])), error = std::max(error, std::fabs(got[i] - want[i]));
      coarser += error > 4e-5 * most;
    }

    ConvParams p = c.params();
    p.activation = {};
    const Doubles back = backward_data(c, doubles(dy), doubles(w_rounded), {});
    Output dx0 = run().output(c.x_shape(c.i0), 1.0f, 5, type), dx1;
    if (c.i1) dx1 = run().output(c.x_shape(c.i1), 0.0f, 6, type);
    conv_backward_data(exec(), dx0.grad, dx1.grad, gradient, weights, Tensor(), p);
    expect_close(dx0, columns(back, c.inputs(), 0, c.i0), {.relative = within(2), .trivial = true});
    if (c.i1) expect_close(dx1, columns(back, c.inputs(), c.i0, c.i1), {.relative = within(1), .trivial = true});

    Output dw = run().output(c.w_shape(), 1.0f);
    conv_backward_weight(exec(), dw.grad, gradient, x0, x1, p);
    expect_close(dw, backward_weight(c, doubles(dy), doubles(x)), {.relative = within(1), .trivial = true});
  }
  EXPECT_EQ(coarser > 0, tf32) << "tf32 that nobody uses is no faster";
}

INSTANTIATE_TEST_SUITE_P(All, LibraryConvolution, ::testing::Values(Arithmetic{DType::f32}, Arithmetic{DType::f32, true}, Arithmetic{DType::bf16}, Arithmetic{DType::f16}));

}  // namespace
}  // namespace vg::test

// Outputs of more than 32 MiB are written around the caches (kernels/simd-inl.h). The same work in place, or added to zeros, takes the
// ordinary stores: the bits must be equal. On the cpu alone; the sim would take minutes.
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "kernels/pixel_shuffle.h"
#include "kernels/window.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

const Shape kShape{1, 1, 257, 3001, 11};  // 33.9 MB, no extent a multiple of a vector

std::vector<KernelRun> cpu_runs(const KernelBase& kernel) {
  std::vector<KernelRun> runs;
  for (const KernelRun& run : runs_of(kernel))
    if (run.device == kCpu && run.threads == 2) runs.push_back(run);
  return runs;
}

class BigOutputs : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::vector<float> values(static_cast<std::size_t>(kShape.elements()));
    std::uint32_t state = 1;
    for (float& v : values) v = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-22f - 2.0f;
    x = new Tensor(from_host(values, kShape));
    zero = new Tensor(zeros(kShape, DType::f32, kCpu));
  }
  static void TearDownTestSuite() { delete x, delete zero; }
  static inline Tensor *x, *zero;
};

TEST_F(BigOutputs, Activation) {
  const Activation elu{ActivationKind::elu, 1.0f};
  for (const KernelRun& run : cpu_runs(activation_forward)) {
    Bits bits;
    Tensor y = run.blank(kShape), in_place = copy_to(*x, kCpu);
    activation_forward(run.exec(), y, *x, Tensor(), elu);
    activation_forward(run.exec(), in_place, in_place, Tensor(), elu);
    bits.same(run, in_place), bits.same(run, y);
    Tensor dx = run.blank(kShape), dy = copy_to(*x, kCpu);
    activation_backward(run.exec(), Grad{dx, 0}, Grad{}, dy, *x, Tensor(), elu);
    activation_backward(run.exec(), Grad{dy, 0}, Grad{}, dy, *x, Tensor(), elu);
    bits.same(run, dy, "dx"), bits.same(run, dx, "dx");
  }
}

TEST_F(BigOutputs, Elementwise) {
  for (const KernelRun& run : cpu_runs(add)) {
    Bits bits;
    Tensor y = run.blank(kShape), in_place = copy_to(*x, kCpu);
    add(run.exec(), y, *x, *x);
    add(run.exec(), in_place, in_place, *x);
    bits.same(run, in_place), bits.same(run, y);
    Tensor filled = run.blank(kShape), copied = run.blank(kShape);
    fill(run.exec(), filled, FillParams{0.0f});
    bits.same(run, *zero, "fill"), bits.same(run, filled, "fill");
    accumulate(run.exec(), Grad{copied, 0}, *x, ScaleParams{1.0f});
    bits.same(run, *x, "copy"), bits.same(run, copied, "copy");
  }
}

TEST_F(BigOutputs, ConvolutionOnTheMatrixUnit) {
  Shape out = kShape;
  out[4] = 5;
  const Shape weights{5, kShape.c(), 1, 3, 3};
  const Tensor dy = from_host(uniforms(out.elements(), 1, -1, 1), out), w = from_host(uniforms(weights.elements(), 2, -1, 1), weights);
  ConvParams p;
  p.pad[1] = p.pad[2] = 1;
  for (const KernelRun& run : cpu_runs(conv_backward_data)) {
    Exec ex = run.exec();
    std::fill_n(ex.convolution.tile, 3, std::int8_t{-1});
    Bits bits;
    Tensor dx = run.blank(kShape), added = copy_to(*zero, kCpu);
    conv_backward_data(ex, Grad{dx, 0}, Grad{}, dy, w, Tensor(), p);
    conv_backward_data(ex, Grad{added, 1}, Grad{}, dy, w, Tensor(), p);
    bits.same(run, added), bits.same(run, dx);
  }
}

TEST_F(BigOutputs, PixelShuffle) {
  const Shape fine{1, 1, 514, 1022, 16}, coarse{1, 1, 257, 511, 64};
  const PixelShuffleParams p{.factor = {1, 2, 2}};
  const Tensor from = from_host(uniforms(coarse.elements(), 1, -1, 1), coarse);
  for (const KernelRun& run : cpu_runs(pixel_shuffle_forward)) {
    Bits bits;
    Tensor y = run.blank(fine), back = run.blank(coarse);
    pixel_shuffle_forward(run.exec(), y, from, p);
    pixel_shuffle_backward(run.exec(), Grad{back, 0}, y, p);
    bits.same(run, from), bits.same(run, back);
  }
}

TEST_F(BigOutputs, Norm) {
  const std::int64_t C = kShape.c();
  const NormParams p{.activation = {ActivationKind::leaky_relu, 0.01f}};
  for (const KernelRun& run : cpu_runs(norm_apply)) {
    Bits bits;
    Tensor mean = run.blank({1, C}), rstd = run.blank({1, C}), y = run.blank(kShape), in_place = copy_to(*x, kCpu);
    norm_statistics(run.exec(), mean, rstd, *x, p);
    norm_apply(run.exec(), y, *x, mean, rstd, Tensor(), Tensor(), p);
    norm_apply(run.exec(), in_place, in_place, mean, rstd, Tensor(), Tensor(), p);
    bits.same(run, in_place), bits.same(run, y);
    Tensor dx = run.blank(kShape);
    norm_backward(run.exec(), Grad{dx, 0}, Grad{}, Grad{}, y, *x, mean, rstd, Tensor(), Tensor(), p);
    norm_backward(run.exec(), Grad{in_place, 0}, Grad{}, Grad{}, in_place, *x, mean, rstd, Tensor(), Tensor(), p);
    bits.same(run, in_place, "dx"), bits.same(run, dx, "dx");
  }
}

TEST_F(BigOutputs, Loss) {
  const Shape label_shape{kShape.n(), kShape.d(), kShape.h(), kShape.w(), 1};
  for (const KernelRun& run : cpu_runs(dice_ce_backward)) {
    Bits bits;
    Tensor y = run.blank(kShape), in_place = copy_to(*x, kCpu);
    softmax(run.exec(), y, *x);
    softmax(run.exec(), in_place, in_place);
    bits.same(run, in_place), bits.same(run, y);
    Tensor labels = run.blank(label_shape, DType::u8), result = run.blank({4}), sums = run.blank({1, kShape.c(), 3}),
           added = copy_to(*zero, kCpu);
    Tensor none;
    decide(run.exec(), labels, none, none, *x, Tensor(), DecideParams{});
    dice_ce_forward(run.exec(), result, sums, *x, labels, DiceCeParams{});
    dice_ce_backward(run.exec(), Grad{y, 0}, *x, labels, sums, result, run.put({1.0f}), DiceCeParams{});
    dice_ce_backward(run.exec(), Grad{added, 1}, *x, labels, sums, result, run.put({1.0f}), DiceCeParams{});
    bits.same(run, added, "dlogits"), bits.same(run, y, "dlogits");
  }
}

}  // namespace
}  // namespace vg::test

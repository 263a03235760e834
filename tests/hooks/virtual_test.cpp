// Index arithmetic beyond 2^31 elements, without the memory: tensors are address space (pages appear where something is written), and of each launch only
// the first blocks, some between and the last run. Bounds are watched; the last elements must be right.
#include <sys/mman.h>

#include "kernels/activation.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/intensity.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "kernels/pool.h"
#include "kernels/resample.h"
#include "kernels/sim/hooks/hooks.h"
#include "kernels/upsample.h"
#include "kernels/window.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

class Virtual : public ::testing::Test {
 protected:
  void SetUp() override { simt::hooks::sample_blocks(3); }
  void TearDown() override {
    simt::hooks::sample_blocks(0);
    for (const auto& [data, bytes] : mapped_) {
      simt::hooks::allow_virtual(data, 0);
      ::munmap(data, bytes);
    }
  }
  Tensor space(Shape shape, DType type = DType::f32) {
    const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * static_cast<std::size_t>(size_of(type));
    void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    EXPECT_NE(data, MAP_FAILED);
    simt::hooks::allow_virtual(data, bytes);
    mapped_.emplace_back(data, bytes);
    return wrap(data, shape, type, kSim);
  }
  static float& last(Tensor& t, std::int64_t before = 0) { return t.data<float>()[t.elements() - 1 - before]; }
  Exec exec() const { return run_.exec(); }

 private:
  KernelRun run_{"sim", "sim", kSim};
  std::vector<std::pair<void*, std::size_t>> mapped_;
};

const Shape kBig{1, 512, 512, 512, 17};       // 2.28e9 elements, not a multiple of four channels
const Shape kBigFours{1, 512, 512, 514, 16};  // 2.16e9, by fours
static_assert(512ll * 512 * 512 * 17 > (1ll << 31) && 512ll * 512 * 514 * 16 > (1ll << 31));

TEST_F(Virtual, Elementwise) {
  for (const Shape& shape : {kBig, kBigFours}) {
    Tensor a = space(shape), b = space(shape), y = space(shape);
    last(a) = 3.0f, last(b) = 4.0f;
    add(exec(), y, a, b);
    EXPECT_EQ(last(y), 7.0f);
    accumulate(exec(), Grad{y, 1.0f}, a, ScaleParams{2.0f});
    EXPECT_EQ(last(y), 13.0f);
    copy_channels(exec(), Grad{y, 0.0f}, b, ChannelParams{4, 4, 12});
    EXPECT_EQ(last(y, shape.c() - 16), last(b, shape.c() - 16));
    last(a) = -2.0f;
    activation_forward(exec(), y, a, Tensor(), Activation{ActivationKind::leaky_relu, 0.5f});
    EXPECT_EQ(last(y), -1.0f);
  }
}

TEST_F(Virtual, NormAndSoftmax) {
  for (const Shape& shape : {kBig, kBigFours}) {
    const std::int64_t c = shape.c();
    Tensor x = space(shape), y = space(shape), labels = space({1, shape.d(), shape.h(), shape.w(), 1}, DType::u8);
    Tensor mean = zeros({1, c}, DType::f32, kSim), rstd = from_host(std::vector<float>(static_cast<std::size_t>(c), 0.5f), {1, c}, kSim);
    last(x) = 6.0f;
    norm_apply(exec(), y, x, mean, rstd, Tensor(), Tensor(), NormParams{});
    EXPECT_EQ(last(y), 3.0f);
    Tensor none;
    decide(exec(), labels, none, none, x, Tensor(), DecideParams{});
    EXPECT_EQ(labels.data<std::uint8_t>()[labels.elements() - 1], c - 1);
    softmax(exec(), y, x);
    EXPECT_NEAR(last(y), std::exp(6.0) / (std::exp(6.0) + static_cast<double>(c - 1)), 1e-5);
  }
}

TEST_F(Virtual, PoolAndUpsample) {
  for (const Shape& shape : {kBig, kBigFours}) {
    Tensor x = space(shape), half = space({1, shape.d() / 2, shape.h() / 2, shape.w() / 2, shape.c()});
    last(x) = 5.0f;
    PoolParams pool;
    maxpool_forward(exec(), half, x, pool);
    EXPECT_EQ(last(half), 5.0f);
    last(half) = 9.0f;
    upsample_forward(exec(), x, half, UpsampleParams{});
    EXPECT_EQ(last(x), 9.0f);
  }
}

TEST_F(Virtual, ResampleAndIntensity) {
  for (const Shape& shape : {kBig, kBigFours}) {
    const Shape one = {1, shape.d(), shape.h(), shape.w(), 1};
    Tensor x = space(shape), y = space(shape), from = space(one, DType::u8), to = space(one, DType::u8);
    ResampleParams p;
    for (int a = 0; a < 3; ++a) p.centre[a] = static_cast<double>(shape[a + 1] - 1) / 2;
    last(x) = 3.0f, from.data<std::uint8_t>()[from.elements() - 1] = 7;
    for (const bool bent : {false, true}) {
      resample(exec(), y, to, x, from, bent ? zeros({1, 4, 4, 4, 3}, DType::f32, kSim) : Tensor(), Tensor(), p);
      EXPECT_EQ(last(y), 3.0f);
      EXPECT_EQ(to.data<std::uint8_t>()[to.elements() - 1], 7);
      last(y) = 0.0f;
    }
    vary_intensity(exec(), x, IntensityParams{.contrast = 2.0f, .brightness = 1.0f});
    EXPECT_EQ(last(x), 7.0f);
  }
}

TEST_F(Virtual, Convolution) {
  for (const std::int64_t channels : {17, 16}) {
    const Shape shape = channels == 17 ? kBig : kBigFours, weights{channels, channels, 1, 1, 1};
    Tensor x = space(shape), y = space(shape);
    Tensor w = from_host(std::vector<float>(static_cast<std::size_t>(channels * channels), 2.0f), weights, kSim);
    last(x) = 3.0f;
    conv_forward(exec(), y, x, Tensor(), w, Tensor(), ConvParams{});
    EXPECT_EQ(last(y), 6.0f);
    Tensor dx = space(shape);
    conv_backward_data(exec(), Grad{dx, 0.0f}, Grad{}, y, w, Tensor(), ConvParams{});
    EXPECT_EQ(last(dx), static_cast<float>(12 * channels));
  }
}

TEST_F(Virtual, ConvolutionOfHalves) {
  // 16 channels: other counts are padded to multiples of eight in scratch memory, which would be real.
  Tensor x = space(kBigFours, DType::bf16), y = space(kBigFours, DType::bf16);
  Tensor w = from_host(std::vector<float>(256, 2.0f), {16, 16, 1, 1, 1}, kSim);
  x.data<bf16>()[x.elements() - 1] = bf16::from(3.0f);
  conv_forward(exec(), y, x, Tensor(), w, Tensor(), ConvParams{});
  EXPECT_EQ(static_cast<float>(y.data<bf16>()[y.elements() - 1]), 6.0f);
}

}  // namespace
}  // namespace vg::test

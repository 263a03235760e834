// Convolutions by the (fake) library against our own kernels, on the fake runtime in strict mode: every pass and type, shapes that the library takes as they
// are, shapes that must be padded for it, and shapes that it refuses.
#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/conv.h"
#include "kernels/scratch.h"
#include "tests/cuda/device.h"

namespace vg::test {
namespace {

using Engine = ConvAlgorithm::Engine;

struct Case {
  const char* what;
  Shape x;
  std::int64_t second, outputs;  // channels of a second input (0: none), output channels
  int kernel[3], stride, dilation, pad[3];
  bool wide = false;  // the library refuses it: our own kernels compute it, and the bits are theirs
  bool refused(DType type) const { return wide || (type == DType::f32 && (x.c() % 2 || second % 2)); }
};
const Case kCases[] = {
    {"3-D", {2, 5, 6, 7, 16}, 0, 17, {3, 3, 3}, 1, 1, {1, 1, 1}},
    {"3-D as it is", {2, 3, 4, 5, 16}, 0, 24, {3, 3, 3}, 1, 1, {1, 1, 1}},
    {"2-D, two inputs, stride", {1, 1, 9, 11, 18}, 20, 16, {1, 3, 3}, 2, 1, {0, 1, 1}},
    {"two inputs as they are", {2, 1, 5, 6, 8}, 16, 8, {1, 3, 3}, 1, 1, {0, 1, 1}},
    {"dilated", {3, 1, 12, 10, 6}, 0, 5, {1, 3, 3}, 1, 3, {0, 3, 3}},
    {"3-D, stride and dilation", {1, 9, 8, 10, 20}, 0, 12, {3, 3, 3}, 2, 2, {2, 2, 2}},
    {"pointwise, two inputs", {2, 3, 4, 5, 8}, 4, 7, {1, 1, 1}, 1, 1, {0, 0, 0}},
    {"wide kernel", {1, 1, 9, 9, 4}, 0, 4, {1, 7, 7}, 1, 1, {0, 3, 3}, true},
    {"odd channels", {2, 1, 6, 7, 3}, 0, 8, {1, 3, 3}, 1, 1, {0, 1, 1}},
    {"odd channels in the second input", {2, 1, 6, 7, 4}, 3, 8, {1, 3, 3}, 1, 1, {0, 1, 1}},
    {"one channel", {1, 3, 7, 9, 1}, 0, 20, {3, 3, 3}, 1, 1, {1, 1, 1}},
    {"many odd channels", {1, 1, 7, 9, 33}, 17, 20, {1, 3, 3}, 1, 1, {0, 1, 1}},
    {"to one channel", {1, 1, 7, 17, 17}, 0, 1, {1, 3, 3}, 1, 1, {0, 1, 1}},
};

std::vector<float> normals(std::int64_t n, std::uint64_t seed) {
  std::mt19937_64 source(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = normal(source);
  return values;
}

// A tensor that begins `offset` elements into its memory.
Tensor blank(const Shape& s, DType type, std::int64_t offset) { return Tensor({offset + s.elements()}, type, kCuda).range(offset, s); }
template <class H>
Tensor put(const std::vector<float>& values, const Shape& s, std::int64_t offset) {
  Tensor host(s, DTypeOf<H>::value, kCpu), there = blank(s, DTypeOf<H>::value, offset);
  std::transform(values.begin(), values.end(), host.data<H>(), [](float v) {
    if constexpr (std::is_same_v<H, float>)
      return v;
    else
      return H::from(v);
  });
  copy(there, host);
  return there;
}
Tensor random(const Shape& s, std::uint64_t seed, DType type, std::int64_t offset) {
  const std::vector<float> values = normals(s.elements(), seed);
  return type == DType::bf16 ? put<bf16>(values, s, offset) : type == DType::f16 ? put<f16>(values, s, offset) : put<float>(values, s, offset);
}
template <class H>
std::vector<float> widened(const Tensor& t) {
  const std::vector<H> there = to_host<H>(t);
  return {there.begin(), there.end()};
}
std::vector<float> floats_of(const Tensor& t) {
  return t.dtype() == DType::bf16 ? widened<bf16>(t) : t.dtype() == DType::f16 ? widened<f16>(t) : to_host<float>(t);
}

struct How {
  Engine engine = Engine::library;
  DType type = DType::f32;
  bool tf32 = false;
  Activation activation = {ActivationKind::leaky_relu, 0.1f};  // one that the library computes itself
  std::int64_t offset = 0;
};

// All three passes of a case in one way.
struct Passes {
  std::vector<float> y, transposed, dx0, dx1, dw;
};
Passes compute(const Case& c, const How& how) {
  ScratchOwner scratch(kCuda);
  Exec ex{kCuda, &scratch, nullptr, {}};
  ex.convolution.engine = how.engine, ex.convolution.tf32 = how.tf32;
  ConvParams p;
  for (int a = 0; a < 3; ++a) p.stride[a] = c.kernel[a] > 1 ? c.stride : 1, p.dilation[a] = c.kernel[a] > 1 ? c.dilation : 1, p.pad[a] = c.pad[a];
  Shape second = c.x, y{c.x.n(), 0, 0, 0, c.outputs}, grid = c.x;
  second[4] = c.second;
  for (int a = 0; a < 3; ++a) y[a + 1] = (c.x[a + 1] + 2 * p.pad[a] - p.dilation[a] * (c.kernel[a] - 1) - 1) / p.stride[a] + 1;
  const Shape w{c.outputs, c.x.c() + c.second, c.kernel[0], c.kernel[1], c.kernel[2]};
  const auto given = [&](const Shape& s, std::uint64_t seed) { return random(s, seed, how.type, how.offset); };
  const auto f32 = [&](const Shape& s, std::uint64_t seed) { return random(s, seed, DType::f32, how.offset); };
  const Tensor x0 = given(c.x, 1), x1 = c.second ? given(second, 2) : Tensor(), weights = f32(w, 3), bias = f32({c.outputs}, 4), dy = given(y, 5),
               back = f32({w[1]}, 6);
  Passes out;
  p.activation = how.activation;
  Tensor result = blank(y, how.type, how.offset);
  conv_forward(ex, result, x0, x1, weights, bias, p);
  out.y = floats_of(result);
  p.activation = {};
  const Grad dx0{given(c.x, 7), 1.0f}, dx1{c.second ? blank(second, how.type, how.offset) : Tensor(), 0.0f};  // one adds, the other writes
  conv_backward_data(ex, dx0, dx1, dy, weights, Tensor(), p);
  out.dx0 = floats_of(dx0.tensor);
  if (c.second) out.dx1 = floats_of(dx1.tensor);
  if (!c.second) {
    const Tensor up = blank(grid, how.type, how.offset);
    conv_backward_data(ex, Grad{up, 0.0f}, Grad{}, dy, weights, back, p);
    out.transposed = floats_of(up);
  }
  const Grad dw{f32(w, 8), 1.0f};
  conv_backward_weight(ex, dw, dy, x0, x1, p);
  out.dw = to_host<float>(dw.tensor);
  return out;
}

// relative: of the largest; 0: the same bits.
void expect_near(const std::vector<float>& got, const std::vector<float>& wanted, float relative, const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size());
  float largest = 0.0f, difference = 0.0f;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_TRUE(std::isfinite(got[i])) << what;
    largest = std::max(largest, std::fabs(wanted[i])), difference = std::max(difference, std::fabs(got[i] - wanted[i]));
  }
  EXPECT_LE(difference, relative * largest) << what;
}

// One rounding to a half, relative to the number. f32: none that would be seen.
float rounding(DType type) { return type == DType::bf16 ? 0x1p-8f : type == DType::f16 ? 0x1p-11f : 0.0f; }

TEST_F(CudaDevice, TheLibraryAgreesWithOurKernels) {
  constexpr float kSum = 1e-5f;
  for (const DType type : {DType::f32, DType::bf16, DType::f16})
    for (const Case& c : kCases) {
      const Passes ours = compute(c, {Engine::native, type}), theirs = compute(c, {Engine::library, type});
      const std::string what = std::string(c.what) + ", " + name_of(type);
      // Ours round once. Theirs round each input's sum, and once more what is added to it afterwards.
      const bool same = c.refused(type);
      const auto within = [&](int roundings) { return same ? 0.0f : kSum + static_cast<float>(roundings) * rounding(type); };
      expect_near(theirs.y, ours.y, within(c.second ? 4 : 3), what + ", forward");
      expect_near(theirs.dx0, ours.dx0, within(3), what + ", data gradient");
      expect_near(theirs.dx1, ours.dx1, within(2), what + ", data gradient of the second input");
      expect_near(theirs.transposed, ours.transposed, within(3), what + ", transposed");
      expect_near(theirs.dw, ours.dw, within(type == DType::f16 ? 1 : 0), what + ", weight gradient");
      EXPECT_EQ(theirs.dw == ours.dw, same) << what << ": nobody else computed it";  // doubles and floats round differently somewhere
    }
}

// A half result is rounded once if bias and activation are computed with the sum, and twice if they follow; the fake library knows leaky_relu, not elu.
TEST_F(CudaDevice, BiasAndActivationInOneGoOrAfterwards) {
  const Case& c = kCases[1];
  const auto differing = [&](ActivationKind kind) {
    const Activation f{kind, 0.5f};
    const Passes ours = compute(c, {Engine::native, DType::bf16, false, f}), theirs = compute(c, {Engine::library, DType::bf16, false, f});
    expect_near(theirs.y, ours.y, 3 * rounding(DType::bf16), "forward");
    std::size_t count = 0;
    for (std::size_t i = 0; i < ours.y.size(); ++i) count += ours.y[i] != theirs.y[i];
    return static_cast<double>(count) / static_cast<double>(ours.y.size());
  };
  EXPECT_LT(differing(ActivationKind::leaky_relu), 0.01);
  EXPECT_GT(differing(ActivationKind::elu), 0.1);
}

// The library is promised tensors on 16 bytes: halves elsewhere are copied, f32 stays with our kernels.
TEST_F(CudaDevice, TensorsThatBeginAnywhere) {
  for (const std::int64_t offset : {1, 3, 4}) {
    const How f32{.engine = Engine::native, .offset = offset}, half{.engine = Engine::native, .type = DType::f16, .offset = offset};
    How f32_there = f32, half_there = half;
    f32_there.engine = half_there.engine = Engine::library;
    const Passes ours = compute(kCases[1], f32), theirs = compute(kCases[1], f32_there), ours_half = compute(kCases[1], half),
                 theirs_half = compute(kCases[1], half_there);
    EXPECT_EQ(theirs.y == ours.y && theirs.dx0 == ours.dx0 && theirs.dw == ours.dw, offset % 4 != 0) << offset;
    expect_near(theirs_half.y, ours_half.y, 3 * rounding(DType::f16), "forward");
    expect_near(theirs_half.transposed, ours_half.transposed, 3 * rounding(DType::f16), "transposed");
    expect_near(theirs_half.dw, ours_half.dw, 2 * rounding(DType::f16), "weight gradient");
    EXPECT_FALSE(theirs_half.dw == ours_half.dw);
  }
}

// tf32 reaches the library, and changes nothing for halves and for our own kernels.
TEST_F(CudaDevice, Tf32RoundsFactors) {
  const Case& c = kCases[1];
  const Passes ours = compute(c, {Engine::native}), theirs = compute(c, {Engine::library, DType::f32, true});
  for (const auto& [got, wanted] : {std::pair(theirs.y, ours.y), std::pair(theirs.dx0, ours.dx0), std::pair(theirs.dw, ours.dw)}) {
    expect_near(got, wanted, 2 * 0x1p-11f, "tf32");
    float most = 0.0f;
    for (std::size_t i = 0; i < got.size(); ++i) most = std::max(most, std::fabs(got[i] - wanted[i]));
    EXPECT_GT(most, 1e-4f) << "nothing was rounded";
  }
  EXPECT_TRUE(compute(c, {Engine::native, DType::f32, true}).y == ours.y);
  EXPECT_TRUE(compute(c, {Engine::library, DType::bf16, true}).y == compute(c, {Engine::library, DType::bf16}).y);
}

}  // namespace
}  // namespace vg::test

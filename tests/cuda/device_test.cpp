// The cuda device through the core's own doors, on the fake runtime in strict mode: copies of every size through the pinned ring, streams and marks, the
// cap on memory, convolutions by a library. What the plug-in does wrong here, the runtime reports, and the test program ends with its exit code.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>

#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/scratch.h"
#include "tensor/error.h"
#include "tensor/stream.h"

namespace vg::test {
namespace {

const Device kCuda{DeviceKind::cuda, 0};

class CudaDevice : public testing::Test {
 protected:
  CudaDevice() {
    ::setenv("VG_CUDA_PLUGIN", VG_BIN_DIR "/libvoxgrad_cuda_fake.so", 1);
    ::setenv("VG_CUDA_FAKE", "strict", 1);
    device_api(kCuda);
    ::unsetenv("VG_CUDA_PLUGIN"), ::unsetenv("VG_CUDA_FAKE");
  }
  ~CudaDevice() override {
    set_memory_limit(kCuda, 0);
    EXPECT_EQ(memory_stats(kCuda).live, 0u);
    release_cache(kCuda);
  }
};

std::vector<float> normals(std::int64_t n, std::uint64_t seed) {
  std::mt19937_64 source(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = normal(source);
  return values;
}

std::vector<float> ramp(std::int64_t n, float first) {
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) values[static_cast<std::size_t>(i)] = first + static_cast<float>(i % 65536);
  return values;
}

TEST_F(CudaDevice, CopiesOfEverySize) {
  constexpr std::int64_t kPiece = (4 << 20) / 4;  // floats in a piece of the ring
  for (const std::int64_t n : {std::int64_t{1}, std::int64_t{33}, kPiece - 1, kPiece, kPiece + 1, 5 * kPiece + 7}) {
    std::vector<float> values = ramp(n, 1.0f);
    Tensor x(Shape{n}, DType::f32, kCuda), y(Shape{n}, DType::f32, kCuda);
    copy(x, wrap(values.data(), {n}, DType::f32));
    const std::vector<float> wanted = values;
    std::fill(values.begin(), values.end(), -1.0f);  // has been read
    copy(y, x);
    EXPECT_TRUE(to_host<float>(y) == wanted) << n;
  }
}

// What tensor/stream.h asks for, and the same without it.
TEST_F(CudaDevice, StreamsAndMarks) {
  constexpr std::int64_t n = 3000;
  const Exec ex{kCuda, nullptr, nullptr, {}};
  for (const bool ordered : {true, false}) {
    const Stream loading(kCuda);
    Mark made(kCuda), copied(kCuda);
    Tensor x(Shape{n}, DType::f32, kCuda), y(Shape{n}, DType::f32, kCuda);
    fill(ex, x, FillParams{7.0f});  // earlier work of the default stream on this memory
    std::vector<float> values = ramp(n, 1.0f);
    made.record(nullptr);
    if (ordered) made.hold(loading.handle());
    copy(x, wrap(values.data(), {n}, DType::f32), loading.handle());
    copied.record(loading.handle());
    if (ordered) copied.hold(nullptr);
    add(ex, y, x, x);
    if (!ordered) copied.wait();  // the copy ran first, then the old work overwrote it
    const std::vector<float> got = to_host<float>(y);
    for (float& v : values) v *= 2.0f;
    EXPECT_EQ(got == values, ordered);
    synchronize(kCuda, loading.handle());
  }
  Mark never(kCuda);
  never.hold(nullptr), never.wait();
}

TEST(HostStreams, DoNothing) {
  for (const Device d : {kCpu, kSim}) {
    const Stream s(d);
    EXPECT_EQ(s.handle(), nullptr);
    Mark m(d);
    m.record(s.handle()), m.hold(nullptr), m.wait();
    std::string why;
    EXPECT_EQ(convolution_library(d, &why), "");
    EXPECT_NE(why, "");
  }
}

TEST_F(CudaDevice, MemoryHasACap) {
  set_memory_limit(kCuda, 1 << 20);
  reset_peak(kCuda);
  {
    const Tensor half({1 << 17}, DType::f32, kCuda);
    try {
      const Tensor more({3 << 16}, DType::f32, kCuda);
      ADD_FAILURE() << "the cap was passed";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::out_of_memory);
      EXPECT_STREQ(e.what(), "cuda:0: 786432 bytes more would pass the limit: 524288 bytes in use of 1.0 MiB");
    }
  }
  EXPECT_EQ(memory_stats(kCuda).peak, std::size_t{1} << 19);
}

TEST_F(CudaDevice, SaysWhoComputesConvolutions) {
  EXPECT_EQ(convolution_library(kCuda), "fake library of convolutions");
  const DeviceProperties p = device_properties(kCuda);
  EXPECT_EQ(p.name, "fake GPU");
  EXPECT_NE(p.detail.find("compute capability 9.0, driver for CUDA 13.0"), std::string::npos) << p.detail;
}

struct Case {
  const char* what;
  Shape x;
  std::int64_t second, outputs;  // channels of a second input (0: none), output channels
  int kernel[3], stride, dilation, pad[3];
  bool refused;  // by the library: our own kernels compute it, and the bits are theirs
};
const Case kCases[] = {
    {"3-D", {2, 5, 6, 7, 16}, 0, 17, {3, 3, 3}, 1, 1, {1, 1, 1}, false},
    {"2-D, two inputs, stride", {1, 1, 9, 11, 18}, 20, 16, {1, 3, 3}, 2, 1, {0, 1, 1}, false},
    {"dilated", {3, 1, 12, 10, 6}, 0, 5, {1, 3, 3}, 1, 3, {0, 3, 3}, false},
    {"pointwise, two inputs", {2, 3, 4, 5, 8}, 4, 7, {1, 1, 1}, 1, 1, {0, 0, 0}, false},
    {"wide kernel", {1, 1, 9, 9, 4}, 0, 4, {1, 7, 7}, 1, 1, {0, 3, 3}, true},
    {"odd channels", {2, 1, 6, 7, 3}, 0, 8, {1, 3, 3}, 1, 1, {0, 1, 1}, true},
    {"odd channels in the second input", {2, 1, 6, 7, 4}, 3, 8, {1, 3, 3}, 1, 1, {0, 1, 1}, true},
};

// All three passes of a case by one engine.
struct Passes {
  std::vector<float> y, transposed, dx0, dx1, dw;
};
Passes compute(const Case& c, ConvAlgorithm::Engine engine) {
  ScratchOwner scratch(kCuda);
  Exec ex{kCuda, &scratch, nullptr, {}};
  ex.convolution.engine = engine;
  ConvParams p;
  for (int a = 0; a < 3; ++a) p.stride[a] = c.kernel[a] > 1 ? c.stride : 1, p.dilation[a] = c.kernel[a] > 1 ? c.dilation : 1, p.pad[a] = c.pad[a];
  Shape second = c.x, y{c.x.n(), 0, 0, 0, c.outputs}, grid = c.x;
  second[4] = c.second;
  for (int a = 0; a < 3; ++a) y[a + 1] = (c.x[a + 1] + 2 * p.pad[a] - p.dilation[a] * (c.kernel[a] - 1) - 1) / p.stride[a] + 1;
  const Shape w{c.outputs, c.x.c() + c.second, c.kernel[0], c.kernel[1], c.kernel[2]};
  const auto random = [](const Shape& s, std::uint64_t seed) { return from_host(normals(s.elements(), seed), s, kCuda); };
  const Tensor x0 = random(c.x, 1), x1 = c.second ? random(second, 2) : Tensor(), weights = random(w, 3), bias = random({c.outputs}, 4), dy = random(y, 5),
               back = random({w[1]}, 6);
  Passes out;
  p.activation = {ActivationKind::leaky_relu, 0.1f};
  Tensor result(y, DType::f32, kCuda);
  conv_forward(ex, result, x0, x1, weights, bias, p);
  out.y = to_host<float>(result);
  p.activation = {};
  const Grad dx0{random(c.x, 7), 1.0f}, dx1{c.second ? Tensor(second, DType::f32, kCuda) : Tensor(), 0.0f};  // one adds, the other writes
  conv_backward_data(ex, dx0, dx1, dy, weights, Tensor(), p);
  out.dx0 = to_host<float>(dx0.tensor);
  if (c.second) out.dx1 = to_host<float>(dx1.tensor);
  if (!c.second) {
    Tensor up(grid, DType::f32, kCuda);
    conv_backward_data(ex, Grad{up, 0.0f}, Grad{}, dy, weights, back, p);
    out.transposed = to_host<float>(up);
  }
  const Grad dw{random(w, 8), 1.0f};
  conv_backward_weight(ex, dw, dy, x0, x1, p);
  out.dw = to_host<float>(dw.tensor);
  return out;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& wanted, bool same_bits, const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size());
  float largest = 0.0f, difference = 0.0f;
  for (std::size_t i = 0; i < got.size(); ++i) largest = std::max(largest, std::fabs(wanted[i])), difference = std::max(difference, std::fabs(got[i] - wanted[i]));
  if (same_bits)
    EXPECT_TRUE(got == wanted) << what;
  else
    EXPECT_LE(difference, 1e-5f * largest) << what;
}

TEST_F(CudaDevice, TheLibraryAgreesWithOurKernels) {
  using Engine = ConvAlgorithm::Engine;
  for (const Case& c : kCases) {
    const Passes ours = compute(c, Engine::native), theirs = compute(c, Engine::library);
    const std::string what = c.what;
    expect_near(theirs.y, ours.y, c.refused, what + ", forward");
    expect_near(theirs.dx0, ours.dx0, c.refused, what + ", data gradient");
    expect_near(theirs.dx1, ours.dx1, c.refused, what + ", data gradient of the second input");
    expect_near(theirs.transposed, ours.transposed, c.refused, what + ", transposed");
    expect_near(theirs.dw, ours.dw, c.refused, what + ", weight gradient");
    EXPECT_EQ(theirs.y == ours.y, c.refused) << what << ": nobody else computed it";  // doubles and floats round differently somewhere
  }
}

}  // namespace
}  // namespace vg::test

// The cuda device through the core's own doors, on the fake runtime in strict mode: copies of every size through the pinned ring, streams and marks, the
// cap on memory. What the plug-in does wrong here, the runtime reports, and the test program ends with its exit code.
#include <gtest/gtest.h>


#include "kernels/elementwise.h"
#include "tensor/error.h"
#include "tensor/stream.h"
#include "tests/cuda/device.h"

namespace vg::test {
namespace {

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

}  // namespace
}  // namespace vg::test

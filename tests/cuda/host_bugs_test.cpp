// Mistakes that host code makes with a GPU, planted one by one: the fake runtime finds each, and finds nothing in the same code done right. On a GPU
// most of them go well on most days.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/simt.h"
#include "tests/cuda/runtime/runtime.h"

namespace vg::test {
namespace {

using fake_cuda::options;
using fake_cuda::take_complaints;

constexpr int kCount = 1000;
constexpr std::size_t kBytes = kCount * sizeof(float);

__global__ void set_all(float* y, int n, float value) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = value;
}
__global__ void add_one(float* y, const float* x, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = x[i] + 1.0f;
}
void launch_set(float* y, float value, cudaStream_t stream = nullptr, int n = kCount) {
  SIMT_LAUNCH(set_all, simt::blocks_for(n, 128), 128, 0, stream, y, n, value);
}
void launch_add(float* y, const float* x, cudaStream_t stream = nullptr, int n = kCount) {
  SIMT_LAUNCH(add_one, simt::blocks_for(n, 128), 128, 0, stream, y, x, n);
}

float* device_floats(std::size_t bytes = kBytes) {
  void* data = nullptr;
  EXPECT_EQ(cudaMalloc(&data, bytes), cudaSuccess);
  return static_cast<float*>(data);
}
float* pinned_floats() {
  void* data = nullptr;
  EXPECT_EQ(cudaMallocHost(&data, kBytes), cudaSuccess);
  return static_cast<float*>(data);
}

class HostBugs : public testing::Test {
 protected:
  HostBugs() {
    testing::FLAGS_gtest_death_test_style = "threadsafe";  // a forked child has no worker threads
    options() = {};
    options().strict = true;
    x_ = device_floats(), y_ = device_floats(), pinned_ = pinned_floats();
    EXPECT_EQ(cudaStreamCreateWithFlags(&first_, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaStreamCreateWithFlags(&second_, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess);
  }
  ~HostBugs() override {
    for (float* p : {x_, y_}) EXPECT_EQ(cudaFree(p), cudaSuccess);
    EXPECT_EQ(cudaFreeHost(pinned_), cudaSuccess);
    for (cudaStream_t s : {first_, second_}) EXPECT_EQ(cudaStreamDestroy(s), cudaSuccess);
    EXPECT_EQ(cudaEventDestroy(event_), cudaSuccess);
    fake_cuda::report_at_exit();
    for (const std::string& c : take_complaints()) ADD_FAILURE() << c;
    options() = {};
  }
  // The first and last number of a device buffer, by way of pageable memory.
  std::pair<float, float> ends_of(const float* device) const {
    std::vector<float> host(kCount);
    EXPECT_EQ(cudaMemcpy(host.data(), device, kBytes, cudaMemcpyDeviceToHost), cudaSuccess);
    return {host.front(), host.back()};
  }
  // The one complaint that there is.
  static std::string complaint() {
    const std::vector<std::string> all = take_complaints();
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? "" : all[0];
  }
  float *x_ = nullptr, *y_ = nullptr, *pinned_ = nullptr;
  cudaStream_t first_ = nullptr, second_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

const std::pair<float, float> kTwos{2.0f, 2.0f}, kThrees{3.0f, 3.0f};
bool are_nan(const std::pair<float, float>& ends) { return std::isnan(ends.first) && std::isnan(ends.second); }

// 1. Pinned memory is filled for the next step while its copy still waits.
TEST_F(HostBugs, PinnedMemoryReusedEarly) {
  std::fill_n(pinned_, kCount, 2.0f);
  EXPECT_EQ(cudaMemcpyAsync(x_, pinned_, kBytes, cudaMemcpyHostToDevice, first_), cudaSuccess);
  std::fill_n(pinned_, kCount, 7.0f);
  EXPECT_EQ(cudaStreamSynchronize(first_), cudaSuccess);
  EXPECT_NE(ends_of(x_), kTwos);
  EXPECT_NE(complaint().find("pinned memory was changed before its queued copy was done: 4000 bytes from byte 0 of pinned buffer"), std::string::npos);
  std::fill_n(pinned_, kCount, 2.0f);
  EXPECT_EQ(cudaMemcpyAsync(x_, pinned_, kBytes, cudaMemcpyHostToDevice, first_), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(first_), cudaSuccess);
  std::fill_n(pinned_, kCount, 7.0f);
  EXPECT_EQ(ends_of(x_), kTwos);
}

// 2. One stream reads what another one writes, and nobody says so.
TEST_F(HostBugs, MissingWaitBetweenStreams) {
  const auto run = [&](bool waits) {
    EXPECT_EQ(cudaMemset(x_, 0xFF, kBytes), cudaSuccess);
    launch_set(x_, 2.0f, first_);
    EXPECT_EQ(cudaEventRecord(event_, first_), cudaSuccess);
    if (waits) cudaStreamWaitEvent(second_, event_, 0);
    launch_add(y_, x_, second_);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return ends_of(y_);
  };
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_TRUE(are_nan(run(false)));
  EXPECT_EQ(run(true), kThrees);
}

// The same on a GPU that happens to be quick: the mistake stays hidden, which is why the runtime is lazy.
TEST_F(HostBugs, EagerOrderHidesTheMissingWait) {
  options().eager = true;
  launch_set(x_, 2.0f, first_);
  launch_add(y_, x_, second_);
  EXPECT_EQ(ends_of(y_), kThrees);
}

// 3. A kernel writes past its buffer. 1024 floats end at the guard page.
TEST_F(HostBugs, KernelPastItsBuffer) {
  const auto run = [&](int n) {
    float* z = device_floats(1024 * sizeof(float));
    launch_set(z, 2.0f, first_, n);
    EXPECT_EQ(cudaStreamSynchronize(first_), cudaSuccess);
    EXPECT_EQ(cudaFree(z), cudaSuccess);
  };
  run(1024);
  EXPECT_DEATH(run(1025), "kernel set_all, grid 9 x 1 x 1, block 128 x 1 x 1: block \\(8,0,0\\), thread \\(0,0,0\\) touched 0 bytes past the end of device buffer");
}

// 4. The host looks at a result that nobody waited for.
TEST_F(HostBugs, ReadBeforeSynchronise) {
  launch_set(x_, 2.0f, first_);
  EXPECT_EQ(cudaMemcpyAsync(pinned_, x_, kBytes, cudaMemcpyDeviceToHost, first_), cudaSuccess);
  EXPECT_TRUE(std::isnan(pinned_[0]));
  EXPECT_EQ(cudaStreamSynchronize(first_), cudaSuccess);
  EXPECT_EQ(pinned_[0], 2.0f);
}

// 5. The host follows a pointer into device memory.
TEST_F(HostBugs, HostReadsDeviceMemory) {
  launch_set(x_, 2.0f);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_DEATH(static_cast<volatile float*>(x_)[10] = 0, "host code touched byte 40 of device buffer [0-9]+ \\(4000 bytes\\)");
}

// 6. A copy is longer than one of its ends, or goes the wrong way.
TEST_F(HostBugs, CopyPastTheEnd) {
  std::vector<float> host(kCount + 1);
  EXPECT_EQ(cudaMemcpy(x_, host.data(), kBytes + 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_NE(complaint().find("cudaMemcpy of 4004 bytes: the target: 4004 bytes from byte 0 of device buffer"), std::string::npos);
  EXPECT_EQ(cudaMemcpyAsync(y_, x_ + 1, kBytes, cudaMemcpyDeviceToDevice, first_), cudaErrorInvalidValue);
  EXPECT_NE(complaint().find("the source: 4000 bytes from byte 4 of device buffer"), std::string::npos);
  EXPECT_EQ(cudaMemsetAsync(x_, 0, kBytes + 1, first_), cudaErrorInvalidValue);
  complaint();
  EXPECT_EQ(cudaMemcpy(host.data(), x_, kBytes, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_NE(complaint().find("the target is no device memory"), std::string::npos);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(x_, host.data(), kBytes, cudaMemcpyHostToDevice), cudaSuccess);
}

// 7. A buffer is used after it was freed.
TEST_F(HostBugs, UseAfterFree) {
  const auto run = [&](bool wrong) {
    float* z = device_floats();
    if (wrong) cudaFree(z);
    launch_add(x_, z, first_);
    EXPECT_EQ(cudaStreamSynchronize(first_), cudaSuccess);
    if (!wrong) cudaFree(z);
  };
  run(false);
  EXPECT_DEATH(run(true), "kernel add_one.*touched byte [0-9]+ of freed device buffer");
  float* z = device_floats();
  EXPECT_EQ(cudaFree(z), cudaSuccess);
  EXPECT_EQ(cudaFree(z), cudaErrorInvalidValue);
  EXPECT_NE(complaint().find("cudaFree is called for byte 0 of freed device buffer"), std::string::npos);
  EXPECT_EQ(cudaMemset(z, 0, 4), cudaErrorInvalidValue);
  complaint();
}

TEST_F(HostBugs, LeaksAndForgottenWork) {
  float* z = device_floats();
  launch_set(z, 1.0f, second_);
  fake_cuda::report_at_exit();
  const std::vector<std::string> all = take_complaints();
  const auto said = [&](const std::string& text) { return std::any_of(all.begin(), all.end(), [&](const std::string& c) { return c.find(text) != std::string::npos; }); };
  EXPECT_TRUE(said("nobody waited for kernel set_all, grid 8 x 1 x 1, block 128 x 1 x 1 on stream"));
  EXPECT_TRUE(said("never given back: byte 0 of device buffer"));
  EXPECT_TRUE(said("never given back: 2 streams"));
  EXPECT_EQ(cudaFree(z), cudaSuccess);
}

// The default stream and the blocking streams wait for each other; a query moves work on by one.
TEST_F(HostBugs, OrderOfTheDefaultStream) {
  cudaStream_t blocking = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&blocking, cudaStreamDefault), cudaSuccess);
  launch_set(x_, 2.0f);
  launch_add(y_, x_, blocking);
  launch_add(x_, y_);
  EXPECT_EQ(ends_of(x_), (std::pair{4.0f, 4.0f}));
  EXPECT_EQ(cudaStreamDestroy(blocking), cudaSuccess);
  launch_set(x_, 5.0f, first_);
  launch_set(y_, 5.0f, first_);
  EXPECT_EQ(cudaStreamQuery(first_), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamQuery(first_), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamQuery(first_), cudaSuccess);
}

TEST_F(HostBugs, MemoryHasAnEnd) {
  options().memory = 100000;
  void* z = nullptr;
  EXPECT_EQ(cudaMalloc(&z, 100000), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&z, 92000), cudaSuccess);
  std::size_t left = 0, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&left, &total), cudaSuccess);
  EXPECT_EQ(left, 0u);
  EXPECT_EQ(cudaFree(z), cudaSuccess);
}

TEST(FakeCudaOptions, AreRead) {
  const fake_cuda::Options o = fake_cuda::parse_options("strict,memory=64M,devices=2,fail=add_kernel:3");
  EXPECT_TRUE(o.strict && !o.eager);
  EXPECT_EQ(o.memory, 64u << 20);
  EXPECT_EQ(o.devices, 2);
  EXPECT_EQ(o.fail_kernel, "add_kernel");
  EXPECT_EQ(o.fail_run, 3);
  for (const char* bad : {"strikt", "memory=", "memory=3X", "devices=99", "eager lazy"}) EXPECT_THROW(fake_cuda::parse_options(bad), Error) << bad;
}

}  // namespace
}  // namespace vg::test

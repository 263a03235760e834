// The cuda device on the fake runtime in strict mode, for tests that call the core's own doors: what they do wrong, the runtime reports, and the test
// program ends with its exit code.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>

#include "tensor/device.h"

namespace vg::test {

inline constexpr Device kCuda{DeviceKind::cuda, 0};

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

}  // namespace vg::test

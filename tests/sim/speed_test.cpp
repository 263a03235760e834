// What the simulator costs, on one core. Disabled: a busy machine would make it fail. Run it with
//   test_sim --gtest_also_run_disabled_tests --gtest_filter='Speed.*'
#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/simt_reduce.h"
#include "tensor/os.h"
#include "tests/sim/helpers.h"

namespace vg {
namespace {

__global__ void elementwise(float* y, const float* x, float a, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] += a * x[i];
}
__global__ void barriers(float* y, int rounds) {
  SIMT_SHARED(float, cell, [256]);
  cell[threadIdx.x] = 0;
  for (int i = 0; i < rounds; ++i) {
    cell[threadIdx.x] += 1;
    __syncthreads();
  }
  y[blockIdx.x * 256 + threadIdx.x] = cell[threadIdx.x];
}
__global__ void warp_sums(float* y, int rounds) {
  float v = 1;
  for (int i = 0; i < rounds; ++i) v = simt::warp_sum(v) / 32;
  y[blockIdx.x * 256 + threadIdx.x] = v;
}

// The best of five, in seconds of processor time: the machine may be busy.
template <class Work>
double seconds_of(Work&& work) {
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const double start = os::cpu_seconds();
    work();
    best = std::min(best, os::cpu_seconds() - start);
  }
  return best;
}

TEST(Speed, DISABLED_OneCore) {
  const int n = 1 << 22, blocks = 64, rounds = 50;
  std::vector<float> x(n, 1), y(n, 2);
  set_threads(1);
  const double thread = seconds_of([&] { SIMT_LAUNCH(elementwise, n / 256, 256, 0, nullptr, y.data(), x.data(), 0.5f, n); }) / n;
  const double launch = seconds_of([&] { SIMT_LAUNCH(elementwise, 1, 1, 0, nullptr, y.data(), x.data(), 0.5f, 1); });
  const double barrier = seconds_of([&] { SIMT_LAUNCH(barriers, blocks, 256, 0, nullptr, y.data(), rounds); }) / (blocks * 256 * rounds);
  const double shuffle =
      seconds_of([&] { SIMT_LAUNCH(warp_sums, blocks, 256, 0, nullptr, y.data(), rounds); }) / (blocks * 256 * rounds * 5);
  set_threads(0);
  std::printf("%s\nelementwise %.0f million threads/s; launch %.0f ns; __syncthreads %.1f ns per thread; shuffle %.1f ns per lane\n",
              os::cpu_name().c_str(), 1e-6 / thread, 1e9 * launch, 1e9 * barrier, 1e9 * shuffle);
  EXPECT_LE(thread, 25e-9);
  EXPECT_LE(barrier, 30e-9);
  EXPECT_LE(shuffle, 30e-9);
}

}  // namespace
}  // namespace vg

// Kernels with planted mistakes: each must be reported, naming the kernel, the block, the thread and the line; or must give results that differ
// between orders of turns, which is how a missing barrier is found.
#include <set>
#include <vector>

#include "tests/sim/helpers.h"

namespace vg {
namespace {

using testing_sim::error_of;
using testing_sim::everywhere;
using testing_sim::expect_contains;

std::string at(int line) { return "tests/sim/rules_test.cpp:" + std::to_string(line); }

// -------------------------------------------------------------------------------------------------------------------- races

template <bool kBarrier>
__global__ void neighbour(int* out) {
  SIMT_SHARED(int, cell, [64]);
  cell[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = cell[63 - threadIdx.x];
}

// One chunk after the other through the same tile; without the second barrier a fast thread overwrites what a slow one still reads.
template <bool kSecondBarrier>
__global__ void chunks(int* out) {
  SIMT_SHARED(int, tile, [64]);
  int sum = 0;
  for (int chunk = 0; chunk < 4; ++chunk) {
    tile[threadIdx.x] = chunk * 100 + static_cast<int>(threadIdx.x);
    __syncthreads();
    sum += tile[(threadIdx.x + 33) % 64];
    if (kSecondBarrier) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

__global__ void blocks_race(int* out) { out[0] = static_cast<int>(blockIdx.x); }

template <class Kernel>
std::size_t different_results(Kernel kernel, unsigned blocks) {
  std::set<std::vector<int>> results;
  set_threads(1);
  sim::in_every_order([&](sim::Order) {
    std::vector<int> out(64, -2);
    SIMT_LAUNCH(kernel, blocks, 64, 0, nullptr, out.data());
    results.insert(out);
  });
  set_threads(0);
  return results.size();
}

TEST(Races, AMissingBarrierChangesTheResultWithTheOrder) {
  EXPECT_EQ(different_results(&neighbour<true>, 1), 1u);
  EXPECT_GE(different_results(&neighbour<false>, 1), 3u);
}

TEST(Races, AMissingSecondBarrierToo) {
  EXPECT_EQ(different_results(&chunks<true>, 1), 1u);
  EXPECT_GE(different_results(&chunks<false>, 1), 3u);
}

TEST(Races, BlocksThatWriteTheSameCell) { EXPECT_GE(different_results(&blocks_race, 100), 3u); }

__global__ void unwritten(int* out, float* real) {
  SIMT_SHARED(int, cell, [4]);
  SIMT_SHARED(float, number, [4]);
  SIMT_DYN_SHARED(int, more);
  out[2 * blockIdx.x] = cell[1];
  out[2 * blockIdx.x + 1] = more[3];
  real[blockIdx.x] = number[2];
  cell[1] = more[3] = 5;
  number[2] = 5;
}

TEST(Races, SharedMemoryIsFilledBeforeEachBlock) {
  everywhere([] {
    int out[10];
    float real[5];
    SIMT_LAUNCH(unwritten, 5, 1, 16, nullptr, out, real);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(out[i], -1);
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(isnan(real[i]));
  });
}

// --------------------------------------------------------------------------------------------------------- warp collectives

constexpr int kDivergent = __LINE__ + 3;
__global__ void divergent_shuffle(int* out, int n) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  out[threadIdx.x] = __shfl_down_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
}

TEST(WarpRules, AFullMaskAfterSomeLanesReturned) {
  everywhere([] {
    int out[32];
    const std::string text = error_of([&] { SIMT_LAUNCH(divergent_shuffle, 1, 32, 0, nullptr, out, 26); });
    expect_contains(text, "kernel divergent_shuffle, grid 1 x 1 x 1, block 32 x 1 x 1: block (0,0,0), thread (");
    expect_contains(text, at(kDivergent) + ": __shfl_down_sync, mask 0xffffffff: the mask names lane ");
    expect_contains(text, "which has returned");
    EXPECT_EQ(error_of([&] { SIMT_LAUNCH(divergent_shuffle, 1, 32, 0, nullptr, out, 32); }), "");
  });
}

TEST(WarpRules, AFullMaskInAWarpThatIsNotFull) {
  int out[40];
  const std::string text = error_of([&] { SIMT_LAUNCH(divergent_shuffle, 1, 40, 0, nullptr, out, 40); });
  expect_contains(text, "thread (32,0,0), " + at(kDivergent));
  expect_contains(text, "the mask names lane 8, which does not exist (the block has 40 threads)");
}

__global__ void not_in_mask() { __syncwarp(0x0000ffffu); }
__global__ void wrong_width() { __shfl_sync(0xffffffffu, 1, 0, 12); }
constexpr int kReads = __LINE__ + 2;
__global__ void reads_outside_mask() {
  if (threadIdx.x < 16) __shfl_xor_sync(0x0000ffffu, 1, 16);
}

TEST(WarpRules, TheCallerIsNotInItsMask) {
  expect_contains(error_of([] { SIMT_LAUNCH(not_in_mask, 1, 32, 0, nullptr); }), "the mask does not name the calling lane 16");
}

TEST(WarpRules, WidthIsAPowerOfTwo) {
  expect_contains(error_of([] { SIMT_LAUNCH(wrong_width, 1, 32, 0, nullptr); }),
                  "__shfl_sync, mask 0xffffffff: width 12 (wanted 1, 2, 4, 8, 16 or 32)");
}

TEST(WarpRules, ALaneReadsOneThatDoesNotTakePart) {
  everywhere([] {
    expect_contains(error_of([] { SIMT_LAUNCH(reads_outside_mask, 1, 32, 0, nullptr); }),
                    "thread (0,0,0), " + at(kReads) + ": __shfl_xor_sync reads lane 16, which mask 0x0000ffff does not name");
  });
}

__global__ void different_operations() {
  if (threadIdx.x % 2)
    __any_sync(0xffffffffu, 1);
  else
    __all_sync(0xffffffffu, 1);
}
__global__ void different_masks() { __ballot_sync(threadIdx.x == 3 ? 0x0000000fu : 0xffffffffu, 1); }

TEST(WarpRules, LanesOfOneMaskCallDifferentThings) {
  everywhere([] {
    const std::string text = error_of([] { SIMT_LAUNCH(different_operations, 1, 32, 0, nullptr); });
    expect_contains(text, "lanes of one mask called different things: lane ");
    expect_contains(text, "__any_sync");
    expect_contains(text, "__all_sync");
    expect_contains(error_of([] { SIMT_LAUNCH(different_masks, 1, 32, 0, nullptr); }), "lanes of one mask called different things");
  });
}

// ------------------------------------------------------------------------------------------------------------ block barriers

constexpr int kEarly = __LINE__ + 3;
__global__ void early_return(int n) {
  if (static_cast<int>(threadIdx.x) == n) return;
  __syncthreads();
}

TEST(BarrierRules, AThreadReturnedBefore) {
  everywhere([] {
    const std::string text = error_of([] { SIMT_LAUNCH(early_return, 3, 64, 0, nullptr, 40); });
    expect_contains(text, at(kEarly));
    EXPECT_TRUE(text.find("__syncthreads after ") != text.npos || text.find("returned, while ") != text.npos) << text;
  });
  sim::set_order(sim::Order::forward);
  expect_contains(error_of([] { SIMT_LAUNCH(early_return, 1, 64, 0, nullptr, 40); }),
                  "thread (40,0,0), " + at(kEarly) + ": returned, while 40 other threads of the block wait at __syncthreads");
  expect_contains(
      error_of([] { SIMT_LAUNCH(early_return, 1, 64, 0, nullptr, 0); }),
      "thread (1,0,0), " + at(kEarly) + ": __syncthreads after 1 of the block's 64 threads have returned, the first of them (0,0,0)");
}

constexpr int kTwo = __LINE__ + 3;
__global__ void two_barriers() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

TEST(BarrierRules, DivergentBarriers) {
  expect_contains(
      error_of([] { SIMT_LAUNCH(two_barriers, 1, 64, 0, nullptr); }),
      at(kTwo + 2) + ": __syncthreads, while 32 other threads of the block wait at another barrier, __syncthreads at " + at(kTwo));
}

constexpr int kBarrierLine = __LINE__ + 3, kShuffleLine = kBarrierLine + 2;
__global__ void deadlocked() {
  if (threadIdx.x != 31)
    __syncthreads();
  else
    __shfl_sync(0xffffffffu, 1, 0);
}

TEST(BarrierRules, ADeadlockNamesEveryGroup) {
  everywhere([] {
    const std::string text = error_of([] { SIMT_LAUNCH(deadlocked, 1, 64, 0, nullptr); });
    expect_contains(text, "block (0,0,0): deadlock, no thread can go on; 0 of 64 threads have returned");
    expect_contains(text, "; 63 at __syncthreads, " + at(kBarrierLine) + ": (0,0,0) (1,0,0) (2,0,0) (3,0,0) ...");
    expect_contains(text, "; 1 of warp 0 at __shfl_sync, mask 0xffffffff, " + at(kShuffleLine) + ": (31,0,0)");
  });
}

// -------------------------------------------------------------------------------------------------------------- shared memory

__global__ void too_much_shared(float* out) {
  SIMT_SHARED(float, fits, [12288]);
  SIMT_SHARED(float, one, [1]);
  fits[0] = one[0] = 1;
  out[0] = fits[0];
}
__global__ void past_the_end(int n) {
  SIMT_SHARED(float, row, [33]);
  SIMT_SHARED(float, other, [8]);
  SIMT_DYN_SHARED(unsigned char, bytes);
  for (int i = 0; i < 33; ++i) row[i] = other[i % 8] = 0;
  volatile int index = n;
  if (n < 40)
    row[index] = 1;
  else
    bytes[index] = 1;
}

TEST(SharedRules, StaticArraysOver48KiB) {
  float out;
  expect_contains(error_of([&] { SIMT_LAUNCH(too_much_shared, 1, 1, 0, nullptr, &out); }),
                  "shared array one of 4 bytes brings the block to 49156 bytes (at most 49152; more only as dynamic shared memory)");
}

__global__ void half_static(float* out) {
  SIMT_SHARED(float, half, [8192]);
  half[0] = 2;
  out[0] = half[0];
}

TEST(SharedRules, StaticAndDynamicTogether) {
  float out = 0;
  SIMT_LAUNCH(half_static, 1, 1, (227 << 10) - (32 << 10), nullptr, &out);
  EXPECT_EQ(out, 2);
  expect_contains(error_of([&] { SIMT_LAUNCH(half_static, 1, 1, (227 << 10) - (32 << 10) + 1, nullptr, &out); }),
                  "brings the block to 32768 static and 199681 dynamic bytes (at most 232448 together)");
}

#if defined(__SANITIZE_ADDRESS__)
TEST(SharedRulesDeathTest, TheAddressSanitizerStopsAtTheWriteItself) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(SIMT_LAUNCH(past_the_end, 1, 1, 50, nullptr, 33), "use-after-poison|out of bounds");
  EXPECT_DEATH(SIMT_LAUNCH(past_the_end, 1, 1, 50, nullptr, 50), "use-after-poison|out of bounds");
}
#else
TEST(SharedRules, WritingPastTheEnd) {
  EXPECT_EQ(error_of([] { SIMT_LAUNCH(past_the_end, 1, 1, 50, nullptr, 32); }), "");
  expect_contains(error_of([] { SIMT_LAUNCH(past_the_end, 2, 1, 50, nullptr, 33); }),
                  "wrote past the end of shared array row of 132 bytes (tests/sim/");
  EXPECT_EQ(error_of([] { SIMT_LAUNCH(past_the_end, 1, 1, 50, nullptr, 49); }), "");
  expect_contains(error_of([] { SIMT_LAUNCH(past_the_end, 1, 1, 50, nullptr, 50); }),
                  "wrote past the end of dynamic shared memory of 50 bytes");
}
#endif

// --------------------------------------------------------------------------------------------------------------- other faults

constexpr int kTrap = __LINE__ + 2;
__global__ void traps(int block) {
  if (static_cast<int>(blockIdx.x) == block && threadIdx.x == 5) __trap();
}

TEST(Faults, TrapNamesTheThread) {
  everywhere([] {
    expect_contains(error_of([] { SIMT_LAUNCH(traps, 1000, 8, 0, nullptr, 777); }),
                    "block (777,0,0), thread (5,0,0), " + at(kTrap) + ": __trap");
  });
}

__global__ void throws(int* reached) {
  __syncthreads();
  if (threadIdx.x == 9) throw std::runtime_error("from the kernel");
  __syncthreads();
  atomicAdd(reached, 1);
}

TEST(Faults, AnExceptionOfTheKernelReachesTheCaller) {
  everywhere([] {
    int reached = 0;
    EXPECT_THROW(SIMT_LAUNCH(throws, 1, 64, 0, nullptr, &reached), std::runtime_error);
    EXPECT_EQ(reached, 0);
    int out[64];
    SIMT_LAUNCH(neighbour<true>, 1, 64, 0, nullptr, out);  // the worker is as good as new
    EXPECT_EQ(out[1], 62);
  });
}

}  // namespace
}  // namespace vg

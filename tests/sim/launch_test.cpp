// What a launch may ask for, many launches side by side, and the choice of the order.
#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include "tests/sim/helpers.h"

namespace vg {
namespace {

using testing_sim::error_of;
using testing_sim::everywhere;
using testing_sim::expect_contains;

__global__ void count(int* runs) { atomicAdd(runs, 1); }

int runs_of(dim3 grid, dim3 block, std::size_t shared = 0) {
  int runs = 0;
  SIMT_LAUNCH(count, grid, block, shared, nullptr, &runs);
  return runs;
}

TEST(Launch, EveryThreadRunsOnce) {
  everywhere([] {
    EXPECT_EQ(runs_of(1, 1), 1);
    EXPECT_EQ(runs_of(dim3(7, 3, 2), dim3(33, 2, 3)), 42 * 198);
    EXPECT_EQ(runs_of(1000, 1024), 1024000);
    EXPECT_EQ(runs_of(dim3(1, 65535, 1), 1), 65535);
  });
}

TEST(Launch, AnEmptyGridDoesNothing) {
  EXPECT_EQ(runs_of(0, 32), 0);
  EXPECT_EQ(runs_of(dim3(3, 0, 1), 32), 0);
  EXPECT_EQ(runs_of(dim3(3, 1, 0), 32), 0);
}

TEST(Launch, LimitsOfAGpu) {
  const std::string kernel = "kernel count, grid ";
  expect_contains(error_of([] { runs_of(dim3(1, 65536, 1), 1); }),
                  kernel + "1 x 65536 x 1, block 1 x 1 x 1, 0 bytes of dynamic shared memory: ");
  expect_contains(error_of([] { runs_of(dim3(1, 65536, 1), 1); }), "grid.y and grid.z are at most 65535");
  expect_contains(error_of([] { runs_of(dim3(1, 1, 65536), 1); }), "grid.y and grid.z are at most 65535");
  expect_contains(error_of([] { runs_of(2147483648u, 1); }), "grid.x is at most 2147483647");
  expect_contains(error_of([] { runs_of(1, 1025); }), "a block has at most 1024 threads");
  expect_contains(error_of([] { runs_of(1, dim3(32, 33, 1)); }), "a block has at most 1024 threads");
  expect_contains(error_of([] { runs_of(1, dim3(2, 2, 65)); }), "block.z is at most 64");
  expect_contains(error_of([] { runs_of(1, 0); }), "a block has at least one thread");
  expect_contains(error_of([] { runs_of(1, 1, (227 << 10) + 1); }), "a block has at most 232448 bytes of shared memory");
  EXPECT_EQ(runs_of(1, 1, 227 << 10), 1);
  expect_contains(error_of([] { runs_of(0, 1025); }), "a block has at most 1024 threads");  // wrong even where nothing would run
}

TEST(Launch, BlocksFor) {
  EXPECT_EQ(simt::blocks_for(0, 256), 0u);
  EXPECT_EQ(simt::blocks_for(1, 256), 1u);
  EXPECT_EQ(simt::blocks_for(256, 256), 1u);
  EXPECT_EQ(simt::blocks_for(257, 256), 2u);
  EXPECT_EQ(simt::blocks_for(std::int64_t{2147483647} * 4, 4), 2147483647u);
  expect_contains(error_of([] { simt::blocks_for(std::int64_t{2147483647} * 4 + 1, 4); }),
                  "2147483648 blocks (a grid has at most 2147483647 along x)");
}

__global__ void launches_another(int* runs) { SIMT_LAUNCH(count, 1, 1, 0, nullptr, runs); }

TEST(Launch, NotFromWithinAKernel) {
  int runs = 0;
  expect_contains(error_of([&] { SIMT_LAUNCH(launches_another, 1, 1, 0, nullptr, &runs); }), "a kernel cannot launch another one here");
}

// A block-wide sum through shared memory with a barrier in a loop; every block writes its own cell.
__global__ void busy(std::uint64_t* out, int rounds) {
  SIMT_SHARED(std::uint64_t, cell, [96]);
  const unsigned i = threadIdx.x;
  cell[i] = i + blockIdx.x;
  for (int r = 0; r < rounds; ++r) {
    __syncthreads();
    const std::uint64_t next = cell[(i + 1) % 96] * 6364136223846793005u + __shfl_xor_sync(0xffffffffu, cell[i], 1);
    __syncthreads();
    cell[i] = next;
  }
  __syncthreads();
  if (i == 0) out[blockIdx.x] = cell[0] ^ cell[95];
}

TEST(Launch, ManyLaunchesByManyWorkersGiveEqualBits) {
  std::vector<std::uint64_t> first;
  for (int workers : {1, 2, 3, 4}) {
    set_threads(workers);
    sim::in_every_order([&](sim::Order) {
      for (int repeat = 0; repeat < 4; ++repeat) {
        std::vector<std::uint64_t> out(61);
        SIMT_LAUNCH(busy, 61, 96, 0, nullptr, out.data(), 5);
        if (first.empty()) first = out;
        ASSERT_EQ(out, first);
      }
    });
  }
  set_threads(0);
}

TEST(Launch, FromSeveralThreadsAtOnce) {
  std::vector<std::uint64_t> want(61);
  SIMT_LAUNCH(busy, 61, 96, 0, nullptr, want.data(), 3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int repeat = 0; repeat < 10; ++repeat) {
        std::vector<std::uint64_t> out(61);
        SIMT_LAUNCH(busy, 61, 96, 0, nullptr, out.data(), 3);
        wrong += out != want;
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Order, IsPutBack) {
  sim::set_order(sim::Order::reverse, 7);
  int orders = 0;
  sim::in_every_order([&](sim::Order o) {
    EXPECT_EQ(sim::order(), o);
    ++orders;
  });
  EXPECT_EQ(orders, 5);
  EXPECT_EQ(sim::order(), sim::Order::reverse);
  EXPECT_EQ(sim::order_seed(), 7u);
  sim::set_order(sim::Order::forward);
}

// In which order one worker runs blocks and threads.
__global__ void note(std::vector<unsigned>* log) { log->push_back(blockIdx.x * 100 + threadIdx.x); }

TEST(Order, DecidesWhoRunsFirst) {
  set_threads(1);
  const auto log_of = [](sim::Order o, std::uint64_t seed) {
    sim::set_order(o, seed);
    std::vector<unsigned> log;
    SIMT_LAUNCH(note, 3, 40, 0, nullptr, &log);
    sim::set_order(sim::Order::forward);
    return log;
  };
  const std::vector<unsigned> forward = log_of(sim::Order::forward, 1), reverse = log_of(sim::Order::reverse, 1);
  std::vector<unsigned> sorted;
  for (unsigned b = 0; b < 3; ++b)
    for (unsigned t = 0; t < 40; ++t) sorted.push_back(b * 100 + t);
  EXPECT_EQ(forward, sorted);
  EXPECT_EQ(reverse, std::vector<unsigned>(sorted.rbegin(), sorted.rend()));
  std::vector<unsigned> drawn = log_of(sim::Order::random, 1);
  EXPECT_EQ(drawn, log_of(sim::Order::random, 1));
  EXPECT_NE(drawn, log_of(sim::Order::random, 2));
  EXPECT_NE(drawn, sorted);
  std::sort(drawn.begin(), drawn.end());
  EXPECT_EQ(drawn, sorted);
  set_threads(0);
}

// The variable is read once per process, so each case is a process of its own.
void expect_from_environment(const char* value, sim::Order order, std::uint64_t seed) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  ::setenv("VG_SIM_ORDER", value, 1);
  EXPECT_EXIT(std::exit(sim::order() == order && sim::order_seed() == seed ? 0 : 1), ::testing::ExitedWithCode(0), "") << value;
  ::unsetenv("VG_SIM_ORDER");
}

TEST(OrderDeathTest, IsReadFromTheEnvironmentReverse) { expect_from_environment("reverse", sim::Order::reverse, 1); }
TEST(OrderDeathTest, IsReadFromTheEnvironmentSeed) { expect_from_environment("random:12345", sim::Order::random, 12345); }

TEST(OrderDeathTest, AWrongEnvironmentIsRefused) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  ::setenv("VG_SIM_ORDER", "backwards", 1);
  EXPECT_EXIT(
      std::exit(error_of([] { runs_of(1, 1); }) == "VG_SIM_ORDER = backwards (wanted forward, reverse, random or random:SEED)" ? 0 : 1),
      ::testing::ExitedWithCode(0), "");
  ::unsetenv("VG_SIM_ORDER");
}

// A thread's local variables live on its own stack of 128 KiB, also while it waits.
__global__ void large_locals(int* out) {
  int local[16384];
  for (int i = 0; i < 16384; ++i) local[i] = i * static_cast<int>(threadIdx.x + 1);
  __syncthreads();
  int sum = 0;
  for (int i = 0; i < 16384; ++i) sum ^= local[i];
  out[threadIdx.x] = sum;
}

TEST(Launch, LargeLocalArrays) {
  everywhere([] {
    std::vector<int> out(33);
    SIMT_LAUNCH(large_locals, 1, 33, 0, nullptr, out.data());
    for (int t = 0; t < 33; ++t) {
      int want = 0;
      for (int i = 0; i < 16384; ++i) want ^= i * (t + 1);
      ASSERT_EQ(out[static_cast<std::size_t>(t)], want);
    }
  });
}

}  // namespace
}  // namespace vg

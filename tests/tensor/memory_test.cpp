// The caching allocator: exact figures, reuse, the limit, and what a simulated device's fresh memory holds. One test uses one device's pool at a time.
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/random.h"
#include "tensor/tensor.h"

#if defined(__SANITIZE_ADDRESS__)
// A request beyond reason returns null, as without the sanitizer, instead of ending the program.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() { return "allocator_may_return_null=1"; }
#endif

namespace vg {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kReuse = false;  // every block is fresh under the address sanitizer
#else
constexpr bool kReuse = true;
#endif

class Memory : public testing::Test {
 protected:
  Memory() {
    release_cache(kCpu);
    reset_peak(kCpu);
    start_ = memory_stats(kCpu).live;
  }
  ~Memory() override {
    set_memory_limit(kCpu, 0);
    release_cache(kCpu);
  }
  std::size_t live() const { return memory_stats(kCpu).live - start_; }
  std::size_t start_ = 0;
};

Tensor bytes(std::size_t n, Device d = kCpu) { return Tensor({static_cast<std::int64_t>(n)}, DType::u8, d); }

TEST(BlockBytes, NeverWastesMoreThanAnEighthBeyondSmallSizes) {
  std::size_t last = 0;
  Random random(1);
  const auto check = [&](std::size_t n) {
    const std::size_t block = block_bytes(n);
    ASSERT_GE(block, n);
    ASSERT_EQ(block % 256, 0u);
    if (n > 2048) {
      ASSERT_LE(8 * (block - n), n) << n;
    } else {
      ASSERT_LT(block - n, 256u) << n;
    }
    ASSERT_EQ(block_bytes(block), block) << n;
  };
  for (std::size_t n = 1; n < 70000; ++n) {
    check(n);
    ASSERT_GE(block_bytes(n), last);
    last = block_bytes(n);
  }
  for (int i = 0; i < 10000; ++i) check(1 + (static_cast<std::size_t>(random.bits()) << random.below(16)));
  EXPECT_EQ(block_bytes(0), 0u);
}

TEST_F(Memory, LivePeakAndCachedAreExact) {
  const std::size_t a = block_bytes(1000), b = block_bytes(3'000'001), c = block_bytes(9'999'999);
  {
    const Tensor ta = bytes(1000);
    EXPECT_EQ(live(), a);
    {
      const Tensor tb = bytes(3'000'001), tc = bytes(9'999'999);
      EXPECT_EQ(live(), a + b + c);
    }
    EXPECT_EQ(live(), a);
    EXPECT_EQ(memory_stats(kCpu).cached, kReuse ? b + c : 0);
    EXPECT_EQ(memory_stats(kCpu).peak - start_, a + b + c);
    reset_peak(kCpu);
    EXPECT_EQ(memory_stats(kCpu).peak - start_, a);
  }
  EXPECT_EQ(live(), 0u);
  release_cache(kCpu);
  EXPECT_EQ(memory_stats(kCpu).cached, 0u);
}

TEST_F(Memory, LastOwnerGivesBack) {
  Tensor view;
  {
    const Tensor whole({10, 10}, DType::f32, kCpu);
    view = whole.range(50, {5, 10});
  }
  EXPECT_EQ(live(), block_bytes(400));
  view = Tensor();
  EXPECT_EQ(live(), 0u);
}

TEST_F(Memory, StepsOfTheSameSizesAskTheSystemOnlyOnce) {
  if (!kReuse) GTEST_SKIP() << "blocks are never reused under the address sanitizer";
  std::vector<void*> first, second;
  const auto step = [](std::vector<void*>& where) {
    std::vector<Tensor> held;
    for (const std::size_t n : {5'000'000u, 700u, 5'000'000u, 123'456u}) {
      held.push_back(bytes(n));
      where.push_back(held.back().raw());
    }
  };
  step(first);
  const std::size_t cached = memory_stats(kCpu).cached;
  step(second);
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  EXPECT_EQ(first, second);
  EXPECT_EQ(memory_stats(kCpu).cached, cached);
}

TEST_F(Memory, BlocksAreAlignedAndWritable) {
  for (const std::size_t n : {1u, 255u, 257u, 100'000u, (4u << 20) - 1, 4u << 20, (4u << 20) + 1, 20'000'000u}) {
    for (const Device d : {kCpu, kSim}) {
      Tensor t = bytes(n, d);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.raw()) % 256, 0u);
      t.data<std::uint8_t>()[0] = 1;
      t.data<std::uint8_t>()[n - 1] = 2;
      EXPECT_EQ(t.data<std::uint8_t>()[n - 1], 2);
    }
  }
  release_cache(kSim);
}

TEST_F(Memory, LimitIsKeptAndNamesBothFigures) {
  set_memory_limit(kCpu, start_ + (10u << 20));
  const Tensor held = bytes(6u << 20);
  try {
    bytes(5u << 20);
    FAIL() << "5 MiB more than 6 MiB fitted into 10 MiB";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::out_of_memory);
    const std::string text = e.what();
    EXPECT_NE(text.find("5.0 MiB"), std::string::npos) << text;
    EXPECT_NE(text.find("10.0 MiB"), std::string::npos) << text;
  }
  EXPECT_NO_THROW(bytes(4u << 20));
  set_memory_limit(kCpu, 0);
  EXPECT_NO_THROW(bytes(5u << 20));
}

TEST_F(Memory, CachedBlocksMakeRoomUnderALimit) {
  if (!kReuse) GTEST_SKIP() << "blocks are never reused under the address sanitizer";
  set_memory_limit(kCpu, start_ + (10u << 20));
  bytes(6u << 20);
  EXPECT_EQ(memory_stats(kCpu).cached, 6u << 20);
  const Tensor other = bytes(7u << 20);  // another class: the cached block must go first
  EXPECT_EQ(memory_stats(kCpu).cached, 0u);
}

TEST_F(Memory, HoldsAtMostHalfAsMuchAgainAsWasEverLive) {
  constexpr std::size_t slack = 64u << 20;
  for (std::size_t n = 20u << 20; n <= 200u << 20; n += 9u << 20) {
    bytes(n);  // never touched, so this costs addresses only
    const MemoryStats s = memory_stats(kCpu);
    EXPECT_LE(s.live + s.cached, s.peak + s.peak / 2 + slack);
  }
}

TEST_F(Memory, ImpossibleRequestsAreRefused) {
  try {
    bytes(std::size_t{1} << 60);
    FAIL() << "an exbibyte was given";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::out_of_memory);
  }
  EXPECT_THROW(Tensor({std::int64_t{1} << 31, std::int64_t{1} << 31, 2}, DType::f32, kCpu), Error);
  EXPECT_THROW(Tensor({4, -1}, DType::f32, kCpu), Error);
  EXPECT_EQ(live(), 0u);
}

TEST_F(Memory, FreshSimMemoryIsNaNEvenWhenReused) {
  for (int round = 0; round < 2; ++round) {
    Tensor t({33, 17}, DType::f32, kSim);
    for (std::int64_t i = 0; i < t.elements(); ++i) ASSERT_TRUE(std::isnan(t.data<float>()[i]));
    std::fill_n(t.data<float>(), t.elements(), 1.0f);
  }
}

TEST_F(Memory, ThreadsShareThePool) {
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k)
    threads.emplace_back([k] {
      Random random(4, static_cast<std::uint64_t>(k));
      std::vector<Tensor> held(8);
      for (int i = 0; i < 2000; ++i) {
        Tensor t = bytes(1 + random.below(100'000));
        t.data<std::uint8_t>()[0] = static_cast<std::uint8_t>(k);
        held[random.below(8)] = t;
        for (const Tensor& h : held) {
          if (h.defined()) {
            ASSERT_EQ(h.data<std::uint8_t>()[0], k);  // nobody else was given this block
          }
        }
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(live(), 0u);
}

}  // namespace
}  // namespace vg

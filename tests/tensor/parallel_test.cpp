// parallel_for: the chunks are the same for any number of threads, workers never meet, exceptions come out, nesting works.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "tensor/error.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

class Parallel : public testing::Test {
 protected:
  ~Parallel() override { set_threads(0); }
};

using Chunks = std::vector<std::pair<std::int64_t, std::int64_t>>;

Chunks chunks_of(std::int64_t count, std::int64_t grain) {
  Chunks chunks;
  std::mutex mutex;
  parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    chunks.emplace_back(begin, end);
  });
  std::sort(chunks.begin(), chunks.end());
  return chunks;
}

TEST_F(Parallel, ChunksDependOnCountAndGrainAlone) {
  for (const std::int64_t count : {0, 1, 7, 17, 33, 1000})
    for (const std::int64_t grain : {1, 2, 7, 33, 5000}) {
      Chunks want;
      for (std::int64_t i = 0; i < count; i += grain) want.emplace_back(i, std::min(count, i + grain));
      for (int threads = 1; threads <= 8; ++threads) {
        set_threads(threads);
        ASSERT_EQ(chunks_of(count, grain), want) << count << " by " << grain << " on " << threads;
      }
    }
}

TEST_F(Parallel, WorkerNumbersAreInRangeAndNeverMeet) {
  for (const int threads : {1, 2, 3, 8}) {
    set_threads(threads);
    EXPECT_EQ(vg::threads(), threads);
    std::vector<std::atomic<int>> busy(static_cast<std::size_t>(threads));
    std::atomic<int> wrong{0};
    parallel_for_worker(500, 1, [&](int worker, std::int64_t, std::int64_t) {
      if (worker < 0 || worker >= threads) {
        ++wrong;
        return;
      }
      std::atomic<int>& flag = busy[static_cast<std::size_t>(worker)];
      if (flag.exchange(1)) ++wrong;
      std::this_thread::yield();
      // While this body waits for a nested loop, its worker must not start another chunk of the outer one.
      parallel_for(4, 1, [](std::int64_t, std::int64_t) { std::this_thread::yield(); });
      flag = 0;
    });
    EXPECT_EQ(wrong, 0) << threads;
  }
}

TEST_F(Parallel, BodiesReallyRunAtTheSameTime) {
  set_threads(3);
  std::atomic<int> inside{0}, most{0};
  const auto start = std::chrono::steady_clock::now();
  parallel_for(3, 1, [&](std::int64_t, std::int64_t) {
    ++inside;
    while (most < 3 && std::chrono::steady_clock::now() - start < std::chrono::seconds(20)) {
      int seen = inside;
      if (seen > most) most = seen;
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(most, 3);
}

TEST_F(Parallel, AnExceptionComesOutAfterAllBodiesStopped) {
  for (const int threads : {1, 2, 5}) {
    set_threads(threads);
    std::atomic<int> running{0};
    try {
      parallel_for(200, 1, [&](std::int64_t begin, std::int64_t) {
        ++running;
        if (begin == 17) {
          --running;
          fail(ErrorCode::numeric, "chunk {}", begin);
        }
        std::this_thread::yield();
        --running;
      });
      FAIL() << "the exception was lost";
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), "chunk 17");
      EXPECT_EQ(running, 0);
    }
    EXPECT_EQ(chunks_of(10, 3).size(), 4u);  // and the threads are fit for more
  }
}

TEST_F(Parallel, NestedLoopsCoverEveryPair) {
  for (const int threads : {1, 2, 4}) {
    set_threads(threads);
    std::vector<std::atomic<int>> seen(17 * 33);
    std::atomic<int> wrong{0};
    parallel_for_worker(17, 2, [&](int outer, std::int64_t b, std::int64_t e) {
      for (std::int64_t i = b; i < e; ++i)
        parallel_for_worker(33, 4, [&, outer](int worker, std::int64_t begin, std::int64_t end) {
          static_cast<void>(outer);
          if (worker < 0 || worker >= threads) ++wrong;
          for (std::int64_t j = begin; j < end; ++j) ++seen[static_cast<std::size_t>(i * 33 + j)];
        });
    });
    EXPECT_EQ(wrong, 0);
    EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](const auto& n) { return n == 1; }));
  }
}

TEST_F(Parallel, TwoCallersAtOnce) {
  set_threads(2);
  std::atomic<std::int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int k = 0; k < 3; ++k)
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) parallel_for(100, 7, [&](std::int64_t b, std::int64_t e) { sum += e - b; });
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(sum, 3 * 50 * 100);
}

TEST_F(Parallel, NonsenseIsRefused) {
  EXPECT_THROW(parallel_for(10, 0, [](std::int64_t, std::int64_t) {}), Error);
  EXPECT_THROW(set_threads(-1), Error);
  EXPECT_THROW(set_threads(100000), Error);
}

}  // namespace
}  // namespace vg

// Every way in which a child can end, told in words; its output whole; ours unharmed.
#include "tensor/os_child.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tensor/error.h"

namespace vg::os {
namespace {

std::string run(const std::function<void(const ChildWrite&)>& work, const ChildLimits& limits = {}) {
  return run_in_child(limits, work, [](std::span<const std::byte>) {});
}

TEST(Child, BytesArriveInOrder) {
  std::vector<int> sent(1'000'003), got;
  for (std::size_t n = 0; n < sent.size(); ++n) sent[n] = static_cast<int>(n * 7);
  std::string bytes;
  const std::string end = run_in_child({}, [&](const ChildWrite& write) {
    std::puts("not seen by anybody");
    write(sent.data(), sent.size() * sizeof(int));
  }, [&](std::span<const std::byte> piece) { bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size()); });
  EXPECT_EQ(end, "");
  ASSERT_EQ(bytes.size(), sent.size() * sizeof(int));
  got.resize(sent.size());
  std::memcpy(got.data(), bytes.data(), bytes.size());
  EXPECT_EQ(got, sent);
}

TEST(Child, EndsInWords) {
  EXPECT_EQ(run([](const ChildWrite&) { ::raise(SIGSEGV); }).substr(0, 18), "ended by signal 11");
  EXPECT_EQ(run([](const ChildWrite&) { ::raise(SIGABRT); }).substr(0, 17), "ended by signal 6");
  EXPECT_EQ(run([](const ChildWrite&) { throw std::runtime_error("x"); }), "failed");
  EXPECT_EQ(run([](const ChildWrite&) { throw std::bad_alloc(); }), "ran out of memory");
  EXPECT_EQ(run([](const ChildWrite&) { std::this_thread::sleep_for(std::chrono::seconds(30)); }, {.silence_seconds = 0.1}), "said nothing for 0.1 s");
  EXPECT_EQ(run([](const ChildWrite&) { for (std::atomic<int> n = 0;; ++n) {} }, {.cpu_seconds = 1}), "used more than 1 s of processor time");
}

TEST(Child, MemoryIsLimited) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's shadow memory needs more address space than any limit";
#endif
  const auto fill = [](const ChildWrite& write) {
    std::vector<char> big(std::size_t{256} << 20, 'x');
    write(big.data() + big.size() - 1, 1);
  };
  EXPECT_EQ(run(fill, {.memory = std::uint64_t{64} << 20}), "ran out of memory");
  EXPECT_EQ(run(fill, {.memory = std::uint64_t{512} << 20}), "");
}

TEST(Child, AnErrorHereEndsTheChildThere) {
  EXPECT_THROW(run_in_child({}, [](const ChildWrite& write) { for (;;) write("x", 1); },
                            [](std::span<const std::byte>) { fail(ErrorCode::bad_file, "enough"); }),
               Error);
}

}  // namespace
}  // namespace vg::os

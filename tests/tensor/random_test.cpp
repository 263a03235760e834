// Philox against the known answers of its authors (Random123, tests/kat_vectors), and the stream built on it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/random.h"

namespace vg {
namespace {

void expect_philox(std::uint64_t key, std::uint64_t hi, std::uint64_t lo, std::array<std::uint32_t, 4> want) {
  const Philox4 got = philox(key, hi, lo);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(got.v[i], want[static_cast<std::size_t>(i)]) << i;
}

TEST(Philox, KnownAnswers) {
  expect_philox(0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  expect_philox(~0ull, ~0ull, ~0ull, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // Counter and key from the digits of pi: 243f6a88 85a308d3 13198a2e 03707344, a4093822 299f31d0.
  expect_philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(Random, GoesOnFromASavedPosition) {
  Random a(5, 7);
  std::vector<std::uint32_t> all(100);
  for (auto& v : all) v = a.bits();
  for (const std::uint64_t at : {0, 1, 3, 4, 5, 63, 99}) EXPECT_EQ(Random(5, 7, at).bits(), all[at]);
  EXPECT_EQ(a.position(), 100u);
}

TEST(Random, StreamsAndSeedsDiffer) {
  EXPECT_NE(Random(1, 0).bits(), Random(2, 0).bits());
  EXPECT_NE(Random(1, 0).bits(), Random(1, 1).bits());
}

// Moments of 2^18 draws: the mean of n uniforms has a standard deviation of sqrt(1/12/n); five of those are allowed.
TEST(Random, Moments) {
  constexpr int n = 1 << 18;
  Random random(42);
  double sum = 0, normal_sum = 0, normal_squares = 0;
  float least = 1, most = 0;
  for (int i = 0; i < n; ++i) {
    const float u = random.uniform();
    sum += u;
    least = std::min(least, u);
    most = std::max(most, u);
  }
  for (int i = 0; i < n; ++i) {
    const double x = random.normal();
    normal_sum += x;
    normal_squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_GE(least, 0.0f);
  EXPECT_LT(most, 1.0f);
  EXPECT_NEAR(normal_sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(normal_squares / n, 1, 5 * std::sqrt(2.0 / n));
}

TEST(Random, BelowIsEven) {
  constexpr int n = 70000, k = 7;
  Random random(3);
  int counts[k] = {};
  for (int i = 0; i < n; ++i) ++counts[random.below(k)];
  for (const int c : counts) EXPECT_NEAR(c, n / k, 5 * std::sqrt(n / k));
}

TEST(Random, ShuffleKeepsTheItemsAndMovesThem) {
  std::vector<int> items(257);
  std::iota(items.begin(), items.end(), 0);
  std::vector<int> mixed = items;
  Random random(9);
  random.shuffle(mixed.begin(), mixed.end());
  int in_place = 0;
  for (std::size_t i = 0; i < items.size(); ++i) in_place += mixed[i] == items[i];
  EXPECT_LT(in_place, 12);  // one is expected
  std::sort(mixed.begin(), mixed.end());
  EXPECT_EQ(mixed, items);
}

}  // namespace
}  // namespace vg

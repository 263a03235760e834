// Replays the fuzz targets without libFuzzer: the committed corpus with its verdicts, the seeds, and damaged seeds that are the same in every run.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>

#include "tensor/random.h"
#include "tests/fuzz/corpus.h"

namespace vg::fuzz {

// A seed with a few bytes changed, dropped, doubled or taken from elsewhere.
inline Bytes damaged(Bytes b, Random& random) {
  for (std::uint32_t n = 1 + random.below(4); n > 0 && !b.empty(); --n) {
    const std::uint32_t at = random.below(static_cast<std::uint32_t>(b.size()));
    const std::uint32_t length = 1 + random.below(std::min<std::uint32_t>(9, static_cast<std::uint32_t>(b.size()) - at));
    const auto from = b.begin() + at;
    switch (random.below(6)) {
      case 0: b[at] = static_cast<std::byte>(random.bits()); break;
      case 1: b[at] ^= static_cast<std::byte>(1u << random.below(8)); break;
      case 2: b[at] = random.below(2) ? std::byte{0xff} : std::byte{0x80}; break;
      case 3: b.erase(from, from + length); break;
      case 4: {
        const Bytes piece(from, from + length);
        b.insert(b.begin() + random.below(static_cast<std::uint32_t>(b.size())), piece.begin(), piece.end());
        break;
      }
      default: b.resize(at); break;
    }
  }
  return b;
}

class Replay : public testing::TestWithParam<Target> {};

// What happened, for messages; a finding fails the test and names itself.
inline char judge(const Target& target, const Bytes& input, const std::string& which) {
  try {
    return verdict(target, input);
  } catch (const std::exception& e) {
    ADD_FAILURE() << target.name << ", " << which << ": " << e.what();
    return 'F';
  }
}

TEST_P(Replay, Corpus) {
  const std::string path = std::string(VG_SOURCE_DIR) + "/tests/fuzz/corpus/" + GetParam().name + ".corpus";
  ASSERT_TRUE(std::filesystem::exists(path)) << "every target has a corpus: tests/fuzz/run.sh makes it";
  const std::vector<Entry> entries = read_corpus(path);
  EXPECT_GT(entries.size(), 10u);
  int accepted = 0;
  for (std::size_t n = 0; n < entries.size() && !HasFailure(); ++n) {
    const char found = judge(GetParam(), entries[n].bytes, "entry " + std::to_string(n));
    EXPECT_EQ(found, entries[n].verdict) << "entry " << n;
    accepted += found == 'A';
  }
  EXPECT_GT(accepted, 0);
}

TEST_P(Replay, DamagedSeeds) {
  const std::vector<Bytes> seeds = GetParam().seeds();
  ASSERT_FALSE(seeds.empty());
  for (std::size_t n = 0; n < seeds.size(); ++n) EXPECT_EQ(judge(GetParam(), seeds[n], "seed " + std::to_string(n)), 'A') << "seed " << n;
  int refused = 0;
  for (std::uint64_t run = 0; run < 2000 && !HasFailure(); ++run) {
    Random random(4242, run);
    const std::size_t which = random.below(static_cast<std::uint32_t>(seeds.size()));
    refused += judge(GetParam(), damaged(seeds[which], random), "run " + std::to_string(run)) == 'R';
  }
  if (std::string(GetParam().name) != "deflate") {  // which takes any bytes
    EXPECT_GT(refused, 20) << "damage that is never noticed";
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Replay, testing::ValuesIn(targets().begin(), targets().end()),
                         [](const testing::TestParamInfo<Target>& info) { return std::string(info.param.name); });

}  // namespace vg::fuzz

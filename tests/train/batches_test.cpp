// Batches: functions of (seed, step) alone, epochs that visit everybody, patches that lie where they should.
#include "train/batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "kernels/scratch.h"
#include "tensor/parallel.h"
#include "tests/train/data_sets.h"

namespace vg {
namespace {

// `count` samples of the given extents; the middle structure is the one voxel in a corner, the left putamen the lower half of W.
Dataset data_of(int count, const Shape& extents, std::int64_t channels = 1) {
  Dataset d = test::empty_dataset(extents[0] == 1 ? 2 : 3, channels);
  for (int i = 0; i < count; ++i) {
    Sample s = test::numbered_sample("s" + std::to_string(i), extents, channels, [&](std::int64_t z, std::int64_t y, std::int64_t x) {
      return z == extents[0] - 1 && y == extents[1] - 1 && x == extents[2] - 1 ? 1 : 0;
    });
    for (std::int64_t v = 0; v < s.image.elements(); ++v) s.image.data<float>()[v] += static_cast<float>(100000 * i);
    d.training.push_back(std::move(s));
  }
  return d;
}

bool same(const Batch& a, const Batch& b) {
  return a.samples == b.samples && std::memcmp(a.images.raw(), b.images.raw(), a.images.bytes()) == 0 &&
         std::memcmp(a.labels.raw(), b.labels.raw(), a.labels.bytes()) == 0;
}

TrainConfig config(int batch, std::uint64_t seed = 1) {
  TrainConfig c;
  c.batch = batch, c.seed = seed;
  return c;
}

TEST(Batches, AreFunctionsOfSeedAndStepAlone) {
  const Dataset d = data_of(7, {5, 9, 11}, 2);
  TrainConfig c = config(3), other = config(3, 2);
  c.augment = other.augment = {.flip = true, .intensity = 0.5, .noise = 0.5, .affine = 0.5, .elastic = 0.5, .elastic_spacing = 4, .elastic_magnitude = 1.6};
  const BatchSource a(d, c, {4, 4, 8}), b(d, c, {4, 4, 8}), e(d, other, {4, 4, 8});
  std::vector<Batch> forwards;
  for (std::int64_t s = 0; s < 6; ++s) forwards.push_back(a.at(s));
  set_threads(1);
  for (std::int64_t s = 6; s-- > 0;) EXPECT_TRUE(same(b.at(s), forwards[static_cast<std::size_t>(s)])) << s;
  set_threads(3);
  for (std::int64_t s = 0; s < 6; ++s) EXPECT_TRUE(same(a.at(s), forwards[static_cast<std::size_t>(s)])) << s;
  set_threads(0);
  for (std::size_t s = 1; s < 6; ++s) EXPECT_FALSE(same(forwards[0], forwards[s])) << s;
  EXPECT_FALSE(same(e.at(0), forwards[0]));
}

TEST(Batches, AnEpochVisitsEverybodyOnceInAnotherOrder) {
  const Dataset d = data_of(12, {1, 4, 4});
  const TrainConfig c = config(3);
  const BatchSource source(d, c, {1, 4, 4});
  ASSERT_EQ(source.steps_per_epoch(), 4);
  std::set<std::vector<int>> orders;
  for (int epoch = 0; epoch < 5; ++epoch) {
    std::vector<int> order;
    for (int s = 0; s < 4; ++s)
      for (int i : source.at(epoch * 4 + s).samples) order.push_back(i);
    orders.insert(order);
    std::sort(order.begin(), order.end());
    for (int i = 0; i < 12; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i) << "epoch " << epoch;
  }
  EXPECT_EQ(orders.size(), 5u);
}

// 7 samples in batches of 3: two batches a pass, nobody twice in one, and the one left out changes.
TEST(Batches, ARestThatFillsNoBatchWaitsForTheNextPass) {
  const Dataset d = data_of(7, {1, 4, 4});
  const TrainConfig c = config(3);
  const BatchSource source(d, c, {1, 4, 4});
  ASSERT_EQ(source.steps_per_epoch(), 2);
  std::set<int> seen;
  for (int pass = 0; pass < 10; ++pass) {
    std::set<int> one;
    for (int s = 0; s < 2; ++s)
      for (int i : source.at(pass * 2 + s).samples) EXPECT_TRUE(one.insert(i).second) << "pass " << pass;
    seen.insert(one.begin(), one.end());
  }
  EXPECT_EQ(seen.size(), 7u);
}

TEST(Batches, FewSamplesFillABatchByTurns) {
  const Dataset d = data_of(2, {1, 4, 4});
  const TrainConfig c = config(5);
  const BatchSource source(d, c, {1, 4, 4});
  EXPECT_EQ(source.steps_per_epoch(), 1);
  const std::vector<int> samples = source.at(3).samples;
  EXPECT_EQ(samples.size(), 5u);
  EXPECT_GE(std::count(samples.begin(), samples.end(), 0), 2);
  EXPECT_GE(std::count(samples.begin(), samples.end(), 1), 2);
}

TEST(Batches, AGivenOrderReplacesShuffling) {
  const Dataset d = data_of(4, {1, 4, 4});
  const TrainConfig c = config(2);
  const BatchSource source(d, c, {1, 4, 4}, {3, 3, 0, 2, 1, 0});
  EXPECT_EQ(source.at(0).samples, (std::vector<int>{3, 3}));
  EXPECT_EQ(source.at(2).samples, (std::vector<int>{1, 0}));
  const Batch b = source.at(1);
  EXPECT_EQ(b.images.data<float>()[0], 1.0f);
  EXPECT_EQ(b.images.data<float>()[16], 200001.0f);
  EXPECT_THROW(source.at(3), Error);
  EXPECT_THROW(BatchSource(d, c, {1, 4, 4}, {0, 4}), Error);
  EXPECT_THROW(BatchSource(d, c, {1, 4, 4}, {0, -1}), Error);
}

// With foreground 1 each patch holds a labelled voxel, though that is a single voxel in a corner of 4000; with 0 it hardly ever does.
TEST(Batches, ForegroundPatchesHoldForeground) {
  const Dataset d = data_of(2, {10, 20, 20});
  for (const double share : {1.0, 0.5, 0.0}) {
    TrainConfig c = config(4);
    c.foreground = share;
    const BatchSource source(d, c, {4, 4, 4});
    int with = 0;
    for (int s = 0; s < 25; ++s) {
      const Batch b = source.at(s);
      for (int i = 0; i < 4; ++i) {
        const std::uint8_t* p = b.labels.data<std::uint8_t>() + i * 64;
        with += std::any_of(p, p + 64, [](std::uint8_t k) { return k == 1; });
      }
    }
    if (share == 1.0)
      EXPECT_EQ(with, 100);
    else if (share == 0.5)
      EXPECT_TRUE(with > 30 && with < 70) << with;
    else
      EXPECT_LT(with, 10);
  }
}

// Rare and common classes are asked for alike: half of the foreground patches are centred on the single voxel.
TEST(Batches, ClassesAreChosenAlikeWhateverTheirSize) {
  Dataset d = test::empty_dataset(3, 1);
  d.training.push_back(test::numbered_sample("s", {8, 16, 16}, 1, [](std::int64_t z, std::int64_t y, std::int64_t x) {
    return x < 8 ? 2 : z == 7 && y == 15 && x == 15 ? 1 : 0;
  }));
  TrainConfig c = config(4);
  c.foreground = 1.0;
  const BatchSource source(d, c, {2, 2, 2});
  int rare = 0;
  for (int s = 0; s < 50; ++s) {
    const Batch b = source.at(s);
    for (int i = 0; i < 4; ++i) {
      const std::uint8_t* p = b.labels.data<std::uint8_t>() + i * 8;
      rare += std::any_of(p, p + 8, [](std::uint8_t k) { return k == 1; });
    }
  }
  EXPECT_TRUE(rare > 65 && rare < 135) << rare << " of 200";
}

// Every patch is a box of the image, labels with it.
TEST(Batches, PatchesAreBoxesOfTheImage) {
  const Dataset d = data_of(3, {6, 7, 9}, 2);
  TrainConfig c = config(2);
  const BatchSource source(d, c, {2, 3, 4});
  std::set<float> corners;
  for (int s = 0; s < 40; ++s) {
    const Batch b = source.at(s);
    for (std::int64_t i = 0; i < 2; ++i) {
      const float* p = b.images.data<float>() + i * 2 * 3 * 4 * 2;
      const std::uint8_t* k = b.labels.data<std::uint8_t>() + i * 2 * 3 * 4;
      const int sample = b.samples[static_cast<std::size_t>(i)];
      corners.insert(p[0]);
      for (std::int64_t z = 0; z < 2; ++z)
        for (std::int64_t y = 0; y < 3; ++y)
          for (std::int64_t x = 0; x < 4; ++x) {
            const std::int64_t at = (z * 3 + y) * 4 + x;
            ASSERT_EQ(p[at * 2], p[0] + static_cast<float>((z * 7 + y) * 9 + x));
            ASSERT_EQ(p[at * 2 + 1], p[at * 2] + 1000.0f);
            const bool corner = p[at * 2] == static_cast<float>(100000 * sample) + 6 * 7 * 9;
            ASSERT_EQ(k[at], corner ? 1 : 0);
          }
    }
  }
  EXPECT_GT(corners.size(), 20u);
}

TEST(Batches, APatchLargerThanTheImageIsFilledUpWithZeros) {
  const Dataset d = data_of(1, {3, 4, 5});
  const TrainConfig c = config(1);
  const Batch b = BatchSource(d, c, {4, 8, 6}).at(0);
  // Extra voxels: one along D, four along H, one along W; the image sits at (0, 2, 0).
  for (std::int64_t z = 0; z < 4; ++z)
    for (std::int64_t y = 0; y < 8; ++y)
      for (std::int64_t x = 0; x < 6; ++x) {
        const bool inside = z < 3 && y >= 2 && y < 6 && x < 5;
        const std::int64_t at = (z * 8 + y) * 6 + x;
        EXPECT_EQ(b.images.data<float>()[at], inside ? static_cast<float>(1 + (z * 4 + y - 2) * 5 + x) : 0.0f) << z << " " << y << " " << x;
        EXPECT_EQ(b.labels.data<std::uint8_t>()[at], inside && z == 2 && y == 5 && x == 4 ? 1 : 0);
      }
}

// A device that is given what `cut` has cut makes the batch that the cpu makes at once: the same bits on the cpu, the same numbers on sim.
TEST(Batches, AreTheSameInTwoHalves) {
  const Dataset d = data_of(5, {9, 12, 14}, 2);
  TrainConfig c = config(3);
  c.augment = {.flip = true, .intensity = 0.5, .noise = 0.5, .affine = 0.4, .elastic = 0.4, .elastic_spacing = 4, .elastic_magnitude = 1.6};
  const BatchSource source(d, c, {4, 8, 8});
  int plain = 0, made = 0;
  for (std::int64_t step = 0; step < 12; ++step) {
    const Batch whole = source.at(step);
    const CutBatch cut = source.cut(step);
    EXPECT_EQ(cut.samples, whole.samples);
    for (const Device device : {kCpu, kSim}) {
      ScratchOwner scratch(device);
      Tensor images = zeros(source.image_shape(), DType::f32, device), labels = zeros(source.label_shape(), DType::u8, device);
      for (std::size_t i = 0; i < cut.items.size(); ++i) {
        const CutBatch::Item& item = cut.items[i];
        if (!item.plan.plain()) {
          ++made;
          continue;
        }
        ++plain;
        EXPECT_GE(item.image, cut.reads);
        std::memcpy(images.data<float>() + i * 4 * 8 * 8 * 2, cut.memory.data<std::uint8_t>() + item.image, 4 * 8 * 8 * 2 * sizeof(float));
        std::memcpy(labels.data<std::uint8_t>() + i * 4 * 8 * 8, cut.memory.data<std::uint8_t>() + item.labels, 4 * 8 * 8);
      }
      Tensor memory = copy_to(cut.memory, device);
      source.make(Exec{device, &scratch}, cut, memory, copy_to(source.swap(), device), images, labels);
      if (device == kCpu) {
        EXPECT_EQ(to_host<float>(images), to_host<float>(whole.images));
        EXPECT_EQ(to_host<std::uint8_t>(labels), to_host<std::uint8_t>(whole.labels));
        continue;
      }
      const std::vector<float> got = to_host<float>(images), want = to_host<float>(whole.images);
      for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4f * std::max(1.0f, std::fabs(want[i]))) << i;
      EXPECT_EQ(to_host<std::uint8_t>(labels), to_host<std::uint8_t>(whole.labels));
    }
  }
  EXPECT_GT(plain, 5);
  EXPECT_GT(made, 30);
}

TEST(Batches, DefaultPatchesFitDataAndNetwork) {
  const int divisor[3] = {1, 8, 4};
  EXPECT_EQ(default_patch(data_of(1, {1, 250, 101}), divisor), (std::array<std::int64_t, 3>{1, 256, 104}));
  const int cube[3] = {16, 16, 16};
  EXPECT_EQ(default_patch(data_of(1, {5, 97, 130}), cube), (std::array<std::int64_t, 3>{16, 96, 96}));
}

}  // namespace
}  // namespace vg

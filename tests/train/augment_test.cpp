// Augmentation: geometry in which image and labels stay together, mirrors that exchange hemispheres, and nothing at all at probability 0.
#include "train/augment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/train/data_sets.h"

namespace vg {
namespace {

struct Patch {
  std::vector<float> image;
  std::vector<std::uint8_t> labels;
};

Patch read(const Sample& s, const Dataset& d, const PatchPlan& plan, const std::array<std::int64_t, 3>& size) {
  Tensor image({1, size[0], size[1], size[2], s.image.shape().c()}, DType::f32, kCpu), labels({1, size[0], size[1], size[2], 1}, DType::u8, kCpu);
  make_patch(s, plan, swap_table(d), image, labels);
  return {to_host<float>(image), to_host<std::uint8_t>(labels)};
}
Patch read(const Sample& s, const Dataset& d, const PatchPlace& place, const std::array<std::int64_t, 3>& size) {
  return read(s, d, PatchPlan{.place = place, .bend = {}, .intensity = {}}, size);
}

// Left putamen in the lower half of W, right in the upper, a stem in the middle column.
Sample sided(const Shape& extents, std::int64_t channels = 1) {
  const std::int64_t W = extents[2];
  return test::numbered_sample("s", extents, channels, [=](std::int64_t z, std::int64_t, std::int64_t x) {
    return z == 0 ? 0 : 2 * x + 1 == W ? 1 : 2 * x + 1 < W ? 2 : 3;
  });
}

std::array<double, 3> middle(const Shape& s) {
  return {static_cast<double>(s[0] - 1) / 2, static_cast<double>(s[1] - 1) / 2, static_cast<double>(s[2] - 1) / 2};
}

// Draws until one is mirrored (or not).
PatchPlace drawn(const AugmentConfig& c, const Dataset& d, const std::array<double, 3>& centre, bool mirrored) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    const PatchPlace p = draw_place(random, c, d, centre);
    if (p.mirrored == mirrored) return p;
  }
  ADD_FAILURE() << "never drawn";
  return {};
}

TEST(Augment, ProbabilityZeroIsAPlainCopy) {
  const Dataset d = test::empty_dataset(3, 2);
  const Shape extents = {3, 5, 7};
  const Sample s = sided(extents, 2);
  Random random(5);
  const PatchPlan plan = draw_plan(random, AugmentConfig{}, d, middle(extents), {3, 5, 7});
  EXPECT_TRUE(plan.plain());
  EXPECT_FALSE(plan.intensity.changes());
  EXPECT_EQ(random.position(), 0u);
  const Patch p = read(s, d, plan, {3, 5, 7});
  EXPECT_EQ(p.image, to_host<float>(s.image));
  EXPECT_EQ(p.labels, to_host<std::uint8_t>(s.labels));
}

TEST(Augment, AMirrorReversesTheAxisAndExchangesPairedLabelsOnly) {
  const Dataset d = test::empty_dataset(3, 2);
  for (const Shape& extents : {Shape{3, 4, 7}, Shape{2, 3, 8}}) {
    const std::int64_t D = extents[0], H = extents[1], W = extents[2];
    const Sample s = sided(extents, 2);
    const PatchPlace place = drawn({.flip = true}, d, middle(extents), true);
    const Patch p = read(s, d, place, {D, H, W});
    for (std::int64_t z = 0; z < D; ++z)
      for (std::int64_t y = 0; y < H; ++y)
        for (std::int64_t x = 0; x < W; ++x) {
          const auto at = static_cast<std::size_t>((z * H + y) * W + x), from = static_cast<std::size_t>((z * H + y) * W + W - 1 - x);
          ASSERT_EQ(p.image[at * 2], static_cast<float>(1 + from));
          ASSERT_EQ(p.image[at * 2 + 1], static_cast<float>(1001 + from));
          // The picture is symmetric, so exchanging sides and reversing the axis gives the same labels.
          ASSERT_EQ(p.labels[at], s.labels.data<std::uint8_t>()[at]);
        }
  }
}

TEST(Augment, MirroredTwiceIsTheSame) {
  const Dataset d = test::empty_dataset(3, 1);
  const Shape extents = {3, 4, 6};
  Sample s = sided(extents);
  for (std::int64_t v = 0; v < s.labels.elements(); ++v) s.labels.data<std::uint8_t>()[v] = static_cast<std::uint8_t>((v * 7 + v / 5) % 4);
  const PatchPlace place = drawn({.flip = true}, d, middle(extents), true);
  const Patch once = read(s, d, place, {3, 4, 6});
  EXPECT_NE(once.image, to_host<float>(s.image));
  EXPECT_NE(once.labels, to_host<std::uint8_t>(s.labels));
  Sample mirrored{.name = "m", .image = from_host(once.image, s.image.shape()), .labels = copy_to(s.labels, kCpu), .voxel_mm3 = 1};
  std::copy(once.labels.begin(), once.labels.end(), mirrored.labels.data<std::uint8_t>());
  const Patch twice = read(mirrored, d, place, {3, 4, 6});
  EXPECT_EQ(twice.image, to_host<float>(s.image));
  EXPECT_EQ(twice.labels, to_host<std::uint8_t>(s.labels));
}

TEST(Augment, NothingIsMirroredWhereNoAxisRunsFromSideToSide) {
  Dataset d = test::empty_dataset(2, 1);
  d.left_right_axis = -1;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    EXPECT_FALSE(draw_place(random, {.flip = true}, d, {0, 0, 0}).mirrored);
  }
}

// A quarter turn about the centre in the plane of two axes moves every voxel onto another voxel.
TEST(Augment, AQuarterTurnMovesVoxelsWhereItShould) {
  const Dataset d = test::empty_dataset(3, 1);
  constexpr std::int64_t n = 5;
  const Sample s =
      test::numbered_sample("s", {n, n, n}, 1, [](std::int64_t z, std::int64_t y, std::int64_t x) { return (z + 2 * y + 3 * x) % 4; });
  for (int a = 0; a < 3; ++a)
    for (int b = a + 1; b < 3; ++b) {
      PatchPlace place;
      place.centre = {2, 2, 2}, place.whole_voxels = false;
      place.m[a][a] = 0, place.m[a][b] = -1, place.m[b][a] = 1, place.m[b][b] = 0;
      const Patch p = read(s, d, place, {n, n, n});
      for (std::int64_t z = 0; z < n; ++z)
        for (std::int64_t y = 0; y < n; ++y)
          for (std::int64_t x = 0; x < n; ++x) {
            std::int64_t from[3] = {z, y, x};
            const std::int64_t u = from[a] - 2, v = from[b] - 2;
            from[a] = 2 - v, from[b] = 2 + u;
            const std::int64_t at = (z * n + y) * n + x, source = (from[0] * n + from[1]) * n + from[2];
            ASSERT_EQ(p.image[static_cast<std::size_t>(at)], static_cast<float>(1 + source));
            ASSERT_EQ(p.labels[static_cast<std::size_t>(at)], s.labels.data<std::uint8_t>()[source]);
          }
    }
}

// What is drawn is a rotation times a scale within the limits; flat data turn in their plane alone.
TEST(Augment, DrawnPlacesAreRotationsWithinTheLimits) {
  for (const int dims : {2, 3}) {
    const Dataset d = test::empty_dataset(dims, 1);
    const AugmentConfig c{.affine = 1.0, .rotation = 20.0, .scaling = 0.2};
    double largest_angle = 0, smallest_scale = 9, largest_scale = 0;
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
      Random random(seed);
      const PatchPlace p = draw_place(random, c, d, {1, 2, 3});
      EXPECT_FALSE(p.whole_voxels);
      EXPECT_EQ(p.centre, (std::array<double, 3>{1, 2, 3}));
      // m^T m = scale^2 identity
      double gram[3][3] = {};
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b)
          for (int r = 0; r < 3; ++r) gram[a][b] += p.m[r][a] * p.m[r][b];
      const double scale = std::sqrt(gram[2][2]);
      smallest_scale = std::min(smallest_scale, scale), largest_scale = std::max(largest_scale, scale);
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) EXPECT_NEAR(gram[a][b], a != b ? 0.0 : dims == 2 && a == 0 ? 1.0 : scale * scale, 1e-12);
      if (dims == 2) {
        EXPECT_EQ(p.m[0][0], 1.0);
        EXPECT_EQ(p.m[0][1], 0.0);
        EXPECT_EQ(p.m[1][0], 0.0);
        largest_angle = std::max(largest_angle, std::abs(std::atan2(p.m[1][2], p.m[1][1])) * 180 / std::numbers::pi);
      }
    }
    EXPECT_LT(largest_scale, 1.2 + 1e-9);
    EXPECT_GT(largest_scale, 1.15);
    EXPECT_GT(smallest_scale, 1 / 1.2 - 1e-9);
    EXPECT_LT(smallest_scale, 1 / 1.15);
    if (dims == 2) {
      EXPECT_LT(largest_angle, 20.0 + 1e-6);
      EXPECT_GT(largest_angle, 18.0);
    }
  }
}

// An image that is its own label field stays so under any rotation: where the image says 1 or 3 clearly, so do the labels. Mirrored patches show the
// other side's label.
TEST(Augment, ImageAndLabelsStayTogether) {
  const Dataset d = test::empty_dataset(3, 1);
  const Shape extents = {13, 17, 15};
  const auto blob = [](std::int64_t z, std::int64_t y, std::int64_t x) { return z > 3 && z < 10 && y > 4 && y < 12 ? (x < 7 ? 2 : 3) : 0; };
  Sample s = test::numbered_sample("s", extents, 1, blob);
  for (std::int64_t v = 0; v < s.image.elements(); ++v) s.image.data<float>()[v] = s.labels.data<std::uint8_t>()[v];
  int judged = 0, moved = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Random random(seed);
    const PatchPlace place = draw_place(random, {.flip = true, .affine = 1.0, .rotation = 30}, d, middle(extents));
    const Patch p = read(s, d, place, {13, 17, 15});
    for (std::size_t v = 0; v < p.labels.size(); ++v) {
      const double value = p.image[v];
      const int near = static_cast<int>(std::lround(value));
      moved += p.labels[v] != s.labels.data<std::uint8_t>()[v];
      if (std::abs(value - near) > 1e-6 || (near != 2 && near != 3 && near != 0)) continue;  // between two structures
      // Exactly 2 can also be a mixture of 3 and 0: only where all neighbours agree is the answer known, which the label then is.
      const int want = near == 0 ? 0 : place.mirrored ? 5 - near : near;
      judged += want != 0;
      ASSERT_EQ(p.labels[v], want) << "seed " << seed << " voxel " << v;
    }
  }
  EXPECT_GT(judged, 1000);
  EXPECT_GT(moved, 1000);
}

// Halfway between two voxels the image is their mean; beyond the border it fades to 0.
TEST(Augment, ImagesAreInterpolatedLinearly) {
  const Dataset d = test::empty_dataset(3, 1);
  const Sample s = test::numbered_sample("s", {1, 1, 4}, 1, [](auto...) { return 0; });  // 1 2 3 4
  PatchPlace place;
  place.whole_voxels = false, place.centre = {0, 0, 1.25};
  EXPECT_EQ(read(s, d, place, {1, 1, 5}).image, (std::vector<float>{0.25f, 1.25f, 2.25f, 3.25f, 3.0f}));
}

// Draws that were there before keep their place: whoever asks for no bending gets the numbers of a program that knew none.
TEST(Augment, BendingIsDrawnLast) {
  const Dataset d = test::empty_dataset(3, 1);
  AugmentConfig c{.flip = true, .intensity = 0.5, .noise = 0.5, .affine = 0.5};
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    Random a(seed), b(seed);
    c.elastic = 0;
    const PatchPlan without = draw_plan(a, c, d, {9, 8, 7}, {16, 16, 16});
    c.elastic = 1;
    const PatchPlan with = draw_plan(b, c, d, {9, 8, 7}, {16, 16, 16});
    EXPECT_EQ(without.place.m[0][1], with.place.m[0][1]);
    EXPECT_EQ(without.place.mirrored, with.place.mirrored);
    EXPECT_EQ(without.intensity.gamma, with.intensity.gamma);
    EXPECT_EQ(without.intensity.key, with.intensity.key);
    EXPECT_LT(a.position(), b.position());
    EXPECT_FALSE(with.plain());
  }
}

// Control points stay within the magnitude; flat data bend in their plane alone.
TEST(Augment, BendingIsDrawnWithinTheMagnitude) {
  for (const int dims : {2, 3}) {
    const Dataset d = test::empty_dataset(dims, 1);
    const AugmentConfig c{.elastic = 1.0, .elastic_spacing = 10, .elastic_magnitude = 4};
    float most = 0;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
      Random random(seed);
      const std::array<std::int64_t, 3> patch = {dims == 2 ? 1 : 20, 31, 32};
      const PatchBend b = draw_bend(random, c, d, patch);
      EXPECT_EQ(b.grid, (Shape{1, dims == 2 ? 1 : 5, 7, 7, 3}));
      ASSERT_EQ(b.control.size(), static_cast<std::size_t>(b.grid.elements()));
      for (std::size_t i = 0; i < b.control.size(); ++i) {
        most = std::max(most, std::fabs(b.control[i]));
        ASSERT_TRUE(dims == 3 || i % 3 != 0 || b.control[i] == 0.0f);
      }
    }
    EXPECT_LE(most, 4.0f);
    EXPECT_GT(most, 3.5f);
  }
}

// A head bent as strongly as the configuration allows is not folded: along every axis the place that is read moves on from voxel to voxel. An image of
// coordinates shows the places.
TEST(Augment, BendingFoldsNothing) {
  const Dataset d = test::empty_dataset(3, 3);
  constexpr std::int64_t n = 48;
  Sample s = test::numbered_sample("s", {n, n, n}, 3, [](auto...) { return 0; });
  for (std::int64_t v = 0; v < n * n * n; ++v)
    for (int a = 0; a < 3; ++a) s.image.data<float>()[v * 3 + a] = static_cast<float>(a == 0 ? v / (n * n) : a == 1 ? v / n % n : v % n);
  const AugmentConfig c{.elastic = 1.0, .elastic_spacing = 8, .elastic_magnitude = 3.2};
  constexpr std::int64_t e = 24;
  double moved = 0;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    Random random(seed);
    const Patch p = read(s, d, draw_plan(random, c, d, {23.5, 23.5, 23.5}, {e, e, e}), {e, e, e});
    const auto at = [&](std::int64_t z, std::int64_t y, std::int64_t x, int a) {
      return static_cast<double>(p.image[static_cast<std::size_t>(((z * e + y) * e + x) * 3 + a)]);
    };
    for (std::int64_t z = 0; z + 1 < e; ++z)
      for (std::int64_t y = 0; y + 1 < e; ++y)
        for (std::int64_t x = 0; x + 1 < e; ++x) {
          double j[3][3];
          for (int a = 0; a < 3; ++a) {
            j[a][0] = at(z + 1, y, x, a) - at(z, y, x, a), j[a][1] = at(z, y + 1, x, a) - at(z, y, x, a), j[a][2] = at(z, y, x + 1, a) - at(z, y, x, a);
            moved = std::max(moved, std::fabs(at(z, y, x, a) - static_cast<double>(a == 0 ? z : a == 1 ? y : x) - 12.0));
          }
          const double volume = j[0][0] * (j[1][1] * j[2][2] - j[1][2] * j[2][1]) - j[0][1] * (j[1][0] * j[2][2] - j[1][2] * j[2][0]) +
                                j[0][2] * (j[1][0] * j[2][1] - j[1][1] * j[2][0]);
          ASSERT_GT(volume, 0.0) << "seed " << seed << " voxel " << z << " " << y << " " << x;
        }
  }
  EXPECT_GT(moved, 1.0);
  EXPECT_LT(moved, 3.2);
}

// What the patch reads lies in the box: with all that is outside it taken away, the patch is the same.
TEST(Augment, ThePatchReadsNothingBeyondItsReach) {
  const Dataset d = test::empty_dataset(3, 1);
  const Shape extents = {30, 34, 38};
  const Sample s = sided(extents);
  const AugmentConfig c{.flip = true, .affine = 0.7, .rotation = 40, .scaling = 0.4, .elastic = 0.7, .elastic_spacing = 6, .elastic_magnitude = 2.4};
  const std::array<std::int64_t, 3> patch = {9, 10, 12};
  int smaller = 0, at_the_border = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const std::array<double, 3> centre = {4.0 + static_cast<double>(random.below(22)), 4.5 + static_cast<double>(random.below(25)),
                                          5.5 + static_cast<double>(random.below(27))};
    const PatchPlan plan = draw_plan(random, c, d, centre, patch);
    const Box box = reach(plan, patch, s.image.shape());
    Sample part = s;
    const auto& e = box.extents;
    part.image = Tensor({1, e[0], e[1], e[2], 1}, DType::f32, kCpu), part.labels = Tensor({1, e[0], e[1], e[2], 1}, DType::u8, kCpu);
    copy_box(s, box, part.image.data<float>(), part.labels.data<std::uint8_t>());
    PatchPlan moved = plan;
    for (std::size_t a = 0; a < 3; ++a) moved.place.centre[a] -= static_cast<double>(box.start[a]), at_the_border += box.start[a] == 0;
    smaller += e[0] * e[1] * e[2] < s.image.elements() / 2;
    const Patch whole = read(s, d, plan, patch), cut = read(part, d, moved, patch);
    ASSERT_EQ(whole.image, cut.image) << "seed " << seed;
    ASSERT_EQ(whole.labels, cut.labels) << "seed " << seed;
  }
  EXPECT_GT(smaller, 20);
  EXPECT_GT(at_the_border, 20);
}

TEST(Augment, IntensityIsDrawnWithinReason) {
  int changed = 0, noisy = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    Random random(seed);
    const IntensityParams p = draw_intensity(random, {.intensity = 0.5, .noise = 0.25});
    changed += p.gamma != 1.0f, noisy += p.noise != 0.0f;
    EXPECT_TRUE(p.contrast >= 0.75f && p.contrast <= 1.25f && std::fabs(p.brightness) <= 0.25f && p.gamma > 0.7f && p.gamma < 1.42f);
    EXPECT_TRUE(p.noise >= 0.0f && p.noise <= 0.1f && (p.key != 0) == (p.noise != 0.0f));
    EXPECT_EQ(p.changes(), p.gamma != 1.0f || p.noise != 0.0f);
  }
  EXPECT_TRUE(changed > 160 && changed < 240) << changed;
  EXPECT_TRUE(noisy > 65 && noisy < 135) << noisy;
}

}  // namespace
}  // namespace vg

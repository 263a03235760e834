// Chains of convolutions plane by plane: every plan's result against the whole network's, its memory against what it foretold, and what is left out
// where the image is one value.
#include "infer/planes.h"

#include <gtest/gtest.h>

#include <cmath>

#include "layers/unet.h"
#include "tensor/parallel.h"
#include "tests/infer/networks.h"

namespace vg {
namespace {

Tensor noise(const Shape& shape, std::uint64_t seed) {
  Random random(seed);
  Tensor t(shape, DType::f32, kCpu);
  for (std::int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = random.normal();
  return t;
}

Network random_meshnet(std::vector<int> dilations, int channels = 7, int classes = 5) {
  MeshnetConfig c;
  c.in_channels = 2, c.dilations = std::move(dilations), c.channels = channels, c.classes = classes;
  Network net(meshnet(c), kCpu, false);
  net.params.initialise(11);
  return net;
}

// A head of noise in a box of one value.
Tensor head(const Shape& s, std::int64_t border, float background = -0.3f) {
  Tensor t = noise(s, 5);
  for (std::int64_t z = 0, i = 0; z < s.d(); ++z)
    for (std::int64_t y = 0; y < s.h(); ++y)
      for (std::int64_t x = 0; x < s.w(); ++x)
        for (std::int64_t c = 0; c < s.c(); ++c, ++i)
          if (std::min({z, s.d() - 1 - z, y, s.h() - 1 - y, x, s.w() - 1 - x}) < border) t.data<float>()[i] = background * static_cast<float>(c + 1);
  return t;
}

std::vector<float> scores_by(const PlanePlan& plan, Network& net, const Tensor& image) {
  Context ctx(kCpu);
  const Shape& s = image.shape();
  const std::int64_t plane = s.h() * s.w() * net.graph.out_channels();
  std::vector<float> all(static_cast<std::size_t>(plane * s.d()), NAN);
  std::vector<int> seen(static_cast<std::size_t>(s.d()));
  run_planes(ctx, net, plan, image.data<float>(),
             [&](std::int64_t z, const float* scores) {
               std::copy(scores, scores + plane, all.begin() + z * plane);
               ++seen[static_cast<std::size_t>(z)];
             },
             nullptr);
  for (const int n : seen) EXPECT_EQ(n, 1);
  return all;
}

std::vector<float> scores_of_graph(Network& net, const Tensor& image) {
  Context ctx(kCpu);
  ctx.convolution.allow = ConvAlgorithm::Allow::direct;
  return to_host<float>(run(ctx, net, Value{image}).at(0).data);
}

void expect_near(const std::vector<float>& got, const std::vector<float>& want, float tolerance) {
  ASSERT_EQ(got.size(), want.size());
  float error = 0, size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_FALSE(std::isnan(got[i])) << i;
    error = std::max(error, std::abs(got[i] - want[i])), size = std::max(size, std::abs(want[i]));
  }
  EXPECT_LE(error, tolerance * size);
}

TEST(Planes, AChainIsRecognised) {
  const Shape image = {1, 30, 31, 32, 2};
  const auto chain = plane_chain(random_meshnet({1, 4}).graph, image);
  ASSERT_TRUE(chain);
  ASSERT_EQ(chain->size(), 3u);
  EXPECT_EQ((*chain)[1].shape.dilation[0], 4);
  EXPECT_EQ((*chain)[1].shape.in_channels, 7);
  EXPECT_EQ((*chain)[1].shape.activation.kind, ActivationKind::elu);
  EXPECT_EQ((*chain)[2].shape.kernel, 1);
  EXPECT_EQ((*chain)[2].shape.extent[2], 32);

  MeshnetConfig normed;
  normed.norm = "instance";
  EXPECT_FALSE(plane_chain(meshnet(normed), {1, 30, 31, 32, 1}));
  EXPECT_FALSE(plane_chain(unet({}), {1, 1, 32, 32, 1}));
  Graph shrinks = test::one_conv(3, 2, 4, {3, 3, 3});
  shrinks.nodes[0].attributes["pad"] = {0, 1, 1};
  EXPECT_FALSE(plane_chain(shrinks, image));
}

TEST(Planes, EveryPlanGivesTheNetworksScores) {
  const Shape shape = {1, 37, 22, 41, 2};
  const Tensor image = noise(shape, 3);
  for (const std::vector<int>& dilations : {std::vector<int>{1, 2, 3, 1}, std::vector<int>{16, 1, 5}}) {
    Network net = random_meshnet(dilations);
    const auto chain = plane_chain(net.graph, shape);
    const std::vector<float> want = scores_of_graph(net, image);
    std::set<std::uint64_t> different;
    for (const auto allow : {ConvAlgorithm::Allow::fast, ConvAlgorithm::Allow::exact, ConvAlgorithm::Allow::direct}) {
      ConvAlgorithm algorithm;
      algorithm.allow = allow;
      std::uint64_t limit = 0;
      for (int i = 0; i < 4; ++i) {  // ever less memory
        const PlanePlan plan = plan_planes(*chain, algorithm, limit, nullptr, false);
        expect_near(scores_by(plan, net, image), want, 2e-5f);
        different.insert(plan.bytes);
        limit = plan.bytes * 8 / 10;
      }
    }
    EXPECT_GE(different.size(), 4u);
  }
}

TEST(Planes, MemoryIsAsForetoldAndWithinItsLimit) {
  const Shape shape = {1, 64, 80, 96, 2};
  Network net = random_meshnet({1, 2, 4, 8, 4, 2, 1}, 16);
  const auto chain = plane_chain(net.graph, shape);
  const Tensor image = head(shape, 25);
  const Region data = data_of(image.data<float>(), shape);
  const std::uint64_t whole = plan_planes(*chain, {}, 0, nullptr, false).bytes, least = plan_planes(*chain, {}, 1, nullptr, false).bytes;
  EXPECT_LT(least, whole * 7 / 10);
  for (const std::uint64_t limit : {std::uint64_t{0}, (whole + least) / 2, least})
    for (const Region* region : {static_cast<const Region*>(nullptr), &data}) {
      const PlanePlan plan = plan_planes(*chain, {}, limit, region, false);
      if (limit) {
        EXPECT_LE(plan.bytes, limit);
      }
      release_cache(kCpu);
      const std::size_t base = memory_stats(kCpu).live;
      reset_peak(kCpu);
      Context ctx(kCpu);
      run_planes(ctx, net, plan, image.data<float>(), [](std::int64_t, const float*) {}, nullptr);
      const double peak = static_cast<double>(memory_stats(kCpu).peak - base);
      EXPECT_LE(peak, 1.02 * static_cast<double>(plan.bytes));
      if (plan.computed.empty()) {
        EXPECT_GE(peak, 0.9 * static_cast<double>(plan.bytes));
      }
    }
}

// Rows of plain sums keep their bits: what is copied from the background's answer is what would have been computed.
TEST(Planes, SkippingTheBackgroundKeepsEveryBitOfPlainSums) {
  const Shape shape = {1, 50, 43, 39, 2};
  Network net = random_meshnet({1, 3, 2, 1});
  const auto chain = plane_chain(net.graph, shape);
  const Tensor image = head(shape, 17);
  const Region data = data_of(image.data<float>(), shape);
  ConvAlgorithm direct;
  direct.allow = ConvAlgorithm::Allow::direct;
  const PlanePlan all = plan_planes(*chain, direct, 0, nullptr, false), skip = plan_planes(*chain, direct, 0, &data, false);
  ASSERT_TRUE(all.computed.empty());
  ASSERT_FALSE(skip.computed.empty());
  EXPECT_LT(skip.computed[0].share(shape.w()), 0.5);
  EXPECT_EQ(scores_by(skip, net, image), scores_by(all, net, image));
}

TEST(Planes, SkippingTheBackgroundByTilesIsExactButForRounding) {
  const Shape shape = {1, 80, 70, 90, 2};
  Network net = random_meshnet({1, 2, 4, 2, 1}, 16);
  const auto chain = plane_chain(net.graph, shape);
  for (const std::int64_t border : {28, 33}) {
    const Tensor image = head(shape, border);
    const Region data = data_of(image.data<float>(), shape);
    const PlanePlan skip = plan_planes(*chain, {}, 0, &data, false);
    ASSERT_FALSE(skip.computed.empty());
    bool tiles = false;
    for (const cpu::PlaneTile t : skip.tiles) tiles = tiles || t.hw;
    EXPECT_TRUE(tiles);
    expect_near(scores_by(skip, net, image), scores_of_graph(net, image), 2e-5f);
  }
}

TEST(Planes, DataAreWhereTheImageDiffersFromItsFirstVoxel) {
  Tensor image = head({1, 9, 8, 7, 2}, 2, 0.25f);
  image.data<float>()[((3 * 8 + 0) * 7 + 5) * 2 + 1] = 1.0f;  // the second channel alone
  const Region r = data_of(image.data<float>(), image.shape());
  EXPECT_TRUE(r.plane(1)[3].empty());
  EXPECT_EQ(r.plane(2)[2], (cpu::RowSpan{2, 5}));
  EXPECT_EQ(r.plane(3)[0], (cpu::RowSpan{5, 6}));
}

// Labels and confidences through predict(): the head's are the full run's, outside there is nothing.
TEST(Planes, HeadOnly) {
  const Shape shape = {1, 60, 50, 70, 2};
  Network net = random_meshnet({1, 2, 4, 1}, 16);
  const Tensor image = head(shape, 20);
  const Region data = data_of(image.data<float>(), shape);
  Context ctx(kCpu);
  PredictOptions o;
  o.confidence = true, o.skip_background = false;
  const Prediction full = predict(ctx, net, image, o);
  o.head_only = true;
  for (const std::uint64_t limit : {std::uint64_t{0}, predict_bytes(net.graph, shape, o) * 7 / 10}) {
    o.max_bytes = limit;
    const Prediction part = predict(ctx, net, image, o);
    std::int64_t in_head = 0;
    for (std::int64_t z = 0, i = 0; z < shape.d(); ++z)
      for (std::int64_t y = 0; y < shape.h(); ++y)
        for (std::int64_t x = 0; x < shape.w(); ++x, ++i) {
          const bool inside = x >= data.plane(z)[y].begin && x < data.plane(z)[y].end;
          in_head += inside;
          ASSERT_EQ(part.labels.data<std::uint8_t>()[i], inside ? full.labels.data<std::uint8_t>()[i] : 0);
          ASSERT_NEAR(part.confidence.data<float>()[i], inside ? full.confidence.data<float>()[i] : 0.0f, 1e-5f);
        }
    EXPECT_EQ(in_head, 20 * 10 * 30);
  }
}

TEST(Planes, TheSameBitsForAnyNumberOfThreads) {
  const Shape shape = {1, 40, 44, 52, 2};
  Network net = random_meshnet({1, 2, 4, 1}, 16);
  const Tensor image = head(shape, 14);
  const auto chain = plane_chain(net.graph, shape);
  const Region data = data_of(image.data<float>(), shape);
  const int before = threads();
  for (const Region* region : {static_cast<const Region*>(nullptr), &data}) {
    std::vector<float> first;
    for (const int n : {1, 2, 3, 8}) {
      set_threads(n);
      const std::vector<float> now = scores_by(plan_planes(*chain, {}, 0, region, false), net, image);
      if (first.empty()) first = now;
      EXPECT_EQ(now, first) << n << " threads";
    }
  }
  set_threads(before);
}

}  // namespace
}  // namespace vg

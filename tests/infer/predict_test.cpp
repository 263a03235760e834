// Whole images and sliding windows against a naive double reference that does the same in the plainest way.
#include "infer/predict.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "layers/unet.h"
#include "tensor/random.h"
#include "tests/infer/networks.h"

namespace vg {
namespace {

using Extents = std::array<std::int64_t, 3>;

Tensor noise(const Shape& shape, std::uint64_t seed) {
  Random random(seed);
  Tensor t(shape, DType::f32, kCpu);
  for (std::int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = random.normal();
  return t;
}

// A network of one convolution with random weights.
Network random_network(int in_channels, int classes, std::vector<int> kernel = {1, 1, 1}, Device device = kCpu) {
  Network net(test::one_conv(3, in_channels, classes, std::move(kernel)), device, false);
  for (Param& p : net.params.all()) copy(p.value, noise(p.value.shape(), 17 + p.name.size()));
  return net;
}

std::vector<int> labels_of(const Prediction& p) {
  std::vector<int> v;
  for (std::int64_t i = 0; i < p.labels.elements(); ++i)
    v.push_back(p.labels.dtype() == DType::u8 ? p.labels.data<std::uint8_t>()[i] : p.labels.data<std::int32_t>()[i]);
  return v;
}

PredictOptions windows(const Extents& window, double overlap, bool gaussian) {
  PredictOptions o;
  std::copy(window.begin(), window.end(), o.window);
  o.overlap = overlap, o.gaussian = gaussian, o.confidence = true;
  return o;
}

// The scores (D, H, W, K) of one convolution with zero padding on the box of `size` at `start`; what is outside the image is 0.
std::vector<double> naive_scores(Network& net, const Tensor& image, const Extents& start, const Extents& size) {
  const Shape &s = image.shape(), &w = net.params.at("w").value.shape();
  const std::vector<float> weight = to_host<float>(net.params.at("w").value), bias = to_host<float>(net.params.at("b").value);
  std::vector<double> out;
  for (std::int64_t z = 0; z < size[0]; ++z)
    for (std::int64_t y = 0; y < size[1]; ++y)
      for (std::int64_t x = 0; x < size[2]; ++x)
        for (std::int64_t k = 0; k < w[0]; ++k) {
          double sum = bias[static_cast<std::size_t>(k)];
          for (std::int64_t c = 0; c < w[1]; ++c)
            for (std::int64_t t = 0; t < w[2] * w[3] * w[4]; ++t) {
              const std::int64_t at[3] = {z + t / (w[3] * w[4]) - w[2] / 2, y + t / w[4] % w[3] - w[3] / 2, x + t % w[4] - w[4] / 2};
              bool inside = true;
              std::int64_t from[3];
              for (std::size_t a = 0; a < 3; ++a)
                from[a] = start[a] + at[a], inside &= at[a] >= 0 && at[a] < size[a] && from[a] >= 0 && from[a] < s[static_cast<int>(a) + 1];
              if (inside)
                sum += static_cast<double>(weight[static_cast<std::size_t>((k * w[1] + c) * w[2] * w[3] * w[4] + t)]) *
                       image.data<float>()[((from[0] * s.h() + from[1]) * s.w() + from[2]) * s.c() + c];
            }
          out.push_back(sum);
        }
  return out;
}

// Weighted means of overlapping windows, their softmax and decision.
struct Reference {
  std::vector<int> labels;
  std::vector<double> confidence;
  double margin = 1e30;  // the smallest distance between best and second score: decisions are only comparable where it is not tiny
};
Reference naive_sliding(Network& net, const Tensor& image, const Extents& window, double overlap, bool gaussian) {
  const Shape& s = image.shape();
  const std::int64_t K = net.params.at("w").value.shape()[0], voxels = s.voxels();
  std::vector<double> sums(static_cast<std::size_t>(voxels * K), 0.0), total(static_cast<std::size_t>(voxels), 0.0);
  std::vector<std::int64_t> starts[3];
  Extents shift{};
  for (std::size_t a = 0; a < 3; ++a) {
    const std::int64_t extent = s[static_cast<int>(a) + 1];
    starts[a] = window_starts(std::max(extent, window[a]), window[a], overlap);
    shift[a] = window[a] > extent ? -((window[a] - extent) / 2) : 0;
  }
  const auto weight = [&](std::size_t a, std::int64_t i) {
    if (!gaussian) return 1.0;
    const double t = (static_cast<double>(i) - static_cast<double>(window[a] - 1) / 2) / (static_cast<double>(window[a]) / 8);
    return std::max(std::exp(-t * t / 2), 1e-3);
  };
  for (std::int64_t sz : starts[0])
    for (std::int64_t sy : starts[1])
      for (std::int64_t sx : starts[2]) {
        const Extents start = {sz + shift[0], sy + shift[1], sx + shift[2]};
        const std::vector<double> scores = naive_scores(net, image, start, window);
        for (std::int64_t i = 0; i < window[0] * window[1] * window[2]; ++i) {
          const std::int64_t p[3] = {i / (window[1] * window[2]), i / window[2] % window[1], i % window[2]};
          const std::int64_t z = start[0] + p[0], y = start[1] + p[1], x = start[2] + p[2];
          if (z < 0 || y < 0 || x < 0 || z >= s.d() || y >= s.h() || x >= s.w()) continue;
          const double w = weight(0, p[0]) * weight(1, p[1]) * weight(2, p[2]);
          const std::int64_t v = (z * s.h() + y) * s.w() + x;
          total[static_cast<std::size_t>(v)] += w;
          for (std::int64_t k = 0; k < K; ++k) sums[static_cast<std::size_t>(v * K + k)] += w * scores[static_cast<std::size_t>(i * K + k)];
        }
      }
  Reference r;
  for (std::int64_t v = 0; v < voxels; ++v) {
    std::vector<double> p(sums.begin() + v * K, sums.begin() + (v + 1) * K);
    for (double& q : p) q /= total[static_cast<std::size_t>(v)];
    const auto best = std::max_element(p.begin(), p.end());
    const double top = *best;
    r.labels.push_back(static_cast<int>(best - p.begin()));
    double sum = 0;
    for (double q : p) sum += std::exp(q - top);
    r.confidence.push_back(1 / sum);
    *best = -1e30;
    r.margin = std::min(r.margin, top - *std::max_element(p.begin(), p.end()));
  }
  return r;
}

void expect_same(const Prediction& got, const Reference& want) {
  ASSERT_GT(want.margin, 1e-6) << "too close to call: choose another seed";
  EXPECT_EQ(labels_of(got), want.labels);
  for (std::size_t i = 0; i < want.confidence.size(); ++i) ASSERT_NEAR(got.confidence.data<float>()[i], want.confidence[i], 2e-6) << i;
}

TEST(WindowStarts, SpreadEvenlyFromEndToEnd) {
  for (std::int64_t extent = 1; extent < 70; ++extent)
    for (std::int64_t window = 1; window <= extent; ++window)
      for (const double overlap : {0.0, 0.25, 0.5, 0.75, 0.8, 0.99}) {
        const std::vector<std::int64_t> s = window_starts(extent, window, overlap);
        const double step = std::max(1.0, static_cast<double>(window) * (1 - overlap));
        ASSERT_EQ(s.front(), 0);
        ASSERT_EQ(s.back(), extent - window);
        for (std::size_t i = 1; i < s.size(); ++i) {
          ASSERT_GT(s[i], s[i - 1]) << extent << " " << window << " " << overlap;
          ASSERT_LT(static_cast<double>(s[i] - s[i - 1]), step + 1);
        }
        // One window fewer would leave gaps wider than a step.
        const auto n = static_cast<double>(s.size());
        ASSERT_GT(static_cast<double>(extent - window), (n - 2) * step - 1e-6) << extent << " " << window << " " << overlap;
      }
  EXPECT_EQ(window_starts(10, 4, 0.5), (std::vector<std::int64_t>{0, 2, 4, 6}));
  EXPECT_EQ(window_starts(20, 10, 0.8), (std::vector<std::int64_t>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(window_starts(7, 5, 0.5), (std::vector<std::int64_t>{0, 2}));
  EXPECT_THROW(window_starts(4, 5, 0.5), Error);
  EXPECT_THROW(window_starts(4, 0, 0.5), Error);
  EXPECT_THROW(window_starts(4, 2, 1.0), Error);
  EXPECT_THROW(window_starts(4, 2, -0.1), Error);
}

// A network that looks at one voxel at a time does not see windows: the same labels as from the whole image, exactly.
TEST(Predict, APointwiseNetworkDoesNotSeeWindows) {
  Context ctx(kCpu);
  Network net = random_network(2, 4);
  const Tensor image = noise({1, 7, 9, 11, 2}, 3);
  const Reference want = naive_sliding(net, image, {7, 9, 11}, 0, false);
  const Prediction whole = predict(ctx, net, image);
  EXPECT_FALSE(whole.confidence.defined());
  EXPECT_EQ(labels_of(whole), want.labels);
  for (const Extents& window :
       {Extents{7, 9, 11}, Extents{3, 4, 5}, Extents{1, 1, 1}, Extents{7, 2, 11}, Extents{5, 9, 4}, Extents{99, 5, 99}})
    for (const double overlap : {0.0, 0.5, 0.75})
      for (const bool gaussian : {false, true}) {
        PredictOptions o = windows(window, overlap, gaussian);
        SCOPED_TRACE(fmt::format("{} {} {}, {}, {}", window[0], window[1], window[2], overlap, gaussian));
        expect_same(predict(ctx, net, image, o), want);
        o.confidence = false;
        EXPECT_EQ(labels_of(predict(ctx, net, image, o)), want.labels);
      }
}

// On another device the image is cut, blended and decided there: padded whole images, windows beyond the image, planes several at a time.
TEST(Predict, TheSameOnEveryDevice) {
  struct Run {
    Shape image;
    Extents window;
    std::int64_t divisor;
  };
  for (const Run& r : {Run{{1, 7, 9, 11, 2}, {0, 0, 0}, 1}, Run{{2, 7, 9, 11, 2}, {0, 0, 0}, 4}, Run{{2, 7, 9, 11, 2}, {4, 5, 11}, 1}, Run{{1, 3, 9, 11, 2}, {4, 4, 4}, 4},
                       Run{{3, 1, 9, 11, 2}, {1, 4, 99}, 1}})
    for (const bool scores : {false, true}) {
      SCOPED_TRACE(fmt::format("{}, {} {} {}, {}", to_string(r.image), r.window[0], r.window[1], r.window[2], scores));
      const std::vector<int> kernel = {r.image.d() == 1 ? 1 : 3, 3, 3};
      const Tensor image = noise(r.image, 3);
      PredictOptions o = windows(r.window, 0.5, true);
      o.confidence = o.entropy = scores;
      std::fill_n(o.divisor, 3, r.divisor);
      std::vector<Prediction> p;
      for (const Device d : {kCpu, kSim}) {
        Context ctx(d);
        Network net = random_network(2, 4, kernel, d);
        p.push_back(predict(ctx, net, image, o));
      }
      EXPECT_EQ(labels_of(p[0]), labels_of(p[1]));
      ASSERT_EQ(p[0].entropy.defined(), scores);
      if (!scores) continue;
      for (std::int64_t i = 0; i < p[0].entropy.elements(); ++i) {
        ASSERT_NEAR(p[0].confidence.data<float>()[i], p[1].confidence.data<float>()[i], 1e-5f);
        ASSERT_NEAR(p[0].entropy.data<float>()[i], p[1].entropy.data<float>()[i], 1e-5f);
        ASSERT_LE(p[0].entropy.data<float>()[i], std::log(4.0f) + 1e-6f);
      }
      PredictOptions more = o;
      more.candidates = 9;  // no more than there are classes: all four
      for (std::size_t i = 0; i < 2; ++i) {
        const Device d = i == 0 ? kCpu : kSim;
        Context ctx(d);
        Network net = random_network(2, 4, kernel, d);
        const Prediction all = predict(ctx, net, image, more);
        ASSERT_EQ(all.labels.shape().c(), 4);
        for (std::int64_t v = 0; v < p[i].labels.elements(); ++v) {
          ASSERT_EQ(all.labels.data<std::uint8_t>()[4 * v], p[i].labels.data<std::uint8_t>()[v]);
          ASSERT_EQ(all.confidence.data<float>()[4 * v], p[i].confidence.data<float>()[v]);
          float sum = 0.0f;
          for (int k = 0; k < 4; ++k) sum += all.confidence.data<float>()[4 * v + k];
          ASSERT_NEAR(sum, 1.0f, 1e-5f);
        }
      }
      o.precision = DType::bf16;  // activations of 8 bits: other probabilities, but not far away
      Context sim(kSim), cpu(kCpu);
      Network net = random_network(2, 4, kernel, kSim), on_cpu = random_network(2, 4);
      const Prediction half = predict(sim, net, image, o);
      double difference = 0.0;
      for (std::int64_t i = 0; i < half.entropy.elements(); ++i)
        difference = std::max(difference, static_cast<double>(std::abs(half.confidence.data<float>()[i] - p[1].confidence.data<float>()[i])));
      EXPECT_GT(difference, 1e-5);
      EXPECT_LT(difference, 3e-2);
      EXPECT_THROW(predict(cpu, on_cpu, image, o), Error);
    }
}

// A network that sees neighbours sees the windows' borders: the weights of overlapping windows decide.
TEST(Predict, OverlappingWindowsAreWeighedAsTheReferenceDoes) {
  Context ctx(kCpu);
  Network net = random_network(1, 3, {3, 3, 3});
  const Tensor image = noise({1, 7, 9, 11, 1}, 5);
  std::vector<std::vector<int>> seen;
  for (const Extents& window : {Extents{4, 5, 6}, Extents{7, 9, 4}, Extents{3, 9, 11}, Extents{5, 3, 9}})
    for (const double overlap : {0.0, 0.5, 0.75})
      for (const bool gaussian : {false, true}) {
        SCOPED_TRACE(fmt::format("{} {} {}, {}, {}", window[0], window[1], window[2], overlap, gaussian));
        const Reference want = naive_sliding(net, image, window, overlap, gaussian);
        expect_same(predict(ctx, net, image, windows(window, overlap, gaussian)), want);
        seen.push_back(want.labels);
      }
  std::sort(seen.begin(), seen.end());
  EXPECT_GT(std::unique(seen.begin(), seen.end()) - seen.begin(), 12) << "the windows made no difference: this test proves nothing";
}

// Padding to what is divided: zeros on both sides, the smaller half in front. With the divisor 8 the box of (5, 6, 7) sits at (1, 1, 0).
TEST(Predict, ExtentsThatAreNotDividedArePaddedOnBothSides) {
  Context ctx(kCpu);
  Network net = random_network(1, 3, {3, 3, 3});
  const Tensor image = noise({1, 5, 6, 7, 1}, 6);
  for (const Extents& window : {Extents{0, 0, 0}, Extents{8, 8, 8}, Extents{3, 3, 3}, Extents{64, 64, 64}}) {
    PredictOptions o = windows(window, 0.5, true);
    std::fill_n(o.divisor, 3, 8);
    expect_same(predict(ctx, net, image, o), naive_sliding(net, image, {8, 8, 8}, 0.5, false));
  }
  PredictOptions o = windows({4, 0, 0}, 0.5, true);
  o.divisor[0] = 2, o.divisor[1] = 4, o.divisor[2] = 1;
  expect_same(predict(ctx, net, image, o), naive_sliding(net, image, {4, 8, 7}, 0.5, true));
}

// A network of its own divisor: pooling by 2 and enlarging again gives each voxel the maximum of its block.
TEST(Predict, TheNetworksOwnDivisorIsKept) {
  Graph g = test::one_conv(3, 1, 2);
  g.nodes[0].inputs = {"up"};
  g.nodes.insert(g.nodes.begin(), {{"pool", "max_pool", {"input"}, {}, Json::object()}, {"up", "upsample", {"pool"}, {}, Json::object()}});
  Network net(g, kCpu, false);
  const auto [w, b] = test::threshold_lines({1.0});
  test::set(net, "w", w), test::set(net, "b", b);
  Context ctx(kCpu);
  const Tensor image = noise({1, 5, 6, 7, 1}, 8);
  const std::vector<int> got = labels_of(predict(ctx, net, image));
  int ones = 0;
  for (std::int64_t z = 0; z < 5; ++z)
    for (std::int64_t y = 0; y < 6; ++y)
      for (std::int64_t x = 0; x < 7; ++x) {
        double most = -1e9;  // one voxel of padding behind z and x, none in front: (6 - 5) / 2 = 0
        for (std::int64_t dz = z / 2 * 2; dz < z / 2 * 2 + 2; ++dz)
          for (std::int64_t dy = y / 2 * 2; dy < y / 2 * 2 + 2; ++dy)
            for (std::int64_t dx = x / 2 * 2; dx < x / 2 * 2 + 2; ++dx)
              most = std::max<double>(most, dz < 5 && dx < 7 ? image.data<float>()[(dz * 6 + dy) * 7 + dx] : 0.0f);
        ASSERT_EQ(got[static_cast<std::size_t>((z * 6 + y) * 7 + x)], most > 1.0);
        ones += most > 1.0;
      }
  EXPECT_TRUE(ones > 50 && ones < 200) << ones;
}

TEST(Predict, EachSampleOfABatchIsAsIfAlone) {
  Context ctx(kCpu);
  Network net = random_network(1, 3, {3, 3, 3});
  // Small boxes, boxes that are padded, and pictures so large that they go through the network in groups of two.
  struct Batch {
    Shape shape;
    Extents window;
    std::int64_t divisor;
  };
  for (const Batch& b : {Batch{{3, 4, 5, 6, 1}, {0, 0, 0}, 1}, Batch{{3, 4, 5, 6, 1}, {3, 3, 3}, 1}, Batch{{3, 4, 5, 6, 1}, {0, 0, 0}, 4},
                         Batch{{5, 1, 640, 700, 1}, {0, 0, 0}, 1}}) {
    const Tensor images = noise(b.shape, 9);
    PredictOptions o = windows(b.window, 0.5, true);
    std::fill_n(o.divisor, 3, b.divisor);
    o.confidence = b.shape.voxels() < 1000;
    const std::vector<int> together = labels_of(predict(ctx, net, images, o));
    Shape one = b.shape;
    one[0] = 1;
    std::vector<int> alone;
    for (std::int64_t n = 0; n < b.shape.n(); ++n)
      for (int k : labels_of(predict(ctx, net, images.range(n * one.elements(), one), o))) alone.push_back(k);
    EXPECT_TRUE(together == alone) << to_string(b.shape);
  }
}

TEST(Predict, ConfidenceIsTheSoftmaxOfTheLabel) {
  Context ctx(kCpu);
  Network net = random_network(1, 5);
  const Tensor image = noise({1, 3, 4, 5, 1}, 11);
  PredictOptions o;
  o.confidence = true;
  const Prediction p = predict(ctx, net, image, o);
  expect_same(p, naive_sliding(net, image, {3, 4, 5}, 0, false));
  for (std::int64_t i = 0; i < 60; ++i) EXPECT_TRUE(p.confidence.data<float>()[i] > 0.2f && p.confidence.data<float>()[i] <= 1.0f);
}

TEST(Predict, ManyClassesNeedMoreThanAByte) {
  Context ctx(kCpu);
  for (const int classes : {256, 257, 300}) {
    Network net = random_network(1, classes);
    const Tensor image = noise({1, 2, 3, 4, 1}, 12);
    const Reference want = naive_sliding(net, image, {2, 3, 4}, 0, false);
    const Prediction p = predict(ctx, net, image);
    EXPECT_EQ(p.labels.dtype(), classes <= 256 ? DType::u8 : DType::i32);
    EXPECT_EQ(labels_of(p), want.labels);
    expect_same(predict(ctx, net, image, windows({2, 2, 2}, 0.5, true)), want);
  }
}

TEST(Predict, TheSimulatorSaysTheSame) {
  Context cpu(kCpu), sim(kSim);
  Network a = random_network(1, 3, {3, 3, 3}), b = random_network(1, 3, {3, 3, 3}, kSim);
  const Tensor image = noise({2, 5, 6, 7, 1}, 13);
  for (const Extents& window : {Extents{0, 0, 0}, Extents{4, 4, 4}}) {
    PredictOptions o = windows(window, 0.5, true);
    const Prediction p = predict(cpu, a, image, o), q = predict(sim, b, image, o);
    EXPECT_EQ(labels_of(p), labels_of(q));
    for (std::int64_t i = 0; i < 420; ++i) ASSERT_NEAR(p.confidence.data<float>()[i], q.confidence.data<float>()[i], 1e-5);
    o.confidence = false;
    EXPECT_EQ(labels_of(predict(sim, b, image, o)), labels_of(p));
  }
}

TEST(Predict, ProgressRisesToOneAndMayStop) {
  Context ctx(kCpu);
  Network net = random_network(1, 2);
  const Tensor image = noise({2, 5, 6, 7, 1}, 14);
  for (const Extents& window : {Extents{0, 0, 0}, Extents{3, 3, 3}}) {
    PredictOptions o = windows(window, 0.5, true);
    std::vector<double> done;
    o.progress = [&](double d) { done.push_back(d); };
    predict(ctx, net, image, o);
    ASSERT_FALSE(done.empty());
    EXPECT_EQ(done.back(), 1.0);
    EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
    o.progress = [](double) { fail(ErrorCode::interrupted, "enough"); };
    EXPECT_THROW(predict(ctx, net, image, o), Error);
  }
}

// What --max-mem and --dry-run say, against what is held.
TEST(Predict, MemoryIsAsForetold) {
  UnetConfig c;
  c.spatial_dims = 3, c.features = {8, 16, 32}, c.classes = 12;
  MeshnetConfig chain;
  chain.channels = 12, chain.classes = 5, chain.dilations = {1, 2, 4, 2};
  UnetConfig flat = c;
  flat.spatial_dims = 2;
  struct Run {
    Graph graph;
    Shape image;
    Extents window;
  };
  for (const Run& r : {Run{unet(c), {1, 44, 50, 46, 1}, {0, 0, 0}}, Run{unet(c), {1, 44, 50, 46, 1}, {16, 32, 32}},
                       Run{unet(flat), {7, 1, 500, 430, 1}, {0, 0, 0}}, Run{meshnet(chain), {2, 60, 50, 70, 1}, {0, 0, 0}}})
    for (const bool confidence : {false, true}) {
      PredictOptions o = windows(r.window, 0.5, true);
      o.confidence = confidence;
      const std::uint64_t foretold = predict_bytes(r.graph, r.image, o);
      const Tensor image = noise(r.image, 2);
      const std::size_t base = memory_stats(kCpu).live;
      std::size_t peak = 0;
      {
        Network net(r.graph, kCpu, false);
        net.params.initialise(1);
        Context ctx(kCpu);
        reset_peak(kCpu);
        predict(ctx, net, image, o);
        peak = memory_stats(kCpu).peak - base;
      }
      EXPECT_NEAR(static_cast<double>(peak) / static_cast<double>(foretold), 1.0, 0.1)
          << to_string(r.image) << " " << r.window[0] << ": " << peak << ", foretold " << foretold;
    }
}

TEST(Predict, RefusesWhatItCannotDo) {
  Context ctx(kCpu);
  Network net = random_network(2, 2);
  const Tensor image = noise({1, 4, 4, 4, 2}, 15);
  EXPECT_THROW(predict(ctx, net, noise({1, 4, 4, 4, 1}, 1)), Error);
  EXPECT_THROW(predict(ctx, net, Tensor({1, 4, 4, 4, 2}, DType::u8, kCpu)), Error);
  EXPECT_THROW(predict(ctx, net, noise({4, 4, 4}, 1)), Error);
  EXPECT_THROW(predict(ctx, net, image, windows({2, 2, 2}, 1.0, true)), Error);
  Tape tape;
  ctx.tape = &tape;
  EXPECT_THROW(predict(ctx, net, image), Error);
  ctx.tape = nullptr;
  // A network whose scores are on another grid would be read out of bounds.
  Graph g = test::one_conv(3, 1, 2);
  g.nodes[0].attributes["stride"] = {2, 2, 2};
  Network coarse(g, kCpu, false);
  EXPECT_THROW(predict(ctx, coarse, noise({1, 4, 4, 4, 1}, 1)), Error);
  EXPECT_THROW(predict(ctx, coarse, noise({1, 8, 8, 8, 1}, 1), windows({4, 4, 4}, 0.5, true)), Error);
}

}  // namespace
}  // namespace vg

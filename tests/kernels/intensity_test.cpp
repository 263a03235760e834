// Gamma, contrast, brightness and noise against the formula in double precision, and the noise against what a normal distribution promises.
#include "kernels/intensity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(vary_intensity);

double normal(std::uint64_t key, std::int64_t i) {
  const Philox4 bits = philox(key, 0, static_cast<std::uint64_t>(i / 4));
  const auto pair = static_cast<std::size_t>(i % 4 / 2 * 2);
  const double r = std::sqrt(-2 * std::log((static_cast<double>(bits.v[pair] >> 8) + 1) * 0x1p-24)),
               a = 2 * std::numbers::pi * static_cast<double>(bits.v[pair + 1] >> 8) * 0x1p-24;
  return r * (i % 2 == 0 ? std::cos(a) : std::sin(a));
}

std::vector<double> varied(const std::vector<float>& x, const IntensityParams& p) {
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const double base = static_cast<double>(*low), range = std::max(static_cast<double>(*high) - base, 1e-6);
  std::vector<double> y;
  for (std::size_t i = 0; i < x.size(); ++i) {
    double v = static_cast<double>(x[i]);
    if (p.gamma != 1.0f) v = base + range * std::pow((v - base) / range, static_cast<double>(p.gamma));
    v = v * static_cast<double>(p.contrast) + static_cast<double>(p.brightness);
    if (p.noise != 0.0f) v += static_cast<double>(p.noise) * normal(p.key, static_cast<std::int64_t>(i));
    y.push_back(v);
  }
  return y;
}

TEST(VaryIntensity, FollowsTheFormula) {
  const IntensityParams cases[] = {{.gamma = 0.7f}, {.contrast = 1.2f, .brightness = -0.2f}, {.noise = 0.1f, .key = 0xfedcba9876543210ull},
                                   {.gamma = 1.4f, .contrast = 0.8f, .brightness = 0.25f, .noise = 0.5f, .key = 3}};
  for (const std::int64_t n : {1, 7, 33, 128, 5003, 20001, 70002})
    for (const IntensityParams& p : cases) {
      if (n > 5003 && &p != &cases[3]) continue;
      SCOPED_TRACE(std::to_string(n) + " numbers, case " + std::to_string(&p - cases));
      const std::vector<float> x = normals(n, 9);
      const std::vector<double> want = varied(x, p);
      Bits bits;
      for (const KernelRun& run : runs_of(vary_intensity))
        for (const std::int64_t first : {0, 1}) {  // 1: not aligned, as the second patch of a batch may be
          SCOPED_TRACE(run.name + (first ? ", from the second number on" : ""));
          std::vector<float> all(static_cast<std::size_t>(first), 99.0f);
          all.insert(all.end(), x.begin(), x.end());
          const Tensor whole = run.put(all);
          Tensor y = whole.range(first, {n});
          vary_intensity(run.exec(), y, p);
          expect_close(y, want, {.relative = 2e-6, .trivial = n < 8});
          bits.same(run, y);
          ASSERT_TRUE(first == 0 || to_host<float>(whole)[0] == 99.0f);
        }
    }
}

// A constant patch has no range to take a power of; one without changes keeps its bits.
TEST(VaryIntensity, ConstantAndUnchangedPatches) {
  const std::vector<float> x(1000, 0.5f);
  for (const KernelRun& run : runs_of(vary_intensity)) {
    SCOPED_TRACE(run.name);
    Tensor y = run.put(x), same = run.put(x);
    vary_intensity(run.exec(), y, IntensityParams{.gamma = 0.6f, .contrast = 2.0f});
    expect_close(y, std::vector<double>(1000, 1.0), {.relative = 2e-6, .trivial = true});
    vary_intensity(run.exec(), same, IntensityParams{.key = 7});
    EXPECT_EQ(to_host<float>(same), x);
  }
}

// 2^18 draws of a key: their first four moments within five standard deviations, neighbours and other keys without correlation.
TEST(VaryIntensity, NoiseIsNormal) {
  constexpr std::int64_t n = 1 << 18;
  const auto draw = [](std::uint64_t key) {
    Tensor t = zeros({n}, DType::f32, kCpu);
    vary_intensity(Exec{kCpu}, t, IntensityParams{.noise = 1.0f, .key = key});
    return to_host<float>(t);
  };
  const std::vector<float> a = draw(1), b = draw(2);
  double moment[5] = {}, neighbours = 0, keys = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double v = static_cast<double>(a[i]);
    for (int k = 1; k < 5; ++k) moment[k] += std::pow(v, k) / n;
    if (i > 0) neighbours += v * static_cast<double>(a[i - 1]) / n;
    keys += v * static_cast<double>(b[i]) / n;
  }
  const double deviation = 1 / std::sqrt(static_cast<double>(n));
  EXPECT_NEAR(moment[1], 0, 5 * deviation);
  EXPECT_NEAR(moment[2], 1, 5 * std::sqrt(2.0) * deviation);
  EXPECT_NEAR(moment[3], 0, 5 * std::sqrt(15.0) * deviation);
  EXPECT_NEAR(moment[4], 3, 5 * std::sqrt(96.0) * deviation);
  EXPECT_NEAR(neighbours, 0, 5 * deviation);
  EXPECT_NEAR(keys, 0, 5 * deviation);
}

}  // namespace
}  // namespace vg::test

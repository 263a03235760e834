// Recipes as JSON, quantiles against numpy, normalisation against double references, turned networks.
#include "infer/recipe.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "layers/json.h"
#include "layers/model_file.h"
#include "layers/unet.h"
#include "nifti/volume.h"
#include "tensor/parallel.h"
#include "tensor/random.h"
#include "tests/layers/files.h"

namespace vg {
namespace {

using test::message_of;

// ------------------------------------------------------------------------------------------------------------------------ JSON

TEST(Recipe, SurvivesItsJson) {
  Recipe r;
  EXPECT_EQ(to_json(recipe_from_json(to_json(r), "r")), to_json(r));
  r = {.axes = "kji",
       .conform = "none",
       .orientation = "PIR",
       .spacing = {1, 0.9375, 0.9375},
       .intensity = {.kind = "zscore", .low = 0.005, .high = 0.995, .clip = false, .mask = "nonzero"},
       .per_slice = true,
       .slices = "coronal",
       .window = {1, 256, 224},
       .overlap = 0.25,
       .divisor = {1, 32, 32}};
  EXPECT_EQ(to_json(recipe_from_json(parse_json(to_json(r).dump(), "r"), "r")), to_json(r));
}

TEST(Recipe, IsStrict) {
  const auto refused = [](const char* pointer, const Json& value) {
    Json j = to_json(Recipe{});
    j[Json::json_pointer(pointer)] = value;
    const std::string message = message_of(ErrorCode::bad_file, [&] { recipe_from_json(j, "m: vg.recipe"); });
    EXPECT_TRUE(message.starts_with("m: vg.recipe: ")) << message;
    return message;
  };
  EXPECT_NE(refused("/colour", 1).find("unknown key \"colour\""), std::string::npos);
  EXPECT_NE(refused("/intensity/gamma", 1).find("intensity: unknown key \"gamma\""), std::string::npos);
  EXPECT_NE(refused("/axes", "kij").find("axes is \"kij\" (known: \"kji\", \"ijk\")"), std::string::npos);
  refused("/conform", "freesurfer"), refused("/slices", "sideways"), refused("/intensity/kind", "log"), refused("/intensity/mask", "brain");
  refused("/intensity/low", 0.98), refused("/intensity/low", -0.1), refused("/intensity/high", 1.1), refused("/intensity/clip", 1),
      refused("/intensity", 3);
  refused("/spacing", {1, 1}), refused("/spacing", {1, 1, 0}), refused("/window", {64, 64}), refused("/window", {64, 64, 0}),
      refused("/window", {64, 64, 1.5});
  refused("/divisor", {0, 1, 1}), refused("/overlap", 1.0), refused("/overlap", -0.5), refused("/overlap", "half"),
      refused("/per_slice", true);
  for (const char* text : {"RA", "RAX", "RLS", "ras", "RASS", "RRR"}) refused("/orientation", text);
  Json j = to_json(Recipe{});
  for (const auto& item : j.items()) {  // nothing may be left out
    Json less = j;
    less.erase(item.key());
    EXPECT_NE(message_of(ErrorCode::bad_file, [&] { recipe_from_json(less, "r"); }).find("\"" + item.key() + "\" is missing"),
              std::string::npos);
  }
  Recipe r;
  r.conform = "meshnet", r.orientation = "RAS";
  message_of(ErrorCode::bad_file, [&] { recipe_from_json(to_json(r), "r"); });
  r = Recipe{}, r.slices = "image", r.spacing = {1, 1, 1};
  message_of(ErrorCode::bad_file, [&] { recipe_from_json(to_json(r), "r"); });
  r = Recipe{}, r.slices = "axial", r.axes = "ijk";
  message_of(ErrorCode::bad_file, [&] { recipe_from_json(to_json(r), "r"); });
}

// ------------------------------------------------------------------------------------------------------------------- quantiles

std::vector<float> formula(std::int64_t n, bool bytes) {
  std::vector<float> v;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t k = (7919 * i + 13 * i * i) % 100003;
    v.push_back(bytes ? static_cast<float>(k % 128) : static_cast<float>(k) / 977.0f - 40.0f);
  }
  return v;
}

TEST(Quantiles, OfNumpy) {
  const std::vector<double> q = {0.0, 0.02, 0.25, 0.5, 0.9, 0.98, 1.0};
  struct Golden {
    std::int64_t n;
    bool bytes;
    std::vector<float> values;  // tests/infer/quantile_golden.py
  };
  const std::vector<Golden> golden = {
      {1,
       false,
       {-0x1.4000000000000p+5f, -0x1.4000000000000p+5f, -0x1.4000000000000p+5f, -0x1.4000000000000p+5f, -0x1.4000000000000p+5f,
        -0x1.4000000000000p+5f, -0x1.4000000000000p+5f}},
      {1, true, {0x0.0p+0f, 0x0.0p+0f, 0x0.0p+0f, 0x0.0p+0f, 0x0.0p+0f, 0x0.0p+0f, 0x0.0p+0f}},
      {2,
       false,
       {-0x1.4000000000000p+5f, -0x1.3eb3740000000p+5f, -0x1.2fc3360000000p+5f, -0x1.1f866c0000000p+5f, -0x1.058b8e0000000p+5f,
        -0x1.0059620000000p+5f, -0x1.fe19ae0000000p+4f}},
      {2,
       true,
       {0x0.0p+0f, 0x1.3d70a40000000p+1f, 0x1.f000000000000p+4f, 0x1.f000000000000p+5f, 0x1.be66660000000p+6f, 0x1.e6147a0000000p+6f,
        0x1.f000000000000p+6f}},
      {3,
       false,
       {-0x1.4000000000000p+5f, -0x1.3d66ea0000000p+5f, -0x1.1f866c0000000p+5f, -0x1.fe19ae0000000p+4f, -0x1.95d7040000000p+4f,
        -0x1.80fce20000000p+4f, -0x1.7bc65a0000000p+4f}},
      {3,
       true,
       {0x0.0p+0f, 0x1.70a3d60000000p-1f, 0x1.2000000000000p+3f, 0x1.2000000000000p+4f, 0x1.9b33340000000p+6f, 0x1.df0a3e0000000p+6f,
        0x1.f000000000000p+6f}},
      {17,
       false,
       {-0x1.4000000000000p+5f, -0x1.32877a0000000p+5f, -0x1.7bc65a0000000p+4f, -0x1.d762d00000000p+2f, 0x1.6de90c0000000p+5f,
        0x1.c3ea800000000p+5f, 0x1.d973080000000p+5f}},
      {17,
       true,
       {0x0.0p+0f, 0x1.47ae140000000p+0f, 0x1.8000000000000p+3f, 0x1.0800000000000p+6f, 0x1.bb33340000000p+6f, 0x1.e0a3d80000000p+6f,
        0x1.f000000000000p+6f}},
      {10007,
       false,
       {-0x1.4000000000000p+5f, -0x1.2f7aee0000000p+5f, -0x1.b57c760000000p+3f, 0x1.72e6100000000p+3f, 0x1.9fcd440000000p+5f,
        0x1.e1a0e40000000p+5f, 0x1.f2b1a80000000p+5f}},
      {10007,
       true,
       {0x0.0p+0f, 0x1.0000000000000p+1f, 0x1.f000000000000p+4f, 0x1.f800000000000p+5f, 0x1.cc00000000000p+6f, 0x1.f400000000000p+6f,
        0x1.fc00000000000p+6f}},
      {300007,
       false,
       {-0x1.4000000000000p+5f, -0x1.3040fc0000000p+5f, -0x1.c606d00000000p+3f, 0x1.67d3f80000000p+3f, 0x1.a0f5400000000p+5f,
        0x1.e203ac0000000p+5f, 0x1.f2d97c0000000p+5f}},
      {300007,
       true,
       {0x0.0p+0f, 0x1.0000000000000p+1f, 0x1.0000000000000p+5f, 0x1.f800000000000p+5f, 0x1.cc00000000000p+6f, 0x1.f400000000000p+6f,
        0x1.fc00000000000p+6f}},
  };
  for (const Golden& g : golden) {
    const std::vector<float> v = formula(g.n, g.bytes);
    EXPECT_EQ(quantiles(v.data(), g.n, q), g.values) << g.n << (g.bytes ? " bytes" : "");
  }
}

TEST(Quantiles, LeaveOutWhatIsNotFinite) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> v = {kNan, -1, kInf, 3, -kInf, -0.0f, -kNan, 0.0f};
  std::int64_t not_finite = 0;
  EXPECT_EQ(quantiles(v.data(), 8, {0, 0.5, 1}, &not_finite), (std::vector<float>{-1, 0, 3}));
  EXPECT_EQ(not_finite, 4);
  EXPECT_TRUE(quantiles(v.data(), 1, {0.5}, &not_finite).empty());
  EXPECT_EQ(not_finite, 1);
  EXPECT_TRUE(quantiles(v.data(), 0, {0.5}).empty());
}

// --------------------------------------------------------------------------------------------------------------- normalisation

Tensor sample(Shape shape, float zeros_below = 0.3f) {
  Random random(5);
  Tensor t(shape, DType::f32, kCpu);
  for (std::int64_t i = 0; i < t.elements(); ++i) {
    const float u = random.uniform();
    t.data<float>()[i] = u < zeros_below ? 0.0f : 900.0f * u * u + 3.0f;
  }
  return t;
}

TEST(Normalise, QuantileWithAndWithoutClip) {
  const Tensor v = sample({17, 33, 7});
  Intensity how{.kind = "quantile", .low = 0.02, .high = 0.98, .clip = true, .mask = "whole"};
  const std::vector<float> q = quantiles(v.data<float>(), v.elements(), {0.02, 0.98});
  std::vector<NormaliseReport> report;
  const std::vector<float> clipped = to_host<float>(normalise(v, how, &report)), in = to_host<float>(v);
  how.clip = false;
  const std::vector<float> open = to_host<float>(normalise(v, how));
  ASSERT_EQ(report.size(), 1u);
  EXPECT_EQ(report[0].offset, q[0]);
  EXPECT_EQ(report[0].scale, q[1] - q[0]);
  int beyond = 0;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const float wanted = (in[i] - q[0]) / (q[1] - q[0]);
    EXPECT_EQ(open[i], wanted);
    EXPECT_EQ(clipped[i], std::fmin(std::fmax(wanted, 0.0f), 1.0f));
    beyond += wanted > 1.0f;
  }
  EXPECT_GT(beyond, 0);
}

TEST(Normalise, ZscoreWholeAndNonzero) {
  const Tensor v = sample({9, 100, 100});  // more than one piece of the sums
  const std::vector<float> in = to_host<float>(v);
  for (const bool nonzero : {false, true}) {
    double sum = 0, squares = 0, n = 0;
    for (const float x : in)
      if (!nonzero || x != 0) sum += x, n += 1;
    const double mean = sum / n;
    for (const float x : in)
      if (!nonzero || x != 0) squares += (x - mean) * (x - mean);
    const double deviation = std::sqrt(squares / n);
    const Intensity how{.kind = "zscore", .low = 0.02, .high = 0.98, .clip = true, .mask = nonzero ? "nonzero" : "whole"};
    const std::vector<float> out = to_host<float>(normalise(v, how));
    double worst = 0;
    for (std::size_t i = 0; i < in.size(); ++i)
      worst = std::fmax(worst, std::fabs(out[i] - (nonzero && in[i] == 0 ? 0.0 : (in[i] - mean) / deviation)));
    EXPECT_LT(worst, 2e-6);
  }
}

TEST(Normalise, MinmaxAndNone) {
  const Tensor v = sample({3, 5, 7});
  const auto [low, high] = std::minmax_element(v.data<float>(), v.data<float>() + v.elements());
  const std::vector<float> out = to_host<float>(normalise(v, Intensity{.kind = "minmax"})), in = to_host<float>(v);
  for (std::size_t i = 0; i < in.size(); ++i) EXPECT_EQ(out[i], (in[i] - *low) / (*high - *low));
  EXPECT_EQ(to_host<float>(normalise(v, Recipe{})), in);
}

TEST(Normalise, ChannelsAreTakenAlone) {
  const Tensor a = sample({4, 5, 6}), b = sample({4, 5, 6}, 0.0f);
  Tensor both({1, 4, 5, 6, 2}, DType::f32, kCpu);
  for (std::int64_t i = 0; i < 120; ++i) both.data<float>()[2 * i] = a.data<float>()[i], both.data<float>()[2 * i + 1] = b.data<float>()[i];
  for (const char* kind : {"none", "quantile", "minmax", "zscore"}) {
    std::vector<NormaliseReport> report;
    const Intensity how{.kind = kind};
    const std::vector<float> out = to_host<float>(normalise(both, how, &report)), first = to_host<float>(normalise(a, how)),
                             second = to_host<float>(normalise(b, how));
    EXPECT_EQ(report.size(), 2u);
    for (std::size_t i = 0; i < 120; ++i) EXPECT_TRUE(out[2 * i] == first[i] && out[2 * i + 1] == second[i]) << kind;
  }
}

TEST(Normalise, ConstantEmptyAndBrokenVolumes) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  std::vector<NormaliseReport> report;
  for (const char* kind : {"quantile", "minmax", "zscore"}) {
    const Intensity how{.kind = kind};
    EXPECT_EQ(to_host<float>(normalise(from_host(std::vector<float>(8, 7.5f), {2, 2, 2}), how, &report)), std::vector<float>(8, 0.0f))
        << kind;
    EXPECT_TRUE(report.at(0).constant);
    EXPECT_EQ(to_host<float>(normalise(from_host(std::vector<float>(8, kNan), {2, 2, 2}), how, &report)), std::vector<float>(8, 0.0f))
        << kind;
    EXPECT_TRUE(report.at(0).constant);
    EXPECT_EQ(report.at(0).not_finite, 8);
    EXPECT_EQ(normalise(Tensor({0, 2, 2}, DType::f32, kCpu), how).elements(), 0);
    // Voxels that are not finite become 0 and do not disturb the others.
    const std::vector<float> out =
        to_host<float>(normalise(from_host(std::vector<float>{1, kNan, 2, kInf, 4, -kInf, 3, 0}, {2, 2, 2}), how, &report));
    const std::vector<float> rest = to_host<float>(normalise(from_host(std::vector<float>{1, 2, 4, 3, 0}, {1, 1, 5}), how));
    EXPECT_EQ(out, (std::vector<float>{rest[0], 0, rest[1], 0, rest[2], 0, rest[3], rest[4]})) << kind;
    EXPECT_EQ(report.at(0).not_finite, 3);
  }
  EXPECT_EQ(to_host<float>(normalise(from_host(std::vector<float>{kNan, 5}, {1, 1, 2}), Intensity{}, &report)), (std::vector<float>{0, 5}));
  EXPECT_EQ(report.at(0).not_finite, 1);
  message_of(ErrorCode::invalid_argument, [&] { normalise(Tensor({2, 2}, DType::f32, kCpu), Intensity{}); });
  message_of(ErrorCode::invalid_argument, [&] { normalise(Tensor({2, 2, 2}, DType::u8, kCpu), Intensity{}); });
  message_of(ErrorCode::invalid_argument, [&] { normalise(sample({2, 2, 2}), Intensity{.kind = "log"}); });
}

TEST(Normalise, SameBitsForAnyNumberOfThreads) {
  const Tensor v = sample({40, 100, 100});
  const int before = threads();
  for (const char* kind : {"quantile", "minmax", "zscore"}) {
    set_threads(1);
    const std::vector<float> one = to_host<float>(normalise(v, Intensity{.kind = kind}));
    for (const int t : {2, 3}) {
      set_threads(t);
      EXPECT_EQ(to_host<float>(normalise(v, Intensity{.kind = kind})), one) << kind;
    }
  }
  set_threads(before);
}

// data/models/make_references.py: the crop of a real head as PyTorch saw it, in (i, j, k).
TEST(Normalise, TheCropOfTheReferences) {
  const std::string head = test::shared_data("t1/t1_crop.nii.gz"), crop = test::shared_data("models/subcortical-crop64.safetensors");
  if (head.empty() || crop.empty()) GTEST_SKIP() << "no data/t1, data/models (VG_TEST_DATA)";
  std::vector<NormaliseReport> report;
  const Tensor v = normalise(read_volume(head).voxels, Intensity{.kind = "quantile"}, &report);
  ASSERT_EQ(v.shape(), (Shape{1, 256, 256, 256, 1}));
  EXPECT_EQ(report[0].offset, 0.0f);
  EXPECT_EQ(report[0].scale, 127.0f);
  const Safetensors file = read_safetensors(crop);
  const float* wanted = file.find("input32")->data<float>();
  int different = 0;
  for (int i = 0; i < 32; ++i)
    for (int j = 0; j < 32; ++j)
      for (int k = 0; k < 32; ++k)
        different += v.data<float>()[((k + 100) * 256 + j + 132) * 256 + i + 116] != wanted[(i * 32 + j) * 32 + k];
  EXPECT_EQ(different, 0);
}

// -------------------------------------------------------------------------------------------------------------------- axes

TEST(PermuteAxes, WeightsAndAttributes) {
  std::vector<float> values(2 * 3 * 2 * 3 * 4);
  std::iota(values.begin(), values.end(), 0.0f);
  const auto turned = permute_axes({{"w", from_host(values, {2, 3, 2, 3, 4})}, {"b", from_host(std::vector<float>{1, 2}, {2})}});
  ASSERT_EQ(turned[0].second.shape(), (Shape{2, 3, 4, 3, 2}));
  EXPECT_EQ(turned[1].second.shape(), (Shape{2}));
  for (int oi = 0; oi < 6; ++oi)
    for (int d = 0; d < 2; ++d)
      for (int h = 0; h < 3; ++h)
        for (int w = 0; w < 4; ++w)
          EXPECT_EQ(turned[0].second.data<float>()[((oi * 4 + w) * 3 + h) * 2 + d], static_cast<float>(((oi * 2 + d) * 3 + h) * 4 + w));
  EXPECT_EQ(to_host<float>(permute_axes(turned)[0].second), values);

  UnetConfig c{.spatial_dims = 3, .features = {2, 4}, .kernels = {{1, 3, 3}, {3, 3, 3}}, .strides = {{1, 1, 1}, {1, 2, 2}}};
  const Graph g = unet(c), back = permute_axes(permute_axes(g));
  EXPECT_EQ(to_json(back), to_json(g));
  EXPECT_EQ(permute_axes(g).divisor(), (std::vector<int>{2, 2, 1}));
  EXPECT_EQ(permute_axes(g).nodes[0].attributes["kernel"], Json({3, 3, 1}));
  c.spatial_dims = 2, c.kernels = {}, c.strides = {};
  message_of(ErrorCode::invalid_argument, [&] { permute_axes(unet(c)); });
}

}  // namespace
}  // namespace vg

// Scans in, labels on their own grid out. The networks classify by intensity, of a voxel or of its neighbour, so that the right answer can be
// written down for any orientation.
#include "infer/segment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "nifti/conform.h"
#include "nifti/png.h"
#include "tensor/random.h"
#include "tests/infer/networks.h"
#include "tests/layers/files.h"

namespace vg {
namespace {

using test::message_of;

const std::vector<double> kThresholds = {20.0, 50.0, 80.0};

Affine rotation(double x, double y, double z) {
  const auto turn = [](int a, int b, double angle) {
    Affine m;
    m.m[a][a] = m.m[b][b] = std::cos(angle), m.m[a][b] = -std::sin(angle), m.m[b][a] = std::sin(angle);
    return m;
  };
  return turn(1, 2, x) * turn(0, 2, y) * turn(0, 1, z);
}

// Whole numbers 0..99 without order, in a volume whose axes run along `code`, turned by up to 20 degrees, with unequal spacing.
Volume scan(const Size3& size, const std::string& code, double oblique = 0.3, std::int64_t channels = 1) {
  Volume v;
  v.name = "scan.nii.gz";
  v.place.affine = rotation(oblique, -oblique / 2, oblique / 3);
  const double spacing[3] = {1.5, 0.9, 2.0};
  for (int c = 0; c < 3; ++c)
    for (int r = 0; r < 3; ++r) v.place.affine.m[r][c] *= spacing[c];
  v.place.affine.m[0][3] = -31.5, v.place.affine.m[1][3] = 17.25, v.place.affine.m[2][3] = 4.125;
  v.place.source = TransformSource::sform, v.place.code = 1;
  v.voxels = Tensor({1, size[2], size[1], size[0], channels}, DType::f32, kCpu);
  Random random(5);
  for (std::int64_t i = 0; i < v.voxels.elements(); ++i) v.voxels.data<float>()[i] = static_cast<float>(random.below(100));
  return reorient(v, code);
}

std::vector<std::int32_t> thresholded(const Volume& v) {
  std::vector<std::int32_t> k;
  for (std::int64_t i = 0; i < v.voxels.elements(); ++i) k.push_back(test::above(v.voxels.data<float>()[i], kThresholds));
  return k;
}

SegmentOptions with_confidence() {
  SegmentOptions o;
  o.confidence = true;
  return o;
}

SegmentOptions within(std::uint64_t bytes) {
  SegmentOptions o;
  o.max_bytes = bytes;
  return o;
}

class Segment : public testing::Test {
 protected:
  Segmentation run(const Model& m, const Volume& v, const SegmentOptions& o = {}) {
    write_model(folder_ / "m.safetensors", m);
    Segmenter s(folder_ / "m.safetensors", kCpu);
    Context ctx(kCpu);
    return segment(ctx, s, v, o);
  }
  // Labels on the scan's grid: extents, affine and where it came from, bit for bit.
  void expect_on_grid(const Volume& got, const Volume& scan_volume) {
    const Shape &a = got.voxels.shape(), &b = scan_volume.voxels.shape();
    EXPECT_TRUE(a.d() == b.d() && a.h() == b.h() && a.w() == b.w() && a.c() == 1) << to_string(a);
    EXPECT_EQ(std::memcmp(&got.place.affine, &scan_volume.place.affine, sizeof(Affine)), 0);
    EXPECT_EQ(got.place.code, scan_volume.place.code);
    EXPECT_EQ(got.place.source, scan_volume.place.source);
    EXPECT_EQ(got.name, scan_volume.name);
  }
  test::Folder folder_;
};

TEST_F(Segment, LabelsComeBackOnTheScansOwnGrid) {
  for (const char* code : {"RAS", "LIA", "PSR", "ILP", "SAR", "LPS"})
    for (const char* wanted : {"", "RAS", "LIA", "AIL"})
      for (const double oblique : {0.0, 0.35}) {
        SCOPED_TRACE(fmt::format("{} as {}, {}", code, wanted, oblique));
        const Volume v = scan({7, 9, 5}, code, oblique);
        Recipe r;
        r.orientation = wanted;
        const Segmentation s = run(test::threshold_model(3, kThresholds, r), v, with_confidence());
        expect_on_grid(s.labels, v);
        EXPECT_EQ(to_host<std::int32_t>(s.labels.voxels), thresholded(v));
        expect_on_grid(*s.confidence, v);
        for (float p : to_host<float>(s.confidence->voxels)) ASSERT_TRUE(p > 0.25f && p <= 1.0f);
        EXPECT_EQ(to_host<float>(s.image.voxels), to_host<float>(v.voxels));
      }
}

// Each candidate comes back as the label does.
TEST_F(Segment, CandidatesAreOnTheScansGridToo) {
  const Volume v = scan({9, 7, 5}, "LAS");
  Recipe r;
  r.orientation = "RAS";
  const Model m = test::threshold_model(3, kThresholds, r);
  const Segmentation plain = run(m, v, with_confidence());
  SegmentOptions o = with_confidence();
  o.candidates = 2;
  const Segmentation s = run(m, v, o);
  ASSERT_TRUE(s.candidates && s.chances && !plain.candidates);
  ASSERT_EQ(s.candidates->channels(), 2);
  EXPECT_EQ(std::memcmp(&s.candidates->place.affine, &v.place.affine, sizeof(Affine)), 0);
  for (std::int64_t i = 0; i < plain.labels.voxels.elements(); ++i) {
    const std::int32_t first = plain.labels.voxels.data<std::int32_t>()[i];
    ASSERT_EQ(s.labels.voxels.data<std::int32_t>()[i], first);
    ASSERT_EQ(s.candidates->voxels.data<std::int32_t>()[2 * i], first);
    ASSERT_NE(s.candidates->voxels.data<std::int32_t>()[2 * i + 1], first);
    ASSERT_EQ(s.chances->voxels.data<float>()[2 * i], plain.confidence->voxels.data<float>()[i]);
    ASSERT_GE(s.chances->voxels.data<float>()[2 * i], s.chances->voxels.data<float>()[2 * i + 1]);
  }
}

// A kernel that reads a neighbour shows which way the axes of the network's input run: the voxel after this one along H or W of the wanted order.
TEST_F(Segment, TheNetworkSeesTheOrientationThatTheRecipeAsksFor) {
  struct Look {
    const char *slices, *orientation, *order;  // what the recipe says; the order that results
    std::vector<int> kernel;
    int tap, axis;  // the tap just after the centre along this axis (0, 1, 2 = D, H, W)
  };
  const Look looks[] = {
      {"", "RAS", "RAS", {3, 3, 3}, 13 + 9, 0},     {"", "RAS", "RAS", {3, 3, 3}, 13 + 3, 1},
      {"", "LIA", "LIA", {3, 3, 3}, 13 + 1, 2},     {"axial", "", "RAS", {1, 3, 3}, 4 + 3, 1},
      {"axial", "", "RAS", {1, 3, 3}, 4 + 1, 2},    {"coronal", "", "RSA", {1, 3, 3}, 4 + 3, 1},
      {"coronal", "", "RSA", {1, 3, 3}, 4 + 1, 2},  {"sagittal", "", "ASR", {1, 3, 3}, 4 + 3, 1},
      {"sagittal", "", "ASR", {1, 3, 3}, 4 + 1, 2}, {"axial", "LPS", "LPS", {1, 3, 3}, 4 + 1, 2},
  };
  for (const Look& look : looks)
    for (const char* code : {"LIA", "RAS", "PIR"}) {
      SCOPED_TRACE(fmt::format("{} {} from {}", look.slices, look.order, code));
      const Volume v = scan({7, 9, 5}, code);
      Recipe r;
      r.slices = look.slices, r.orientation = look.orientation;
      const Segmentation s = run(test::threshold_model(*look.slices ? 2 : 3, kThresholds, r, look.kernel, look.tap), v);
      expect_on_grid(s.labels, v);
      const Volume seen = reorient(v, look.order), labels = reorient(s.labels, look.order);
      const Shape& shape = seen.voxels.shape();
      for (std::int64_t z = 0; z < shape.d(); ++z)
        for (std::int64_t y = 0; y < shape.h(); ++y)
          for (std::int64_t x = 0; x < shape.w(); ++x) {
            const std::int64_t n[3] = {z + (look.axis == 0), y + (look.axis == 1), x + (look.axis == 2)};
            const bool inside = n[0] < shape.d() && n[1] < shape.h() && n[2] < shape.w();
            const float value = inside ? seen.voxels.data<float>()[(n[0] * shape.h() + n[1]) * shape.w() + n[2]] : 0.0f;
            ASSERT_EQ(labels.voxels.data<std::int32_t>()[(z * shape.h() + y) * shape.w() + x], test::above(value, kThresholds));
          }
    }
}

// Weights trained on (i, j, k) tensors: the kernel's last axis is k, which is D here.
TEST_F(Segment, WeightsOfTheOtherAxisOrderAreTurned) {
  const Volume v = scan({7, 9, 5}, "RAS");
  Recipe r;
  const Segmentation want = run(test::threshold_model(3, kThresholds, r, {3, 3, 3}, 13 + 9), v);
  r.axes = "ijk";
  const Segmentation got = run(test::threshold_model(3, kThresholds, r, {3, 3, 3}, 13 + 1), v);
  EXPECT_EQ(to_host<std::int32_t>(got.labels.voxels), to_host<std::int32_t>(want.labels.voxels));
}

TEST_F(Segment, EachSliceMayBeNormalisedByItself) {
  const Volume v = scan({6, 5, 4}, "RAS");
  Recipe r;
  r.slices = "axial", r.intensity.kind = "minmax";
  for (const bool per_slice : {false, true}) {
    r.per_slice = per_slice;
    const Segmentation s = run(test::threshold_model(2, {0.25, 0.5}, r), v);
    const float* x = v.voxels.data<float>();
    for (std::int64_t k = 0; k < 4; ++k) {
      const auto [low, high] = per_slice ? std::minmax_element(x + k * 30, x + (k + 1) * 30) : std::minmax_element(x, x + 120);
      for (std::int64_t i = k * 30; i < (k + 1) * 30; ++i)
        ASSERT_EQ(s.labels.voxels.data<std::int32_t>()[i], test::above((x[i] - *low) / (*high - *low), {0.25, 0.5})) << per_slice;
    }
  }
}

// A ramp along i through coarser and finer grids: borders move by less than a voxel, and no voxel is left without a label.
TEST_F(Segment, OtherVoxelSizesCoverTheSameFieldOfView) {
  for (const char* code : {"RAS", "PSR"})
    for (const double mm : {0.6, 1.0, 2.5, 3.1}) {
      SCOPED_TRACE(fmt::format("{}, {} mm", code, mm));
      Volume v = scan({17, 8, 7}, "RAS");
      for (std::int64_t i = 0; i < v.voxels.elements(); ++i) v.voxels.data<float>()[i] = static_cast<float>(5 + 6 * (i % 17));
      v = reorient(v, code);
      Recipe r;
      r.orientation = "RAS", r.spacing = {mm, mm, mm};
      const std::vector<double> thresholds = {0.0, 20.0, 50.0, 80.0};
      const Model m = test::threshold_model(3, thresholds, r);
      SegmentOptions on_own_grid;
      on_own_grid.conformed = true;
      const Segmentation s = run(m, v, with_confidence()), own = run(m, v, on_own_grid);
      expect_on_grid(s.labels, v);
      for (float p : to_host<float>(s.confidence->voxels)) ASSERT_GT(p, 0.1f);
      const Size3 size = own.labels.size();
      EXPECT_EQ(size[0], std::llround(17 * 1.5 / mm));
      EXPECT_EQ(size[1], std::llround(8 * 0.9 / mm));
      EXPECT_EQ(size[2], std::llround(7 * 2.0 / mm));
      // Both corners of the field of view stay where they are.
      const Volume ras = reorient(v, "RAS");
      for (const double side : {0.0, 1.0}) {
        const Vec3 a = ras.place.affine({side * 17 - 0.5, side * 8 - 0.5, side * 7 - 0.5});
        const Vec3 b = own.labels.place.affine({side * static_cast<double>(size[0]) - 0.5, side * static_cast<double>(size[1]) - 0.5,
                                                side * static_cast<double>(size[2]) - 0.5});
        for (std::size_t c = 0; c < 3; ++c) EXPECT_NEAR(a[c], b[c], 1e-9);
      }
      const Volume labels = reorient(s.labels, "RAS");
      const double step = 6 / 1.5 * std::max(mm, 1.5);  // intensity from one voxel to the next, on the coarser grid
      for (std::int64_t i = 0; i < labels.voxels.elements(); ++i) {
        const double x = 5 + 6.0 * static_cast<double>(i % 17);
        const int k = labels.voxels.data<std::int32_t>()[i];
        ASSERT_GE(k, 1) << "voxel " << i << " was forgotten";
        ASSERT_TRUE(k >= test::above(x - step, thresholds) && k <= test::above(x + step, thresholds)) << i % 17 << ": " << k;
      }
    }
}

// 256^3 at 1 mm and back: a bright block in an oblique scan keeps its place.
TEST_F(Segment, ConformedAndBackABlockStaysWhereItWas) {
  Volume v = scan({40, 60, 30}, "PIR", 0.2);
  const Shape shape = v.voxels.shape();
  const auto inside = [&](std::int64_t z, std::int64_t y, std::int64_t x, std::int64_t rim) {
    return z >= 8 + rim && z < 20 - rim && y >= 10 + rim && y < 22 - rim && x >= 15 + rim && x < 45 - rim;
  };
  for (std::int64_t i = 0; i < v.voxels.elements(); ++i)
    v.voxels.data<float>()[i] = inside(i / (shape.h() * shape.w()), i / shape.w() % shape.h(), i % shape.w(), 0) ? 900.0f : 100.0f;
  Recipe r;
  r.conform = "meshnet", r.intensity.kind = "minmax";
  const Segmentation s = run(test::threshold_model(3, {0.6}, r), v);
  expect_on_grid(s.labels, v);
  std::int64_t judged = 0;
  for (std::int64_t i = 0; i < v.voxels.elements(); ++i) {
    const std::int64_t z = i / (shape.h() * shape.w()), y = i / shape.w() % shape.h(), x = i % shape.w();
    const bool core = inside(z, y, x, 2), outside = !inside(z, y, x, -2);
    if (!core && !outside) continue;
    ASSERT_EQ(s.labels.voxels.data<std::int32_t>()[i], core ? 1 : 0) << z << " " << y << " " << x;
    judged += core;
  }
  EXPECT_GT(judged, 500);
}

TEST_F(Segment, PicturesInPicturesOut) {
  std::vector<std::uint8_t> grey(7 * 9);
  for (std::size_t i = 0; i < grey.size(); ++i) grey[i] = static_cast<std::uint8_t>(i * 37 % 100);
  write_png(folder_ / "in.png", grey.data(), 9, 7);
  Recipe r;
  r.slices = "image";
  Model m = test::threshold_model(2, kThresholds, r);
  m.labels = {{.id = 0, .name = "Unknown", .rgb = {0, 0, 0}, .pair = -1, .merged = {}},
              {.id = 17, .name = "a", .rgb = {1, 2, 3}, .pair = -1, .merged = {}},
              {.id = 53, .name = "b", .rgb = {4, 5, 6}, .pair = -1, .merged = {}},
              {.id = 2035, .name = "c", .rgb = {7, 8, 9}, .pair = -1, .merged = {}}};
  write_model(folder_ / "m.safetensors", m);
  Segmenter segmenter(folder_ / "m.safetensors", kCpu);
  Context ctx(kCpu);
  const Segmentation s = segment(ctx, segmenter, read_volume(folder_ / "in.png"));
  EXPECT_EQ(s.labels.voxels.shape(), (Shape{1, 1, 7, 9, 1}));
  write_png_labels(folder_ / "out.png", s.labels.voxels.data<std::int32_t>(), 9, 7, segmenter.lut());
  const std::int32_t ids[] = {0, 17, 53, 2035};
  const std::vector<std::int32_t> back = to_host<std::int32_t>(read_labels(folder_ / "out.png").voxels);
  for (std::size_t i = 0; i < grey.size(); ++i) ASSERT_EQ(back[i], ids[test::above(grey[i], kThresholds)]);
  EXPECT_EQ(segmenter.lut().name(53), "b");
  // A volume is no picture.
  EXPECT_NE(message_of(ErrorCode::invalid_argument,
                       [&] {
                         segment(ctx, segmenter, scan({4, 4, 3}, "RAS"));
                       })
                .find("3 slices"),
            std::string::npos);
}

TEST_F(Segment, VoxelsThatAreNoNumbersBecomeZeroForTheNetwork) {
  Volume v = scan({5, 6, 4}, "RAS");
  std::vector<std::int32_t> want = thresholded(v);
  v.voxels.data<float>()[7] = NAN, v.voxels.data<float>()[50] = INFINITY, v.voxels.data<float>()[51] = -INFINITY;
  want[7] = want[50] = want[51] = 0;
  const Segmentation s = run(test::threshold_model(3, kThresholds, Recipe{}), v, with_confidence());
  EXPECT_EQ(to_host<std::int32_t>(s.labels.voxels), want);
  for (float p : to_host<float>(s.confidence->voxels)) ASSERT_TRUE(p > 0 && p <= 1);
}

TEST_F(Segment, AConstantVolumeIsRefused) {
  Volume v = scan({5, 6, 4}, "RAS");
  for (const float value : {0.0f, 7.0f, NAN}) {
    std::fill_n(v.voxels.data<float>(), v.voxels.elements(), value);
    for (const char* kind : {"none", "zscore", "quantile", "minmax"}) {
      Recipe r;
      r.intensity.kind = kind;
      EXPECT_NE(message_of(ErrorCode::numeric, [&] { run(test::threshold_model(3, kThresholds, r), v); }).find("scan.nii.gz"),
                std::string::npos);
    }
  }
  v.voxels.data<float>()[3] = 1.0f, v.voxels.data<float>()[4] = 2.0f;
  EXPECT_NO_THROW(run(test::threshold_model(3, kThresholds, Recipe{}), v));
}

TEST_F(Segment, RefusesScansThatDoNotFit) {
  const Model m = test::threshold_model(3, kThresholds, Recipe{});
  const std::string message = message_of(ErrorCode::invalid_argument, [&] { run(m, scan({5, 6, 4}, "RAS", 0, 2)); });
  EXPECT_NE(message.find("2 channels"), std::string::npos) << message;
  EXPECT_NE(message.find("scan.nii.gz"), std::string::npos) << message;

  const std::string memory = message_of(ErrorCode::out_of_memory, [&] { run(m, scan({50, 60, 40}, "RAS"), within(1 << 20)); });
  EXPECT_NE(memory.find("scan.nii.gz"), std::string::npos) << memory;
  EXPECT_NE(memory.find("limit"), std::string::npos) << memory;
  EXPECT_NO_THROW(run(m, scan({50, 60, 40}, "RAS"), within(64 << 20)));  // of which the program itself is given 40
}

TEST_F(Segment, AWindowOfTheRecipeIsUsed) {
  const Volume v = scan({17, 19, 15}, "RAS");
  Recipe r;
  r.window = {8, 8, 8}, r.overlap = 0.25, r.divisor = {4, 4, 4};
  int calls = 0;
  SegmentOptions o;
  o.progress = [&](double) { ++calls; };
  const Segmentation s = run(test::threshold_model(3, kThresholds, r), v, o);
  EXPECT_EQ(to_host<std::int32_t>(s.labels.voxels), thresholded(v));
  EXPECT_EQ(calls, 3 * 3 * 3);  // 17, 19 and 15 voxels in windows of 8, at most 6 apart
  const PredictOptions p = predict_options(r);
  EXPECT_EQ(p.overlap, 0.25);
  EXPECT_EQ(p.divisor[2], 4);
}

TEST_F(Segment, ModelsThatContradictThemselvesAreRefused) {
  Model m = test::threshold_model(3, kThresholds, Recipe{});
  m.recipe.erase("overlap");
  write_model(folder_ / "bad.safetensors", m);
  EXPECT_NE(message_of(ErrorCode::bad_file, [&] { Segmenter(folder_ / "bad.safetensors", kCpu); }).find("overlap"), std::string::npos);
  m = test::threshold_model(3, kThresholds, Recipe{});
  m.labels = {{.id = 0, .name = "only one", .rgb = {0, 0, 0}, .pair = -1, .merged = {}}};
  EXPECT_THROW(
      {
        write_model(folder_ / "bad.safetensors", m);
        Segmenter(folder_ / "bad.safetensors", kCpu);
      },
      Error);
  EXPECT_THROW(Segmenter(folder_ / "absent.safetensors", kCpu), Error);
}

}  // namespace
}  // namespace vg

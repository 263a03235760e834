// Cubic B-splines against scipy; what they must keep (the values themselves, polynomials, constants); cropping and padding there and back; pairs,
// extensions and sides on the way through a volume.
#include <cmath>
#include <vector>

#include "nifti/crop.h"
#include "nifti/resample.h"
#include "tensor/error.h"
#include "tensor/random.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

struct Golden {
  std::int64_t source[3], target[3];
  double map[12];
  std::vector<double> values;
};
const Golden kGolden[] = {
#include "tests/nifti/cubic_golden.inc"
};

Tensor tensor_of(const Size3& s, std::int64_t channels = 1) { return Tensor({1, s[2], s[1], s[0], channels}, DType::f32, kCpu); }

TEST(Cubic, AgreesWithScipy) {
  int inside = 0, outside = 0;
  for (const Golden& g : kGolden) {
    const Grid source{{g.source[0], g.source[1], g.source[2]}, {}};
    Grid target{{g.target[0], g.target[1], g.target[2]}, {}};
    for (int n = 0; n < 12; ++n) target.affine.m[n / 4][n % 4] = g.map[n];
    Tensor values = tensor_of(source.size, 2);  // the second channel is another volume, to see that they stay apart
    float* v = values.data<float>();
    for (std::int64_t k = 0; k < source.size[2]; ++k)
      for (std::int64_t j = 0; j < source.size[1]; ++j)
        for (std::int64_t i = 0; i < source.size[0]; ++i) *v++ = static_cast<float>((i * 7919 + j * 104729 + k * 1299709) % 1021), *v++ = 5;
    const Tensor out = resample_cubic(values, source, target, -7);
    ASSERT_EQ(static_cast<std::size_t>(out.elements()), 2 * g.values.size());
    for (std::size_t n = 0; n < g.values.size(); ++n) {
      EXPECT_NEAR(out.data<float>()[2 * n], g.values[n], 2e-3) << n;  // of values to 1021, coefficients to 4000 kept as floats
      const bool in = g.values[n] != -7;
      EXPECT_NEAR(out.data<float>()[2 * n + 1], in ? 5.0f : -7.0f, 1e-5);
      ++(in ? inside : outside);
    }
  }
  EXPECT_GT(inside, 80);
  EXPECT_GT(outside, 5);
}

TEST(Cubic, PassesThroughTheValues) {
  for (const Size3& size : {Size3{1, 1, 1}, Size3{2, 3, 1}, Size3{7, 17, 5}, Size3{33, 2, 9}}) {
    const Grid grid{size, {}};
    Tensor t = tensor_of(size);
    Random random(3, static_cast<std::uint64_t>(size[0]));
    for (std::int64_t n = 0; n < t.elements(); ++n) t.data<float>()[n] = random.uniform(-100, 100);
    const Tensor same = resample_cubic(t, grid, grid);
    for (std::int64_t n = 0; n < t.elements(); ++n) EXPECT_NEAR(same.data<float>()[n], t.data<float>()[n], 2e-4);
  }
}

// Away from the mirrored edges a cubic spline is exact for cubics; linear interpolation is not.
TEST(Cubic, FollowsACubic) {
  const Grid source{{41, 1, 1}, {}};
  Tensor t = tensor_of(source.size);
  const auto f = [](double x) { return 0.002 * x * x * x - 0.1 * x * x + x + 3; };
  for (std::int64_t i = 0; i < 41; ++i) t.data<float>()[i] = static_cast<float>(f(static_cast<double>(i)));
  Grid target{{60, 1, 1}, {}};
  target.affine.m[0][0] = 0.25, target.affine.m[0][3] = 13;
  const Tensor cubic = resample_cubic(t, source, target), linear = resample_linear(t, source, target);
  double worst_linear = 0;
  for (std::int64_t n = 0; n < 60; ++n) {
    const double wanted = f(13 + 0.25 * static_cast<double>(n));
    EXPECT_NEAR(cubic.data<float>()[n], wanted, 1e-4);
    worst_linear = std::max(worst_linear, std::abs(linear.data<float>()[n] - wanted));
  }
  EXPECT_GT(worst_linear, 5e-3);
}

TEST(Resample, SpacingKeepsTheBox) {
  Grid g{{10, 7, 33}, from_qform({{0.1, 0.2, -0.3}, {5, -7, 11}, {2, 3, 0.5}, -1})};
  const Grid out = grid_with_spacing(g, {1, 1.5, 1});
  EXPECT_EQ(out.size, (Size3{20, 14, 16}));
  const Vec3 mm = spacing_of(out.affine), wanted{1, 1.5, 1};
  for (int a = 0; a < 3; ++a) EXPECT_NEAR(mm[a], wanted[a], 1e-12);
  const Vec3 corner = g.affine({-0.5, -0.5, 16}), now = out.affine({-0.5, -0.5, 7.5});  // rounded along k alone
  for (int a = 0; a < 3; ++a) EXPECT_NEAR(corner[a], now[a], 1e-9);
  EXPECT_THROW(grid_with_spacing(g, {0, 1, 1}), Error);
  EXPECT_THROW(grid_with_spacing(g, {1e-6, 1, 1}), Error);
}

Volume counted(const Size3& size, DType type, std::int64_t channels) {
  Volume v;
  v.name = "counted";
  v.voxels = Tensor({1, size[2], size[1], size[0], channels}, type, kCpu);
  for (std::int64_t n = 0; n < v.voxels.elements(); ++n) {
    if (type == DType::f32) v.voxels.data<float>()[n] = static_cast<float>(n + 1);
    else v.voxels.data<std::int32_t>()[n] = static_cast<std::int32_t>(n + 1);
  }
  v.place.affine = from_qform({{0.1, 0.2, -0.3}, {5, -7, 11}, {1.1, 0.9, 3.3}, -1});
  v.place.source = TransformSource::sform, v.place.code = 2;
  return v;
}

TEST(Crop, ThereAndBack) {
  for (const DType type : {DType::f32, DType::i32})
    for (const std::int64_t channels : {1, 3}) {
      const Volume v = counted({7, 5, 3}, type, channels);
      const struct {
        Size3 start, size;
      } boxes[] = {{{0, 0, 0}, {7, 5, 3}}, {{2, 1, 1}, {3, 4, 1}}, {{-2, -3, -1}, {12, 11, 6}}, {{5, -1, 2}, {9, 3, 1}}, {{20, 0, 0}, {2, 2, 2}}, {{-9, 0, 0}, {4, 5, 3}}};
      for (const auto& box : boxes) {
        const Cropped c = crop(v, box.start, box.size, -4);
        EXPECT_EQ(c.volume.size(), box.size);
        const auto value = [&](const Tensor& t, std::int64_t n) { return type == DType::f32 ? t.data<float>()[n] : static_cast<float>(t.data<std::int32_t>()[n]); };
        std::int64_t n = 0;
        for (std::int64_t k = 0; k < box.size[2]; ++k)
          for (std::int64_t j = 0; j < box.size[1]; ++j)
            for (std::int64_t i = 0; i < box.size[0]; ++i)
              for (std::int64_t ch = 0; ch < channels; ++ch, ++n) {
                const std::int64_t x = i + box.start[0], y = j + box.start[1], z = k + box.start[2];
                const bool in = x >= 0 && x < 7 && y >= 0 && y < 5 && z >= 0 && z < 3;
                ASSERT_EQ(value(c.volume.voxels, n), in ? static_cast<float>(((z * 5 + y) * 7 + x) * channels + ch + 1) : -4.0f);
              }
        const Vec3 at = c.volume.place.affine({1, 2, 3});
        const Vec3 wanted = v.place.affine({1.0 + static_cast<double>(box.start[0]), 2.0 + static_cast<double>(box.start[1]), 3.0 + static_cast<double>(box.start[2])});
        for (int a = 0; a < 3; ++a) EXPECT_NEAR(at[a], wanted[a], 1e-12);
        const Volume back = undo_crop(c.volume.voxels, c.record, 99);
        EXPECT_TRUE(back.grid() == v.grid());  // bit for bit
        for (n = 0; n < v.voxels.elements(); ++n) {
          const std::int64_t x = n / channels % 7, y = n / channels / 7 % 5, z = n / channels / 35;
          const bool kept = x >= box.start[0] && x < box.start[0] + box.size[0] && y >= box.start[1] && y < box.start[1] + box.size[1] && z >= box.start[2] &&
                            z < box.start[2] + box.size[2];
          ASSERT_EQ(value(back.voxels, n), kept ? value(v.voxels, n) : 99.0f);
        }
      }
      EXPECT_THROW(crop(v, {0, 0, 0}, {1, 0, 1}), Error);
      EXPECT_THROW(undo_crop(v.voxels, crop(v, {0, 0, 0}, {2, 2, 2}).record), Error);
    }
}

TEST(Crop, FindsTheContent) {
  Volume v = counted({9, 8, 7}, DType::f32, 1);
  std::fill(v.voxels.data<float>(), v.voxels.data<float>() + v.voxels.elements(), 0.0f);
  EXPECT_EQ(content_box(v).size, v.size());
  v.voxels.data<float>()[(2 * 8 + 3) * 9 + 4] = 1;
  v.voxels.data<float>()[(5 * 8 + 3) * 9 + 1] = 1;
  EXPECT_EQ(content_box(v).start, (Size3{1, 3, 2}));
  EXPECT_EQ(content_box(v).size, (Size3{4, 1, 4}));
  EXPECT_EQ(content_box(v, 0, 2).start, (Size3{0, 1, 0}));
  EXPECT_EQ(content_box(v, 0, 2).size, (Size3{7, 5, 7}));
  EXPECT_EQ(content_box(v, 1).size, v.size());
}

TEST(Pair, IsWrittenUnderEitherName) {
  const test::TemporaryFolder folder;
  const Volume v = counted({7, 5, 3}, DType::f32, 1);
  for (const char* name : {"a.hdr", "b.img", "c.hdr.gz", "d.img.gz"}) {
    SCOPED_TRACE(name);
    write_volume(folder / name, v, {.type = Number::f32, .description = "a pair"});
    const std::string stem = std::string(1, name[0]), packed = std::string(name).ends_with(".gz") ? ".gz" : "";
    EXPECT_TRUE(std::filesystem::exists(folder / (stem + ".hdr" + packed)));
    EXPECT_TRUE(std::filesystem::exists(folder / (stem + ".img" + packed)));
    if (packed.empty()) {
      EXPECT_EQ(std::filesystem::file_size(folder / (stem + ".img")), 7u * 5 * 3 * 4);
      EXPECT_EQ(std::filesystem::file_size(folder / (stem + ".hdr")), 352u);
    }
    const Image back = read_image(folder / name);
    EXPECT_TRUE(back.format.find("pair") != std::string::npos) << back.format;
    EXPECT_TRUE(back.warnings.empty());
    EXPECT_EQ(back.description, "a pair");
    EXPECT_EQ(std::memcmp(back.voxels(), v.voxels.raw(), back.bytes()), 0);
    EXPECT_LT(corner_distance(v.size(), back.place.affine, v.place.affine), 1e-4);
  }
}

TEST(Extensions, SurviveReadingAndWriting) {
  const test::TemporaryFolder folder;
  Image image = to_image(counted({3, 4, 5}, DType::f32, 1));
  for (const char* text : {"<xml/>", "", "a longer comment that is no multiple of sixteen"}) {
    const test::Bytes bytes = test::bytes_of(text);
    image.extensions.push_back({6 + 2 * static_cast<int>(image.extensions.size()), {bytes.begin(), bytes.end()}});
  }
  write_image(folder / "a.nii", image);
  const std::vector<Extension> first = read_image(folder / "a.nii").extensions;
  ASSERT_EQ(first.size(), 3u);
  for (const char* name : {"b.nii", "b.nii.gz", "b.hdr"}) {
    SCOPED_TRACE(name);
    write_volume(folder / name, read_volume(folder / "a.nii"));
    const std::vector<Extension> again = read_image(folder / name).extensions;
    ASSERT_EQ(again.size(), 3u);
    for (std::size_t n = 0; n < 3; ++n) {
      EXPECT_EQ(again[n].code, first[n].code);
      EXPECT_EQ(again[n].bytes, first[n].bytes);
    }
  }
  EXPECT_EQ(read_volume(folder / "b.nii").voxels.data<float>()[59], 60.0f);
}

TEST(Sides, ConflictingConventionsAreNamed) {
  StoredTransforms s;
  s.sform_code = 1;
  for (int r = 0; r < 3; ++r) s.srow[r][r] = r == 0 ? -2 : 2;
  s.pixdim = {1, 2, 2, 2};
  Warnings none;
  place(s, {3, 3, 3}, "f", none);
  EXPECT_TRUE(none.empty());  // a qform without code or quaternion says nothing
  s.bcd = {0, 1, 0};          // half a turn about y: -x, y, -z
  Warnings some;
  place(s, {3, 3, 3}, "f", some);
  EXPECT_TRUE(has_warning(some, "left_right_conflict"));
  s.pixdim[0] = -1;  // k flipped: the sform's handedness
  Warnings agreed;
  place(s, {3, 3, 3}, "f", agreed);
  EXPECT_FALSE(has_warning(agreed, "left_right_conflict"));
  s.qform_code = 1, s.pixdim[0] = 1;
  Warnings both;
  place(s, {3, 3, 3}, "f", both);
  EXPECT_TRUE(has_warning(both, "left_right_conflict"));
  EXPECT_TRUE(has_warning(both, "sform_qform_differ"));
}

TEST(Pick, NamesAVolumeOfAFile) {
  const test::TemporaryFolder folder;
  const Volume v = counted({3, 4, 5}, DType::f32, 4);
  write_volume(folder / "a.nii.gz", v);
  EXPECT_EQ(read_volume(folder / "a.nii.gz").channels(), 4);
  const Volume second = read_volume(folder / "a.nii.gz,2");
  EXPECT_EQ(second.channels(), 1);
  EXPECT_EQ(second.voxels.data<float>()[5], 5 * 4 + 2 + 1);
  EXPECT_THROW(read_volume(folder / "a.nii.gz,4"), Error);
  EXPECT_THROW(read_volume(folder / "a.nii.gz,x"), Error);
  EXPECT_THROW(read_volume(folder / "b.nii.gz,1"), Error);
  write_volume(folder / "a,3.nii", v);  // what exists is never split
  EXPECT_EQ(read_volume(folder / "a,3.nii").channels(), 4);
  EXPECT_EQ(*pick_of(folder / "a,3.nii,1").frame, 1);
  const Pick both = pick_of(folder / "a.nii.gz,series=3,1");
  EXPECT_EQ(both.path, folder / "a.nii.gz");
  EXPECT_EQ(*both.series, 3);
  EXPECT_EQ(*both.frame, 1);
}

}  // namespace
}  // namespace vg

// Resampling and conforming: against nibabel's resampling and numpy's histogram, exact inverses, edges, and a real head.
#include "nifti/conform.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "nifti/resample.h"
#include "tensor/error.h"
#include "tensor/parallel.h"
#include "tensor/random.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

struct Place {
  std::int64_t i, j, k;
  double linear;
  int nearest;
};
struct Golden {
  float bcd[3];  // floats, as a header holds them (g++ 12 -O3 drops the rounding of a double to float and back)
  double qfac, low, scale;
  std::vector<Place> forth, back;
};
const Golden kGolden[] = {
#include "tests/nifti/conform_golden.inc"
};

// The volume of conform_golden.py.
Volume golden_volume(const Golden& g) {
  Volume v;
  v.name = "golden";
  v.voxels = Tensor({1, 29, 37, 41, 1}, DType::f32, kCpu);
  float* out = v.voxels.data<float>();
  for (std::int64_t k = 0; k < 29; ++k)
    for (std::int64_t j = 0; j < 37; ++j)
      for (std::int64_t i = 0; i < 41; ++i)
        *out++ = (i + j + k) % 5 == 0 ? 0.0f : static_cast<float>((i * 7919 + j * 104729 + k * 1299709) % 1021 + 3 * i + 2 * j);
  v.place = {from_qform({{g.bcd[0], g.bcd[1], g.bcd[2]}, {-60, 40, 12.5}, {3.5, 4.25, 5.5}, g.qfac}), TransformSource::qform, 1};
  return v;
}
template <class T>
T at(const Tensor& t, const Place& p) {
  return t.data<T>()[(p.k * t.shape().h() + p.j) * t.shape().w() + p.i];
}

TEST(Resample, AgreesWithNibabelBothWays) {
  for (const Golden& g : kGolden) {
    const Volume v = golden_volume(g);
    const Grid target = conformed_grid(v.grid());
    const Tensor linear = resample_linear(v.voxels, v.grid(), target);
    Tensor ids(v.voxels.shape(), DType::i32, kCpu), floored(linear.shape(), DType::i32, kCpu);
    for (std::int64_t n = 0; n < ids.elements(); ++n) ids.data<std::int32_t>()[n] = static_cast<std::int32_t>(v.voxels.data<float>()[n]);
    for (std::int64_t n = 0; n < linear.elements(); ++n)
      floored.data<std::int32_t>()[n] = static_cast<std::int32_t>(std::floor(linear.data<float>()[n]));
    const Tensor nearest = resample_nearest(ids, v.grid(), target), back = resample_nearest(floored, target, v.grid());
    ASSERT_GE(g.forth.size(), 30u);
    ASSERT_GE(g.back.size(), 20u);
    for (const Place& p : g.forth) {
      EXPECT_NEAR(at<float>(linear, p), p.linear, 1e-3) << p.i << " " << p.j << " " << p.k;
      EXPECT_EQ(at<std::int32_t>(nearest, p), p.nearest) << p.i << " " << p.j << " " << p.k;
    }
    for (const Place& p : g.back) EXPECT_EQ(at<std::int32_t>(back, p), p.nearest) << p.i << " " << p.j << " " << p.k;
    const GreyScale grey = robust_grey_scale(v.voxels);
    EXPECT_EQ(grey.low, g.low);
    EXPECT_NEAR(grey.scale, g.scale, 1e-12);
  }
}

Volume random_volume(Random& random, const Size3& size, DType dtype) {
  Volume v;
  v.voxels = Tensor({1, size[2], size[1], size[0], 1}, dtype, kCpu);
  for (std::int64_t n = 0; n < v.voxels.elements(); ++n) {
    if (dtype == DType::f32)
      v.voxels.data<float>()[n] = random.uniform(0, 255);
    else
      v.voxels.data<std::int32_t>()[n] = static_cast<std::int32_t>(random.below(40));
  }
  return v;
}

// Any grid against the plainest possible code: every voxel on its own, bounds checked every time.
TEST(Resample, AgreesWithThePlainLoopOnOddGrids) {
  Random random(5);
  const Size3 sizes[] = {{1, 1, 1}, {7, 1, 5}, {17, 6, 1}, {33, 17, 7}};
  for (int round = 0; round < 40; ++round) {
    const Size3 size = sizes[round % 4];
    Volume v = random_volume(random, size, DType::f32);
    auto turned = [&](double mm) {
      return from_qform({{random.uniform(-0.5f, 0.5f), random.uniform(-0.5f, 0.5f), random.uniform(-0.5f, 0.5f)},
                         {random.uniform(-9, 9), 0, 1},
                         {mm, 2, 1.5},
                         1});
    };
    v.place.affine = turned(1.7);
    const Grid target{{21, 13, 9}, round % 3 ? turned(1.1) : v.place.affine};
    Tensor ids(v.voxels.shape(), DType::i32, kCpu);
    for (std::int64_t n = 0; n < ids.elements(); ++n) ids.data<std::int32_t>()[n] = static_cast<std::int32_t>(n + 1);
    const Tensor linear = resample_linear(v.voxels, v.grid(), target, -1), nearest = resample_nearest(ids, v.grid(), target, -1);
    const Affine map = inverse(v.place.affine) * target.affine;
    for (std::int64_t k = 0; k < 9; ++k)
      for (std::int64_t j = 0; j < 13; ++j)
        for (std::int64_t i = 0; i < 21; ++i) {
          Vec3 p = map({double(i), double(j), double(k)});
          bool inside = true, unsure = false;
          std::int64_t near[3], low[3], high[3];
          double w[3];
          for (int a = 0; a < 3; ++a) {
            const double last = static_cast<double>(size[a]) - 1;
            inside &= p[a] >= -0.5 && p[a] <= last + 0.5;
            unsure |= std::abs(p[a] + 0.5 - std::round(p[a] + 0.5)) < 1e-5;  // a border or a tie: covered by the tests of their own
            p[a] = std::clamp(p[a], 0.0, last);
            near[a] = std::min<std::int64_t>(static_cast<std::int64_t>(p[a] + 0.5), size[a] - 1);
            low[a] = static_cast<std::int64_t>(p[a]), high[a] = std::min(low[a] + 1, size[a] - 1),
            w[a] = p[a] - static_cast<double>(low[a]);
          }
          if (unsure) continue;
          double sum = 0;
          for (int corner = 0; corner < 8; ++corner) {
            double weight = 1;
            std::int64_t c[3];
            for (int a = 0; a < 3; ++a) c[a] = corner >> a & 1 ? high[a] : low[a], weight *= corner >> a & 1 ? w[a] : 1 - w[a];
            sum += weight * v.voxels.data<float>()[(c[2] * size[1] + c[1]) * size[0] + c[0]];
          }
          const Place here{i, j, k, 0, 0};
          ASSERT_NEAR(at<float>(linear, here), inside ? sum : -1.0, 1e-4) << i << " " << j << " " << k;
          ASSERT_EQ(at<std::int32_t>(nearest, here), inside ? (near[2] * size[1] + near[1]) * size[0] + near[0] + 1 : -1);
        }
  }
}

TEST(Resample, SameGridIsTheSameBitsAndHalfShiftsAreConsistent) {
  Random random(6);
  const Volume v = random_volume(random, {9, 8, 7}, DType::f32), l = random_volume(random, {9, 8, 7}, DType::i32);
  EXPECT_EQ(to_host<float>(resample_linear(v.voxels, v.grid(), v.grid())), to_host<float>(v.voxels));
  EXPECT_EQ(to_host<std::int32_t>(resample_nearest(l.voxels, l.grid(), l.grid())), to_host<std::int32_t>(l.voxels));
  Grid source = l.grid(), shifted = l.grid();
  for (int r = 0; r < 3; ++r) source.affine.m[r][r] = 0.1 * (r + 1), shifted.affine.m[r][r] = source.affine.m[r][r];
  shifted.affine.m[0][3] = 0.05;  // half a voxel: every voxel is a tie, and all must fall the same way whatever the rounding
  const auto moved = to_host<std::int32_t>(resample_nearest(l.voxels, source, shifted));
  for (std::size_t n = 0; n < moved.size(); ++n) {
    ASSERT_EQ(moved[n], l.voxels.data<std::int32_t>()[n % 9 == 8 ? n : n + 1]) << n;
  }
}

TEST(Resample, ChecksItsArguments) {
  Random random(7);
  const Volume v = random_volume(random, {3, 4, 5}, DType::f32);
  EXPECT_THROW(resample_nearest(v.voxels, v.grid(), v.grid()), Error);
  EXPECT_THROW(resample_linear(v.voxels, Grid{{4, 3, 5}, {}}, v.grid()), Error);
  EXPECT_THROW(resample_linear(v.voxels, v.grid(), Grid{{4, 0, 5}, {}}), Error);
  Grid flat = v.grid();
  flat.affine.m[1][1] = 0;
  EXPECT_THROW(resample_linear(v.voxels, flat, v.grid()), Error);
}

TEST(Conform, GridIsLiaOneMillimetreAboutTheSameCentre) {
  for (const Golden& g : kGolden) {
    const Volume v = golden_volume(g);
    const Grid c = conformed_grid(v.grid());
    EXPECT_EQ(orientation_of(c.affine), "LIA");
    EXPECT_TRUE(has_conformed_grid(c));
    const Vec3 a = v.grid().affine({20.5, 18.5, 14.5}), b = c.affine({128, 128, 128});
    for (int n = 0; n < 3; ++n) EXPECT_NEAR(a[n], b[n], 1e-9);
  }
}

TEST(Conform, ValuesBecomeGreyAndTheRecordUndoesThem) {
  Volume v = golden_volume(kGolden[1]);
  const Conformed c = conform(v);
  EXPECT_FALSE(c.record.identity);
  EXPECT_EQ(c.volume.voxels.shape(), (Shape{1, 256, 256, 256, 1}));
  for (const Place& p : kGolden[1].forth) {
    const double wanted = std::clamp((p.linear - kGolden[1].low) * kGolden[1].scale, 0.0, 255.0);
    EXPECT_NEAR(at<float>(c.volume.voxels, p), wanted, 0.501);
    EXPECT_EQ(at<float>(c.volume.voxels, p), std::floor(at<float>(c.volume.voxels, p)));
  }
  Tensor labels(c.volume.voxels.shape(), DType::i32, kCpu);
  for (std::int64_t n = 0; n < labels.elements(); ++n)
    labels.data<std::int32_t>()[n] = static_cast<std::int32_t>(n % 256 / 64 + 1);  // four slabs along i
  const Volume back = undo_conform(labels, c.record);
  EXPECT_EQ(back.size(), v.size());
  EXPECT_EQ(back.place.affine, v.place.affine) << "the same bits";
  EXPECT_EQ(back.place.source, TransformSource::qform);
  const Affine map = inverse(c.record.conformed.affine) * v.place.affine;
  for (std::int64_t n = 0; n < back.voxels.elements(); ++n) {
    const double i = map({double(n % 41), double(n / 41 % 37), double(n / (41 * 37))})[0];
    if (std::abs(i + 0.5 - std::round(i + 0.5)) < 1e-3) continue;
    ASSERT_EQ(back.voxels.data<std::int32_t>()[n], static_cast<std::int32_t>(std::lround(i)) / 64 + 1);
  }
  EXPECT_EQ(undo_conform(c.volume.voxels, c.record).voxels.dtype(), DType::f32);
  EXPECT_THROW(undo_conform(v.voxels, c.record), Error) << "not on the conformed grid";

  v.stored = Number::u8;
  EXPECT_EQ(conform(v).record.scale, 1) << "8-bit files keep their values";
  v.scaled = true;
  EXPECT_NE(conform(v).record.scale, 1);
  v.stored = Number::f32;
  v.voxels.data<float>()[5] = NAN;
  v.non_finite = 1;
  EXPECT_NEAR(conform(v).record.scale, c.record.scale, 1e-2) << "NaN counts as 0";
}

TEST(Conform, ConformedInputIsTouchedByNothing) {
  Volume v;
  v.voxels = Tensor({1, 256, 256, 256, 1}, DType::f32, kCpu);
  for (std::int64_t n = 0; n < v.voxels.elements(); ++n) v.voxels.data<float>()[n] = static_cast<float>(n * 31 % 253);
  v.place = {conformed_grid(Grid{{11, 12, 13}, {}}).affine, TransformSource::sform, 1};
  v.place.affine.m[0][0] += 5e-4;  // within a quarter of a millimetre over the whole box
  const Conformed c = conform(v);
  EXPECT_TRUE(c.record.identity);
  EXPECT_EQ(c.record.scale, 1);
  EXPECT_EQ(c.volume.place.affine, v.place.affine);
  EXPECT_EQ(std::memcmp(c.volume.voxels.raw(), v.voxels.raw(), v.voxels.bytes()), 0);
  Tensor labels(v.voxels.shape(), DType::i32, kCpu);
  for (std::int64_t n = 0; n < labels.elements(); ++n) labels.data<std::int32_t>()[n] = static_cast<std::int32_t>(n * 17 % 1009);
  const Volume back = undo_conform(labels, c.record);
  EXPECT_EQ(std::memcmp(back.voxels.raw(), labels.raw(), labels.bytes()), 0);
  EXPECT_EQ(back.place.affine, v.place.affine);

  v.voxels.data<float>()[9] = 254.5f;  // not whole numbers: the grid stays, the values are scaled
  const Conformed scaled = conform(v);
  EXPECT_TRUE(scaled.record.identity);
  EXPECT_NE(scaled.record.scale, 1);
  EXPECT_EQ(v.voxels.data<float>()[9], 254.5f) << "the input is not changed";

  Grid other = v.grid();
  other.affine.m[0][0] = -1.01;
  EXPECT_FALSE(has_conformed_grid(other));
  other = reorient(v.grid(), order_towards(v.place.affine, "RAS"));
  EXPECT_FALSE(has_conformed_grid(other));
}

TEST(Conform, SaysWhatItCutsOffAndWhatItCannotTake) {
  Volume v;
  v.voxels = zeros({1, 3, 4, 300, 1}, DType::f32, kCpu);
  EXPECT_TRUE(has_warning(conform(v).volume.warnings, "conform_crops"));
  EXPECT_EQ(conform(v).record.scale, 1) << "a constant volume has no range";
  v.voxels = zeros({1, 3, 4, 5, 2}, DType::f32, kCpu);
  EXPECT_THROW(conform(v), Error);
  v.voxels = zeros({1, 3, 4, 5, 1}, DType::i32, kCpu);
  EXPECT_THROW(conform(v), Error);
  EXPECT_THROW(conform(Volume{}), Error);
}

TEST(Conform, ThreadsDoNotChangeTheBits) {
  const Volume v = golden_volume(kGolden[2]);
  const int before = threads();
  set_threads(1);
  const Conformed one = conform(v);
  set_threads(3);
  const Conformed three = conform(v);
  set_threads(before);
  EXPECT_EQ(std::memcmp(one.volume.voxels.raw(), three.volume.voxels.raw(), one.volume.voxels.bytes()), 0);
}

TEST(Conform, RealHeads) {
  VG_NEED_DATA(data);
  const Conformed head = conform(read_volume(data + "/t1/t1_crop.nii.gz"));
  EXPECT_TRUE(head.record.identity) << "conformed already";
  const Volume brain = read_volume(data + "/t1/ch2bet.nii.gz");  // Colin27, skull stripped: the head goes there and back
  const Conformed c = conform(brain);
  EXPECT_FALSE(c.record.identity);
  Tensor mask(c.volume.voxels.shape(), DType::i32, kCpu);
  for (std::int64_t n = 0; n < mask.elements(); ++n) mask.data<std::int32_t>()[n] = c.volume.voxels.data<float>()[n] >= 40;
  const Volume back = undo_conform(mask, c.record);
  double both = 0, sum = 0;
  for (std::int64_t n = 0; n < back.voxels.elements(); ++n) {
    const int a = back.voxels.data<std::int32_t>()[n], b = brain.voxels.data<float>()[n] >= 40;
    both += a && b, sum += a + b;
  }
  EXPECT_GT(2 * both / sum, 0.97) << "half a voxel of shift at most (odd extents)";
  EXPECT_GT(sum, 1e6);
}

}  // namespace
}  // namespace vg

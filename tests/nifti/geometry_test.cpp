// Affine algebra, quaternions, orientation codes and reorientation: against nibabel's numbers and against their own definitions.
#include "nifti/geometry.h"

#include <cmath>

#include <gtest/gtest.h>

#include "nifti/volume.h"
#include "tensor/error.h"
#include "tensor/random.h"

namespace vg {
namespace {

struct Golden {
  Vec3 bcd, offset, spacing;
  double qfac;
  double affine[12];
  const char* code;
  const char* target;
  double reoriented[12];
};
const Golden kGolden[] = {
#include "tests/nifti/geometry_golden.inc"
};

double distance(const Affine& a, const double (&b)[12]) {
  double worst = 0;
  for (int n = 0; n < 12; ++n) worst = std::max(worst, std::abs(a.m[n / 4][n % 4] - b[n]));
  return worst;
}
double distance(const Affine& a, const Affine& b) {
  double worst = 0;
  for (int n = 0; n < 16; ++n) worst = std::max(worst, std::abs(a.m[n / 4][n % 4] - b.m[n / 4][n % 4]));
  return worst;
}
Affine random_affine(Random& random) {
  Affine a;
  do {
    for (int r = 0; r < 3; ++r) {
      for (int c = 0; c < 3; ++c) a.m[r][c] = random.uniform(-3, 3);
      a.m[r][3] = random.uniform(-200, 200);
    }
  } while (std::abs(determinant(a)) < 0.5);
  return a;
}

TEST(Geometry, QformAgreesWithNibabel) {
  for (const Golden& g : kGolden) {
    const Affine a = from_qform({g.bcd, g.offset, g.spacing, g.qfac});
    EXPECT_LT(distance(a, g.affine), 1e-12);
    const QForm back = to_qform(a);
    EXPECT_EQ(back.qfac, g.qfac);
    for (int n = 0; n < 3; ++n) {
      EXPECT_NEAR(back.bcd[n], g.bcd[n], 1e-7);
      EXPECT_NEAR(back.spacing[n], g.spacing[n], 1e-12);
    }
    EXPECT_LT(distance(from_qform(back), a), 1e-12);
  }
}

TEST(Geometry, OrientationAndReorientationAgreeWithNibabel) {
  for (const Golden& g : kGolden) {
    Affine a;
    for (int n = 0; n < 12; ++n) a.m[n / 4][n % 4] = g.affine[n];
    EXPECT_EQ(orientation_of(a), g.code);
    const Grid turned = reorient(Grid{{5, 6, 7}, a}, order_towards(a, g.target));
    EXPECT_LT(distance(turned.affine, g.reoriented), 1e-10);
    EXPECT_EQ(orientation_of(turned.affine), g.target);
  }
}

TEST(Geometry, QuaternionsOfHalfTurns) {  // scalar part 0: the formula with the largest component counts
  const double turns[][3] = {{1, -1, -1}, {-1, 1, -1}, {-1, -1, 1}, {1, 1, 1}, {-1, -1, -1}, {-1, 1, 1}};
  for (const auto& t : turns) {
    Affine a;
    for (int c = 0; c < 3; ++c) a.m[c][c] = t[c] * (c + 1);
    EXPECT_LT(distance(from_qform(to_qform(a)), a), 1e-12);
  }
  EXPECT_THROW(from_qform({{1, 1, 1}, {}, {1, 1, 1}, 1}), Error);
  EXPECT_NO_THROW(from_qform({{0.6, 0.8, 1e-4}, {}, {1, 1, 1}, 1})) << "longer than 1 by float rounding alone";
}

TEST(Geometry, InverseAndProduct) {
  Random random(1);
  for (int n = 0; n < 200; ++n) {
    const Affine a = random_affine(random), b = random_affine(random);
    EXPECT_LT(distance(a * inverse(a), Affine{}), 1e-10);
    const Vec3 p{random.uniform(-9, 9), random.uniform(-9, 9), random.uniform(-9, 9)}, q = (a * b)(p), r = a(b(p));
    for (int d = 0; d < 3; ++d) EXPECT_NEAR(q[d], r[d], 1e-9);
  }
  Affine flat;
  flat.m[2][2] = 0;
  EXPECT_THROW(inverse(flat), Error);
  EXPECT_TRUE(is_singular(flat));
  EXPECT_EQ(orientation_of(flat), "???");
  EXPECT_THROW(order_towards(flat, "RAS"), Error);
}

TEST(Geometry, ClosestRotationIsOrthogonalAndNearest) {
  Random random(2);
  for (int n = 0; n < 100; ++n) {
    const Affine a = random_affine(random), r = closest_rotation(a);
    Affine transposed = r;
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) transposed.m[i][j] = r.m[j][i];
    EXPECT_LT(distance(r * transposed, Affine{}), 1e-12);
    EXPECT_EQ(determinant(r) < 0, determinant(a) < 0);
    // Nearest: R^T * (columns as unit vectors) is symmetric.
    Affine unit = a;
    const Vec3 s = spacing_of(a);
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 4; ++j) unit.m[i][j] = j < 3 ? a.m[i][j] / s[j] : 0;
    const Affine h = transposed * unit;
    for (int i = 0; i < 3; ++i) EXPECT_NEAR(h.m[i][(i + 1) % 3], h.m[(i + 1) % 3][i], 1e-9);
  }
}

TEST(Geometry, OrientationCodesAreChecked) {
  for (const char* bad : {"RA", "RASX", "RRS", "RLS", "ras", "XYZ", ""}) EXPECT_THROW(order_towards(Affine{}, bad), Error) << bad;
  EXPECT_TRUE(order_towards(Affine{}, "RAS").is_identity());
  EXPECT_FALSE(order_towards(Affine{}, "LAS").is_identity());
}

TEST(Geometry, ReorientedVolumeKeepsEveryVoxelAtItsPlace) {
  Random random(3);
  for (const char* code : {"RAS", "LIA", "PSL", "SAR", "IRP"})
    for (std::int64_t channels : {1, 2}) {
      Volume v;
      v.voxels = Tensor({1, 4, 3, 5, channels}, channels == 1 ? DType::f32 : DType::i32, kCpu);
      v.place.affine = random_affine(random);
      auto* bits = static_cast<std::int32_t*>(v.voxels.raw());
      for (std::int64_t n = 0; n < v.voxels.elements(); ++n) bits[n] = static_cast<std::int32_t>(n);
      const Volume r = reorient(v, code);
      EXPECT_EQ(orientation_of(r.place.affine), code);
      const Affine to_old = inverse(v.place.affine) * r.place.affine;
      const Size3 size = r.size(), old = v.size();
      for (std::int64_t k = 0; k < size[2]; ++k)
        for (std::int64_t j = 0; j < size[1]; ++j)
          for (std::int64_t i = 0; i < size[0]; ++i) {
            const Vec3 p = to_old({double(i), double(j), double(k)});
            const std::int64_t from = (std::lround(p[2]) * old[1] + std::lround(p[1])) * old[0] + std::lround(p[0]);
            for (std::int64_t c = 0; c < channels; ++c)
              ASSERT_EQ(static_cast<const std::int32_t*>(r.voxels.raw())[((k * size[1] + j) * size[0] + i) * channels + c],
                        from * channels + c);
          }
      const Volume home = reorient(r, orientation_of(v.place.affine));
      EXPECT_EQ(std::memcmp(home.voxels.raw(), v.voxels.raw(), v.voxels.bytes()), 0);
      EXPECT_LT(distance(home.place.affine, v.place.affine), 1e-9);
    }
}

}  // namespace
}  // namespace vg

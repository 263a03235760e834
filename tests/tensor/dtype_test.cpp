// Half and bfloat16 conversions against a reference in double precision: every bit pattern, every rounding tie, and random values.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tensor/dtype.h"
#include "tensor/random.h"
#include "tensor/shape.h"

namespace vg {
namespace {

struct Format {
  int mantissa, least_exponent, most_exponent;
};
constexpr Format kF16{10, -14, 15}, kBf16{7, -126, 127};

// x rounded to nearest, ties to even, by the definition: a multiple of the unit in the last place at x's exponent.
double rounded(double x, Format f) {
  if (std::isnan(x) || std::isinf(x) || x == 0) return x;
  const int e = std::max(std::ilogb(x), f.least_exponent);
  const double unit = std::ldexp(1.0, e - f.mantissa);
  const double r = std::nearbyint(x / unit) * unit;  // the default rounding mode is to nearest even
  const double most = std::ldexp(2.0 - std::ldexp(1.0, -f.mantissa), f.most_exponent);
  return std::fabs(r) > most ? std::copysign(std::numeric_limits<double>::infinity(), x) : r;
}

// The value of a pattern, by the definition of the format.
double value_of(std::uint16_t bits, Format f) {
  const int exponent_bits = 15 - f.mantissa, all_ones = (1 << exponent_bits) - 1;
  const int e = (bits >> f.mantissa) & all_ones, m = bits & ((1 << f.mantissa) - 1);
  double v = 0;
  if (e == all_ones)
    v = m ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  else if (e == 0)
    v = std::ldexp(m, f.least_exponent - f.mantissa);
  else
    v = std::ldexp(m + (1 << f.mantissa), e - f.most_exponent - f.mantissa);
  return bits & 0x8000 ? -v : v;
}

template <class Half>
void expect_as_reference(float x, Format f) {
  const float got = static_cast<float>(Half::from(x));
  const double want = rounded(x, f);
  if (std::isnan(want)) {
    EXPECT_TRUE(std::isnan(got)) << x;
  } else {
    EXPECT_EQ(got, want) << std::hexfloat << x;
    EXPECT_EQ(std::signbit(got), std::signbit(want)) << std::hexfloat << x;
  }
}

template <class Half>
void every_pattern(Format f) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const Half h{static_cast<std::uint16_t>(bits)};
    const double want = value_of(h.bits, f);
    const float got = static_cast<float>(h);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << bits;
      ASSERT_TRUE(std::isnan(static_cast<float>(Half::from(got)))) << bits;
    } else {
      ASSERT_EQ(got, want) << bits;
      ASSERT_EQ(Half::from(got).bits, bits);
    }
  }
}

// Halfway to the next larger magnitude, one float below it and one above.
template <class Half>
void every_tie(Format f) {
  const double infinity_would_be = std::ldexp(1.0, f.most_exponent + 1);
  for (std::uint32_t bits = 0; bits < 65535; ++bits) {
    const double a = value_of(static_cast<std::uint16_t>(bits), f);
    double b = value_of(static_cast<std::uint16_t>(bits + 1), f);
    if (std::isinf(b) && std::isfinite(a)) b = std::copysign(infinity_would_be, a);
    if (!std::isfinite(a) || !std::isfinite(b)) continue;
    const float tie = static_cast<float>(a / 2 + b / 2);
    ASSERT_EQ(tie, a / 2 + b / 2);
    for (const float x : {tie, std::nextafter(tie, 0.0f), std::nextafter(tie, static_cast<float>(2 * tie))})
      expect_as_reference<Half>(x, f);
  }
}

template <class Half>
void random_values(Format f) {
  Random random(11, static_cast<std::uint64_t>(f.mantissa));
  for (int i = 0; i < 300000; ++i) {
    const float wide = std::bit_cast<float>(random.bits());  // any exponent
    expect_as_reference<Half>(wide, f);
    expect_as_reference<Half>(random.normal() * std::ldexp(1.0f, static_cast<int>(random.below(48)) - 30), f);
  }
}

TEST(F16, EveryPatternReadsAsDefinedAndComesBack) { every_pattern<f16>(kF16); }
TEST(Bf16, EveryPatternReadsAsDefinedAndComesBack) { every_pattern<bf16>(kBf16); }
TEST(F16, EveryTieGoesToEven) { every_tie<f16>(kF16); }
TEST(Bf16, EveryTieGoesToEven) { every_tie<bf16>(kBf16); }
TEST(F16, RandomValuesRoundAsTheReference) { random_values<f16>(kF16); }
TEST(Bf16, RandomValuesRoundAsTheReference) { random_values<bf16>(kBf16); }

TEST(F16, KnownValues) {
  EXPECT_EQ(f16::from(1.0f).bits, 0x3c00);
  EXPECT_EQ(f16::from(-2.0f).bits, 0xc000);
  EXPECT_EQ(f16::from(65504.0f).bits, 0x7bff);
  EXPECT_EQ(f16::from(65520.0f).bits, 0x7c00);
  EXPECT_EQ(f16::from(0x1p-24f).bits, 0x0001);
  EXPECT_EQ(f16::from(0x1p-25f).bits, 0x0000);
  EXPECT_EQ(f16::from(-0.0f).bits, 0x8000);
  EXPECT_EQ(bf16::from(1.0f).bits, 0x3f80);
  EXPECT_EQ(bf16::from(std::numeric_limits<float>::max()).bits, 0x7f80);
}

TEST(Shape, ProductsAre64Bit) {
  const Shape s{2, 1024, 1024, 1024, 16};
  EXPECT_EQ(s.elements(), std::int64_t{1} << 35);
  EXPECT_EQ(s.voxels(), std::int64_t{1} << 30);
  EXPECT_EQ(to_string(s), "(2, 1024, 1024, 1024, 16)");
  EXPECT_EQ(Shape{}.elements(), 1);
  EXPECT_EQ((Shape{3, 0, 2}.elements()), 0);
}

TEST(Shape, EqualityLooksAtRankAndExtents) {
  EXPECT_TRUE((Shape{1, 2} == Shape{1, 2}));
  EXPECT_FALSE((Shape{1, 2} == Shape{1, 2, 1}));
  EXPECT_FALSE((Shape{1, 2} == Shape{2, 1}));
}

}  // namespace
}  // namespace vg

// The error of the vector functions in units in the last place, for every instruction set that the machine has.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/vector_math_test.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

template <class Function>
HWY_INLINE void apply(const float* x, float* y, std::int64_t count, const Function& f) {
  for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR { store(f(load(x + i, part)), y + i, part); });
}

void evaluate(int which, const float* x, float* y, std::int64_t count) {
  switch (which) {
    case 0: return apply(x, y, count, [](VF v) HWY_ATTR { return exp(v); });
    case 1: return apply(x, y, count, [](VF v) HWY_ATTR { return exp_nonpositive(v); });
    case 2: return apply(x, y, count, [](VF v) HWY_ATTR { return expm1_nonpositive(v); });
    case 3: return apply(x, y, count, [](VF v) HWY_ATTR { return log(v); });
    case 4: return apply(x, y, count, [](VF v) HWY_ATTR { return erf(v); });
    default: return apply(x, y, count, [](VF v) HWY_ATTR { return sigmoid(v); });
  }
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tensor/random.h"

namespace vg::test {
namespace {

HWY_EXPORT(evaluate);

struct Function {
  const char* name;
  double low, high;  // tested range
  bool logarithmic;  // spread over magnitudes
  long double (*truth)(long double);
  double ulp;  // allowed
};
const Function kFunctions[] = {
    {"exp", -87, 88.7, false, [](long double x) { return std::exp(x); }, 1.2},
    {"exp_nonpositive", -87, 0, false, [](long double x) { return std::exp(x); }, 1.2},
    {"expm1_nonpositive", -20, -1e-30, true, [](long double x) { return std::expm1(x); }, 1.2},
    {"log", 1e-37, 1e38, true, [](long double x) { return std::log(x); }, 1.2},
    {"erf", -5, 5, false, [](long double x) { return std::erf(x); }, 1.2},
    {"sigmoid", -80, 80, false, [](long double x) { return 1 / (1 + std::exp(-x)); }, 2.3},
};

std::vector<std::int64_t> targets() {
  std::vector<std::int64_t> list;
  for (std::int64_t t : hwy::SupportedAndGeneratedTargets()) list.push_back(t);
  return list;
}

class VectorMath : public ::testing::Test {
 protected:
  void TearDown() override { choose(0); }
  static void choose(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

double unit_in_last_place(long double value) {
  const float f = std::fabs(static_cast<float>(value));
  return static_cast<double>(std::nextafter(f, std::numeric_limits<float>::infinity()) - f);
}

TEST_F(VectorMath, ErrorsInUnitsInTheLastPlace) {
  const std::int64_t count = 200001;
  for (std::size_t which = 0; which < std::size(kFunctions); ++which) {
    const Function& f = kFunctions[which];
    Random random(which);
    std::vector<float> x(count), y(count);
    for (float& v : x) {
      const double t = random.uniform();
      v = static_cast<float>(!f.logarithmic ? f.low + (f.high - f.low) * t
                             : f.low > 0    ? f.low * std::pow(f.high / f.low, t)
                                            : f.low * std::pow(f.high / f.low, t * t * t));
    }
    for (std::int64_t target : targets()) {
      choose(target);
      HWY_DYNAMIC_DISPATCH(evaluate)(static_cast<int>(which), x.data(), y.data(), count);
      double worst = 0;
      float at = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        const long double truth = f.truth(x[i]);
        const double error = static_cast<double>(std::fabs(y[i] - truth)) / unit_in_last_place(truth);
        if (!(error <= worst)) worst = error, at = x[i];
      }
      EXPECT_LE(worst, f.ulp) << f.name << " on " << hwy::TargetName(target) << " at " << at;
    }
  }
}

TEST_F(VectorMath, ExtremesAndNaN) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  struct Extreme {
    int which;
    float x, y;
  };
  const std::vector<Extreme> cases = {
      {0, 0, 1},     {0, 89, inf},  {0, inf, inf}, {0, -inf, 0},   {0, -104, 0},  {0, 1e30f, inf}, {0, -1e30f, 0}, {0, nan, nan}, {1, 0, 1},
      {1, -88, 0},   {1, -inf, 0},  {1, nan, nan}, {2, 0, 0},      {2, -inf, -1}, {2, -200, -1},   {2, nan, nan},  {3, 1, 0},     {4, 0, 0},
      {4, 1e30f, 1}, {4, -inf, -1}, {4, nan, nan}, {5, -1e30f, 0}, {5, inf, 1},   {5, nan, nan},   {5, 0, 0.5f}};
  for (std::int64_t target : targets()) {
    choose(target);
    for (const Extreme& c : cases) {
      float y = 5;
      HWY_DYNAMIC_DISPATCH(evaluate)(c.which, &c.x, &y, 1);
      EXPECT_TRUE(std::isnan(c.y) ? std::isnan(y) : y == c.y)
          << kFunctions[c.which].name << "(" << c.x << ") = " << y << " on " << hwy::TargetName(target);
    }
  }
}

}  // namespace
}  // namespace vg::test
#endif

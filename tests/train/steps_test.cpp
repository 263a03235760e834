// Learning-rate schedules and optimizers against PyTorch's (steps_golden.py), and what they promise beside that: warm-up, state, clipping.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/steps_golden.h"
#include "train/optimizer.h"

namespace vg {
namespace {

constexpr std::int64_t kTotal = 11;

ScheduleConfig schedule(const std::string& name) {
  ScheduleConfig c;
  c.kind = name, c.rate = 0.02;
  if (name == "cosine") c.final_rate = 0.001;
  if (name == "one_cycle_other")
    c.kind = "one_cycle", c.rise = 0.5, c.start_divisor = 10, c.final_divisor = 100, c.low_momentum = 0.8, c.high_momentum = 0.9;
  return c;
}

TEST(Schedule, RatesAndMomentumAreThoseOfPyTorch) {
  for (const test::GoldenRates& g : test::kGoldenRates) {
    const ScheduleConfig c = schedule(g.name);
    ASSERT_EQ(g.rate.size(), static_cast<std::size_t>(kTotal));
    for (std::int64_t s = 0; s < kTotal; ++s) {
      const Rates r = rates_at(c, s, kTotal);
      EXPECT_NEAR(r.rate, g.rate[static_cast<std::size_t>(s)], 1e-13) << g.name << " step " << s;
      if (c.kind == "one_cycle")
        EXPECT_NEAR(r.momentum, g.momentum[static_cast<std::size_t>(s)], 1e-11) << g.name << " step " << s;
      else
        EXPECT_LT(r.momentum, 0.0) << g.name;
    }
  }
}

TEST(Schedule, WarmUpRisesInEqualPartsAndThenTheScheduleBegins) {
  for (const char* kind : {"constant", "poly", "cosine"}) {
    ScheduleConfig c;
    c.kind = kind, c.rate = 0.1, c.warmup = 4;
    for (std::int64_t s = 0; s < 4; ++s) EXPECT_NEAR(rates_at(c, s, 20).rate, 0.1 * static_cast<double>(s + 1) / 4.0, 1e-15) << kind;
    EXPECT_NEAR(rates_at(c, 4, 20).rate, 0.1, 1e-15) << kind;
    ScheduleConfig plain = c;
    plain.warmup = 0;
    for (std::int64_t s = 0; s < 16; ++s) EXPECT_NEAR(rates_at(c, s + 4, 20).rate, rates_at(plain, s, 16).rate, 1e-15) << kind << s;
  }
}

TEST(Schedule, EveryStepOfEveryLengthHasAFiniteRate) {
  for (const char* kind : {"constant", "poly", "cosine", "one_cycle"})
    for (const double rise : {0.0, 0.1, 0.25, 0.3, 0.5, 1.0})
      for (const std::int64_t total : {1, 2, 3, 9, 10, 19, 100})
        for (std::int64_t s = 0; s < total; ++s) {
          ScheduleConfig c;
          c.kind = kind, c.rise = rise;
          const Rates r = rates_at(c, s, total);
          ASSERT_TRUE(std::isfinite(r.rate) && r.rate >= 0.0 && r.rate <= c.rate * (1 + 1e-12))
              << kind << " " << rise << ": " << s << " of " << total << ": " << r.rate;
          ASSERT_TRUE(std::isfinite(r.momentum)) << kind << " " << rise << ": " << s << " of " << total;
        }
}

TEST(Schedule, UnknownKindsAreRefused) {
  ScheduleConfig c;
  c.kind = "linear";
  EXPECT_THROW(rates_at(c, 0, 10), Error);
}

// -------------------------------------------------------------------------------------------------------------------- optimizers

Tensor floats(const std::vector<float>& v) { return from_host(v, {static_cast<std::int64_t>(v.size())}); }

// Two parameters of 4 and 3 numbers, so that the flat buffer has gaps.
ParamList weights(Device device) {
  ParamList p({{"a", {4}, {}, true}, {"b", {3}, {}, true}}, device, true);
  copy(p.at("a").value, floats({0.5f, -1.0f, 2.0f, 0.25f}));
  copy(p.at("b").value, floats({1.5f, -0.75f, 0.0f}));
  return p;
}

void set_gradients(ParamList& p, int t) {
  std::vector<float> g;
  for (int i = 0; i < 7; ++i) g.push_back(static_cast<float>(std::sin(3 * i + 5 * t + 1) * (t % 2 ? 2.0 : 0.5)));
  copy(p.at("a").grad, floats({g[0], g[1], g[2], g[3]}));
  copy(p.at("b").grad, floats({g[4], g[5], g[6]}));
}

OptimizerConfig optimizer(const std::string& name) {
  OptimizerConfig c;
  c.weight_decay = 0.1;
  c.kind = name.substr(0, name.find('_'));
  c.nesterov = name == "sgd_nesterov";
  if (name == "sgd_clipped") c.clip_norm = 1.5, c.weight_decay = 0.0;
  return c;
}

Rates rates_of(const std::string& name, int t) {
  return name == "adamw_one_cycle" ? rates_at(schedule("one_cycle"), t, 6) : Rates{.rate = 0.02};
}

std::vector<float> values(const ParamList& p) {
  std::vector<float> v = to_host<float>(p.at("a").value);
  for (float x : to_host<float>(p.at("b").value)) v.push_back(x);
  return v;
}

TEST(Optimizer, SixStepsAreThoseOfPyTorch) {
  for (const Device device : {kCpu, kSim})
    for (const test::GoldenWeights& g : test::kGoldenWeights) {
      SCOPED_TRACE(std::string(g.name) + " on " + to_string(device));
      ParamList p = weights(device);
      Context ctx(device);
      Optimizer o(optimizer(g.name), p);
      for (int t = 0; t < 6; ++t) set_gradients(p, t), o.step(ctx, rates_of(g.name, t));
      const std::vector<float> got = values(p);
      const std::vector<double> begin = {0.5, -1.0, 2.0, 0.25, 1.5, -0.75, 0.0};
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_GT(std::abs(g.weights[i] - begin[i]), 1e-6);                                // something moved
        EXPECT_NEAR(got[i], g.weights[i], 4e-7 * std::max(1.0, std::abs(begin[i]))) << i;  // a few float roundings
      }
      EXPECT_EQ(o.steps(), 6);
      for (float gap : to_host<float>(p.flat().range(4, {12}))) EXPECT_EQ(gap, 0.0f);
    }
}

// The first step of Adam is rate * sign(g) whatever the betas: the two corrections must belong to the betas that the kernel uses.
TEST(Optimizer, AdamsFirstStepIsTheRate) {
  for (const double beta2 : {0.9, 0.99, 0.999, 0.9999}) {
    ParamList p = weights(kCpu);
    Context ctx(kCpu);
    OptimizerConfig c;
    c.weight_decay = 0.0, c.eps = 0.0, c.beta2 = beta2;
    Optimizer o(c, p);
    p.at("b").value.data<float>()[2] = 0.0f;
    set_gradients(p, 0);
    o.step(ctx, {.rate = 1.0});
    EXPECT_NEAR(std::abs(p.at("b").value.data<float>()[2]), 1.0, 5e-7) << beta2;
  }
}

TEST(Optimizer, ContinuesFromItsState) {
  for (const char* name : {"adamw_one_cycle", "sgd_nesterov"}) {
    Context ctx(kCpu);
    ParamList straight = weights(kCpu);
    Optimizer a(optimizer(name), straight);
    for (int t = 0; t < 6; ++t) set_gradients(straight, t), a.step(ctx, rates_of(name, t));

    ParamList first = weights(kCpu), second = weights(kCpu);
    Optimizer b(optimizer(name), first), c(optimizer(name), second);
    for (int t = 0; t < 3; ++t) set_gradients(first, t), b.step(ctx, rates_of(name, t));
    copy(second.flat(), first.flat());
    c.restore(b.steps(), copy_to(b.first_moment(), kCpu), b.has_second_moment() ? copy_to(b.second_moment(), kCpu) : Tensor());
    for (int t = 3; t < 6; ++t) set_gradients(second, t), c.step(ctx, rates_of(name, t));
    EXPECT_EQ(values(straight), values(second)) << name;
  }
}

TEST(Optimizer, RefusesWhatIsNotItsState) {
  ParamList p = weights(kCpu);
  OptimizerConfig c;
  Optimizer adam(c, p);
  const Tensor right = zeros(p.flat().shape(), DType::f32, kCpu), wrong = zeros({5}, DType::f32, kCpu);
  EXPECT_THROW(adam.restore(1, right, wrong), Error);
  EXPECT_THROW(adam.restore(1, right, Tensor()), Error);
  EXPECT_THROW(adam.restore(-1, right, right), Error);
  EXPECT_NO_THROW(adam.restore(1, right, right));
  c.kind = "sgd";
  Optimizer sgd(c, p);
  EXPECT_THROW(sgd.restore(1, right, right), Error);
  EXPECT_NO_THROW(sgd.restore(1, right, Tensor()));
  c.kind = "lion";
  EXPECT_THROW(Optimizer(c, p), Error);
}

TEST(Optimizer, ClippingLeavesSmallGradientsAlone) {
  std::vector<float> ends[2];
  for (int clipped = 0; clipped < 2; ++clipped) {
    ParamList p = weights(kCpu);
    Context ctx(kCpu);
    OptimizerConfig c;
    c.kind = "sgd", c.clip_norm = clipped ? 1e3 : 0.0;
    Optimizer o(c, p);
    for (int t = 0; t < 3; ++t) set_gradients(p, t), o.step(ctx, {.rate = 0.02});
    ends[clipped] = values(p);
  }
  EXPECT_EQ(ends[0], ends[1]);
}

}  // namespace
}  // namespace vg

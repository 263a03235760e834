// The tape: values used twice, parameters shared, memory that is reused or must not be, paths that carry no gradient.
#include "layers/tape.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "layers/ops.h"
#include "tensor/random.h"
#include "tests/layers/op_reference.h"

namespace vg {
namespace {

const Shape kShape = {2, 1, 3, 5, 2};

std::vector<float> numbers(std::int64_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> v;
  for (std::int64_t i = 0; i < count; ++i) v.push_back(random.normal());
  return v;
}
Tensor tensor(std::uint64_t seed, const Shape& s = kShape) { return from_host(numbers(s.elements(), seed), s); }

const Activation kSilu{ActivationKind::silu, 0};
double silu_slope(double x) {
  const double s = 1 / (1 + std::exp(-x));
  return s * (1 + x * (1 - s));
}

class TapeTest : public testing::Test {
 protected:
  TapeTest() { ctx.tape = &tape; }
  Tape tape;
  Context ctx{kCpu};
};

TEST_F(TapeTest, AValueUsedTwiceGetsBothGradients) {
  const Value x = tape.leaf(tensor(1));
  // y = (x + silu(x)) + x
  const Value y = sum(ctx, sum(ctx, x, activation(ctx, x, nullptr, kSilu)), x);
  const std::vector<float> seed = numbers(kShape.elements(), 2), v = to_host<float>(x.data);
  tape.backward(y, from_host(seed, kShape));
  const std::vector<float> g = to_host<float>(tape.gradient(x));
  for (std::size_t i = 0; i < g.size(); ++i) EXPECT_NEAR(g[i], seed[i] * (2 + silu_slope(v[i])), 1e-5);
}

TEST_F(TapeTest, AValueAddedToItselfGetsTwiceTheGradient) {
  const Value x = tape.leaf(tensor(1));
  tape.backward(sum(ctx, x, x), tensor(2));
  const std::vector<float> g = to_host<float>(tape.gradient(x)), seed = numbers(kShape.elements(), 2);
  for (std::size_t i = 0; i < g.size(); ++i) EXPECT_EQ(g[i], 2 * seed[i]);
}

// y = W silu(W x): both places add to the same gradient. Against finite differences in double.
TEST_F(TapeTest, AParameterSharedByTwoNodesGetsBothGradients) {
  ParamList params({{"w", {2, 2, 1, 1, 1}, {}, true}}, kCpu, true);
  const std::vector<float> w = numbers(4, 3), x = numbers(kShape.elements(), 1), seed = numbers(kShape.elements(), 2);
  copy(params.at("w").value, from_host(w, {2, 2, 1, 1, 1}));
  const auto objective = [&](const test::Doubles& weight) {
    test::Doubles y = test::convolve({x.begin(), x.end()}, kShape, weight, {}, {}, kShape);
    for (double& v : y) v = test::activate(kSilu, v);
    y = test::convolve(y, kShape, weight, {}, {}, kShape);
    double total = 0;
    for (std::size_t i = 0; i < y.size(); ++i) total += y[i] * seed[i];
    return total;
  };
  const test::Doubles want = test::numeric_gradient(objective, {w.begin(), w.end()});
  for (int pass = 1; pass <= 2; ++pass) {  // the second time without zero_grad: gradients add up
    const Value hidden = conv(ctx, Value{from_host(x, kShape)}, {}, params.at("w"), nullptr, {});
    const Value y = conv(ctx, activation(ctx, hidden, nullptr, kSilu), {}, params.at("w"), nullptr, {});
    tape.backward(y, from_host(seed, kShape));
    tape.clear();
    const std::vector<float> g = to_host<float>(params.at("w").grad);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(g[i], pass * want[i], 1e-4 * std::abs(want[i])) << pass;
  }
  params.zero_grad();
  EXPECT_FALSE(params.at("w").has_grad);
}

// The seed is the caller's: gradients that are added up must not be added up in its memory.
TEST_F(TapeTest, TheCallersSeedIsLeftAlone) {
  const std::vector<float> values = numbers(kShape.elements(), 2);
  const Tensor seed = from_host(values, kShape);
  const Value x = tape.leaf(tensor(1));
  tape.backward(sum(ctx, x, activation(ctx, x, nullptr, kSilu)), seed);
  EXPECT_EQ(to_host<float>(seed), values);
  const Value z = tape.leaf(tensor(1));
  tape.backward(activation(ctx, z, nullptr, kSilu), seed);
  EXPECT_EQ(to_host<float>(seed), values);
}

TEST_F(TapeTest, WhatTakesNoPartHasNoGradient) {
  ParamList params({{"used", {2, 2, 1, 1, 1}, {}, true}, {"unused", {2}, {}, true}, {"frozen", {2}, {}, false}}, kCpu, true);
  copy(params.at("used").value, tensor(3, {2, 2, 1, 1, 1}));
  std::fill_n(params.flat_grad().data<float>(), params.flat_grad().elements(), 7.0f);
  const Value x = tape.leaf(tensor(1)), aside = tape.leaf(tensor(4)), plain{tensor(5)};
  const Value branch = activation(ctx, aside, nullptr, kSilu);  // leads nowhere
  const Value y = conv(ctx, sum(ctx, x, plain), {}, params.at("used"), nullptr, {});
  EXPECT_GE(branch.id, 0);
  tape.backward(y, tensor(2));
  EXPECT_TRUE(tape.gradient(x).defined());
  EXPECT_FALSE(tape.gradient(aside).defined());
  EXPECT_TRUE(params.at("used").has_grad);
  EXPECT_FALSE(params.at("unused").has_grad);
  params.finish_grad(ctx.exec());
  EXPECT_EQ(to_host<float>(params.at("unused").grad), (std::vector<float>{0, 0}));
  EXPECT_FALSE(params.at("frozen").grad.defined());
}

TEST_F(TapeTest, NothingIsRecordedWhereNoGradientFlows) {
  ParamList frozen({{"w", {2, 2, 1, 1, 1}, {}, false}, {"slope", {1}, {}, false}}, kCpu, true);
  ParamList without_gradients({{"w", {2, 2, 1, 1, 1}, {}, true}}, kCpu, false);
  const Value x{tensor(1)};
  for (Param* w : {&frozen.at("w"), &without_gradients.at("w")}) {
    EXPECT_EQ(conv(ctx, x, {}, *w, nullptr, {}).id, -1);
    EXPECT_EQ(conv_transpose(ctx, x, *w, nullptr, {}).id, -1);
  }
  EXPECT_EQ(activation(ctx, x, nullptr, kSilu).id, -1);
  EXPECT_EQ(activation(ctx, x, &frozen.at("slope"), {ActivationKind::prelu, 0}).id, -1);
  EXPECT_EQ(instance_norm(ctx, x, nullptr, nullptr, {}).id, -1);
  EXPECT_EQ(sum(ctx, x, x).id, -1);
  EXPECT_EQ(concat(ctx, x, x).id, -1);
  EXPECT_EQ(upsample(ctx, x, {}).id, -1);
  EXPECT_EQ(tape.size(), 0u);
  EXPECT_THROW(tape.backward(x, tensor(2)), Error);
}

TEST_F(TapeTest, OnlyOneSideOfAnOperationMayWantGradients) {
  const Value x = tape.leaf(tensor(1)), plain{tensor(5)};
  for (const bool first : {false, true}) {
    const Value s = first ? sum(ctx, x, plain) : sum(ctx, plain, x);
    tape.backward(s, tensor(2));
    EXPECT_EQ(to_host<float>(tape.gradient(x)), numbers(kShape.elements(), 2));
    tape.clear();
    const Value leaf = tape.leaf(tensor(1));
    const Value c = first ? concat(ctx, leaf, plain) : concat(ctx, plain, leaf);
    const Tensor seed = tensor(2, c.shape());
    tape.backward(c, copy_to(seed, kCpu));
    const std::vector<float> g = to_host<float>(tape.gradient(leaf)), all = to_host<float>(seed);
    for (std::size_t i = 0; i < g.size(); ++i) ASSERT_EQ(g[i], all[i / 2 * 4 + i % 2 + (first ? 0 : 2)]);
    tape.clear();
    const_cast<Value&>(x) = tape.leaf(tensor(1));
  }
}

TEST_F(TapeTest, BackwardRefusesOtherShapes) {
  const Value y = activation(ctx, tape.leaf(tensor(1)), nullptr, kSilu);
  EXPECT_THROW(tape.backward(y, tensor(2, {1, 1, 3, 5, 2})), Error);
}

// Activations and gradients are freed as soon as their closure has run, and elementwise gradients take the memory of the one before.
TEST_F(TapeTest, MemoryIsFreedOnTheWayBack) {
  const Shape large = {1, 16, 32, 32, 4};
  const std::size_t one = block_bytes(static_cast<std::size_t>(large.elements()) * 4), base = memory_stats(kCpu).live;
  Value x = tape.leaf(tensor(1, large)), y = x;
  for (int i = 0; i < 8; ++i) y = activation(ctx, std::move(y), nullptr, kSilu);
  EXPECT_EQ(memory_stats(kCpu).live - base, 9 * one);
  reset_peak(kCpu);
  Tensor seed = tensor(2, large);
  tape.backward(y, std::move(seed));
  EXPECT_LE(memory_stats(kCpu).peak - base, 11 * one);  // the seed, and the numbers it is made of
  y = Value{};
  EXPECT_EQ(memory_stats(kCpu).live - base, 2 * one);  // the leaf and its gradient
  x = Value{};
  tape.clear();
  EXPECT_EQ(memory_stats(kCpu).live, base);
}

TEST_F(TapeTest, GradientsOfParametersAreWrittenIntoTheFlatBuffer) {
  ParamList params({{"w", {3, 2, 1, 1, 1}, {}, true}, {"b", {3}, {}, true}}, kCpu, true);
  copy(params.at("w").value, tensor(3, {3, 2, 1, 1, 1}));
  tape.backward(conv(ctx, Value{tensor(1)}, {}, params.at("w"), &params.at("b"), {}), tensor(2, {2, 1, 3, 5, 3}));
  const std::vector<float> flat = to_host<float>(params.flat_grad()), w = to_host<float>(params.at("w").grad),
                           b = to_host<float>(params.at("b").grad);
  EXPECT_TRUE(std::equal(w.begin(), w.end(), flat.begin()));
  EXPECT_TRUE(std::equal(b.begin(), b.end(), flat.begin() + 16));  // the next multiple of 64 bytes
  for (std::size_t i : {6u, 15u, 19u, 31u}) EXPECT_EQ(flat[i], 0.0f);
}

}  // namespace
}  // namespace vg

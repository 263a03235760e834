// Every operation of the graph: its output and all its gradients against a double reference, on cpu and sim, at odd sizes. A registered operation
// without a case here fails a test.
#include "layers/ops.h"

#include <gtest/gtest.h>

#include <set>

#include "layers/attributes.h"
#include "layers/graph.h"
#include "tensor/random.h"
#include "tests/layers/op_reference.h"

namespace vg {
namespace {

using test::Axes;
using test::Doubles;
using test::Window;
using Params = std::map<std::string, Doubles>;  // by role

struct Case {
  std::string what;
  Node node;
  std::vector<Shape> inputs;
  Shape output;
  std::function<Doubles(const std::vector<Doubles>&, const Params&)> reference;
  bool training = true;
};

Node make(const char* op, std::vector<std::string> inputs, std::vector<std::string> roles, Json attributes) {
  Node n{.name = "it", .op = op, .inputs = std::move(inputs), .params = {}, .attributes = std::move(attributes)};
  for (const std::string& r : roles) n.params[r] = "p." + r;
  return n;
}

Doubles find(const Params& p, const char* role) {
  const auto found = p.find(role);
  return found == p.end() ? Doubles{} : found->second;
}

Doubles joined(const Doubles& a, const Shape& as, const Doubles& b, const Shape& bs) {
  Shape s = as;
  s[4] += bs.c();
  Doubles y(static_cast<std::size_t>(s.elements()));
  test::each_voxel(s, [&](std::int64_t n, const Axes& v) {
    for (std::int64_t c = 0; c < s.c(); ++c)
      y[test::at(s, n, v, c)] = c < as.c() ? a[test::at(as, n, v, c)] : b[test::at(bs, n, v, c - as.c())];
  });
  return y;
}

void add_convolutions(std::vector<Case>& cases) {
  const Shape x = {2, 3, 5, 4, 3}, x2 = {2, 3, 5, 4, 2}, both = {2, 3, 5, 4, 5};
  const auto conv = [](const Window& k, const Shape& xs, const Shape& ys, Activation f = {}) {
    return [=](const std::vector<Doubles>& in, const Params& p) {
      Doubles y = test::convolve(in[0], xs, p.at("weight"), find(p, "bias"), k, ys);
      for (double& v : y) v = test::activate(f, v);
      return y;
    };
  };
  cases.push_back({"conv 3x3x3",
                   make("conv", {"a"}, {"weight", "bias"}, {{"channels", 4}, {"kernel", {3, 3, 3}}, {"pad", {1, 1, 1}}}),
                   {x},
                   {2, 3, 5, 4, 4},
                   conv({.kernel = {3, 3, 3}, .pad = {1, 1, 1}}, x, {2, 3, 5, 4, 4})});
  cases.push_back({"conv strided, dilated, uneven padding, activation",
                   make("conv", {"a"}, {"weight"},
                        {{"channels", 3},
                         {"kernel", {2, 3, 1}},
                         {"stride", {1, 2, 3}},
                         {"dilation", {2, 1, 1}},
                         {"pad", {1, 0, 1}},
                         {"pad_high", {0, 2, 1}},
                         {"activation", {{"kind", "leaky_relu"}, {"alpha", 0.2}}}}),
                   {x},
                   {2, 2, 3, 2, 3},
                   conv({.kernel = {2, 3, 1}, .stride = {1, 2, 3}, .dilation = {2, 1, 1}, .pad = {1, 0, 1}}, x, {2, 2, 3, 2, 3},
                        {ActivationKind::leaky_relu, 0.2f})});
  const auto pair = conv({.kernel = {1, 3, 3}, .pad = {0, 1, 1}}, both, {2, 3, 5, 4, 2});
  cases.push_back({"conv of two inputs",
                   make("conv", {"a", "b"}, {"weight", "bias"}, {{"channels", 2}, {"kernel", {1, 3, 3}}, {"pad", {0, 1, 1}}}),
                   {x, x2},
                   {2, 3, 5, 4, 2},
                   [=](const std::vector<Doubles>& in, const Params& p) { return pair({joined(in[0], x, in[1], x2)}, p); }});

  const auto transposed = [](const Window& k, const Shape& xs, const Shape& ys) {
    return [=](const std::vector<Doubles>& in, const Params& p) {
      return test::convolve_transposed(in[0], xs, p.at("weight"), find(p, "bias"), k, ys);
    };
  };
  const Shape small = {2, 2, 3, 3, 3};
  cases.push_back({"conv_transpose doubling",
                   make("conv_transpose", {"a"}, {"weight"}, {{"channels", 2}, {"kernel", {2, 2, 2}}, {"stride", {2, 2, 2}}}),
                   {small},
                   {2, 4, 6, 6, 2},
                   transposed({.kernel = {2, 2, 2}, .stride = {2, 2, 2}}, small, {2, 4, 6, 6, 2})});
  cases.push_back({"conv_transpose with output padding",
                   make("conv_transpose", {"a"}, {"weight", "bias"},
                        {{"channels", 4}, {"kernel", {3, 3, 3}}, {"stride", {1, 2, 3}}, {"pad", {1, 1, 1}}, {"pad_high", {1, 0, 0}}}),
                   {small},
                   {2, 2, 6, 8, 4},
                   transposed({.kernel = {3, 3, 3}, .stride = {1, 2, 3}, .pad = {1, 1, 1}}, small, {2, 2, 6, 8, 4})});
}

void add_norms(std::vector<Case>& cases) {
  const Shape x = {3, 2, 5, 3, 3};
  const auto norm = [&](const char* what, bool batch, bool affine, const Json& activation, Activation f, bool training) {
    std::vector<std::string> roles;
    if (affine) roles = {"weight", "bias"};
    if (batch) roles.insert(roles.end(), {"running_mean", "running_var"});
    Json a = {{"kind", batch ? "batch" : "instance"}, {"eps", 1e-3}};
    if (!activation.is_null()) a["activation"] = activation;
    cases.push_back({what,
                     make("norm", {"a"}, roles, a),
                     {x},
                     x,
                     [=](const std::vector<Doubles>& in, const Params& p) {
                       const Doubles mean = find(p, "running_mean"), var = find(p, "running_var");
                       return test::normalise(in[0], x, batch, find(p, "weight"), find(p, "bias"), 1e-3f, f, training ? nullptr : &mean,
                                              training ? nullptr : &var);
                     },
                     training});
  };
  norm("instance norm", false, false, nullptr, {}, true);
  norm("instance norm, affine, leaky relu", false, true, {{"kind", "leaky_relu"}, {"alpha", 0.1}}, {ActivationKind::leaky_relu, 0.1f},
       true);
  norm("batch norm, affine, elu", true, true, "elu", {ActivationKind::elu, 1.0f}, true);
  norm("batch norm of fixed statistics", true, true, "silu", {ActivationKind::silu, 0.0f}, false);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  add_convolutions(cases), add_norms(cases);
  const Shape x = {2, 3, 5, 4, 3}, x2 = {2, 3, 5, 4, 2};
  for (const char* kind : {"relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "sigmoid"}) {
    const Activation f{activation_kind(kind), 0.3f};
    cases.push_back({kind,
                     make("activation", {"a"}, {}, {{"kind", kind}, {"alpha", 0.3f}}),
                     {x},
                     x,
                     [=](const std::vector<Doubles>& in, const Params&) {
                       Doubles y = in[0];
                       for (double& v : y) v = test::activate(f, v);
                       return y;
                     }});
  }
  for (const int slopes : {1, 3})
    cases.push_back({"prelu of " + std::to_string(slopes),
                     make("activation", {"a"}, {"weight"}, {{"kind", "prelu"}, {"slopes", slopes}}),
                     {x},
                     x,
                     [=](const std::vector<Doubles>& in, const Params& p) {
                       Doubles y = in[0];
                       for (std::size_t i = 0; i < y.size(); ++i)
                         y[i] = test::activate({ActivationKind::prelu, 0}, y[i], p.at("weight")[slopes == 1 ? 0 : i % 3]);
                       return y;
                     }});
  cases.push_back({"add", make("add", {"a", "b"}, {}, Json::object()), {x, x}, x, [](const std::vector<Doubles>& in, const Params&) {
                     Doubles y = in[0];
                     for (std::size_t i = 0; i < y.size(); ++i) y[i] += in[1][i];
                     return y;
                   }});
  cases.push_back({"concat",
                   make("concat", {"a", "b"}, {}, Json::object()),
                   {x, x2},
                   {2, 3, 5, 4, 5},
                   [=](const std::vector<Doubles>& in, const Params&) { return joined(in[0], x, in[1], x2); }});
  const auto pool = [&](const Window& k, const Json& high, const Shape& y) {
    Json a = {{"kernel", k.kernel}, {"stride", k.stride}, {"pad", k.pad}};
    if (!high.is_null()) a["pad_high"] = high;
    cases.push_back({"max_pool " + a.dump(), make("max_pool", {"a"}, {}, a), {x}, y, [=](const std::vector<Doubles>& in, const Params&) {
                       return test::pool(in[0], x, k, y);
                     }});
  };
  pool({.kernel = {2, 2, 2}, .stride = {2, 2, 2}}, nullptr, {2, 1, 2, 2, 3});
  pool({.kernel = {3, 3, 1}, .stride = {1, 2, 1}, .pad = {1, 1, 0}}, nullptr, {2, 3, 3, 4, 3});
  pool({.kernel = {2, 3, 2}, .stride = {2, 3, 1}, .pad = {0, 0, 1}}, {1, 1, 0}, {2, 2, 2, 4, 3});
  for (const bool linear : {false, true})
    cases.push_back({linear ? "upsample linear" : "upsample nearest",
                     make("upsample", {"a"}, {}, {{"factor", {2, 3, 1}}, {"mode", linear ? "linear" : "nearest"}}),
                     {x},
                     {2, 6, 15, 4, 3},
                     [=](const std::vector<Doubles>& in, const Params&) {
                       return test::enlarge(in[0], x, {2, 3, 1}, linear, {2, 6, 15, 4, 3});
                     }});
  const Shape deep = {2, 1, 3, 5, 12}, fine = {2, 1, 6, 15, 2};
  cases.push_back({"pixel_shuffle", make("pixel_shuffle", {"a"}, {}, {{"factor", {1, 2, 3}}}), {deep}, fine,
                   [=](const std::vector<Doubles>& in, const Params&) { return test::shuffle(in[0], deep, {1, 2, 3}, fine); }});
  cases.push_back({"blur", make("blur", {"a"}, {}, {{"kernel", {2, 2, 3}}}), {x}, x,
                   [=](const std::vector<Doubles>& in, const Params&) { return test::blur(in[0], x, {2, 2, 3}); }});
  return cases;
}

std::vector<float> numbers(std::int64_t count, std::uint64_t seed, float centre = 0) {
  Random random(seed);
  std::vector<float> v;
  for (std::int64_t i = 0; i < count; ++i) v.push_back(centre + (centre != 0 ? 0.3f : 1.0f) * random.normal());
  return v;
}
Doubles wide(const std::vector<float>& v) { return {v.begin(), v.end()}; }

void expect_close(const std::vector<float>& got, const Doubles& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double largest = 0;
  for (double v : want) largest = std::max(largest, std::abs(v));
  ASSERT_GT(largest, 1e-3) << what << ": a reference of zeros proves nothing";
  for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4 * largest) << what << " at " << i;
}

void check(const Case& c, Device device) {
  const OpDef& op = find_op(c.node.op, "test");
  ASSERT_EQ(op.shape(c.node, c.inputs), c.output);
  ParamList params(op.params(c.node, c.inputs), device, true);
  NodeParams by_role;
  Params values;
  for (const auto& [role, name] : c.node.params) {
    Param& p = params.at(name);
    by_role.by_role[role] = &p;
    const std::vector<float> v = numbers(p.value.elements(), 50 + name.size(),
                                         role == "running_var"                     ? 1.5f
                                         : role == "weight" && c.node.op == "norm" ? 1.0f
                                                                                   : 0.0f);
    copy(p.value, from_host(v, p.value.shape()));
    values[role] = wide(v);
  }
  std::vector<Doubles> in;
  std::vector<Value> leaves;
  Tape tape;
  Context ctx(device);
  ctx.tape = &tape, ctx.training = c.training;
  for (const Shape& s : c.inputs) {
    const std::vector<float> v = numbers(s.elements(), 7 + in.size());
    in.push_back(wide(v));
    leaves.push_back(tape.leaf(from_host(v, s, device)));
  }
  const Value y = op.run(ctx, c.node, leaves, by_role);
  ASSERT_EQ(y.shape(), c.output);
  expect_close(to_host<float>(y.data), c.reference(in, values), "output");

  // The gradient of sum(y * seed) with respect to everything.
  const std::vector<float> seed = numbers(c.output.elements(), 3);
  tape.backward(y, from_host(seed, c.output, device));
  const auto objective = [&](const std::vector<Doubles>& inputs, const Params& p) {
    const Doubles out = c.reference(inputs, p);
    double sum = 0;
    for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * seed[i];
    return sum;
  };
  for (std::size_t i = 0; i < in.size(); ++i) {
    const Doubles want = test::numeric_gradient(
        [&](const Doubles& x) {
          auto changed = in;
          changed[i] = x;
          return objective(changed, values);
        },
        in[i]);
    expect_close(to_host<float>(tape.gradient(leaves[i])), want, "input " + std::to_string(i));
  }
  for (auto& [role, param] : by_role.by_role) {
    EXPECT_EQ(param->has_grad, param->trainable) << role;
    if (!param->trainable) continue;
    const Doubles want = test::numeric_gradient(
        [&, r = role](const Doubles& w) {
          auto changed = values;
          changed[r] = w;
          return objective(in, changed);
        },
        values[role]);
    expect_close(to_host<float>(param->grad), want, role);
  }
}

TEST(Ops, OutputsAndGradientsAreThoseOfTheDoubleReference) {
  for (const Case& c : all_cases())
    for (const Device device : {kCpu, kSim}) {
      SCOPED_TRACE(c.what + " on " + to_string(device));
      check(c, device);
    }
}

TEST(Ops, EveryRegisteredOperationHasACase) {
  std::set<std::string> covered;
  for (const Case& c : all_cases()) covered.insert(c.node.op);
  EXPECT_GE(all_ops().size(), 8u);
  for (const OpDef* op : all_ops())
    EXPECT_TRUE(covered.count(op->name)) << op->name << " is registered, but ops_test.cpp has no case for it";
}

// What a halving rounded up is cut off again; anything else is a mistake in the graph.
TEST(Ops, PixelShuffleIsCutToTheSecondInputsExtents) {
  const OpDef& op = find_op("pixel_shuffle", "test");
  const Node node = make("pixel_shuffle", {"a", "b"}, {}, {{"factor", {1, 2, 2}}});
  const Shape x = {2, 1, 3, 5, 8}, like = {2, 1, 5, 10, 7}, y = {2, 1, 5, 10, 2};
  const auto shape = [&](const Shape& second) { return op.shape(node, std::vector<Shape>{x, second}); };
  EXPECT_EQ(shape(like), y);
  EXPECT_EQ(shape({2, 1, 6, 9, 1}), (Shape{2, 1, 6, 9, 2}));
  EXPECT_THROW(shape({2, 1, 4, 10, 1}), Error);
  EXPECT_THROW(shape({2, 1, 7, 10, 1}), Error);
  EXPECT_THROW(op.shape(node, std::vector<Shape>{{2, 1, 3, 5, 6}}), Error);  // channels are no multiple of 4

  const std::vector<float> values = numbers(x.elements(), 5);
  for (const Device device : {kCpu, kSim}) {
    Context ctx(device);
    Tape tape;
    ctx.tape = &tape;
    const Value a = tape.leaf(from_host(values, x, device)), b = tape.leaf(from_host(numbers(like.elements(), 6), like, device));
    const Value out = op.run(ctx, node, {a, b}, {});
    expect_close(to_host<float>(out.data), test::shuffle(wide(values), x, {1, 2, 2}, y), "output");
    tape.backward(out, from_host(std::vector<float>(static_cast<std::size_t>(y.elements()), 1.0f), y, device));
    const std::vector<float> gradient = to_host<float>(tape.gradient(a));
    EXPECT_EQ(std::count(gradient.begin(), gradient.end(), 1.0f), y.elements());
    EXPECT_EQ(std::count(gradient.begin(), gradient.end(), 0.0f), x.elements() - y.elements());
  }
}

TEST(Ops, BatchNormRemembersWhatItSaw) {
  const Shape s = {2, 1, 3, 5, 2};
  Network net(Graph{.spatial_dims = 2,
                    .in_channels = 2,
                    .nodes = {make("norm", {"input"}, {"running_mean", "running_var"}, {{"kind", "batch"}, {"momentum", 0.25}})},
                    .outputs = {"it"}},
              kCpu, false);
  net.params.initialise(0);
  const std::vector<float> x = numbers(s.elements(), 4, 2.0f);
  Context ctx(kCpu);
  ctx.training = true;
  run(ctx, net, Value{from_host(x, s)});
  for (std::size_t c = 0; c < 2; ++c) {
    double mean = 0, var = 0;
    for (std::size_t i = c; i < x.size(); i += 2) mean += x[i] / 30.0;
    for (std::size_t i = c; i < x.size(); i += 2) var += (x[i] - mean) * (x[i] - mean) / 29.0;
    EXPECT_NEAR(net.params.at("p.running_mean").value.data<float>()[c], 0.25 * mean, 1e-6);
    EXPECT_NEAR(net.params.at("p.running_var").value.data<float>()[c], 0.75 + 0.25 * var, 1e-6);
  }
  const std::vector<float> before = to_host<float>(net.params.at("p.running_mean").value);
  ctx.training = false;
  run(ctx, net, Value{from_host(x, s)});
  EXPECT_EQ(to_host<float>(net.params.at("p.running_mean").value), before);
  ctx.training = true;
  EXPECT_THROW(run(ctx, net, Value{from_host(std::vector<float>{1, 2}, {1, 1, 1, 1, 2})}), Error);  // one value has no variance
}

// Statistics come with a convolution's result if a norm wants them; and the norm takes them, if they are of its kind.
TEST(Ops, ANormTakesTheStatisticsThatComeWithItsInput) {
  Context ctx(kCpu);
  ctx.training = true;
  Network net(Graph{.spatial_dims = 3, .in_channels = 2, .nodes = {make("conv", {"input"}, {"weight"}, {{"channels", 3}, {"kernel", {3, 3, 3}}, {"pad", {1, 1, 1}}})}, .outputs = {"it"}},
              kCpu, false);
  net.params.initialise(3);
  const Value x{from_host(numbers(2 * 3 * 4 * 5 * 2, 7), {2, 3, 4, 5, 2})};
  ConvOptions o;
  std::fill_n(o.pad_low, 3, 1), std::fill_n(o.pad_high, 3, 1);
  Param& weight = net.params.at("p.weight");
  const Value plain = conv(ctx, x, {}, weight, nullptr, o);
  EXPECT_EQ(plain.statistics, nullptr);
  o.norm = ConvOptions::Norm::instance, o.norm_eps = 1e-5f;
  const Value with = conv(ctx, x, {}, weight, nullptr, o);
  ASSERT_NE(with.statistics, nullptr);
  EXPECT_EQ(to_host<float>(with.data), to_host<float>(plain.data));
  const NormParams p;
  const std::vector<float> want = to_host<float>(instance_norm(ctx, plain, nullptr, nullptr, p).data);
  EXPECT_EQ(to_host<float>(instance_norm(ctx, with, nullptr, nullptr, p).data), want);
  // Spoiled statistics tell whether they are read.
  Value spoiled = with;
  const std::vector<float> zeros(6, 0.0f);
  spoiled.statistics = std::make_shared<Statistics>(Statistics{from_host(zeros, {2, 3}), from_host(zeros, {2, 3}), 1e-5f});
  EXPECT_EQ(to_host<float>(instance_norm(ctx, spoiled, nullptr, nullptr, p).data), std::vector<float>(want.size(), 0.0f));
  NormParams other = p;
  other.eps = 1e-3f;  // not what they were made for
  EXPECT_EQ(to_host<float>(instance_norm(ctx, spoiled, nullptr, nullptr, other).data), to_host<float>(instance_norm(ctx, plain, nullptr, nullptr, other).data));
  o.activation = {ActivationKind::relu, 0};
  EXPECT_THROW(conv(ctx, x, {}, weight, nullptr, o), Error);
}

// ------------------------------------------------------------------------------------------------------ in place, without a tape

TEST(Ops, WithoutATapeMemoryThatDiesIsReusedAndOtherMemoryIsNot) {
  Context ctx(kCpu);
  const Shape s = {1, 2, 3, 4, 2};
  const std::vector<float> x = numbers(s.elements(), 5);
  const Activation relu{ActivationKind::relu, 0};
  const std::function<Value(Value)> ops[] = {
      [&](Value v) { return activation(ctx, std::move(v), nullptr, relu); },
      [&](Value v) { return instance_norm(ctx, std::move(v), nullptr, nullptr, {}); },
      [&](Value v) { return sum(ctx, std::move(v), Value{from_host(numbers(s.elements(), 6), s)}); },
  };
  for (const auto& op : ops) {
    Tensor held = from_host(x, s);
    const Value kept = op(Value{held});
    EXPECT_EQ(to_host<float>(held), x);
    EXPECT_NE(static_cast<const void*>(kept.data.raw()), static_cast<const void*>(held.raw()));
    const void* place = held.raw();
    const Value moved = op(Value{std::move(held)});
    EXPECT_EQ(static_cast<const void*>(moved.data.raw()), place);
    EXPECT_EQ(to_host<float>(moved.data), to_host<float>(kept.data));
    // Memory of somebody else, a part of a larger buffer, and with a tape: never.
    std::vector<float> outside = x;
    op(Value{wrap(outside.data(), s, DType::f32)});
    EXPECT_EQ(outside, x);
    const Tensor buffer = from_host(x, s);
    op(Value{buffer.range(0, s)});
    EXPECT_EQ(to_host<float>(buffer), x);
    Tape tape;
    ctx.tape = &tape;
    const Value leaf = tape.leaf(from_host(x, s));
    op(leaf);
    EXPECT_EQ(to_host<float>(leaf.data), x);
    ctx.tape = nullptr;
  }
  // Both operands the same value.
  Value twice{from_host(x, s)};
  const Value doubled = sum(ctx, twice, twice);
  EXPECT_EQ(to_host<float>(twice.data), x);
  EXPECT_EQ(doubled.data.data<float>()[3], 2 * x[3]);
}

}  // namespace
}  // namespace vg

// The interpreter and the planner: errors that name the node, values that live exactly as long as somebody reads them, memory that is foretold.
#include <gtest/gtest.h>

#include <cmath>

#include "layers/model_file.h"
#include "layers/ops.h"
#include "layers/unet.h"
#include "tensor/random.h"
#include "tests/layers/files.h"

namespace vg {
namespace {

using test::message_of;

Tensor noise(const Shape& s, std::uint64_t seed = 1) {
  Random random(seed);
  Tensor t(s, DType::f32, kCpu);
  for (std::int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = random.normal();
  return t;
}

Node conv_node(const std::string& name, const std::string& input, int channels) {
  return {name, "conv", {input}, {{"weight", name + ".w"}}, {{"channels", channels}, {"kernel", {3, 3, 3}}, {"pad", {1, 1, 1}}}};
}

// first -> second, to be spoiled.
Json good() {
  Graph g;
  g.nodes = {conv_node("first", "input", 3), {"second", "norm", {"first"}, {}, Json::object()}};
  g.outputs = {"second"};
  return to_json(g);
}

TEST(Network, ErrorsNameTheNode) {
  const auto refusal = [](auto change) {
    Json j = good();
    change(j["nodes"]);
    try {
      graph_from_json(j, "m.safetensors");
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find("m.safetensors"), 0u) << e.what();
      return std::string(e.what());
    }
    return std::string("accepted: ") + j.dump();
  };
  using Nodes = Json&;
  const std::pair<std::string, std::string> cases[] = {
      {refusal([](Nodes n) { n[0]["op"] = "warp"; }), "warp"},
      {refusal([](Nodes n) { n[0]["attributes"]["chanels"] = 3; }), "chanels"},
      {refusal([](Nodes n) {
         n[0]["attributes"]["kernel"] = {3, 3};
       }),
       "kernel"},
      {refusal([](Nodes n) {
         n[0]["attributes"]["stride"] = {0, 1, 1};
       }),
       "stride"},
      {refusal([](Nodes n) {
         n[0]["attributes"]["stride"] = {1.5, 1, 1};
       }),
       "stride"},
      {refusal([](Nodes n) { n[0]["attributes"]["channels"] = 0; }), "channels"},
      {refusal([](Nodes n) { n[0]["attributes"]["channels"] = "many"; }), "channels"},
      {refusal([](Nodes n) { n[0]["attributes"]["channels"] = 2.5; }), "wanted a whole number"},
      {refusal([](Nodes n) { n[0]["attributes"]["channels"] = 2e120; }), "wanted a whole number"},
      {refusal([](Nodes n) { n[0]["attributes"]["init_a"] = 2e120; }), "init_a"},
      {refusal([](Nodes n) { n[0]["attributes"]["activation"] = {{"kind", "elu"}, {"alpha", 2e120}}; }), "alpha"},
      {refusal([](Nodes n) { n[0]["attributes"]["activation"] = "prelu"; }), "prelu"},
      {refusal([](Nodes n) {
         n[0]["attributes"]["pad"] = {-1, 0, 0};
       }),
       "pad"},
      {refusal([](Nodes n) { n[0]["params"] = Json::object(); }), "weight"},
      {refusal([](Nodes n) { n[0]["params"]["scale"] = "s"; }), "scale"},
      {refusal([](Nodes n) {
         n[0]["inputs"] = {"input", "input", "input"};
       }),
       "inputs"},
  };
  for (const auto& [message, word] : cases) {
    EXPECT_NE(message.find("first"), std::string::npos) << message;
    EXPECT_NE(message.find(word), std::string::npos) << message;
  }
  const std::pair<std::string, std::string> second[] = {
      {refusal([](Nodes n) { n[1]["attributes"]["kind"] = "group"; }), "group"},
      {refusal([](Nodes n) { n[1]["attributes"]["kind"] = "batch"; }), "running_mean"},
      {refusal([](Nodes n) { n[1]["inputs"] = {"third"}; }), "third"},
      {refusal([](Nodes n) { n[1]["inputs"] = Json::array(); }), "inputs"},
      {refusal([](Nodes n) {
         n[1] = {{"name", "second"}, {"op", "add"}, {"inputs", {"first", "input"}}};
       }),
       "differ"},
      {refusal([](Nodes n) {
         n[1] = {{"name", "second"}, {"op", "add"}, {"inputs", {"first"}}};
       }),
       "inputs"},
      {refusal([](Nodes n) {
         n[1] = {{"name", "second"}, {"op", "upsample"}, {"inputs", {"first"}}, {"attributes", {{"mode", "cubic"}}}};
       }),
       "cubic"},
      {refusal([](Nodes n) {
         n[1] = {{"name", "second"}, {"op", "activation"}, {"inputs", {"first"}}, {"attributes", {{"kind", "swish"}}}};
       }),
       "swish"},
      {refusal([](Nodes n) {
         n[1] = {{"name", "second"}, {"op", "activation"}, {"inputs", {"first"}}};
       }),
       "activation"},
      {refusal([](Nodes n) {
         n[1]["name"] = "second", n[1]["params"] = {{"weight", "g"}};
       }),
       "bias"},
  };
  for (const auto& [message, word] : second) {
    EXPECT_NE(message.find("second"), std::string::npos) << message;
    EXPECT_NE(message.find(word), std::string::npos) << message;
  }
}

TEST(Network, RunningNamesTheNodeToo) {
  Graph g;
  g.nodes = {conv_node("down", "input", 2), {"joined", "add", {"down", "input"}, {}, Json::object()}};
  g.nodes[0].attributes["stride"] = {2, 2, 2};
  g.outputs = {"down"};
  g.in_channels = 2;
  Context ctx(kCpu);
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { Network net(g, kCpu, false); }).find("node joined"), std::string::npos);
  g.nodes.pop_back();
  Network net(g, kCpu, false);
  EXPECT_NE(message_of(ErrorCode::invalid_argument,
                       [&] {
                         run(ctx, net, Value{noise({1, 4, 4, 4, 3})});
                       })
                .find("wanted (N, D, H, W, 2)"),
            std::string::npos);
  EXPECT_THROW(run(ctx, net, Value{noise({4, 4, 2})}), Error);
}

// ------------------------------------------------------------------------------------------------------------------- values

// Values that are read twice, that are outputs as well, and the input itself: in-place operations must leave them alone.
TEST(Network, InPlaceOperationsLeaveWhatOthersRead) {
  Graph g;
  g.in_channels = 2;
  const Json relu = {{"kind", "relu"}}, none = Json::object();
  g.nodes = {
      {"a", "activation", {"input"}, {}, relu}, {"b", "norm", {"a"}, {}, none},     {"c", "activation", {"b"}, {}, {{"kind", "sigmoid"}}},
      {"d", "add", {"a", "c"}, {}, none},       {"e", "add", {"d", "d"}, {}, none}, {"f", "activation", {"e"}, {}, {{"kind", "silu"}}},
      {"g", "add", {"f", "b"}, {}, none},       {"h", "norm", {"g"}, {}, none}};
  g.outputs = {"h", "b", "d", "a"};
  const Tensor x = noise({2, 3, 4, 5, 2});
  const std::vector<float> before = to_host<float>(x);
  Context ctx(kCpu);
  Network net(g, kCpu, true);
  const std::vector<Value> plain = run(ctx, net, Value{x});
  EXPECT_EQ(to_host<float>(x), before);
  Tape tape;  // with a tape nothing works in place
  ctx.tape = &tape;
  const std::vector<Value> recorded = run(ctx, net, tape.leaf(x));
  ASSERT_EQ(plain.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(to_host<float>(plain[i].data), to_host<float>(recorded[i].data)) << g.outputs[i];
  EXPECT_EQ(to_host<float>(x), before);
}

// In half precision a device's convolution makes the statistics of the norm behind it on the way: the same numbers as in two steps, on a tape or without.
TEST(Network, AConvolutionAndTheNormThatAloneReadsItAreOneStep) {
  Graph g;
  g.in_channels = 8;
  g.nodes = {conv_node("a", "input", 16), {"b", "norm", {"a"}, {}, {{"activation", "leaky_relu"}}}, conv_node("c", "b", 8), {"d", "norm", {"c"}, {}, {{"kind", "instance"}}}};
  g.outputs = {"d"};
  Graph apart = g;
  apart.outputs = {"d", "a", "c"};  // read by others, too
  Network one(g, kSim, true), two(apart, kSim, true);
  one.params.initialise(5), two.params.initialise(5);
  EXPECT_EQ(one.node_params[0].reader, &one.graph.nodes[1]);
  EXPECT_EQ(one.node_params[1].reader, &one.graph.nodes[2]);
  EXPECT_EQ(one.node_params[3].reader, nullptr);
  EXPECT_EQ(two.node_params[0].reader, nullptr);
  const Tensor x = copy_to(noise({2, 6, 12, 20, 8}), kSim);
  {  // who asks for statistics: the first convolution, told by its only reader, and nobody in the other network
    Context ctx(kSim);
    const auto first = [&](Network& net) { return find_op("conv", "a").run(ctx, net.graph.nodes[0], {Value{x}}, net.node_params[0]).statistics; };
    ASSERT_NE(first(one), nullptr);
    EXPECT_EQ(first(one)->eps, 1e-5f);
    EXPECT_EQ(first(one)->mean.shape(), (Shape{2, 16}));
    EXPECT_EQ(first(two), nullptr);
  }
  for (const bool taped : {false, true}) {
    const auto result = [&](Network& net) {
      Context ctx(kSim);
      ctx.precision = DType::bf16;
      Tape tape;
      if (taped) ctx.tape = &tape;
      const Value y = cast_to(ctx, run(ctx, net, Value{x})[0], DType::f32);
      return to_host<float>(y.data);
    };
    const std::vector<float> a = result(one), b = result(two);
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(static_cast<double>(a[i]) - b[i]));
    EXPECT_LT(most, 0.04);  // a rounding of bf16 beside 4, twice
  }
}

TEST(Network, AnOutputMayBeNamedTwice) {
  Graph g;
  g.nodes = {conv_node("a", "input", 2), {"b", "activation", {"a"}, {}, {{"kind", "relu"}}}};
  g.outputs = {"b", "a", "b"};
  Network net(g, kCpu, false);
  net.params.initialise(1);
  Context ctx(kCpu);
  const std::vector<Value> out = run(ctx, net, Value{noise({1, 3, 3, 3, 1})});
  EXPECT_EQ(to_host<float>(out[0].data), to_host<float>(out[2].data));
  bool negative = false;
  for (float v : to_host<float>(out[1].data)) negative |= v < 0;
  EXPECT_TRUE(negative);
}

// The chapter shows all settings of a U-Net with their defaults.
TEST(Network, TheChaptersSampleIsTheDefault) {
  const std::string text = os::read_text(VG_SOURCE_DIR "/layers/README.md");
  const std::size_t begin = text.find("```json\n"), end = text.find("```", begin + 8);
  ASSERT_NE(end, std::string::npos);
  const Json sample = Json::parse(text.substr(begin + 8, end - begin - 8)), defaults = to_json(UnetConfig{});
  EXPECT_EQ(to_json(unet_config_from_json(sample, "README.md")), defaults);
  for (const auto& item : defaults.items()) EXPECT_TRUE(sample.contains(item.key())) << item.key();
}

// --------------------------------------------------------------------------------------------------------------------- plan

struct Planned {
  const char* name;
  Graph graph;
  Shape input;
};

std::vector<Planned> networks() {
  UnetConfig two, three, residual, monai, batch, heads;
  two.features = {16, 32, 64}, two.classes = 30;
  three.spatial_dims = 3, three.features = {8, 16, 32}, three.classes = 5, three.in_channels = 2;
  residual = three, residual.residual_units = 1;
  monai = three, monai.style = "unet", monai.activation = "prelu", monai.residual_units = 2, monai.norm_affine = false;
  batch = two, batch.norm = "batch", batch.upsampling = "linear";
  heads = three, heads.deep_supervision = 1, heads.norm = "none";
  return {{"dynunet 2-D", unet(two), {4, 1, 96, 80, 1}},
          {"dynunet 3-D", unet(three), {2, 24, 32, 28, 2}},
          {"residual", unet(residual), {1, 32, 40, 36, 2}},
          {"MONAI's unet", unet(monai), {1, 32, 40, 36, 2}},
          {"batch, linear", unet(batch), {4, 1, 96, 80, 1}},
          {"heads", unet(heads), {1, 32, 40, 36, 2}},
          {"meshnet", meshnet({.classes = 4, .channels = 10}), {1, 40, 40, 40, 1}},
          {"meshnet, instance norm", meshnet({.classes = 4, .channels = 10, .norm = "instance"}), {1, 40, 40, 40, 1}}};
}

double ratio(std::size_t real, std::size_t foretold) { return static_cast<double>(real) / static_cast<double>(foretold); }

TEST(Plan, InferenceHoldsWhatWasForetold) {
  for (const Planned& p : networks()) {
    const Plan foretold = plan(p.graph, p.input);
    const std::size_t base = memory_stats(kCpu).live;
    std::size_t peak = 0;
    {
      Network net(p.graph, kCpu, false);
      net.params.initialise(1);
      Context ctx(kCpu);
      Value x{noise(p.input)};
      reset_peak(kCpu);
      run(ctx, net, std::move(x));
      peak = memory_stats(kCpu).peak - base;
    }
    EXPECT_NEAR(ratio(peak, foretold.inference_bytes), 1.0, 0.1)
        << p.name << ": " << peak << " bytes, foretold " << foretold.inference_bytes;
  }
}

TEST(Plan, ATrainingStepHoldsWhatWasForetold) {
  for (const Planned& p : networks()) {
    const Plan foretold = plan(p.graph, p.input);
    const std::size_t base = memory_stats(kCpu).live;
    std::size_t peak = 0;
    {
      Network net(p.graph, kCpu, true);
      net.params.initialise(1);
      const Tensor moments = zeros({2, net.params.flat().elements()}, DType::f32, kCpu);
      Context ctx(kCpu);
      const Tensor labels = zeros({p.input.n(), p.input.d(), p.input.h(), p.input.w(), 1}, DType::u8, kCpu);
      reset_peak(kCpu);
      Tape tape;
      ctx.tape = &tape, ctx.training = true;
      const DiceCe loss = dice_ce(ctx, run(ctx, net, Value{noise(p.input)})[0], labels, {});
      tape.backward(loss.loss, from_host(std::vector<float>{1.0f}, {1}));
      peak = memory_stats(kCpu).peak - base;
    }
    EXPECT_NEAR(ratio(peak, foretold.training_bytes), 1.0, 0.1)
        << p.name << ": " << peak << " bytes, foretold " << foretold.training_bytes;
  }
}

TEST(Plan, CountsMultiplyAddsOfTheDefinition) {
  Graph g;
  g.nodes = {conv_node("a", "input", 4),
             {"up", "conv_transpose", {"a"}, {{"weight", "u"}}, {{"channels", 3}, {"kernel", {2, 2, 2}}, {"stride", {2, 2, 2}}}}};
  g.outputs = {"up"};
  const Plan p = plan(g, {2, 3, 5, 7, 1});
  EXPECT_EQ(p.nodes[0].multiply_adds, 2.0 * 105 * 27 * 1 * 4);
  EXPECT_EQ(p.nodes[1].multiply_adds, 2.0 * 105 * 8 * 4 * 3);
  EXPECT_EQ(p.multiply_adds, p.nodes[0].multiply_adds + p.nodes[1].multiply_adds);
  EXPECT_EQ(p.parameters, 27 * 4 + 8 * 4 * 3);
  EXPECT_EQ(p.outputs[0], (Shape{2, 6, 10, 14, 3}));
  const std::string table = to_table(g, p);
  EXPECT_NE(table.find("(2, 6, 10, 14, 3)"), std::string::npos) << table;
  EXPECT_NE(table.find("204 parameters"), std::string::npos) << table;
}

// What the table says is what the kernels do: wide layers by Winograd's tiles unless that is not allowed, strided and pointwise ones as the sum.
TEST(Plan, NamesTheAlgorithmAndTheTimeOfEveryPass) {
  UnetConfig c;
  c.spatial_dims = 3, c.features = {16, 32, 64}, c.classes = 5;
  const Graph g = unet(c);
  const Shape input = {1, 48, 48, 48, 1};
  const Plan fast = plan(g, input), exact = plan(g, input, {ConvAlgorithm::Allow::exact, {}}), direct = plan(g, input, {ConvAlgorithm::Allow::direct, {}});
  const MachineRates rates{100e9, 20e9};
  int tiles = 0;
  for (std::size_t i = 0; i < g.nodes.size(); ++i) {
    for (int k = 0; k < 3; ++k) {
      const std::string &a = fast.nodes[i].pass[k].algorithm, &e = exact.nodes[i].pass[k].algorithm, &d = direct.nodes[i].pass[k].algorithm;
      EXPECT_EQ(a.empty(), d.empty());
      EXPECT_TRUE(d.empty() || d == "direct") << d;
      EXPECT_EQ(e.find('4'), std::string::npos) << e;
      tiles += a == "F(4,4,4)";
      if (a.find('4') != std::string::npos)
        EXPECT_LT(seconds(fast.nodes[i].pass[k], rates), seconds(direct.nodes[i].pass[k], rates)) << g.nodes[i].name << " " << a;
    }
    const bool convolution = g.nodes[i].op == "conv" || g.nodes[i].op == "conv_transpose";
    EXPECT_EQ(convolution, !fast.nodes[i].pass[0].algorithm.empty()) << g.nodes[i].name;
    EXPECT_GT(seconds(fast.nodes[i].pass[0], rates), 0) << g.nodes[i].name;
  }
  EXPECT_GE(tiles, 6);
  const std::string table = to_table(g, fast, rates, true);
  EXPECT_NE(table.find("F(4,4,4), F(4,4,4), F(4,4,4)"), std::string::npos) << table;
  EXPECT_NE(table.find("forward and backward"), std::string::npos) << table;
}

TEST(Plan, TheMachinesRatesArePlausible) {
  const MachineRates r = measure_rates();
  EXPECT_GT(r.multiply_adds, 1e8);
  EXPECT_LT(r.multiply_adds, 1e14);
  EXPECT_GT(r.bytes, 1e8);
  EXPECT_LT(r.bytes, 1e13);
}

}  // namespace
}  // namespace vg

// Small U-Nets against PyTorch, MONAI and fastai's definition (unet_golden.py): logits, every gradient, the losses of ten AdamW steps; on cpu and on sim.
#include <gtest/gtest.h>

#include <cmath>

#include "layers/dynamic_unet.h"
#include "layers/json.h"
#include "layers/model_file.h"
#include "layers/unet.h"
#include "train/optimizer.h"

namespace vg {
namespace {

Safetensors golden(const std::string& name) { return read_safetensors(VG_SOURCE_DIR "/tests/train/golden/" + name + ".safetensors"); }

std::vector<std::pair<std::string, Tensor>> with_prefix(const Safetensors& file, const std::string& prefix) {
  std::vector<std::pair<std::string, Tensor>> found;
  for (const auto& [name, tensor] : file.tensors)
    if (name.rfind(prefix, 0) == 0) found.emplace_back(name.substr(prefix.size()), tensor);
  return found;
}

// PyTorch's (N, C, [D,] H, W) as (N, D, H, W, C).
std::vector<float> channels_last(const Tensor& t, Shape* shape) {
  const Shape& s = t.shape();
  const std::int64_t n = s[0], c = s[1], d = s.rank() == 5 ? s[2] : 1, h = s[s.rank() - 2], w = s[s.rank() - 1], voxels = d * h * w;
  *shape = {n, d, h, w, c};
  std::vector<float> out(static_cast<std::size_t>(t.elements()));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t k = 0; k < c; ++k)
      for (std::int64_t v = 0; v < voxels; ++v) out[static_cast<std::size_t>((i * voxels + v) * c + k)] = t.data<float>()[(i * c + k) * voxels + v];
  return out;
}

double largest(const Tensor& t) {
  double m = 0;
  for (std::int64_t i = 0; i < t.elements(); ++i) m = std::max(m, std::abs(static_cast<double>(t.data<float>()[i])));
  return m;
}

class UnetGolden : public testing::TestWithParam<std::tuple<const char*, DeviceKind>> {};

TEST_P(UnetGolden, LogitsGradientsAndTenStepsAreThoseOfPyTorch) {
  const auto [name, kind] = GetParam();
  const Device device{kind, 0};
  const Safetensors file = golden(name);
  const Json config = parse_json(file.metadata.at("config"), name);
  const bool dynamic = config.value("network", "unet") == "dynamic_unet";
  Network net(dynamic ? dynamic_unet(dynamic_unet_config_from_json(config, name)) : unet(unet_config_from_json(config, name)), device, true);
  load_weights(net, with_prefix(file, "weight."), name);

  Shape shape, logits_shape;
  const std::vector<float> x = channels_last(*file.find("input"), &shape), want = channels_last(*file.find("logits"), &logits_shape);
  Shape label_shape = shape;
  label_shape[4] = 1;
  const Tensor labels = copy_to(file.find("labels")->reshaped(label_shape), device);
  Context ctx(device);
  Optimizer optimizer(OptimizerConfig{}, net.params);
  const std::vector<float> losses = to_host<float>(*file.find("losses"));

  for (std::size_t step = 0; step < losses.size(); ++step) {
    Tape tape;
    ctx.tape = &tape, ctx.training = true;
    net.params.zero_grad();
    const std::vector<Value> out = run(ctx, net, Value{from_host(x, shape, device)});
    const DiceCe loss = dice_ce(ctx, out[0], labels, DiceCeParams{});
    tape.backward(loss.loss, from_host(std::vector<float>{1.0f}, {1}, device));
    ctx.tape = nullptr;
    net.params.finish_grad(ctx.exec());
    EXPECT_NEAR(to_host<float>(loss.result)[0], losses[step], 1e-4) << "step " << step;

    if (step == 0) {
      ASSERT_EQ(out[0].shape(), logits_shape);
      const std::vector<float> got = to_host<float>(out[0].data);
      double error = 0;
      for (std::size_t i = 0; i < got.size(); ++i) error = std::max(error, std::abs(static_cast<double>(got[i]) - want[i]));
      EXPECT_LE(error, 1e-4);

      const auto gradients = with_prefix(file, "gradient.");
      ASSERT_GE(gradients.size(), 8u);
      double whole = 0;
      for (const auto& [parameter, g] : gradients) whole = std::max(whole, largest(g));
      int judged = 0;
      for (const auto& [parameter, g] : gradients) {
        const std::vector<float> ours = to_host<float>(net.params.at(parameter).grad);
        double worst = 0;
        for (std::size_t i = 0; i < ours.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(ours[i]) - g.data<float>()[i]));
        // A bias in front of an instance norm has no gradient: there both sides are rounding noise, judged against the whole.
        const bool vanishes = largest(g) < 1e-6 * whole;
        EXPECT_LE(worst, vanishes ? 1e-5 * whole : 1e-4 * largest(g)) << parameter;
        judged += !vanishes;
      }
      EXPECT_GE(judged, 5);
    }
    optimizer.step(ctx, Rates{.rate = 1e-2});
  }
}

INSTANTIATE_TEST_SUITE_P(All, UnetGolden,
                         testing::Combine(testing::Values("dynunet2d", "dynunet3d", "dynunet2d_batchnorm_residual", "unet3d_residual", "unet2d", "dynamic_unet",
                                                         "dynamic_unet_blur_odd"),
                                          testing::Values(DeviceKind::cpu, DeviceKind::sim)),
                         [](const auto& info) { return std::string(std::get<0>(info.param)) + "_" + name_of(std::get<1>(info.param)); });

// Counted by MONAI: sum(p.numel() for p in net.parameters()).
TEST(Unet, HasAsManyParametersAsMonais) {
  UnetConfig c;
  c.classes = 44, c.norm_affine = false;
  EXPECT_EQ(plan(unet(c), {1, 1, 64, 64, 1}).parameters, 1939836);
  c = UnetConfig{};
  c.spatial_dims = 3, c.classes = 33, c.norm_affine = false;
  EXPECT_EQ(plan(unet(c), {1, 32, 32, 32, 1}).parameters, 5643745);
  c.style = "unet", c.activation = "prelu", c.residual_units = 2;
  EXPECT_EQ(plan(unet(c), {1, 32, 32, 32, 1}).parameters, 4862622);
  c = UnetConfig{};
  c.spatial_dims = 3, c.classes = 4, c.features = {32, 64, 128, 256, 320, 320}, c.deep_supervision = 3;
  EXPECT_EQ(plan(unet(c), {1, 64, 64, 64, 1}).parameters, 31191280);
}

// Counted by fastai 2.7: create_unet_model(resnet34, classes, (256, 256), pretrained=False).
TEST(DynamicUnet, HasAsManyParametersAsFastais) {
  DynamicUnetConfig c;
  c.classes = 374;
  EXPECT_EQ(plan(dynamic_unet(c), {1, 1, 256, 256, 3}).parameters, 41258368);
  c.classes = 44, c.blur = true;
  EXPECT_EQ(plan(dynamic_unet(c), {1, 1, 256, 256, 3}).parameters, 41225368);
}

TEST(DynamicUnet, AnyExtentsWillDo) {
  DynamicUnetConfig c;
  const Graph g = dynamic_unet(c);
  EXPECT_EQ(g.divisor(), (std::vector<int>{1, 32, 32}));
  for (const Shape& s : {Shape{1, 1, 64, 96, 3}, Shape{2, 1, 61, 33, 3}, Shape{1, 1, 1, 7, 3}}) {
    Shape scores = s;
    scores[4] = 2;
    EXPECT_EQ(plan(g, s).outputs.at(0), scores);
  }
}

TEST(DynamicUnet, BeginsAsFastaiDoes) {
  DynamicUnetConfig c{.in_channels = 3, .classes = 4, .features = {16, 24, 32}, .blocks = {1, 1, 1}};
  Network net(dynamic_unet(c), kCpu, false);
  net.params.initialise(1);
  const auto variance = [&](const std::string& name) {
    double sum = 0;
    const std::vector<float> v = to_host<float>(net.params.at(name).value);
    for (const float x : v) sum += static_cast<double>(x) * x;
    return sum / static_cast<double>(v.size());
  };
  EXPECT_NEAR(variance("layers.0.5.0.conv1.weight"), 2.0 / (24 * 9), 0.1 * 2.0 / (24 * 9));  // by fan_out
  EXPECT_NEAR(variance("layers.3.0.0.weight"), 2.0 / (32 * 9), 0.1 * 2.0 / (32 * 9));        // by fan_in
  EXPECT_EQ(variance("layers.3.0.0.bias"), 0);

  // ICNR: the four children of a voxel are equal, so that the first pixel shuffle is nearest upsampling.
  const Param& icnr = net.params.at("layers.4.shuf.0.0.weight");  // (4 * 16, 32, 1, 1, 1)
  ASSERT_EQ(icnr.value.shape()[0], 64);
  EXPECT_NEAR(variance(icnr.name), 2.0 / 32, 0.2 * 2.0 / 32);
  const std::vector<float> w = to_host<float>(icnr.value);
  for (std::size_t o = 0; o < 64; ++o)
    for (std::size_t i = 0; i < 32; ++i) {
      EXPECT_EQ(w[o * 32 + i], w[o / 4 * 4 * 32 + i]);
      if (o >= 4) {
        EXPECT_NE(w[o * 32 + i], w[(o - 4) * 32 + i]);
      }
    }
}

// A state_dict as fastai saves it has a counter in each batch norm.
TEST(DynamicUnet, TakesAStateDictWithCounters) {
  const DynamicUnetConfig c{.in_channels = 1, .classes = 2, .features = {4, 4}, .blocks = {1, 1}};
  Network from(dynamic_unet(c), kCpu, false), to(dynamic_unet(c), kCpu, false);
  from.params.initialise(3);
  std::vector<std::pair<std::string, Tensor>> weights = save_weights(from);
  const Tensor counter = from_host(std::vector<std::int32_t>{7}, {1});
  weights.emplace_back("layers.0.1.num_batches_tracked", counter);
  load_weights(to, weights, "state_dict");
  EXPECT_EQ(to_host<float>(to.params.flat()), to_host<float>(from.params.flat()));
  weights.emplace_back("layers.0.1.num_batches", counter);
  EXPECT_THROW(load_weights(to, weights, "state_dict"), Error);
}

TEST(Unet, DivisorAndOutputsFollowStrides) {
  UnetConfig c;
  c.spatial_dims = 3, c.features = {4, 8, 8}, c.strides = {{1}, {2, 2, 2}, {1, 2, 2}}, c.deep_supervision = 1;
  const Graph g = unet(c);
  EXPECT_EQ(g.divisor(), (std::vector<int>{2, 4, 4}));
  const Plan p = plan(g, {2, 8, 16, 24, 1});
  ASSERT_EQ(p.outputs.size(), 2u);
  EXPECT_EQ(p.outputs[0], (Shape{2, 8, 16, 24, 2}));
  EXPECT_EQ(p.outputs[1], (Shape{2, 4, 8, 12, 2}));
}

TEST(Unet, ConfigurationsAreReadStrictly) {
  const auto message = [](const char* text) {
    try {
      unet_config_from_json(Json::parse(text), "c.json");
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(R"({"features": [4, 8], "norm": "batch"})"), "");
  EXPECT_NE(message(R"({"featurs": [4, 8]})").find("featurs"), std::string::npos);
  EXPECT_NE(message(R"({"features": [4.5]})").find("features"), std::string::npos);
  EXPECT_NE(message(R"({"norm": "group"})").find("group"), std::string::npos);
  EXPECT_NE(message(R"({"activation": "swish"})").find("swish"), std::string::npos);
}

// Graphs survive being written and read, and the copy computes the same.
TEST(Unet, GraphsTravelAsJson) {
  UnetConfig c;
  c.features = {3, 5, 6}, c.activation = "prelu", c.upsampling = "linear";
  const Graph g = unet(c), back = graph_from_json(to_json(g), "copy");
  EXPECT_EQ(to_json(back), to_json(g));
  Json broken = to_json(g);
  broken["nodes"][2]["attributes"]["kind_"] = "batch";
  EXPECT_THROW(graph_from_json(broken, "broken"), Error);
  broken = to_json(g);
  broken["nodes"][1]["inputs"][0] = "nobody";
  EXPECT_THROW(graph_from_json(broken, "broken"), Error);
}

}  // namespace
}  // namespace vg

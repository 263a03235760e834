// The five published MeshNets on crops of a real head, against the logits that PyTorch gives (data/models/make_references.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "layers/model_file.h"
#include "layers/unet.h"
#include "tests/layers/files.h"

namespace vg {
namespace {

const std::vector<int> kNine = {1, 2, 4, 8, 16, 8, 4, 2, 1};

MeshnetConfig mindgrab(const std::string& gelu) {
  MeshnetConfig c{.classes = 2, .channels = 15, .dilations = {}, .activation = gelu, .norm = "instance", .bias = false};
  for (int i = 0; i < 5; ++i) c.dilations.insert(c.dilations.end(), {16, 8, 4, 2, 1});
  return c;
}

struct Case {
  const char *name, *weights, *crop, *logits;
  MeshnetConfig config;
};

std::vector<Case> cases() {
  return {{"subcortical", "subcortical", "subcortical-crop64", "logits32", {}},
          {"model18cls", "model18cls", "model18cls-crop32", "logits32", {.classes = 18, .channels = 21, .dilations = kNine}},
          {"model20chan3cls", "model20chan3cls", "model20chan3cls-crop32", "logits32", {.classes = 3, .channels = 20, .dilations = kNine}},
          {"model11_gw_ae",
           "model11_gw_ae",
           "model11_gw_ae-crop32",
           "logits32",
           {.classes = 3, .channels = 11, .dilations = {1, 2, 4, 8, 4, 2, 2, 1}, .activation = "relu"}},
          {"mindgrab_erf", "mindgrab", "mindgrab-crop32", "logits32_erf", mindgrab("gelu")},
          {"mindgrab_tanh", "mindgrab", "mindgrab-crop32", "logits32_tanh", mindgrab("gelu_tanh")}};
}

std::string model(const std::string& name) { return test::shared_data("models/" + name + ".safetensors"); }

// x: (D, H, W) -> logits (D, H, W, C)
Tensor forward(const Case& c, const Tensor& x, Device device) {
  Network net(meshnet(c.config), device, false);
  load_weights(net, read_safetensors(model(c.weights)).tensors, c.weights);
  Context ctx(device);
  const Shape s = x.shape();
  return copy_to(run(ctx, net, Value{copy_to(x.reshaped({1, s[0], s[1], s[2], 1}), device)}).at(0).data, kCpu);
}

class MeshnetParity : public testing::TestWithParam<Case> {};

TEST_P(MeshnetParity, LogitsOfPyTorch) {
  const Case& c = GetParam();
  if (model(c.crop).empty()) GTEST_SKIP() << "no data/models (VG_TEST_DATA)";
  const Safetensors crop = read_safetensors(model(c.crop));
  const Tensor& wanted = *crop.find(c.logits);  // (C, D, H, W)
  const Tensor found = forward(c, *crop.find("input32"), kCpu);
  const std::int64_t classes = wanted.shape()[0], voxels = wanted.elements() / classes;
  ASSERT_EQ(found.shape(), (Shape{1, 32, 32, 32, classes}));
  float worst = 0, largest = 0;
  for (std::int64_t k = 0; k < classes; ++k)
    for (std::int64_t v = 0; v < voxels; ++v) {
      const float w = wanted.data<float>()[k * voxels + v];
      worst = std::fmax(worst, std::fabs(found.data<float>()[v * classes + k] - w));
      largest = std::fmax(largest, std::fabs(w));
    }
  EXPECT_GT(largest, 1.0f) << "a reference of zeros proves nothing";
  EXPECT_LE(worst, 1e-3f);
  RecordProperty("worst", std::to_string(worst));
}

INSTANTIATE_TEST_SUITE_P(Models, MeshnetParity, testing::ValuesIn(cases()), [](const auto& info) { return std::string(info.param.name); });

// The CUDA source of every kernel on the way, on a block that is small enough for the simulator.
TEST(MeshnetOnSim, IsTheCpu) {
  if (model("model11_gw_ae").empty()) GTEST_SKIP() << "no data/models (VG_TEST_DATA)";
  for (const std::size_t which : {3u, 4u}) {
    const Case c = cases()[which];
    const Safetensors crop = read_safetensors(model(c.crop));
    const Tensor block = crop.find("input32")->range(9000, {3, 5, 7});
    const Tensor cpu = forward(c, block, kCpu), sim = forward(c, block, kSim);
    float worst = 0, largest = 0;
    for (std::int64_t i = 0; i < cpu.elements(); ++i) {
      worst = std::fmax(worst, std::fabs(cpu.data<float>()[i] - sim.data<float>()[i]));
      largest = std::fmax(largest, std::fabs(cpu.data<float>()[i]));
    }
    EXPECT_GT(largest, 0.5f) << c.name;
    EXPECT_LE(worst, 1e-3f) << c.name;
  }
}

TEST(MeshnetParity64, LabelsOfPyTorchWhereTheyAreClear) {
  if (model("subcortical-crop64").empty()) GTEST_SKIP() << "no data/models (VG_TEST_DATA)";
  const Safetensors crop = read_safetensors(model("subcortical-crop64"));
  const Tensor logits = forward(cases()[0], *crop.find("input64"), kCpu);
  const auto* wanted = crop.find("argmax64")->data<std::uint8_t>();
  const float* margin = crop.find("margin64")->data<float>();
  std::int64_t judged = 0, wrong = 0;
  float worst_margin = 0;
  for (std::int64_t v = 0; v < 64 * 64 * 64; ++v) {
    const float* l = logits.data<float>() + v * 18;
    const auto best = std::max_element(l, l + 18);
    float second = -HUGE_VALF;
    for (const float* k = l; k < l + 18; ++k)
      if (k != best) second = std::fmax(second, *k);
    worst_margin = std::fmax(worst_margin, std::fabs(*best - second - margin[v]));
    if (margin[v] < 1e-3f) continue;
    ++judged;
    wrong += best - l != wanted[v];
  }
  EXPECT_GT(judged, 64 * 64 * 64 * 99 / 100);
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(worst_margin, 1e-3f);
}

}  // namespace
}  // namespace vg

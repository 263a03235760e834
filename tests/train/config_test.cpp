// Configurations as JSON: what is written is read, what nobody knows is refused by name.
#include "train/config.h"

#include <gtest/gtest.h>

#include "layers/json.h"
#include "tensor/os.h"

namespace vg {
namespace {

std::string refusal(const std::string& text) {
  try {
    train_config_from_json(parse_json(text, "c.json"), "c.json");
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(ErrorCode::bad_file)) << e.what();
    return e.what();
  }
  return "";
}

TEST(TrainConfig, RoundTripKeepsEveryField) {
  TrainConfig c;
  c.exact = true;
  c.precision = "bf16", c.loss_scale = 1024, c.scale_interval = 7;
  c.network.features = {3, 5, 7}, c.network.norm = "batch", c.network.activation_alpha = 0.1f, c.network.strides = {{1}, {2}, {2}};
  c.optimizer = {.kind = "sgd", .beta1 = 0.91, .beta2 = 0.97, .eps = 1e-7, .weight_decay = 0.3, .nesterov = true, .clip_norm = 12};
  c.schedule = {.kind = "poly",
                .rate = 0.123,
                .final_rate = 1e-5,
                .power = 0.7,
                .warmup = 5,
                .rise = 0.2,
                .start_divisor = 7,
                .final_divisor = 77,
                .low_momentum = 0.5,
                .high_momentum = 0.6};
  c.loss.ce_weight = 0.25f, c.loss.dice_weight = 0.75f, c.loss.smooth_numerator = 0.5f, c.loss.smooth_denominator = 0.25f,
  c.loss.background = true, c.loss.per_sample = true;
  c.augment = {.flip = true, .intensity = 0.1, .noise = 0.2, .affine = 0.3, .rotation = 4, .scaling = 0.05,
               .elastic = 0.4, .elastic_spacing = 20, .elastic_magnitude = 7.5};
  c.batch = 3, c.patch = {32, 64}, c.foreground = 0.5, c.epochs = 9, c.steps = 10, c.steps_per_epoch = 11, c.overlap = 0.25,
  c.seed = 0xffffffffffffffffull;
  const Json j = to_json(c);
  const TrainConfig back = train_config_from_json(parse_json(j.dump(), "c"), "c");
  EXPECT_EQ(to_json(back), j);
  // No field may be left at its default, or the comparison above proves nothing about it.
  const Json defaults = to_json(TrainConfig{});
  for (const char* section : {"optimizer", "schedule", "loss", "augment"})
    for (const auto& item : j[section].items()) EXPECT_NE(item.value(), defaults[section][item.key()]) << section << "." << item.key();
  for (const auto& item : j.items()) EXPECT_NE(item.value(), defaults[item.key()]) << item.key();
}

TEST(TrainConfig, TheNetworkMayBeADynamicUnet) {
  TrainConfig c = train_config_from_json(parse_json(R"({"network": {"network": "dynamic_unet", "features": [4, 8], "blocks": [1, 2], "blur": true}})", "c"), "c");
  ASSERT_TRUE(c.dynamic_unet);
  EXPECT_EQ(to_json(train_config_from_json(to_json(c), "c")), to_json(c));
  const Graph g = network_for(c, 2, 1, 7);
  EXPECT_EQ(g.in_channels, 1);
  EXPECT_EQ(g.out_channels(), 7);
  EXPECT_EQ(c.dynamic_unet->classes, 7);
  EXPECT_TRUE(to_json(g) == to_json(dynamic_unet(*c.dynamic_unet)));
  EXPECT_THROW(network_for(c, 3, 1, 7), Error);

  TrainConfig plain;
  const Graph of_volumes = network_for(plain, 3, 2, 5);
  EXPECT_TRUE(to_json(of_volumes) == to_json(unet(plain.network)));  // the whole text of a graph helps nobody in a failure
  EXPECT_EQ(plain.network.spatial_dims, 3);
  EXPECT_EQ(plain.network.classes, 5);
}

TEST(TrainConfig, MissingKeysKeepTheirDefaults) {
  Json want = to_json(TrainConfig{});
  EXPECT_EQ(to_json(train_config_from_json(Json::object(), "c")), want);
  want["optimizer"]["eps"] = 1e-6;
  EXPECT_EQ(to_json(train_config_from_json(Json::parse(R"({"optimizer": {"eps": 1e-6}})"), "c")), want);
}

// The chapter shows a configuration "with all defaults": it must be read, and be just that.
TEST(TrainConfig, TheChaptersSampleIsTheDefault) {
  const std::string text = os::read_text(VG_SOURCE_DIR "/train/README.md");
  const std::size_t begin = text.find("```json\n"), end = text.find("```", begin + 8);
  ASSERT_NE(end, std::string::npos);
  const Json sample = parse_json(text.substr(begin + 8, end - begin - 8), "README.md"), defaults = to_json(TrainConfig{});
  EXPECT_EQ(to_json(train_config_from_json(sample, "README.md")), defaults);
  for (const auto& item : defaults.items()) {
    ASSERT_TRUE(sample.contains(item.key())) << item.key();
    if (item.key() == "network") continue;  // has a chapter of its own
    if (!item.value().is_object()) continue;
    for (const auto& inner : item.value().items())
      EXPECT_TRUE(sample[item.key()].contains(inner.key())) << item.key() << "." << inner.key();
  }
}

TEST(TrainConfig, WhatNobodyKnowsIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"epocs": 3})", "epocs"},
      {R"({"optimizer": {"lr": 3}})", "lr"},
      {R"({"schedule": {"rate": "fast"}})", "rate"},
      {R"({"network": {"feature": [1, 2]}})", "feature"},
      {R"({"network": {"network": "dynamic_unet", "norm": "batch"}})", "norm"},
      {R"({"network": {"network": "dynamic_unet", "blocks": [1, 2]}})", "blocks"},
      {R"({"network": {"network": "dynamic_unet", "features": [2, 4, 8, 8]}})", "features"},
      {R"({"network": {"network": "segresnet"}})", "segresnet"},
      {R"({"augment": {"flip": 1}})", "flip"},
      {R"({"loss": {"ignore": 3}})", "ignore"},
      {R"({"batch": 2.5})", "batch"},
      {R"({"batch": 0})", "batch"},
      {R"({"seed": -1})", "seed"},
      {R"({"foreground": 1.5})", "foreground"},
      {R"({"overlap": 1})", "overlap"},
      {R"({"patch": [1, 2, 3, 4]})", "patch"},
      {R"({"epochs": -1})", "epochs"},
      {R"({"optimizer": []})", "optimizer"},
      {R"([])", "object"},
      {R"({"optimizer": {"kind": "lion"}})", "lion"},
      {R"({"schedule": {"kind": "linear"}})", "linear"},
      {R"({"schedule": {"rate": -1}})", "rate"},
      {R"({"augment": {"noise": 2}})", "noise"},
      {R"({"augment": {"elastic": -1}})", "augment.elastic is -1"},
      {R"({"augment": {"elastic_spacing": 20, "elastic_magnitude": 8.5}})", "elastic_magnitude is 8.5, wanted 0 to 8"},
  };
  for (const auto& [text, word] : cases) {
    const std::string message = refusal(text);
    EXPECT_NE(message.find(word), std::string::npos) << text << " -> " << message;
    EXPECT_NE(message.find("c.json"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace vg

// MeshNet graphs: names and shapes of the published weights, counts, configurations that are refused.
#include <gtest/gtest.h>

#include "layers/json.h"
#include "layers/unet.h"
#include "tests/layers/files.h"

namespace vg {
namespace {

using test::message_of;

std::vector<std::string> names(const Graph& g) {
  std::vector<std::string> all;
  for (const ParamSpec& s : param_specs(g)) all.push_back(s.name + " " + to_string(s.shape));
  return all;
}

TEST(Meshnet, NamesWithoutNorm) {
  const MeshnetConfig c{.classes = 3, .channels = 5, .dilations = {1, 16}, .activation = "relu"};
  EXPECT_EQ(names(meshnet(c)),
            (std::vector<std::string>{"model.0.weight (5, 1, 3, 3, 3)", "model.0.bias (5)", "model.2.weight (5, 5, 3, 3, 3)",
                                      "model.2.bias (5)", "model.4.weight (3, 5, 1, 1, 1)", "model.4.bias (3)"}));
}

TEST(Meshnet, NamesWithNorm) {
  MeshnetConfig c{.classes = 2, .channels = 4, .dilations = {2, 1}, .activation = "gelu", .norm = "instance", .bias = false};
  EXPECT_EQ(names(meshnet(c)), (std::vector<std::string>{"model.0.0.weight (4, 1, 3, 3, 3)", "model.1.0.weight (4, 4, 3, 3, 3)",
                                                         "model.2.weight (2, 4, 1, 1, 1)", "model.2.bias (2)"}));
  c.norm_affine = true;
  EXPECT_EQ(names(meshnet(c)).at(1), "model.0.1.weight (4)");
}

// README of the weights: the number of values of each.
TEST(Meshnet, CountsOfThePublishedNetworks) {
  const auto count = [](MeshnetConfig c) { return plan(meshnet(c), {1, 256, 256, 256, 1}); };
  const std::vector<int> nine = {1, 2, 4, 8, 16, 8, 4, 2, 1};
  const Plan subcortical = count({});
  EXPECT_EQ(subcortical.parameters, 196'038);
  EXPECT_DOUBLE_EQ(subcortical.multiply_adds, (27.0 * 30 + 8 * 27.0 * 30 * 30 + 30 * 18) * (1 << 24));
  EXPECT_EQ(subcortical.outputs.at(0), (Shape{1, 256, 256, 256, 18}));
  EXPECT_EQ(count({.classes = 18, .channels = 21, .dilations = nine}).parameters, 96'408);
  EXPECT_EQ(count({.classes = 3, .channels = 20, .dilations = nine}).parameters, 87'183);
  EXPECT_EQ(count({.classes = 3, .channels = 11, .dilations = {1, 2, 4, 8, 4, 2, 2, 1}, .activation = "relu"}).parameters, 23'290);
  std::vector<int> five;
  for (int i = 0; i < 5; ++i) five.insert(five.end(), {16, 8, 4, 2, 1});
  EXPECT_EQ(count({.classes = 2, .channels = 15, .dilations = five, .activation = "gelu", .norm = "instance", .bias = false}).parameters,
            146'237);
}

TEST(Meshnet, TheGraphSurvivesItsJson) {
  const Graph g =
      meshnet({.classes = 2, .channels = 4, .dilations = {2, 1}, .activation = "elu", .activation_alpha = 0.5f, .norm = "instance"});
  const Json j = to_json(g);
  EXPECT_EQ(to_json(graph_from_json(parse_json(j.dump(), "g"), "g")), j);
  EXPECT_EQ(g.out_channels(), 2);
  EXPECT_EQ(g.divisor(), (std::vector<int>{1, 1, 1}));
}

TEST(Meshnet, ConfigurationsAsJson) {
  const MeshnetConfig c{.in_channels = 2,
                        .classes = 7,
                        .channels = 9,
                        .dilations = {1, 3},
                        .activation = "gelu_tanh",
                        .norm = "instance",
                        .norm_affine = true};
  EXPECT_EQ(to_json(meshnet_config_from_json(to_json(c), "c")), to_json(c));
  EXPECT_EQ(to_json(meshnet_config_from_json({{"network", "meshnet"}}, "c")), to_json(MeshnetConfig{}));
  const auto refused = [](const Json& change) {
    Json j = to_json(MeshnetConfig{});
    j.update(change);
    return message_of(ErrorCode::bad_file, [&] { meshnet_config_from_json(j, "c.json"); });
  };
  EXPECT_NE(refused({{"chanels", 3}}).find("c.json: unknown key \"chanels\" (known: activation,"), std::string::npos);
  EXPECT_NE(refused({{"network", "unet"}}).find("wanted \"meshnet\""), std::string::npos);
  EXPECT_NE(refused({{"channels", 3.5}}).find("\"channels\" is 3.5, wanted an integer"), std::string::npos);
  EXPECT_NE(refused({{"channels", 5'000'000'000}}).find("wanted an integer in range"), std::string::npos);
  EXPECT_NE(refused({{"bias", 1}}).find("wanted true or false"), std::string::npos);
  EXPECT_NE(refused({{"dilations", {1, "2"}}}).find("wanted an integer"), std::string::npos);
  for (const Json& change : std::vector<Json>{{{"channels", 0}},
                                              {{"classes", 100'000}},
                                              {{"dilations", Json::array()}},
                                              {{"dilations", {0}}},
                                              {{"dilations", {1000}}},
                                              {{"activation", "prelu"}},
                                              {{"activation", "tanh"}},
                                              {{"norm", "batch"}},
                                              {{"norm_affine", true}}})
    refused(change);
}

}  // namespace
}  // namespace vg

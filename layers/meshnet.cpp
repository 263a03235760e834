// Builds MeshNet graphs with the parameter names of the published weights (github.com/neuroneural/brainchop): without a norm the modules of one
// flat nn.Sequential, model.{0, 2, 4, ...} (the odd ones are activations); with a norm one Sequential(conv, norm, activation) per block,
// model.{i}.0 and model.{i}.1. The last layer is a 1x1x1 convolution with bias and without activation.
#include <algorithm>

#include "layers/attributes.h"
#include "layers/json.h"
#include "layers/unet.h"

namespace vg {
namespace {

void check(const MeshnetConfig& c) {
  const auto bad = [](const std::string& what) { fail(ErrorCode::invalid_argument, "meshnet: {}", what); };
  if (c.in_channels < 1 || c.classes < 1 || c.channels < 1 || std::max({c.in_channels, c.classes, c.channels}) > 4096)
    bad(fmt::format("in_channels {}, channels {}, classes {}: wanted 1..4096", c.in_channels, c.channels, c.classes));
  if (c.dilations.empty() || c.dilations.size() > 200) bad(fmt::format("{} dilations, wanted 1..200", c.dilations.size()));
  for (const int d : c.dilations)
    if (d < 1 || d > 512) bad(fmt::format("dilations holds {}, wanted 1..512", d));
  if (activation_kind(c.activation) == ActivationKind::prelu) bad("activation prelu: its slopes have no name in this family");
  if (c.norm != "none" && c.norm != "instance") bad("norm \"" + c.norm + "\" (known: none, instance)");
  if (c.norm == "none" && c.norm_affine) bad("norm_affine without a norm");
}

}  // namespace

Graph meshnet(const MeshnetConfig& c) {
  check(c);
  const Json activation = to_json(Activation{activation_kind(c.activation), c.activation_alpha});
  const bool normed = c.norm != "none";
  Graph g;
  g.spatial_dims = 3;
  g.in_channels = c.in_channels;
  std::string x = "input";
  const auto add = [&](const std::string& name, const std::string& op, std::map<std::string, std::string> params, Json attributes) {
    g.nodes.push_back({name, op, {x}, std::move(params), std::move(attributes)});
    x = name;
  };
  for (std::size_t i = 0; i < c.dilations.size(); ++i) {
    const std::string block = fmt::format("model.{}", normed ? i : 2 * i), conv = normed ? block + ".0" : block, norm = block + ".1";
    const int d = c.dilations[i];
    std::map<std::string, std::string> params = {{"weight", conv + ".weight"}};
    if (c.bias) params["bias"] = conv + ".bias";
    Json attributes = {{"channels", c.channels}, {"kernel", {3, 3, 3}}, {"dilation", {d, d, d}}, {"pad", {d, d, d}}};
    if (!normed) attributes["activation"] = activation;
    add(conv, "conv", std::move(params), std::move(attributes));
    if (!normed) continue;
    params.clear();
    if (c.norm_affine) params = {{"weight", norm + ".weight"}, {"bias", norm + ".bias"}};
    add(norm, "norm", std::move(params), {{"kind", "instance"}, {"activation", activation}});
  }
  const std::string last = fmt::format("model.{}", normed ? c.dilations.size() : 2 * c.dilations.size());
  add(last, "conv", {{"weight", last + ".weight"}, {"bias", last + ".bias"}}, {{"channels", c.classes}, {"kernel", {1, 1, 1}}});
  g.outputs = {last};
  return g;
}

Json to_json(const MeshnetConfig& c) {
  return {{"network", "meshnet"},
          {"in_channels", c.in_channels},
          {"classes", c.classes},
          {"channels", c.channels},
          {"dilations", c.dilations},
          {"activation", c.activation},
          {"activation_alpha", c.activation_alpha},
          {"norm", c.norm},
          {"norm_affine", c.norm_affine},
          {"bias", c.bias}};
}

MeshnetConfig meshnet_config_from_json(const Json& j, const std::string& where) {
  MeshnetConfig c;
  JsonFields f(j, where);
  if (f.get<std::string>("network") != "meshnet")
    fail(ErrorCode::bad_file, "{}: network is {}, wanted \"meshnet\"", where, j["network"].dump());
  f.get_to("in_channels", c.in_channels);
  f.get_to("classes", c.classes);
  f.get_to("channels", c.channels);
  f.get_to("dilations", c.dilations);
  f.get_to("activation", c.activation);
  f.get_to("activation_alpha", c.activation_alpha);
  f.get_to("norm", c.norm);
  f.get_to("norm_affine", c.norm_affine);
  f.get_to("bias", c.bias);
  f.done([&] { check(c); });
  return c;
}

}  // namespace vg

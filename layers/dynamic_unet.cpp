// Builds DynamicUnet graphs with the names and the arithmetic of fastai 2.7 (vision/models/unet.py, norm_type None: convolutions of the decoder
// have a bias and no norm). The numbers in the names count fastai's modules:
//   layers.0  encoder: 0 conv 7x7/2, 1 norm, 2 relu, 3 max pool 3x3/2, 4... stages of basic blocks      layers.1, 2  norm, relu
//   layers.3  conv to twice the width and back      layers.4 ... one block per skip      then: pixel shuffle, (resize), concat with the input,
//   residual block, 1x1 convolution. Parity is tested in tests/train/unet_golden_test.cpp.
#include "layers/dynamic_unet.h"

#include <algorithm>

#include "layers/json.h"

namespace vg {
namespace {

Json plane(int d, int size) { return Json::array({d, size, size}); }

struct Builder {
  Graph graph;

  std::string node(const std::string& name, const std::string& op, std::vector<std::string> inputs,
                   std::map<std::string, std::string> params, Json attributes) {
    graph.nodes.push_back({name, op, std::move(inputs), std::move(params), std::move(attributes)});
    return name;
  }

  // The encoder's: no bias, and torchvision's initial values.
  std::string encoder_conv(const std::string& name, const std::string& x, int channels, int kernel, int stride) {
    return node(name, "conv", {x}, {{"weight", name + ".weight"}},
                {{"channels", channels},
                 {"kernel", plane(1, kernel)},
                 {"stride", plane(1, stride)},
                 {"pad", plane(0, kernel / 2)},
                 {"init", "kaiming_normal_out"}});
  }

  // The decoder's, with a bias; relu or nothing follows.
  std::string conv(const std::string& name, std::vector<std::string> inputs, int channels, int kernel, bool relu, const Json& init) {
    Json a = {{"channels", channels}, {"kernel", plane(1, kernel)}, {"pad", plane(0, kernel / 2)}};
    a.update(init);
    if (relu) a["activation"] = "relu";
    return node(name, "conv", std::move(inputs), {{"weight", name + ".weight"}, {"bias", name + ".bias"}}, std::move(a));
  }
  std::string conv_relu(const std::string& name, std::vector<std::string> inputs, int channels) {
    return conv(name, std::move(inputs), channels, 3, true, {{"init", "kaiming_normal"}});
  }

  std::string norm(const std::string& name, const std::string& x, bool relu) {
    Json a = {{"kind", "batch"}};
    if (relu) a["activation"] = "relu";
    return node(name, "norm", {x},
                {{"weight", name + ".weight"},
                 {"bias", name + ".bias"},
                 {"running_mean", name + ".running_mean"},
                 {"running_var", name + ".running_var"}},
                std::move(a));
  }

  std::string add_relu(const std::string& name, const std::string& a, const std::string& b) {
    return node(name + ".relu", "activation", {node(name + ".add", "add", {a, b}, {}, Json::object())}, {}, {{"kind", "relu"}});
  }

  // torchvision's BasicBlock
  std::string basic_block(const std::string& name, const std::string& x, int in_channels, int channels, int stride) {
    std::string y = norm(name + ".bn1", encoder_conv(name + ".conv1", x, channels, 3, stride), true), skip = x;
    y = norm(name + ".bn2", encoder_conv(name + ".conv2", y, channels, 3, 1), false);
    if (stride != 1 || in_channels != channels)
      skip = norm(name + ".downsample.1", encoder_conv(name + ".downsample.0", x, channels, 1, stride), false);
    return add_relu(name, y, skip);
  }

  // Twice the extents, but no more than `like` has. All four children of a voxel begin equal (ICNR).
  std::string shuffle(const std::string& name, const std::string& x, const std::string& like, int channels, bool blur) {
    std::string y = conv(name + ".0.0", {x}, 4 * channels, 1, true, {{"init", "kaiming_normal"}, {"init_equal", 4}});
    y = node(name + ".1", "pixel_shuffle", {y, like}, {}, {{"factor", plane(1, 2)}});
    return blur ? node(name + ".3", "blur", {y}, {}, {{"kernel", plane(1, 2)}}) : y;
  }
};

void check(const DynamicUnetConfig& c) {
  const auto bad = [](const std::string& what) { fail(ErrorCode::invalid_argument, "dynamic_unet: {}", what); };
  if (c.in_channels < 1 || c.in_channels > 4096 || c.classes < 1 || c.classes > 65536)
    bad(fmt::format("in_channels {}, classes {}: wanted 1..4096 and 1..65536", c.in_channels, c.classes));
  if (c.features.size() < 2 || c.features.size() > 8) bad(fmt::format("{} stages, wanted 2..8", c.features.size()));
  if (c.blocks.size() != c.features.size()) bad(fmt::format("blocks has {} entries for {} stages", c.blocks.size(), c.features.size()));
  for (const int f : c.features)
    if (f < 4 || f > 4096) bad(fmt::format("features holds {}, wanted 4..4096", f));
  for (const int b : c.blocks)
    if (b < 1 || b > 64) bad(fmt::format("blocks holds {}, wanted 1..64", b));
}

}  // namespace

Graph dynamic_unet(const DynamicUnetConfig& c) {
  check(c);
  Builder b;
  b.graph.spatial_dims = 2, b.graph.in_channels = c.in_channels;
  const std::size_t stages = c.features.size();

  std::string x = b.norm("layers.0.1", b.encoder_conv("layers.0.0", "input", c.features[0], 7, 2), true);
  std::vector<std::string> skips = {x};  // before each halving
  std::vector<int> skip_channels = {c.features[0]};
  int channels = c.features[0];
  x = b.node("layers.0.3", "max_pool", {x}, {}, {{"kernel", plane(1, 3)}, {"stride", plane(1, 2)}, {"pad", plane(0, 1)}});
  for (std::size_t s = 0; s < stages; ++s) {
    for (int i = 0; i < c.blocks[s]; ++i) {
      x = b.basic_block(fmt::format("layers.0.{}.{}", 4 + s, i), x, channels, c.features[s], s > 0 && i == 0 ? 2 : 1);
      channels = c.features[s];
    }
    if (s + 1 < stages) skips.push_back(x), skip_channels.push_back(channels);
  }

  x = b.norm("layers.1", x, true);
  x = b.conv_relu("layers.3.1.0", {b.conv_relu("layers.3.0.0", {x}, 2 * channels)}, channels);
  for (std::size_t i = 0; i < stages; ++i) {
    const std::string name = fmt::format("layers.{}", 4 + i), &skip = skips[stages - 1 - i];
    const bool last = i + 1 == stages;
    const int up = channels / 2, both = up + skip_channels[stages - 1 - i];
    const std::string fine = b.shuffle(name + ".shuf", x, skip, up, c.blur && (!last || c.blur_final));
    // relu([up, norm(skip)]) of the definition: `up` has passed a relu (and a mean) already.
    channels = last ? both / 2 : both;
    x = b.conv_relu(name + ".conv1.0", {fine, b.norm(name + ".bn", skip, true)}, channels);
    x = b.conv_relu(name + ".conv2.0", {x}, channels);
  }

  const auto layer = [&](std::size_t k) { return fmt::format("layers.{}", 4 + stages + k); };
  x = b.node(layer(2), "concat", {b.shuffle(layer(0), x, "input", channels, false), "input"}, {}, Json::object());
  channels += c.in_channels;
  const std::string path = b.conv_relu(layer(3) + ".convpath.0.0", {x}, channels);
  x = b.add_relu(layer(3), b.conv(layer(3) + ".convpath.1.0", {path}, channels, 3, false, {{"init", "kaiming_normal"}}), x);
  b.graph.outputs = {b.conv(layer(4) + ".0", {x}, c.classes, 1, false, Json::object())};
  return std::move(b.graph);
}

Json to_json(const DynamicUnetConfig& c) {
  return {{"network", "dynamic_unet"}, {"in_channels", c.in_channels}, {"classes", c.classes},
          {"features", c.features},    {"blocks", c.blocks},           {"blur", c.blur},
          {"blur_final", c.blur_final}};
}

DynamicUnetConfig dynamic_unet_config_from_json(const Json& j, const std::string& where) {
  DynamicUnetConfig c;
  JsonFields f(j, where);
  if (f.get<std::string>("network") != "dynamic_unet")
    fail(ErrorCode::bad_file, "{}: network is {}, wanted \"dynamic_unet\"", where, j["network"].dump());
  f.get_to("in_channels", c.in_channels), f.get_to("classes", c.classes), f.get_to("features", c.features), f.get_to("blocks", c.blocks);
  f.get_to("blur", c.blur), f.get_to("blur_final", c.blur_final);
  f.done([&] { check(c); });
  return c;
}

}  // namespace vg

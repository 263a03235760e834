// Builds U-Net graphs with the names and the arithmetic of MONAI's DynUNet (the plain nnU-Net) and MONAI's UNet (strided first level, residual
// units, PReLU). Parity with both is tested in tests/train/unet_golden_test.cpp.
#include "layers/unet.h"

#include <algorithm>
#include <array>

#include "layers/attributes.h"
#include "layers/json.h"

namespace vg {
namespace {

using Axes = std::array<int, 3>;  // D, H, W

Json json_of(const Axes& a) { return Json::array({a[0], a[1], a[2]}); }

// One entry per spatial axis, or one number for all; a 2-D network has D = 1.
Axes axes_of(const std::vector<int>& v, int spatial_dims, const std::string& what) {
  if (v.size() != 1 && v.size() != static_cast<std::size_t>(spatial_dims))
    fail(ErrorCode::invalid_argument, "unet: {} has {} entries, wanted {}", what, v.size(), spatial_dims);
  Axes a = {1, 1, 1};
  for (int i = 0; i < spatial_dims; ++i) a[static_cast<std::size_t>(3 - spatial_dims + i)] = v[v.size() == 1 ? 0 : static_cast<std::size_t>(i)];
  for (int e : a)
    if (e < 1 || e > 64) fail(ErrorCode::invalid_argument, "unet: {} holds {}, wanted 1..64", what, e);
  return a;
}

// Appends nodes; every method returns the name of the node that it made.
class Builder {
 public:
  Builder(const UnetConfig& config) : c_(config) { graph.spatial_dims = c_.spatial_dims, graph.in_channels = c_.in_channels; }

  Graph graph;

  std::string conv(const std::string& name, std::vector<std::string> inputs, int channels, const Axes& kernel, const Axes& stride, const Axes& pad, bool bias,
                   bool transposed = false, const Axes& pad_high_less = {0, 0, 0}) {
    Json a = {{"channels", channels}, {"kernel", json_of(kernel)}, {"stride", json_of(stride)}, {"pad", json_of(pad)}};
    if (pad_high_less != Axes{0, 0, 0}) a["pad_high"] = json_of({pad[0] - pad_high_less[0], pad[1] - pad_high_less[1], pad[2] - pad_high_less[2]});
    if (c_.style == "dynunet") a["init"] = "kaiming_normal", a["init_a"] = 0.01;
    std::map<std::string, std::string> params = {{"weight", name + ".weight"}};
    if (bias) params["bias"] = name + ".bias";
    return node(name, transposed ? "conv_transpose" : "conv", std::move(inputs), std::move(params), std::move(a));
  }

  // Norm and activation; `act` false: the norm alone. Names as PyTorch's modules would have them.
  std::string norm_act(const std::string& norm_name, const std::string& act_name, std::string x, bool act = true) {
    const bool prelu = c_.activation == "prelu";
    const Activation f{activation_kind(c_.activation), c_.activation_alpha};
    if (c_.norm != "none") {
      Json a = {{"kind", c_.norm}};
      if (act && !prelu) a["activation"] = to_json(f);
      std::map<std::string, std::string> params;
      if (c_.norm_affine) params = {{"weight", norm_name + ".weight"}, {"bias", norm_name + ".bias"}};
      if (c_.norm == "batch") params["running_mean"] = norm_name + ".running_mean", params["running_var"] = norm_name + ".running_var";
      x = node(norm_name, "norm", {x}, std::move(params), std::move(a));
      if (!prelu) return x;
    }
    return act ? activate(act_name, x) : x;
  }

  std::string activate(const std::string& name, const std::string& x) {
    const Activation f{activation_kind(c_.activation), c_.activation_alpha};
    if (f.kind == ActivationKind::prelu) return node(name, "activation", {x}, {{"weight", name + ".weight"}}, {{"kind", "prelu"}});
    Json a = {{"kind", name_of(f.kind)}};
    if (f.kind == ActivationKind::leaky_relu || f.kind == ActivationKind::elu) a["alpha"] = f.alpha;
    return node(name, "activation", {x}, {}, std::move(a));
  }

  std::string node(const std::string& name, const std::string& op, std::vector<std::string> inputs, std::map<std::string, std::string> params = {},
                   Json attributes = Json::object()) {
    graph.nodes.push_back({name, op, std::move(inputs), std::move(params), std::move(attributes)});
    return name;
  }

 private:
  const UnetConfig& c_;
};

// MONAI's get_padding: (kernel - stride + 1) / 2, rounded down.
Axes same_pad(const Axes& kernel, const Axes& stride) {
  Axes p;
  for (std::size_t i = 0; i < 3; ++i) {
    p[i] = (kernel[i] - stride[i] + 1) / 2;
    require(kernel[i] + 1 >= stride[i], "unet: stride {} is too large for kernel {}", stride[i], kernel[i]);
  }
  return p;
}

// -------------------------------------------------------------------------------------------- DynUNet: the plain nnU-Net
// encoder level l: conv(stride) norm act, conv norm act ...; decoder: transposed convolution, [up, skip], the same block; 1x1 head.

std::string dyn_block(Builder& b, const UnetConfig& c, const std::string& name, const std::vector<std::string>& inputs, int in_channels, int channels,
                      const Axes& kernel, const Axes& stride, bool residual) {
  const Axes one = {1, 1, 1};
  std::string x;
  for (int i = 1; i <= c.convs_per_stage; ++i) {
    const std::string k = std::to_string(i);
    const Axes& s = i == 1 ? stride : one;
    x = b.conv(name + ".conv" + k + ".conv", i == 1 ? inputs : std::vector<std::string>{x}, channels, kernel, s, same_pad(kernel, s), false);
    x = b.norm_act(name + ".norm" + k, name + ".lrelu" + k, x, !(residual && i == c.convs_per_stage));
  }
  if (!residual) return x;
  std::string skip = inputs[0];
  if (in_channels != channels || stride != one) {
    skip = b.conv(name + ".conv3.conv", {skip}, channels, one, stride, {0, 0, 0}, false);
    skip = b.norm_act(name + ".norm3", "", skip, false);
  }
  return b.activate(name + ".lrelu", b.node(name + ".add", "add", {x, skip}));
}

Graph dynunet(const UnetConfig& c, const std::vector<Axes>& kernels, const std::vector<Axes>& strides) {
  Builder b(c);
  const std::size_t levels = c.features.size();
  const Axes one = {1, 1, 1};
  std::vector<std::string> skips;
  std::string x = "input";
  for (std::size_t l = 0; l < levels; ++l) {
    const std::string name = l == 0 ? "input_block" : l + 1 == levels ? "bottleneck" : "downsamples." + std::to_string(l - 1);
    x = dyn_block(b, c, name, {x}, l == 0 ? c.in_channels : c.features[l - 1], c.features[l], kernels[l], strides[l], c.residual_units > 0);
    skips.push_back(x);
  }
  std::vector<std::string> at_level(levels);  // what the deep-supervision heads read
  for (std::size_t l = levels - 1; l-- > 0;) {
    const std::string name = "upsamples." + std::to_string(levels - 2 - l);
    std::string up;
    if (c.upsampling == "transpose") {
      up = b.conv(name + ".transp_conv.conv", {x}, c.features[l], strides[l + 1], strides[l + 1], {0, 0, 0}, false, true);
    } else {
      up = b.node(name + ".upsample", "upsample", {x}, {}, {{"factor", json_of(strides[l + 1])}, {"mode", c.upsampling}});
      up = b.conv(name + ".up_conv.conv", {up}, c.features[l], one, one, {0, 0, 0}, false);
    }
    x = dyn_block(b, c, name + ".conv_block", {up, skips[l]}, 2 * c.features[l], c.features[l], kernels[l + 1], one, false);
    at_level[l] = x;
  }
  b.graph.outputs.push_back(b.conv("output_block.conv.conv", {x}, c.classes, one, one, {0, 0, 0}, true));
  for (int h = 0; h < c.deep_supervision; ++h)
    b.graph.outputs.push_back(b.conv(fmt::format("deep_supervision_heads.{}.conv.conv", h), {at_level[static_cast<std::size_t>(h) + 1]}, c.classes, one, one,
                                     {0, 0, 0}, true));
  return std::move(b.graph);
}

// ------------------------------------------------------------------------------------------------------------- MONAI UNet
// level: down (strided) -> the level below, concatenated as [skip, below] -> up (transposed, strided); the names nest as its modules do.

struct MonaiUnet {
  const UnetConfig& c;
  const std::vector<Axes>& kernels;
  const std::vector<Axes>& strides;
  Builder b;

  // One convolution with its norm and activation.
  std::string unit(const std::string& name, const std::string& x, int channels, const Axes& kernel, const Axes& stride, bool conv_only) {
    const std::string y = b.conv(name + ".conv", {x}, channels, kernel, stride, same(kernel), true);
    return conv_only ? y : b.norm_act(name + ".adn.N", name + ".adn.A", y);
  }
  static Axes same(const Axes& kernel) { return {(kernel[0] - 1) / 2, (kernel[1] - 1) / 2, (kernel[2] - 1) / 2}; }

  std::string residual_unit(const std::string& name, const std::string& x, int in_channels, int channels, const Axes& kernel, const Axes& stride, int subunits,
                            bool last_conv_only) {
    const Axes one = {1, 1, 1};
    std::string y = x;
    for (int i = 0; i < subunits; ++i)
      y = unit(fmt::format("{}.conv.unit{}", name, i), y, channels, kernel, i == 0 ? stride : one, last_conv_only && i == subunits - 1);
    std::string skip = x;
    if (stride != one)
      skip = b.conv(name + ".residual", {x}, channels, kernel, stride, same(kernel), true);
    else if (in_channels != channels)
      skip = b.conv(name + ".residual", {x}, channels, one, one, {0, 0, 0}, true);
    return b.node(name + ".add", "add", {y, skip});
  }

  std::string down(const std::string& name, const std::string& x, int in_channels, int channels, const Axes& kernel, const Axes& stride) {
    if (c.residual_units > 0) return residual_unit(name, x, in_channels, channels, kernel, stride, c.residual_units, false);
    return unit(name, x, channels, kernel, stride, false);
  }

  std::string up(const std::string& name, const std::string& x, int channels, const Axes& kernel, const Axes& stride, bool top) {
    const std::string conv_name = c.residual_units > 0 ? name + ".0" : name;
    const Axes extra = {stride[0] - 1, stride[1] - 1, stride[2] - 1};  // PyTorch's output_padding: the upper pad shrinks by it
    std::string y = b.conv(conv_name + ".conv", {x}, channels, kernel, stride, same(kernel), true, true, extra);
    if (!(top && c.residual_units == 0)) y = b.norm_act(conv_name + ".adn.N", conv_name + ".adn.A", y);
    return c.residual_units > 0 ? residual_unit(name + ".1", y, channels, channels, kernel, {1, 1, 1}, 1, top) : y;
  }

  // The block for `level` and all below it: input -> output with `out` channels.
  std::string block(const std::string& name, std::size_t level, const std::string& x, int in_channels, int out) {
    const int channels = c.features[level];
    const std::string d = down(name + ".0", x, in_channels, channels, kernels[level], strides[level]);
    const std::string inner = name + ".1.submodule";
    const bool next_is_bottom = level + 2 == c.features.size();
    const std::string below = next_is_bottom ? down(inner, d, channels, c.features[level + 1], kernels[level + 1], {1, 1, 1})
                                             : block(inner, level + 1, d, channels, channels);
    return up(name + ".2", b.node(name + ".1", "concat", {d, below}), out, kernels[level], strides[level], level == 0);
  }
};

void check(const UnetConfig& c) {
  const auto bad = [](const std::string& what) { fail(ErrorCode::invalid_argument, "unet: {}", what); };
  if (c.spatial_dims != 2 && c.spatial_dims != 3) bad(fmt::format("spatial_dims is {}, wanted 2 or 3", c.spatial_dims));
  if (c.in_channels < 1 || c.classes < 1) bad(fmt::format("in_channels {}, classes {}: wanted at least 1", c.in_channels, c.classes));
  if (c.style != "dynunet" && c.style != "unet") bad("style \"" + c.style + "\" (known: dynunet, unet)");
  if (c.features.size() < 2 || c.features.size() > 12) bad(fmt::format("{} levels, wanted 2..12", c.features.size()));
  for (int f : c.features)
    if (f < 1 || f > 4096) bad(fmt::format("features holds {}, wanted 1..4096", f));
  if (c.convs_per_stage < 1 || c.residual_units < 0) bad("convs_per_stage must be at least 1, residual_units at least 0");
  if (c.norm != "instance" && c.norm != "batch" && c.norm != "none") bad("norm \"" + c.norm + "\" (known: instance, batch, none)");
  if (c.upsampling != "transpose" && c.upsampling != "nearest" && c.upsampling != "linear") bad("upsampling \"" + c.upsampling + "\"");
  if (c.style == "unet" && c.upsampling != "transpose") bad("style \"unet\" upsamples by transposed convolution only");
  if (c.style == "unet" && c.deep_supervision > 0) bad("deep supervision wants style \"dynunet\"");
  if (c.style == "dynunet" && c.residual_units > 0 && c.convs_per_stage != 2) bad("residual blocks have two convolutions");
  if (c.style == "dynunet" && c.activation == "prelu" && c.residual_units > 0) bad("residual blocks share one activation: prelu cannot be it");
  if (c.deep_supervision < 0 || c.deep_supervision > static_cast<int>(c.features.size()) - 2)
    bad(fmt::format("deep_supervision is {}, wanted 0..{}", c.deep_supervision, c.features.size() - 2));
  activation_kind(c.activation);
}

}  // namespace

Graph unet(const UnetConfig& c) {
  check(c);
  const bool monai = c.style == "unet";
  const std::size_t levels = c.features.size(), strided = monai ? levels - 1 : levels;
  std::vector<Axes> kernels(levels, axes_of({3}, c.spatial_dims, "kernel")), strides(strided, axes_of({2}, c.spatial_dims, "stride"));
  if (!monai) strides[0] = {1, 1, 1};
  if (!c.kernels.empty()) {
    require(c.kernels.size() == levels, "unet: {} kernels for {} levels", c.kernels.size(), levels);
    for (std::size_t l = 0; l < levels; ++l) kernels[l] = axes_of(c.kernels[l], c.spatial_dims, "kernels");
  }
  if (!c.strides.empty()) {
    require(c.strides.size() == strided, "unet: {} strides, wanted {}", c.strides.size(), strided);
    for (std::size_t l = 0; l < strided; ++l) strides[l] = axes_of(c.strides[l], c.spatial_dims, "strides");
  }
  if (!monai) return dynunet(c, kernels, strides);
  MonaiUnet m{c, kernels, strides, Builder(c)};
  m.b.graph.outputs.push_back(m.block("model", 0, "input", c.in_channels, c.classes));
  return std::move(m.b.graph);
}

Json to_json(const UnetConfig& c) {
  return {{"network", "unet"}, {"spatial_dims", c.spatial_dims}, {"in_channels", c.in_channels}, {"classes", c.classes}, {"style", c.style},
          {"features", c.features}, {"kernels", c.kernels}, {"strides", c.strides}, {"convs_per_stage", c.convs_per_stage}, {"norm", c.norm},
          {"norm_affine", c.norm_affine}, {"activation", c.activation}, {"activation_alpha", c.activation_alpha}, {"residual_units", c.residual_units},
          {"upsampling", c.upsampling}, {"deep_supervision", c.deep_supervision}};
}

UnetConfig unet_config_from_json(const Json& j, const std::string& where) {
  UnetConfig c;
  JsonFields f(j, where);
  if (f.has("network") && f.get<std::string>("network") != "unet") fail(ErrorCode::bad_file, "{}: network is {}, wanted \"unet\"", where, f.json("network").dump());
  f.get_to("spatial_dims", c.spatial_dims), f.get_to("in_channels", c.in_channels), f.get_to("classes", c.classes), f.get_to("style", c.style);
  f.get_to("features", c.features), f.get_to("kernels", c.kernels), f.get_to("strides", c.strides), f.get_to("convs_per_stage", c.convs_per_stage);
  f.get_to("norm", c.norm), f.get_to("norm_affine", c.norm_affine), f.get_to("activation", c.activation);
  f.get_to("activation_alpha", c.activation_alpha), f.get_to("residual_units", c.residual_units), f.get_to("upsampling", c.upsampling);
  f.get_to("deep_supervision", c.deep_supervision);
  f.done([&] { check(c); });
  return c;
}

}  // namespace vg

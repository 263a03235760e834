// The graph's "conv" and "conv_transpose".
//   attributes: channels (outputs), kernel, stride, dilation, pad, pad_high (default: pad) as [D, H, W]; activation (conv only);
//               init: "pytorch" (uniform +-1/sqrt(fan_in)), or "kaiming_normal" or "kaiming_normal_out" (by fan_out) with init_a (biases then 0);
//               init_equal: so many neighbouring output channels begin equal (ICNR in front of a pixel shuffle)
//   parameters: weight, optionally bias          inputs: x, and for conv optionally a second one whose channels follow x's
#include "kernels/conv_plan.h"
#include "layers/attributes.h"

namespace vg {
namespace {

struct ConvNode {
  std::int64_t channels;
  std::int32_t kernel[3];
  ConvOptions options;
  std::string init;
  float init_a;
  std::int64_t init_equal;
};

ConvNode read(const Node& node, bool transposed) {
  Attributes a(node);
  ConvNode c{};
  c.channels = a.whole_number("channels", 0);
  a.axes("kernel", c.kernel, 1);
  a.axes("stride", c.options.stride, 1);
  a.axes("dilation", c.options.dilation, 1);
  a.axes("pad", c.options.pad_low, 0);
  a.axes("pad_high", c.options.pad_high, 0);
  if (!node.attributes.contains("pad_high")) std::copy_n(c.options.pad_low, 3, c.options.pad_high);
  if (!transposed) c.options.activation = a.activation();
  c.init = a.text("init", "pytorch");
  c.init_a = static_cast<float>(a.number("init_a", 0.0));
  c.init_equal = a.whole_number("init_equal", 1);
  a.done();
  a.roles({"weight"}, {"bias"});
  const bool init_ok = (c.init == "pytorch" || c.init == "kaiming_normal" || c.init == "kaiming_normal_out") && c.init_equal >= 1 && (!transposed || c.init_equal == 1);
  const bool kernel_ok = c.kernel[0] > 0 && c.kernel[1] > 0 && c.kernel[2] > 0;
  if (c.channels < 1 || c.channels > 1 << 20 || !kernel_ok || c.options.activation.kind == ActivationKind::prelu || !init_ok)
    fail(ErrorCode::bad_file, "node {}: channels {}, kernel {}x{}x{}, activation {}, init \"{}\" of {} equal: not a convolution that we know", node.name, c.channels,
         c.kernel[0], c.kernel[1], c.kernel[2], name_of(c.options.activation.kind), c.init, c.init_equal);
  return c;
}

// One or two inputs, of the same extents; the pair as one shape.
Shape joined(const Node& node, std::span<const Shape> in, std::size_t most) {
  require(in.size() >= 1 && in.size() <= most, "{} inputs, wanted at most {}", in.size(), most);
  Shape x = in[0];
  if (in.size() == 2) {
    for (int a = 0; a < 4; ++a) require(in[1][a] == x[a], "node {}: inputs {} and {}; only channels may differ", node.name, to_string(x), to_string(in[1]));
    x[4] += in[1].c();
  }
  return x;
}

Shape weight_shape(const ConvNode& c, std::int64_t in, bool transposed) {
  const std::int64_t first = transposed ? in : c.channels, second = transposed ? c.channels : in;
  return {first, second, c.kernel[0], c.kernel[1], c.kernel[2]};
}

template <bool transposed>
Shape shape(const Node& node, std::span<const Shape> in) {
  const ConvNode c = read(node, transposed);
  const Shape x = joined(node, in, transposed ? 1 : 2), w = weight_shape(c, x.c(), transposed);
  return transposed ? conv_transpose_shape(x, w, c.options) : conv_shape(x, w, c.options);
}

template <bool transposed>
std::vector<ParamSpec> params(const Node& node, std::span<const Shape> in) {
  const ConvNode c = read(node, transposed);
  const Shape w = weight_shape(c, joined(node, in, 2).c(), transposed);
  const std::int64_t fan_in = w[1] * w[2] * w[3] * w[4];
  Init weight{.kind = Init::Kind::fan_in_uniform, .value = 0.0f, .fan_in = fan_in}, bias = weight;
  if (c.init != "pytorch") weight.kind = Init::Kind::kaiming_normal, weight.value = c.init_a, bias = Init{};
  if (c.init == "kaiming_normal_out") weight.fan_in = w[0] * w[2] * w[3] * w[4];
  weight.equal = c.init_equal;
  std::vector<ParamSpec> specs = {{node.params.at("weight"), w, weight, true}};
  if (node.params.count("bias")) specs.push_back({node.params.at("bias"), {c.channels}, bias, true});
  return specs;
}

template <bool transposed>
Value run(Context& ctx, const Node& node, std::vector<Value> in, const NodeParams& p) {
  ConvNode c = read(node, transposed);
  if constexpr (transposed) {
    return conv_transpose(ctx, std::move(in[0]), p.at("weight"), p.find("bias"), c.options);
  } else {
    const Activation f = c.options.activation;
    const bool after = ctx.tape && !recorded_in_conv(f);  // backward needs the value before
    if (after) c.options.activation = Activation{};
    if (p.reader && p.reader->op == "norm" && f.kind == ActivationKind::identity) {
      const NormNode norm = read_norm(*p.reader);
      if (!norm.batch || ctx.training) c.options.norm = norm.batch ? ConvOptions::Norm::batch : ConvOptions::Norm::instance;
      c.options.norm_eps = norm.params.eps;
    }
    Value y = conv(ctx, in[0], in.size() > 1 ? in[1] : Value{}, p.at("weight"), p.find("bias"), c.options);
    in.clear();
    return after ? activation(ctx, std::move(y), nullptr, f) : y;
  }
}

template <bool transposed>
OpCost cost(const Node& node, std::span<const Shape> in, const Shape& y, const ConvAlgorithm& allowed) {
  const ConvNode c = read(node, transposed);
  const Shape x = joined(node, in, 2), w = weight_shape(c, x.c(), transposed);
  const double taps = static_cast<double>(c.kernel[0]) * c.kernel[1] * c.kernel[2];
  OpCost result;
  result.multiply_adds = taps * static_cast<double>(x.c()) * static_cast<double>(c.channels) * static_cast<double>((transposed ? x : y).voxels() * y.n());
  ConvParams p;
  std::copy_n(c.options.stride, 3, p.stride), std::copy_n(c.options.dilation, 3, p.dilation), std::copy_n(c.options.pad_low, 3, p.pad);
  // A transposed convolution is the convolution from y to x run backwards.
  const Shape &fine = transposed ? y : x, &coarse = transposed ? x : y;
  constexpr ConvPass kPasses[] = {ConvPass::forward, ConvPass::data, ConvPass::weight}, kTransposed[] = {ConvPass::data, ConvPass::forward, ConvPass::weight};
  for (std::size_t i = 0; i < 3; ++i) {
    const ConvPass pass = (transposed ? kTransposed : kPasses)[i];
    result.algorithm[i] = conv_algorithm(pass, coarse, fine, w, p, allowed);
    result.speed[i] = conv_speed(result.algorithm[i], pass, w);
  }
  const std::size_t forward = conv_forward_scratch(coarse, fine, w, p, allowed), data = conv_backward_data_scratch(fine, coarse, w, p, allowed);
  result.scratch_bytes = transposed ? data : forward, result.backward_scratch_bytes = transposed ? forward : data;
  // Unless its gradient can be had from the value after it, the activation is a step of its own on a tape: the value before is kept.
  if (!recorded_in_conv(c.options.activation)) result.saved_bytes = static_cast<double>(y.elements()) * 4;
  result.frees_inputs = true;
  return result;
}

VG_OP(conv, {"conv", shape<false>, params<false>, run<false>, cost<false>});
VG_OP(conv_transpose, {"conv_transpose", shape<true>, params<true>, run<true>, cost<true>});

}  // namespace
}  // namespace vg

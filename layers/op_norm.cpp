// The graph's "norm".
//   attributes: kind ("instance" or "batch"), eps, momentum (batch), activation
//   parameters: weight and bias (both or neither), running_mean and running_var (batch)
#include "layers/attributes.h"

namespace vg {
NormNode read_norm(const Node& node) {
  Attributes a(node);
  const std::string kind = a.text("kind", "instance");
  NormNode n{.batch = kind == "batch", .momentum = static_cast<float>(a.number("momentum", 0.1)), .params = {}};
  n.params.eps = static_cast<float>(a.number("eps", 1e-5));
  n.params.activation = a.activation();
  a.done();
  if (kind != "batch" && kind != "instance") fail(ErrorCode::bad_file, "node {}: norm kind \"{}\" (known: instance, batch)", node.name, kind);
  if (n.params.activation.kind == ActivationKind::prelu) fail(ErrorCode::bad_file, "node {}: prelu has parameters: it is a node of its own", node.name);
  if (node.params.count("weight") != node.params.count("bias")) fail(ErrorCode::bad_file, "node {}: norm wants weight and bias, or neither", node.name);
  if (n.batch)
    a.roles({"running_mean", "running_var"}, {"weight", "bias"});
  else
    a.roles({}, {"weight", "bias"});
  return n;
}

namespace {

Shape shape(const Node& node, std::span<const Shape> in) {
  read_norm(node);
  require(in.size() == 1, "{} inputs, wanted one", in.size());
  return in[0];
}

std::vector<ParamSpec> params(const Node& node, std::span<const Shape> in) {
  const NormNode n = read_norm(node);
  const Shape channels = {in[0].c()};
  const Init zero, one{.kind = Init::Kind::constant, .value = 1.0f, .fan_in = 0};
  std::vector<ParamSpec> specs;
  if (node.params.count("weight")) specs.push_back({node.params.at("weight"), channels, one, true});
  if (node.params.count("bias")) specs.push_back({node.params.at("bias"), channels, zero, true});
  if (n.batch) specs.push_back({node.params.at("running_mean"), channels, zero, false}), specs.push_back({node.params.at("running_var"), channels, one, false});
  return specs;
}

Value run(Context& ctx, const Node& node, std::vector<Value> in, const NodeParams& p) {
  const NormNode n = read_norm(node);
  if (n.batch)
    return batch_norm(ctx, std::move(in[0]), p.find("weight"), p.find("bias"), p.at("running_mean"), p.at("running_var"), n.momentum, n.params);
  return instance_norm(ctx, std::move(in[0]), p.find("weight"), p.find("bias"), n.params);
}

// Backward needs x, or y where x can be found again from it (ops.cpp).
OpCost cost(const Node& node, std::span<const Shape>, const Shape& y, const ConvAlgorithm&) {
  const Activation f = read_norm(node).params.activation;
  OpCost c{.multiply_adds = 2.0 * static_cast<double>(y.elements()), .forward_sweeps = 3, .backward_sweeps = 5};
  c.keeps = f.kind == ActivationKind::identity || f.kind == ActivationKind::leaky_relu ? OpCost::Keeps::output : OpCost::Keeps::inputs;
  c.gradient_in_place = true;
  return c;
}

VG_OP(norm, {"norm", shape, params, run, cost});

}  // namespace
}  // namespace vg

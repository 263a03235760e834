// The graph's operations without weights: "activation" (prelu has a slope), "add", "concat".
#include "layers/attributes.h"

namespace vg {
namespace {

// activation: attributes kind, alpha; prelu: parameter weight, attribute slopes (1, or one per channel)
struct ActivationNode {
  Activation f;
  std::int64_t slopes;
};

ActivationNode read_activation(const Node& node) {
  Attributes a(node);
  ActivationNode n;
  n.f.kind = activation_kind(a.text("kind", ""));
  n.f.alpha = static_cast<float>(a.number("alpha", n.f.kind == ActivationKind::elu ? 1.0 : 0.01));
  n.slopes = a.whole_number("slopes", 1);
  a.done();
  if (n.f.kind == ActivationKind::prelu)
    a.roles({"weight"});
  else
    a.roles({});
  return n;
}

Shape activation_shape(const Node& node, std::span<const Shape> in) {
  const ActivationNode n = read_activation(node);
  require(in.size() == 1, "{} inputs, wanted one", in.size());
  require(n.slopes == 1 || n.slopes == in[0].c(), "{} slopes for {} channels", n.slopes, in[0].c());
  return in[0];
}

std::vector<ParamSpec> activation_params(const Node& node, std::span<const Shape>) {
  const ActivationNode n = read_activation(node);
  if (n.f.kind != ActivationKind::prelu) return {};
  return {{node.params.at("weight"), {n.slopes}, Init{.kind = Init::Kind::constant, .value = 0.25f, .fan_in = 0}, true}};
}

Value activation_run(Context& ctx, const Node& node, std::vector<Value> in, const NodeParams& p) {
  return activation(ctx, std::move(in[0]), p.find("weight"), read_activation(node).f);
}

OpCost activation_cost(const Node&, std::span<const Shape>, const Shape& y, const ConvAlgorithm&) {
  return {.multiply_adds = static_cast<double>(y.elements()), .gradient_in_place = true};
}
OpCost add_cost(const Node&, std::span<const Shape>, const Shape& y, const ConvAlgorithm&) {
  return {.multiply_adds = static_cast<double>(y.elements()), .keeps = OpCost::Keeps::nothing, .gradient_in_place = true, .forward_sweeps = 3, .backward_sweeps = 2};
}
OpCost concat_cost(const Node&, std::span<const Shape>, const Shape& y, const ConvAlgorithm&) {
  return {.multiply_adds = static_cast<double>(y.elements()), .keeps = OpCost::Keeps::nothing, .backward_sweeps = 2};
}

void plain(const Node& node, std::span<const Shape> in) {
  Attributes a(node);
  a.done(), a.roles({});
  require(in.size() == 2, "{} inputs, wanted two", in.size());
}
std::vector<ParamSpec> none(const Node&, std::span<const Shape>) { return {}; }

Shape add_shape(const Node& node, std::span<const Shape> in) {
  plain(node, in);
  require(in[0] == in[1], "inputs {} and {} differ", to_string(in[0]), to_string(in[1]));
  return in[0];
}
Value add_run(Context& ctx, const Node&, std::vector<Value> in, const NodeParams&) { return sum(ctx, std::move(in[0]), std::move(in[1])); }

Shape concat_shape(const Node& node, std::span<const Shape> in) {
  plain(node, in);
  Shape y = in[0];
  for (int a = 0; a < 4; ++a) require(in[1][a] == y[a], "inputs {} and {}; only channels may differ", to_string(y), to_string(in[1]));
  y[4] += in[1].c();
  return y;
}
Value concat_run(Context& ctx, const Node&, std::vector<Value> in, const NodeParams&) { return concat(ctx, std::move(in[0]), std::move(in[1])); }

VG_OP(activation, {"activation", activation_shape, activation_params, activation_run, activation_cost});
VG_OP(add, {"add", add_shape, none, add_run, add_cost});
VG_OP(concat, {"concat", concat_shape, none, concat_run, concat_cost});

}  // namespace
}  // namespace vg

// The interpreter: a graph's nodes in order, values released after their last use.
#include <algorithm>

#include "layers/ops.h"
#include "layers/wiring.h"

namespace vg {
namespace {

// An input large enough for every graph that pads as usual; parameters' shapes depend on channels alone.
Shape probe_shape(const Graph& g) { return {1, g.spatial_dims == 2 ? 1 : 4096, 4096, 4096, g.in_channels}; }

}  // namespace

std::vector<ParamSpec> param_specs(const Graph& g) {
  std::vector<ParamSpec> all;
  walk_shapes(g, wire(g), probe_shape(g), [&](std::size_t i, const std::vector<Shape>& in, const Shape&) {
    const Node& n = g.nodes[i];
    for (ParamSpec& spec : in_node(n, [&] { return find_op(n.op, n.name).params(n, in); })) all.push_back(std::move(spec));
  });
  return all;
}

int Graph::out_channels() const {
  const Wiring w = wire(*this);
  const std::vector<Shape> shapes = walk_shapes(*this, w, probe_shape(*this), [](auto&&...) {});
  return static_cast<int>(shapes[static_cast<std::size_t>(w.outputs.at(0))].c());
}

// The ratio of the input's extent to the smallest extent anywhere in the graph, on an input that divides everything.
std::vector<int> Graph::divisor() const {
  const Shape input = probe_shape(*this);
  std::vector<int> d(3, 1);
  walk_shapes(*this, wire(*this), input, [&](std::size_t, const std::vector<Shape>&, const Shape& y) {
    for (int a = 0; a < 3; ++a) d[static_cast<std::size_t>(a)] = std::max(d[static_cast<std::size_t>(a)], static_cast<int>(input[1 + a] / y[1 + a]));
  });
  return d;
}

Network::Network(Graph g, Device device, bool with_grad) : graph(std::move(g)), params(param_specs(graph), device, with_grad) {
  for (const Node& n : graph.nodes) {
    NodeParams np;
    for (const auto& [role, name] : n.params) np.by_role[role] = &params.at(name);
    node_params.push_back(std::move(np));
  }
  const Wiring w = wire(graph);
  for (std::size_t i = 0; i < graph.nodes.size(); ++i)
    for (const int j : w.inputs[i])
      if (j >= 0 && w.uses[static_cast<std::size_t>(j)] == 1) node_params[static_cast<std::size_t>(j)].reader = &graph.nodes[i];
}

std::vector<Value> run(Context& ctx, Network& net, Value x) {
  const Graph& g = net.graph;
  Wiring w = wire(g);
  require(x.shape().rank() == 5 && x.shape().c() == g.in_channels, "network: the input is {}, wanted (N, D, H, W, {})", to_string(x.shape()), g.in_channels);
  x = cast_to(ctx, std::move(x), ctx.precision);
  std::vector<Value> values(g.nodes.size());
  for (std::size_t i = 0; i < g.nodes.size(); ++i) {
    const Node& n = g.nodes[i];
    std::vector<Value> in;
    for (int j : w.inputs[i]) {
      Value& from = j < 0 ? x : values[static_cast<std::size_t>(j)];
      int& uses = j < 0 ? w.input_uses : w.uses[static_cast<std::size_t>(j)];
      // The caller may still hold the input, so only inner values are handed over for good.
      if (--uses == 0 && j >= 0)
        in.push_back(std::move(from)), from = Value{};
      else
        in.push_back(from);
    }
    values[i] = in_node(n, [&] { return find_op(n.op, n.name).run(ctx, n, std::move(in), net.node_params[i]); });
  }
  std::vector<Value> out;
  for (int i : w.outputs) out.push_back(values[static_cast<std::size_t>(i)]);
  return out;
}

}  // namespace vg

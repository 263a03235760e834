// The interpreter: a graph's nodes in order, values released after their last use. And the planner: the same walk over shapes alone.
#include <algorithm>
#include <unordered_map>

#include "layers/graph.h"

namespace vg {
namespace {

// What each node reads, as positions in the node list (-1: the network's input), and how many readers each value has.
struct Wiring {
  std::vector<std::vector<int>> inputs;
  std::vector<int> uses;         // per node
  int input_uses = 0;
  std::vector<int> outputs;
};

Wiring wire(const Graph& g) {
  Wiring w;
  w.uses.assign(g.nodes.size(), 0);
  std::unordered_map<std::string, int> position = {{"input", -1}};
  const auto use = [&](const std::string& name, const std::string& reader) {
    const auto found = position.find(name);
    require(found != position.end(), "graph: {} reads \"{}\", which is not the name of an earlier node", reader, name);
    ++(found->second < 0 ? w.input_uses : w.uses[static_cast<std::size_t>(found->second)]);
    return found->second;
  };
  for (std::size_t i = 0; i < g.nodes.size(); ++i) {
    std::vector<int> in;
    for (const std::string& name : g.nodes[i].inputs) in.push_back(use(name, g.nodes[i].name));
    w.inputs.push_back(std::move(in));
    require(position.emplace(g.nodes[i].name, static_cast<int>(i)).second, "graph: two nodes are called \"{}\"", g.nodes[i].name);
  }
  for (const std::string& name : g.outputs) w.outputs.push_back(use(name, "the output"));
  return w;
}

// Messages of operations know shapes; the node's name is added here.
template <class F>
auto in_node(const Node& n, F&& body) {
  try {
    return body();
  } catch (const Error& e) {
    throw Error(e.code(), "node " + n.name + ": " + e.what());
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::bad_file, "node " + n.name + ": " + e.what());
  }
}

// Shapes of all nodes for an input shape; `visit(i, inputs, output)` after each.
template <class Visit>
std::vector<Shape> walk_shapes(const Graph& g, const Wiring& w, const Shape& input, Visit&& visit) {
  std::vector<Shape> shapes;
  for (std::size_t i = 0; i < g.nodes.size(); ++i) {
    const Node& n = g.nodes[i];
    std::vector<Shape> in;
    for (int j : w.inputs[i]) in.push_back(j < 0 ? input : shapes[static_cast<std::size_t>(j)]);
    shapes.push_back(in_node(n, [&] { return find_op(n.op, n.name).shape(n, in); }));
    visit(i, in, shapes.back());
  }
  return shapes;
}

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
}

std::vector<Value> run(Context& ctx, Network& net, Value x) {
  const Graph& g = net.graph;
  Wiring w = wire(g);
  require(x.shape().rank() == 5 && x.shape().c() == g.in_channels, "network: the input is {}, wanted (N, D, H, W, {})", to_string(x.shape()), g.in_channels);
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

Plan plan(const Graph& g, const Shape& input) {
  const Wiring w = wire(g);
  Plan p;
  std::vector<int> uses = w.uses;
  std::vector<bool> kept(g.nodes.size());  // for backward
  std::size_t live = 0, scratch = 0, saved = 0, parameter_bytes = 0, peak = 0;
  const auto bytes = [](const Shape& s) { return block_bytes(static_cast<std::size_t>(s.elements()) * 4); };  // as memory is handed out
  const std::vector<Shape> shapes = walk_shapes(g, w, input, [&](std::size_t i, const std::vector<Shape>& in, const Shape& y) {
    const Node& n = g.nodes[i];
    const OpDef& op = find_op(n.op, n.name);
    NodePlan node{.output = y, .multiply_adds = 0, .output_bytes = bytes(y), .param_bytes = 0};
    const OpCost cost = op.cost(n, in, y);
    node.multiply_adds = cost.multiply_adds;
    for (const ParamSpec& spec : op.params(n, in)) {
      node.param_bytes += bytes(spec.shape);
      if (spec.trainable) p.parameters += spec.shape.elements();
    }
    p.multiply_adds += node.multiply_adds;
    parameter_bytes += node.param_bytes;
    saved += static_cast<std::size_t>(cost.saved_bytes);
    for (int j : w.inputs[i])
      if (cost.keeps_inputs && j >= 0) kept[static_cast<std::size_t>(j)] = true;
    // Elementwise nodes take over the memory of their first input if nobody else reads it.
    const int first = w.inputs[i][0];
    const bool in_place = in[0] == y && first >= 0 && uses[static_cast<std::size_t>(first)] == 1 && (n.op == "norm" || n.op == "activation" || n.op == "add");
    live += node.output_bytes;
    scratch = std::max(scratch, block_bytes(cost.scratch_bytes));  // one block, which grows
    peak = std::max(peak, live + scratch - (in_place ? node.output_bytes : 0));
    for (int j : w.inputs[i])
      if (j >= 0 && --uses[static_cast<std::size_t>(j)] == 0) live -= p.nodes[static_cast<std::size_t>(j)].output_bytes;
    p.nodes.push_back(std::move(node));
  });
  for (int i : w.outputs) p.outputs.push_back(shapes[static_cast<std::size_t>(i)]), kept[static_cast<std::size_t>(i)] = true;  // by the loss
  for (std::size_t i = 0; i < kept.size(); ++i) saved += kept[i] ? p.nodes[i].output_bytes : 0;
  p.inference_bytes = peak + bytes(input) + parameter_bytes;
  // Backward holds, beside what forward saved, the gradients on both sides of one node: twice its largest value.
  std::size_t largest = 0;
  for (const NodePlan& n : p.nodes) largest = std::max(largest, n.output_bytes);
  p.training_bytes = saved + bytes(input) + 2 * largest + 4 * parameter_bytes;
  return p;
}

std::string to_table(const Graph& g, const Plan& p) {
  std::string text = fmt::format("{:<34} {:<14} {:>26} {:>12} {:>10} {:>11}\n", "node", "operation", "output", "parameters", "MiB", "GMAC");
  for (std::size_t i = 0; i < g.nodes.size(); ++i) {
    const NodePlan& n = p.nodes[i];
    text += fmt::format("{:<34} {:<14} {:>26} {:>12} {:>10.1f} {:>11.3f}\n", g.nodes[i].name, g.nodes[i].op, to_string(n.output), n.param_bytes / 4,
                        static_cast<double>(n.output_bytes) / 1048576.0, n.multiply_adds / 1e9);
  }
  return text + fmt::format("{} parameters, {:.2f} GMAC, inference {:.0f} MiB, training {:.0f} MiB\n", p.parameters, p.multiply_adds / 1e9,
                            static_cast<double>(p.inference_bytes) / 1048576.0, static_cast<double>(p.training_bytes) / 1048576.0);
}

}  // namespace vg

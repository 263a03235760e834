// Private to the interpreter (network.cpp) and the planner (plan.cpp): the names in a graph as positions, and the walk over shapes.
#pragma once
#include <unordered_map>

#include "layers/graph.h"

namespace vg {

// What each node reads, as positions in the node list (-1: the network's input), and how many readers each value has.
struct Wiring {
  std::vector<std::vector<int>> inputs;
  std::vector<int> uses;         // per node
  int input_uses = 0;
  std::vector<int> outputs;
};

inline Wiring wire(const Graph& g) {
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

}  // namespace vg

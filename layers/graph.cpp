// Graphs as JSON, and the table of operations.
#include "layers/graph.h"

#include <algorithm>
#include <set>

#include "layers/json.h"

namespace vg {
namespace {

std::vector<const OpDef*>& registry() {
  static std::vector<const OpDef*> ops;
  return ops;
}

std::string known_ops() {
  std::string names;
  for (const OpDef* op : all_ops()) names += (names.empty() ? "" : ", ") + std::string(op->name);
  return names;
}

// References must point backwards, so that the order of the list is an order in which it can run.
void check(const Graph& g, const std::string& where) {
  const auto bad = [&](const std::string& what) { fail(ErrorCode::bad_file, "{}: {}", where, what); };
  if (g.spatial_dims != 2 && g.spatial_dims != 3) bad(fmt::format("spatial_dims is {}, wanted 2 or 3", g.spatial_dims));
  if (g.in_channels < 1) bad(fmt::format("in_channels is {}, wanted at least 1", g.in_channels));
  std::set<std::string> known = {"input"};
  for (const Node& n : g.nodes) {
    find_op(n.op, where + ": node " + n.name);
    if (n.inputs.empty()) bad("node " + n.name + " has no inputs");
    for (const std::string& input : n.inputs)
      if (!known.count(input)) bad(fmt::format("node {} reads \"{}\", which is not the name of an earlier node", n.name, input));
    if (n.name.empty() || !known.insert(n.name).second) bad("two nodes are called \"" + n.name + "\"");
  }
  if (g.outputs.empty()) bad("the graph has no outputs");
  for (const std::string& output : g.outputs)
    if (!known.count(output) || output == "input") bad(fmt::format("output \"{}\" is not the name of a node", output));
}

void only_keys(const Json& j, std::initializer_list<const char*> allowed, const std::string& where) {
  if (!j.is_object()) fail(ErrorCode::bad_file, "{}: wanted an object, found {}", where, j.type_name());
  for (const auto& item : j.items())
    if (std::find(allowed.begin(), allowed.end(), item.key()) == allowed.end()) fail(ErrorCode::bad_file, "{}: unknown key \"{}\"", where, item.key());
}

}  // namespace

const std::vector<const OpDef*>& all_ops() { return registry(); }

OpRegistration::OpRegistration(const OpDef& op) {
  auto& ops = registry();
  ops.insert(std::upper_bound(ops.begin(), ops.end(), &op, [](const OpDef* a, const OpDef* b) { return std::string_view(a->name) < b->name; }), &op);
}

const OpDef& find_op(const std::string& name, const std::string& where) {
  for (const OpDef* op : all_ops())
    if (name == op->name) return *op;
  fail(ErrorCode::unsupported, "{}: unknown operation \"{}\" (known: {})", where, name, known_ops());
}

Json to_json(const Graph& g) {
  Json nodes = Json::array();
  for (const Node& n : g.nodes) {
    Json j = {{"name", n.name}, {"op", n.op}, {"inputs", n.inputs}};
    if (!n.params.empty()) j["params"] = n.params;
    if (!n.attributes.empty()) j["attributes"] = n.attributes;
    nodes.push_back(std::move(j));
  }
  return {{"spatial_dims", g.spatial_dims}, {"in_channels", g.in_channels}, {"nodes", std::move(nodes)}, {"outputs", g.outputs}};
}

Graph graph_from_json(const Json& j, const std::string& where) {
  Graph g;
  try {
    only_keys(j, {"spatial_dims", "in_channels", "nodes", "outputs"}, where);
    JsonFields fields(j, where);  // whose integers are integers: the library casts 1e30 to int
    g.spatial_dims = fields.get<int>("spatial_dims");
    g.in_channels = fields.get<int>("in_channels");
    g.outputs = j.at("outputs").get<std::vector<std::string>>();
    for (const Json& node : j.at("nodes")) {
      only_keys(node, {"name", "op", "inputs", "params", "attributes"}, where + ": node");
      Node n{.name = node.at("name").get<std::string>(), .op = node.at("op").get<std::string>(), .inputs = node.at("inputs").get<std::vector<std::string>>(),
             .params = {}, .attributes = node.value("attributes", Json::object())};
      if (node.contains("params")) n.params = node.at("params").get<std::map<std::string, std::string>>();
      g.nodes.push_back(std::move(n));
    }
  } catch (const Json::exception& e) {
    fail(ErrorCode::bad_file, "{}: {}", where, e.what());
  }
  check(g, where);
  // Shapes are checked now, on the smallest input that the graph divides, so that a file that cannot run is refused when it is read.
  try {
    const std::vector<int> d = g.divisor();
    plan(g, {1, g.spatial_dims == 2 ? 1 : d[0], d[1], d[2], g.in_channels});
  } catch (const Error& e) {
    fail(ErrorCode::bad_file, "{}: {}", where, e.what());
  }
  return g;
}

}  // namespace vg

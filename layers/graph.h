// A network is data: an ordered list of nodes. Builders (unet.h, meshnet.h) and importers write it, the model file stores it, one interpreter
// runs it with or without a tape, and everything that walks over shapes (plan, dry run, export) reads it.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "layers/ops.h"

namespace vg {

using Json = nlohmann::json;

struct Node {
  std::string name;                           // unique; "input" is reserved for the network's input
  std::string op;                             // "conv", "norm", ... : a name in all_ops()
  std::vector<std::string> inputs;            // names of earlier nodes, or "input"
  std::map<std::string, std::string> params;  // role -> parameter name, e.g. {"weight", "encoder.0.weight"}
  Json attributes = Json::object();
};

struct Graph {
  int spatial_dims = 3;  // 2: D is 1 everywhere
  int in_channels = 1;
  std::vector<Node> nodes;           // in an order in which they can run
  std::vector<std::string> outputs;  // first: the logits; then the deep-supervision heads, finest first

  int out_channels() const;
  // Extents of the input must be divisible by these (product of strides along the deepest path).
  std::vector<int> divisor() const;
};

Json to_json(const Graph& g);
// Strict: unknown keys, unknown ops, dangling or forward references, duplicate names throw bad_file. `where` opens the messages.
Graph graph_from_json(const Json& j, const std::string& where);

// What one operation must say about itself. Registered by VG_OP in its own file layers/op_*.cpp.
struct NodeParams {
  std::map<std::string, Param*> by_role;
  Param& at(const std::string& role) const { return *by_role.at(role); }
  Param* find(const std::string& role) const {
    const auto it = by_role.find(role);
    return it == by_role.end() ? nullptr : it->second;
  }
};
struct OpCost {
  double multiply_adds = 0;  // of the plain definition
  double saved_bytes = 0;    // kept for backward besides inputs and output
  std::size_t scratch_bytes = 0;  // of the forward kernel on the cpu
  bool keeps_inputs = true;  // does backward need their values?
};
struct OpDef {
  const char* name;
  Shape (*shape)(const Node& node, std::span<const Shape> inputs);  // throws invalid_argument: node, found, wanted
  std::vector<ParamSpec> (*params)(const Node& node, std::span<const Shape> inputs);  // in PyTorch's order; names from node.params
  Value (*run)(Context& ctx, const Node& node, std::vector<Value> inputs, const NodeParams& params);
  OpCost (*cost)(const Node& node, std::span<const Shape> inputs, const Shape& output);
};
const std::vector<const OpDef*>& all_ops();
const OpDef& find_op(const std::string& name, const std::string& where);  // throws unsupported, naming the known ones
struct OpRegistration {
  explicit OpRegistration(const OpDef& op);
};
#define VG_OP(NAME, ...)                             \
  static const ::vg::OpDef NAME##_def = __VA_ARGS__; \
  static const ::vg::OpRegistration NAME##_registration(NAME##_def)

// A graph with its numbers.
struct Network {
  Network(Graph g, Device device, bool with_grad);
  Graph graph;
  ParamList params;
  std::vector<NodeParams> node_params;  // per node
};

std::vector<ParamSpec> param_specs(const Graph& g);

// Runs the network. x: (N, D, H, W, in_channels). Returns the outputs in the graph's order. Without a tape a value is released after its last
// use.
std::vector<Value> run(Context& ctx, Network& net, Value x);

// Shapes only: what a run would cost.
struct NodePlan {
  Shape output;
  double multiply_adds = 0;
  std::size_t output_bytes = 0, param_bytes = 0;
};
struct Plan {
  std::vector<NodePlan> nodes;
  std::vector<Shape> outputs;
  std::int64_t parameters = 0;
  double multiply_adds = 0;
  std::size_t inference_bytes = 0;  // peak of live values, parameters included
  std::size_t training_bytes = 0;   // all values + gradients + parameters, gradient and two moments
};
Plan plan(const Graph& g, const Shape& input);
std::string to_table(const Graph& g, const Plan& p);  // text for --plan

}  // namespace vg

// A network is data: an ordered list of nodes. Builders (unet.h, meshnet.h) and importers write it, the model file stores it, one interpreter
// runs it with or without a tape, and everything that walks over shapes (plan, dry run, export) reads it.
#pragma once
#include <array>
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
  const Node* reader = nullptr;  // of the node's result, if it is the only one
  Param& at(const std::string& role) const { return *by_role.at(role); }
  Param* find(const std::string& role) const {
    const auto it = by_role.find(role);
    return it == by_role.end() ? nullptr : it->second;
  }
};
struct OpCost {
  double multiply_adds = 0;       // of the plain definition
  double saved_bytes = 0;         // kept for backward besides inputs and output
  std::size_t scratch_bytes = 0;  // of the forward kernel on the cpu
  std::size_t backward_scratch_bytes = 0;
  enum class Keeps : std::uint8_t { inputs, output, nothing } keeps = Keeps::inputs;  // what backward reads; output: y has taken x's memory
  bool frees_inputs = false;       // backward is done with its inputs before it makes their gradients
  bool gradient_in_place = false;  // the first input's gradient takes the output gradient's memory
  double forward_sweeps = 2, backward_sweeps = 3;  // over tensors of the output's size
  std::array<std::string, 3> algorithm = {};  // convolutions: of the forward pass, the data and the weight gradient
  double speed[3] = {0, 0, 0};     // of each, as a multiple of a wide direct convolution's
};
struct OpDef {
  const char* name;
  Shape (*shape)(const Node& node, std::span<const Shape> inputs);  // throws invalid_argument: node, found, wanted
  std::vector<ParamSpec> (*params)(const Node& node, std::span<const Shape> inputs);  // in PyTorch's order; names from node.params
  Value (*run)(Context& ctx, const Node& node, std::vector<Value> inputs, const NodeParams& params);
  OpCost (*cost)(const Node& node, std::span<const Shape> inputs, const Shape& output, const ConvAlgorithm& allowed);
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
struct PassPlan {
  double multiply_adds = 0, bytes = 0;  // of the plain sum; read and written, each tensor once a sweep
  std::string algorithm;                // of a convolution
  double speed = 0;
};
struct NodePlan {
  Shape output;
  double multiply_adds = 0;
  std::size_t output_bytes = 0, param_bytes = 0;
  PassPlan pass[3];  // forward; backward of what is not a convolution, or data gradient; weight gradient
};
struct Plan {
  std::vector<NodePlan> nodes;
  std::vector<Shape> outputs;
  std::int64_t parameters = 0;
  double multiply_adds = 0;
  std::size_t inference_bytes = 0;  // peak of live values, parameters included
  std::size_t training_bytes = 0;   // peak of a training step: what forward keeps, gradients, parameters with their gradients and two moments
};
Plan plan(const Graph& g, const Shape& input, const ConvAlgorithm& allowed = {});

// What this machine's cpu does in a second: the plain sum of a wide convolution, and memory traffic. measure_rates takes some 50 ms.
struct MachineRates {
  double multiply_adds = 0, bytes = 0;
};
MachineRates measure_rates();
double seconds(const PassPlan& p, const MachineRates& r);

// Text for --plan. With rates: seconds; `training`: of all passes.
std::string to_table(const Graph& g, const Plan& p, const MachineRates& rates = {}, bool training = false);

}  // namespace vg

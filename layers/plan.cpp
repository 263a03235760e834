// The planner: the interpreter's walk over shapes alone. Memory of a run and of a training step by following who holds which value until when;
// work and traffic of each pass, and with the machine's rates the time they should take.
#include <algorithm>
#include <vector>

#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/scratch.h"
#include "layers/wiring.h"
#include "tensor/os.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

std::size_t bytes_of(const Shape& s) { return block_bytes(static_cast<std::size_t>(s.elements()) * 4); }  // as memory is handed out

bool works_in_place(const Node& n) { return n.op == "norm" || n.op == "activation" || n.op == "add"; }

// Blocks of memory by number, each with how many hold it.
class Memory {
 public:
  int take(std::size_t bytes) {
    blocks_.push_back({bytes, 1});
    live_ += bytes, peak_ = std::max(peak_, live_);
    return static_cast<int>(blocks_.size()) - 1;
  }
  void hold(int block) { ++blocks_[static_cast<std::size_t>(block)].holders; }
  void drop(int block) {
    Block& b = blocks_[static_cast<std::size_t>(block)];
    if (--b.holders == 0) live_ -= b.bytes;
  }
  int holders(int block) const { return blocks_[static_cast<std::size_t>(block)].holders; }
  void scratch(std::size_t bytes) {  // one block, which grows
    if (bytes = block_bytes(bytes); bytes > scratch_) live_ += bytes - scratch_, scratch_ = bytes, peak_ = std::max(peak_, live_);
  }
  std::size_t peak() const { return peak_; }

 private:
  struct Block {
    std::size_t bytes;
    int holders;
  };
  std::vector<Block> blocks_;
  std::size_t live_ = 0, peak_ = 0, scratch_ = 0;
};

// The most that is alive in forward and backward of one step, from the first output's loss.
std::size_t step_peak(const Graph& g, const Wiring& w, const std::vector<Shape>& shapes, const std::vector<OpCost>& costs) {
  Memory m;
  const std::size_t count = g.nodes.size();
  std::vector<int> value(count), gradient(count, -1), uses = w.uses;
  std::vector<std::vector<int>> kept(count);  // by the node's backward
  for (std::size_t i = 0; i < count; ++i) {
    const OpCost& c = costs[i];
    const int first = w.inputs[i][0], from = first < 0 ? -1 : value[static_cast<std::size_t>(first)];
    m.scratch(c.scratch_bytes);
    const bool takes_over = c.keeps == OpCost::Keeps::output && first >= 0 && w.uses[static_cast<std::size_t>(first)] == 1 && m.holders(from) == 1;
    value[i] = takes_over ? from : m.take(bytes_of(shapes[i]));
    if (takes_over) m.hold(from), m.hold(from), kept[i].push_back(from);
    if (!takes_over && c.keeps != OpCost::Keeps::nothing)
      for (int j : w.inputs[i])
        if (j >= 0) m.hold(value[static_cast<std::size_t>(j)]), kept[i].push_back(value[static_cast<std::size_t>(j)]);
    if (c.saved_bytes > 0) kept[i].push_back(m.take(block_bytes(static_cast<std::size_t>(c.saved_bytes))));
    for (int j : w.inputs[i])
      if (j >= 0 && --uses[static_cast<std::size_t>(j)] == 0) m.drop(value[static_cast<std::size_t>(j)]);
  }
  // The loss keeps the first output and makes its gradient of it; the other outputs die here.
  for (std::size_t k = 1; k < w.outputs.size(); ++k) m.drop(value[static_cast<std::size_t>(w.outputs[k])]);
  const auto last = static_cast<std::size_t>(w.outputs[0]);
  if (m.holders(value[last]) == 1) {
    gradient[last] = value[last];
  } else {
    gradient[last] = m.take(bytes_of(shapes[last]));
    m.drop(value[last]);
  }
  for (std::size_t i = count; i-- > 0;) {
    const OpCost& c = costs[i];
    const auto release = [&] {
      for (int block : kept[i]) m.drop(block);
      kept[i].clear();
    };
    if (gradient[i] < 0) {
      release();
      continue;
    }
    m.scratch(c.backward_scratch_bytes);
    if (c.frees_inputs) release();
    bool given = false;
    for (int j : w.inputs[i]) {
      if (j < 0 || gradient[static_cast<std::size_t>(j)] >= 0) continue;
      int& to = gradient[static_cast<std::size_t>(j)];
      if (c.gradient_in_place && !given && shapes[static_cast<std::size_t>(j)] == shapes[i])
        to = gradient[i], given = true;
      else
        to = m.take(bytes_of(shapes[static_cast<std::size_t>(j)]));
    }
    release();
    if (!given) m.drop(gradient[i]);
  }
  return m.peak();
}

}  // namespace

Plan plan(const Graph& g, const Shape& input, const ConvAlgorithm& allowed) {
  const Wiring w = wire(g);
  Plan p;
  std::vector<int> uses = w.uses;
  std::vector<OpCost> costs;
  std::size_t live = 0, scratch = 0, parameter_bytes = 0, peak = 0;
  const std::vector<Shape> shapes = walk_shapes(g, w, input, [&](std::size_t i, const std::vector<Shape>& in, const Shape& y) {
    const Node& n = g.nodes[i];
    const OpDef& op = find_op(n.op, n.name);
    NodePlan node;
    node.output = y, node.output_bytes = bytes_of(y);
    costs.push_back(op.cost(n, in, y, allowed));
    const OpCost& cost = costs.back();
    node.multiply_adds = cost.multiply_adds;
    for (const ParamSpec& spec : op.params(n, in)) {
      node.param_bytes += bytes_of(spec.shape);
      if (spec.trainable) p.parameters += spec.shape.elements();
    }
    const auto floats = [](const Shape& s) { return 4.0 * static_cast<double>(s.elements()); };
    if (!cost.algorithm[0].empty()) {
      double bytes = floats(y) + static_cast<double>(node.param_bytes);
      for (const Shape& x : in) bytes += floats(x);
      for (std::size_t k = 0; k < 3; ++k)
        if (k != 1 || w.inputs[i][0] >= 0) node.pass[k] = {cost.multiply_adds, bytes, cost.algorithm[k], cost.speed[k]};
    } else {
      const double most = std::max(floats(y), floats(in[0]));
      node.pass[0] = {0, cost.forward_sweeps * most, "", 0}, node.pass[1] = {0, cost.backward_sweeps * most, "", 0};
    }
    p.multiply_adds += node.multiply_adds;
    parameter_bytes += node.param_bytes;
    // Elementwise nodes take over the memory of their first input if nobody else reads it.
    const int first = w.inputs[i][0];
    const bool in_place = in[0] == y && first >= 0 && uses[static_cast<std::size_t>(first)] == 1 && works_in_place(n);
    live += node.output_bytes;
    scratch = std::max(scratch, block_bytes(cost.scratch_bytes));  // one block, which grows
    peak = std::max(peak, live + scratch - (in_place ? node.output_bytes : 0));
    for (int j : w.inputs[i])
      if (j >= 0 && --uses[static_cast<std::size_t>(j)] == 0) live -= p.nodes[static_cast<std::size_t>(j)].output_bytes;
    p.nodes.push_back(std::move(node));
  });
  for (int i : w.outputs) p.outputs.push_back(shapes[static_cast<std::size_t>(i)]);
  p.inference_bytes = peak + bytes_of(input) + parameter_bytes;
  p.training_bytes = step_peak(g, w, shapes, costs) + bytes_of(input) + 4 * parameter_bytes;
  return p;
}

MachineRates measure_rates() {
  ScratchOwner scratch(kCpu);
  const Exec ex{kCpu, &scratch, nullptr, {ConvAlgorithm::Allow::direct, {}}};
  const auto fastest = [](const auto& work) {
    work();
    double least = 1e30;
    for (int i = 0; i < 5; ++i) {
      const double start = os::wall_seconds();
      work();
      least = std::min(least, os::wall_seconds() - start);
    }
    return least;
  };
  const Shape shape = {1, 24, 24, 24, 32};
  const Tensor x = zeros(shape, DType::f32, kCpu), weights = zeros({32, 32, 3, 3, 3}, DType::f32, kCpu), big = zeros({8 << 20}, DType::f32, kCpu);
  Tensor y(shape, DType::f32, kCpu), sum(big.shape(), DType::f32, kCpu);
  ConvParams p;
  for (int a = 0; a < 3; ++a) p.pad[a] = 1;
  MachineRates r;
  r.multiply_adds = 27.0 * 32 * static_cast<double>(shape.elements()) / fastest([&] { conv_forward(ex, y, x, Tensor(), weights, Tensor(), p); });
  r.bytes = 3.0 * static_cast<double>(big.bytes()) / fastest([&] { add(ex, sum, big, big); });
  return r;
}

double seconds(const PassPlan& p, const MachineRates& r) {
  return std::max(p.speed > 0 ? p.multiply_adds / (r.multiply_adds * p.speed) : 0.0, p.bytes / r.bytes);
}

std::string to_table(const Graph& g, const Plan& p, const MachineRates& rates, bool training) {
  const bool timed = rates.bytes > 0;
  const int passes = training ? 3 : 1;
  std::string text = fmt::format("{:<34} {:<14} {:>26} {:>11} {:>9} {:>10} {:>10}  {}{}\n", "node", "operation", "output", "parameters", "MiB", "GFLOP", "MB moved",
                                 timed ? "    ms  " : "", training ? "algorithm: forward, data, weight" : "algorithm");
  double all = 0;
  for (std::size_t i = 0; i < g.nodes.size(); ++i) {
    const NodePlan& n = p.nodes[i];
    double bytes = 0, flop = 0, time = 0;
    std::string algorithms;
    for (int k = 0; k < passes; ++k) {
      const PassPlan& pass = n.pass[k];
      bytes += pass.bytes, flop += 2 * pass.multiply_adds;
      if (timed) time += seconds(pass, rates);
      if (!pass.algorithm.empty()) algorithms += (algorithms.empty() ? "" : ", ") + pass.algorithm;
    }
    all += time;
    text += fmt::format("{:<34} {:<14} {:>26} {:>11} {:>9.1f} {:>10.3f} {:>10.1f}  {}{}\n", g.nodes[i].name, g.nodes[i].op, to_string(n.output), n.param_bytes / 4,
                        static_cast<double>(n.output_bytes) / 1048576.0, flop / 1e9, bytes / 1e6, timed ? fmt::format("{:>6.2f}", time * 1e3) : "",
                        algorithms.empty() ? "" : (timed ? "  " : "") + algorithms);
  }
  text += fmt::format("{} parameters, {:.2f} GMAC, inference {:.0f} MiB, training {:.0f} MiB\n", p.parameters, p.multiply_adds / 1e9,
                      static_cast<double>(p.inference_bytes) / 1048576.0, static_cast<double>(p.training_bytes) / 1048576.0);
  if (timed)
    text += fmt::format("{} should take {:.3f} s with {} threads here ({:.0f} GFLOP/s of a direct convolution, {:.1f} GB/s)\n",
                        training ? "forward and backward (without loss and optimizer)" : "a run", all, threads(), 2e-9 * rates.multiply_adds, 1e-9 * rates.bytes);
  return text;
}

}  // namespace vg

// Counting the work of recorded calls.
#include "benchmarks/segbench/cost.h"

#include <algorithm>
#include <cstring>

namespace vg::bench {
namespace {

bool is(const Call& c, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* n) { return std::strcmp(c.kernel, n) == 0; });
}
}  // namespace

bool is_convolution(const Call& c) { return is(c, {"conv_forward", "conv_backward_data", "conv_backward_weight"}); }

namespace {

// 2 * voxels * taps * I * O, whichever of the three: voxels of the strided side's output (dy or y), all weights for each.
double convolution_flop(const Call& c) {
  const auto& a = c.arguments;
  const bool weight = is(c, {"conv_backward_weight"}), data = is(c, {"conv_backward_data"});
  const Shape& coarse = (data ? a[2] : weight ? a[1] : a[0]).shape;  // data: (dx0, dx1, dy, w, b); weight: (dw, dy, x0, x1); forward: (y, x0, x1, w, b)
  const Shape& w = (weight ? a[0] : a[3]).shape;
  return 2.0 * static_cast<double>(coarse.n() * coarse.voxels()) * static_cast<double>(w.elements());
}

}  // namespace

Cost cost_of(const Call& c) {
  Cost cost;
  if (is_convolution(c)) cost.flop = convolution_flop(c);
  const bool in_out = is(c, {"adam_step", "sgd_step"});  // their outputs are state
  std::vector<bool> written(c.arguments.size());
  for (std::size_t i = 0; i < c.arguments.size(); ++i) {
    const TensorNote& a = c.arguments[i];
    if (!a.defined || a.alias >= 0) continue;
    bool reads = !a.output || a.beta != 0.0f || in_out, writes = a.output;
    for (std::size_t j = i + 1; j < c.arguments.size(); ++j)
      if (c.arguments[j].alias == static_cast<int>(i)) (c.arguments[j].output ? writes : reads) = true;
    double bytes = a.bytes();
    if (is(c, {"copy_channels"}) && c.arguments[0].shape.c() && c.arguments[1].shape.c())  // the fewer channels are copied, as far as the graphs go
      bytes *= static_cast<double>(std::min(c.arguments[0].shape.c(), c.arguments[1].shape.c())) / static_cast<double>(a.shape.c());
    (reads && writes ? cost.traffic.update : writes ? cost.traffic.write : cost.traffic.read) += bytes;
  }
  // The means of g and g h are needed before the first dx: dy and x are read twice.
  if (is(c, {"norm_backward"}) && c.arguments[4].defined) cost.traffic.read_before = c.arguments[3].bytes() + c.arguments[4].bytes();
  // Elementwise kernels write around the caches from 32 MiB on (kernels/simd-inl.h).
  cost.traffic.stream = !cost.flop && c.arguments[0].defined && c.arguments[0].bytes() >= 32 << 20 && cost.traffic.update == 0;
  return cost;
}

std::vector<Call> record(const std::string& name, const CaseOptions& o) {
  if (is_train_case(name)) {
    TrainCase one(name, o);
    Recording r;
    one.step();
    return std::move(r.calls);
  }
  InferCase one(name, o);
  Recording r;
  one.run();
  return std::move(r.calls);
}

std::vector<Work> work_of(const std::vector<ChainLayer>& chain) {
  std::vector<Work> work;
  for (const ChainLayer& layer : chain) {
    const cpu::PlaneLayer& l = layer.shape;
    const double voxels = static_cast<double>(l.extent[0] * l.extent[1] * l.extent[2]);
    const auto in = static_cast<double>(l.in_channels), out = static_cast<double>(l.out_channels), taps = static_cast<double>(l.kernel * l.kernel * l.kernel);
    work.push_back({2 * voxels * in * out * taps, 4 * (voxels * (in + out) + in * out * taps), 1});
  }
  return work;
}

std::vector<Work> work_of(const std::string& name, const CaseOptions& options) {
  std::vector<Work> work;
  for (const Call& call : record(name, options)) {
    const Cost c = cost_of(call);
    work.push_back({c.flop, c.traffic.bytes(), call.count});
  }
  return work;
}

}  // namespace vg::bench

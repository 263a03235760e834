// segbench kernels: the kernel calls of one real training step (or segmentation), each run again by itself: checked, timed, and held against what
// the machine can do.
#include <algorithm>
#include <cmath>

#include "benchmarks/segbench/commands.h"
#include "benchmarks/segbench/cost.h"
#include "tensor/error.h"

namespace vg::bench {
namespace {

std::vector<std::vector<float>> values_of(const Call& c, const std::vector<Tensor>& tensors) {
  std::vector<std::vector<float>> all;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (c.arguments[i].defined && c.arguments[i].output && tensors[i].dtype() == DType::f32)
      all.emplace_back(tensors[i].data<float>(), tensors[i].data<float>() + tensors[i].elements());
  return all;
}

// Throws unless every output is finite. Convolutions: the largest difference from the direct sum, as a part of the largest value.
double validate(const Call& c, const Exec& ex) {
  std::vector<Tensor> tensors = c.tensors(1);
  c.run(ex, tensors);
  const auto got = values_of(c, tensors);
  for (const auto& output : got)
    for (const float v : output)
      if (!std::isfinite(v)) fail(ErrorCode::numeric, "{}: {}{}: a result is {}", c.kernel, c.shapes(), c.parameters, v);
  if (!is_convolution(c)) return 0.0;
  Exec direct = ex;
  direct.convolution = {ConvAlgorithm::Allow::direct, {}};
  tensors = c.tensors(1);
  c.run(direct, tensors);
  const auto wanted = values_of(c, tensors);
  double difference = 0, most = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    for (std::size_t j = 0; j < got[i].size(); ++j) {
      difference = std::max(difference, std::fabs(static_cast<double>(got[i][j]) - static_cast<double>(wanted[i][j])));
      most = std::max(most, std::fabs(static_cast<double>(wanted[i][j])));
    }
  const double error = most > 0 ? difference / most : 0.0;
  constexpr double kMost = 1e-4;  // Winograd F(4,4,4) stays below 3e-5
  if (!(error < kMost)) fail(ErrorCode::numeric, "{}: {}{}: differs from the direct sum by {:.1e} of the largest value", c.kernel, c.shapes(), c.parameters, error);
  return error;
}

struct Line {
  const Call* call;
  Cost cost;
  double cpu = 0, wall = 0;  // seconds of one call (median); cpu: of all threads / threads
  double peak = 0, probe = 0, error = 0;
  double total() const { return cpu * call->count; }
};

Line time_call(const Call& c, const Exec& ex, bool quick) {
  Line line{.call = &c, .cost = cost_of(c)};
  line.error = validate(c, ex);
  std::vector<Tensor> tensors = c.tensors(1);
  // What a call changes and reads again must not drift away from its real range over the repetitions.
  std::vector<std::pair<std::size_t, Tensor>> fresh;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorNote& a = c.arguments[i];
    bool again = a.output && a.beta != 0.0f;
    for (const TensorNote& b : c.arguments) again |= b.alias == static_cast<int>(i);
    if (a.defined && a.alias < 0 && again) fresh.emplace_back(i, copy_to(tensors[i], kCpu));
  }
  const auto restore = [&] {
    for (auto& [i, original] : fresh) copy(tensors[i], original);
  };
  const double seconds = quick ? 0.005 : 3 * kWindow, around = quick ? seconds : kWindow;
  const double before = line.cost.flop ? multiply_add_peak(true, around) : 0.0;
  const Samples t = measure(seconds, [&] { c.run(ex, tensors); }, 1, restore, around);
  line.cpu = median(t.cpu) / threads(), line.wall = median(t.wall);
  if (line.cost.flop) line.peak = (before + multiply_add_peak(true, around)) / 2;
  tensors.clear(), fresh.clear();
  line.probe = probe_seconds(line.cost.traffic, around);
  return line;
}

}  // namespace

Report kernels(const Options& o) {
  o.say("recording " + o.name);
  const std::vector<Call> calls = record(o.name, o);
  release_cache(kCpu);
  ScratchOwner scratch(kCpu);
  const Exec ex{kCpu, &scratch, nullptr, {o.allow, {}}};
  std::vector<Line> lines;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    o.say(fmt::format("{} of {}: {}", i + 1, calls.size(), calls[i].kernel));
    lines.push_back(time_call(calls[i], ex, o.quick));
    release_cache(kCpu);
  }
  std::sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) { return a.total() > b.total(); });

  Report r;
  r.title = "kernels " + o.name;
  r.columns = {"kernel", "outputs <- inputs (+ adds, = in place)", "calls", "total ms", "share", "GFLOP/s", "GB/s", "of peak", "of probe", "error"};
  double all = 0, flop = 0, busy = 0, peak_flop = 0;
  for (const Line& l : lines) all += l.total();
  Json items = Json::array();
  for (const Line& l : lines) {
    const double gflops = l.cost.flop / l.cpu * 1e-9, of_peak = l.peak > 0 ? gflops / l.peak : 0.0, of_probe = l.probe / l.cpu;
    const double bytes = l.cost.traffic.bytes();
    const bool compute = l.cost.flop > 0;
    if (compute) flop += l.cost.flop * l.call->count, busy += l.total(), peak_flop += l.peak * l.total();
    r.rows.push_back({l.call->kernel, l.call->shapes() + l.call->parameters, std::to_string(l.call->count), fmt::format("{:.2f}", 1e3 * l.total()),
                      fmt::format("{:.1f} %", 100 * l.total() / all), compute ? fmt::format("{:.0f}", gflops) : "", fmt::format("{:.1f}", bytes / l.cpu * 1e-9),
                      compute ? fmt::format("{:.0f} %", 100 * of_peak) : "", fmt::format("{:.0f} %", 100 * of_probe), compute ? fmt::format("{:.0e}", l.error) : ""});
    items.push_back({{"kernel", l.call->kernel}, {"shapes", l.call->shapes()}, {"parameters", l.call->parameters}, {"calls", l.call->count},
                     {"cpu_seconds", l.cpu}, {"wall_seconds", l.wall}, {"flop", l.cost.flop}, {"bytes", bytes}, {"gflops", gflops}, {"gbytes", bytes / l.cpu * 1e-9},
                     {"of_peak", of_peak}, {"of_probe", of_probe}, {"streamed", l.cost.traffic.stream}, {"error", l.error}});
  }
  r.notes.push_back(fmt::format("{:.3f} s in all (cpu seconds / {} threads, medians); convolutions {:.3f} s at {:.0f} GFLOP/s, {:.0f} % of the multipliers' peak", all,
                                threads(), busy, busy > 0 ? flop / busy * 1e-9 : 0.0, busy > 0 ? 100 * flop * 1e-9 / peak_flop : 0.0));
  r.notes.push_back("GFLOP/s of the plain sum whatever the algorithm (above 100 % of the peak: Winograd); of probe: seconds of a plain loop with the same reads and writes / seconds");
  r.data["kernels"] = items, r.data["seconds"] = all;
  std::string blind;
  for (const std::string& name : Recording::blind()) blind += " " + name;
  if (!blind.empty()) r.notes.push_back("not recorded:" + blind);
  return r;
}

}  // namespace vg::bench

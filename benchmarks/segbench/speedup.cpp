// segbench speedup: the same steps and segmentations on this CPU and on a GPU. Both sides must compute the same before either is timed. Beside the
// measurements stands what no GPU of a kind can fall below: every kernel call of the step by itself, as long as its multiply-adds take at the data
// sheet's rate or its bytes at the data sheet's bandwidth. That is projected, never a speed-up.
#include <algorithm>
#include <cmath>
#include <optional>

#include "benchmarks/segbench/commands.h"
#include "benchmarks/segbench/cost.h"

namespace vg::bench {
namespace {

// NVIDIA H100 SXM5 (data sheet, dense): multiply-adds count two; bytes of memory a second.
struct Precision {
  const char* name;
  double flops, bytes_each;  // of an activation or weight
};
constexpr Precision kPrecisions[] = {{"fp32", 66.9e12, 4}, {"tf32", 494.7e12, 4}, {"bf16", 989.4e12, 2}};
constexpr double kBandwidth = 3.35e12;

double bound_seconds(const std::vector<Work>& work, const Precision& p) {
  double seconds = 0;
  for (const Work& w : work) seconds += w.count * std::max(w.flop / p.flops, w.bytes * p.bytes_each / 4 / kBandwidth);
  return seconds;
}

struct Side {
  Samples times;
  std::vector<double> results;  // losses of the first steps, or class indices
};

Side run_side(const std::string& name, const Options& o, const CaseOptions& where) {
  Side side;
  if (is_train_case(name)) {
    TrainCase one(name, where);
    constexpr int kCompared = 3;
    for (int i = 0; i < kCompared; ++i) side.results.push_back(one.step());
    side.times = measure(0, [&] { one.step(), synchronize(where.device); }, o.repetitions, {}, 0);
  } else {
    InferCase one(name, where);
    side.times = measure(0, [&] { one.run(); }, o.repetitions, {}, 0);
    side.results.assign(one.labels().begin(), one.labels().end());
  }
  return side;
}

// What the two sides' results are apart: relative, of losses; the share of labels that differ.
double apart(const std::string& name, const Side& a, const Side& b) {
  double most = 0, other = 0;
  if (a.results.size() != b.results.size()) return 1;
  for (std::size_t i = 0; i < a.results.size(); ++i) {
    most = std::max(most, std::abs(a.results[i] - b.results[i]) / std::max(1e-30, std::abs(a.results[i])));
    other += a.results[i] != b.results[i];
  }
  return is_train_case(name) ? most : other / static_cast<double>(a.results.size());
}
constexpr double kSameLoss = 1e-3, kSameLabels = 1e-4;

std::optional<Device> gpu(std::string* why_not) {
  const Device d = parse_device("auto", why_not);
  return d.kind == DeviceKind::cuda ? std::optional(d) : std::nullopt;
}

}  // namespace

Report speedup(const Options& o) {
  std::string why_not;
  const std::optional<Device> device = gpu(&why_not);
  Report r;
  r.title = "speedup";
  r.columns = {"work", "cpu, s"};
  if (device) r.columns.insert(r.columns.end(), {to_string(*device) + " fp32, s", "times as fast", "apart"});
  for (const Precision& p : kPrecisions) r.columns.push_back(fmt::format("projected bound, H100 {}, s", p.name));
  std::vector<std::string> names = o.cases;
  if (names.empty()) {
    names = speedup_cases();
    names.pop_back();  // tiny is for tests
  }
  Json items = Json::array();
  for (const std::string& name : names) {
    o.say(name + " on the cpu");
    CaseOptions where = o;
    where.device = kCpu;
    const Side cpu = run_side(name, o, where);
    const double seconds = median(cpu.times.wall);
    std::vector<std::string> row = {name, fmt::format("{:.4g}", seconds)};
    Json item = {{"case", name}, {"cpu_seconds", cpu.times.wall}};
    if (device) {
      o.say(name + " on " + to_string(*device));
      where.device = *device;
      const Side fast = run_side(name, o, where);
      const double difference = apart(name, cpu, fast), allowed = is_train_case(name) ? kSameLoss : kSameLabels;
      if (!(difference <= allowed))
        fail(ErrorCode::numeric, "{}: cpu and {} are {:.2g} apart (wanted at most {:.0e}): nothing to compare", name, to_string(*device), difference, allowed);
      const double gpu_seconds = median(fast.times.wall);
      row.insert(row.end(), {fmt::format("{:.4g}", gpu_seconds), fmt::format("{:.1f}", seconds / gpu_seconds), fmt::format("{:.1e}", difference)});
      item["gpu_seconds"] = fast.times.wall, item["speedup"] = seconds / gpu_seconds, item["apart"] = difference;
    }
    where.device = kCpu;
    o.say(name + ": counting");
    const std::vector<Work> work = work_of(name, where);
    for (const Precision& p : kPrecisions) {
      const double bound = bound_seconds(work, p);
      row.push_back(fmt::format("{:.2g}", bound));
      item["projected"][p.name] = bound;
    }
    r.rows.push_back(row), items.push_back(item);
    release_cache(kCpu);
  }
  if (device) {
    const DeviceProperties p = device_properties(*device);
    r.notes.push_back(fmt::format("{}: {} ({}), {} multiprocessors; medians of {} repetitions", to_string(*device), p.name, p.detail, p.units, o.repetitions));
    r.data["gpu"] = {{"name", p.name}, {"detail", p.detail}};
  } else {
    r.notes.push_back("no GPU was measured (" + why_not + "): there is no speed-up to report");
  }
  r.notes.push_back("projected bound, unmeasured: no H100 can take less, because of its multipliers (dense peak) or of its memory (3.35 TB/s); convolutions by plain sums");
  r.data["cases"] = items;
  return r;
}

// Bars on a logarithmic scale: cpu, and what was measured or projected of a GPU.
std::string speedup_svg(const Report& r) {
  struct Bar {
    std::string text, colour;
    double seconds;
  };
  std::vector<std::pair<std::string, std::vector<Bar>>> groups;
  double low = 1e30, high = 0;
  for (const Json& item : r.data.at("cases")) {
    std::vector<Bar> bars = {{"cpu", "#4a6fa5", median(item.at("cpu_seconds").get<std::vector<double>>())}};
    if (item.contains("gpu_seconds")) bars.push_back({"gpu", "#3a9d5d", median(item.at("gpu_seconds").get<std::vector<double>>())});
    for (const Precision& p : kPrecisions)
      if (const double s = item.at("projected").at(p.name).get<double>(); s > 0) bars.push_back({fmt::format("H100 {}, projected bound", p.name), "#c9c9c9", s});
    for (const Bar& b : bars) low = std::min(low, b.seconds), high = std::max(high, b.seconds);
    groups.emplace_back(item.at("case").get<std::string>(), std::move(bars));
  }
  constexpr int kHeight = 18, kLeft = 90, kWidth = 460;
  const double first = std::floor(std::log10(low)), last = std::max(first + 1, std::ceil(std::log10(high)));
  std::string body;
  int y = 30;
  for (const auto& [name, bars] : groups) {
    body += fmt::format("<text x=\"4\" y=\"{}\" font-weight=\"bold\">{}</text>\n", y + 13, name);
    for (const Bar& b : bars) {
      const double width = std::max(2.0, (std::log10(b.seconds) - first) / (last - first) * kWidth);
      body += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>\n", kLeft, y, width, kHeight - 4, b.colour);
      body += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{} {:.3g} s</text>\n", kLeft + width + 5, y + 12, b.text, b.seconds);
      y += kHeight;
    }
    y += 8;
  }
  return fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n"
                     "<text x=\"4\" y=\"16\">seconds, logarithmic ({})</text>\n{}</svg>\n",
                     kLeft + kWidth + 230, y, machine(), body);
}

}  // namespace vg::bench

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

// How a GPU may compute. Data sheet of an NVIDIA H100 SXM5 (dense): multiply-adds count two; bytes of memory a second. And how far its results may be from those
// of the cpu: losses of the first steps, relative; the share of labels that differ. The scores of an untrained network (slices) are nearly equal: in bf16 on sim,
// 61 of 4096 of its labels were others.
struct Precision {
  const char* name;
  double flops, bytes_each;  // of an activation or weight
  DType activations;
  bool tf32;
  double same_loss, same_labels;
};
constexpr Precision kPrecisions[] = {
    {"fp32", 66.9e12, 4, DType::f32, false, 1e-3, 1e-4},
    {"tf32", 494.7e12, 4, DType::f32, true, 2e-2, 1e-2},
    {"bf16", 989.4e12, 2, DType::bf16, false, 2e-2, 3e-2},
};
constexpr double kBandwidth = 3.35e12;

double bound_seconds(const std::vector<Work>& work, const Precision& p) {
  double seconds = 0;
  for (const Work& w : work) seconds += w.count * std::max(w.flop / p.flops, w.bytes * p.bytes_each / 4 / kBandwidth);
  return seconds;
}

// A case on one device. Its results are there before anything is timed.
class Side {
 public:
  Side(const std::string& name, const CaseOptions& where) : device_(where.device) {
    if (is_train_case(name)) {
      training_ = std::make_unique<TrainCase>(name, where);
      constexpr int kCompared = 3;
      for (int i = 0; i < kCompared; ++i) results_.push_back(training_->step());
    } else {
      inference_ = std::make_unique<InferCase>(name, where);
      inference_->run();
      results_.assign(inference_->labels().begin(), inference_->labels().end());
    }
  }
  std::vector<double> seconds(int repetitions) {
    std::vector<double> all;
    for (int i = 0; i < repetitions; ++i) all.push_back(timed([&] { training_ ? static_cast<void>(training_->step()) : inference_->run(), synchronize(device_); }).wall);
    return all;
  }
  // Relative, of losses; the share of labels that differ.
  double apart(const Side& o) const {
    double most = 0, other = 0;
    if (results_.size() != o.results_.size()) return 1;
    for (std::size_t i = 0; i < results_.size(); ++i) {
      most = std::max(most, std::abs(results_[i] - o.results_[i]) / std::max(1e-30, std::abs(results_[i])));
      other += results_[i] != o.results_[i];
    }
    return training_ ? most : other / static_cast<double>(results_.size());
  }
  std::vector<Work> work(const std::string& name, const CaseOptions& where) const {
    const std::vector<ChainLayer> chain = inference_ ? inference_->chain() : std::vector<ChainLayer>();
    return chain.empty() ? work_of(name, where) : work_of(chain);
  }

 private:
  Device device_;
  std::unique_ptr<TrainCase> training_;
  std::unique_ptr<InferCase> inference_;
  std::vector<double> results_;  // losses of the first steps, or class indices
};

std::optional<Device> gpu(std::string* why_not) {
  const Device d = parse_device("auto", why_not);
  return d.kind == DeviceKind::cuda ? std::optional(d) : std::nullopt;
}

}  // namespace

Report speedup(const Options& o) {
  std::string why_not, no_library;
  const std::optional<Device> device = gpu(&why_not);
  const bool library = device && !convolution_library(*device, &no_library).empty();
  std::vector<Precision> chosen;
  for (const Precision& p : kPrecisions)
    if (o.precisions.empty() || std::find(o.precisions.begin(), o.precisions.end(), p.name) != o.precisions.end()) chosen.push_back(p);
  Report r;
  r.title = "speedup";
  r.columns = {"work", "cpu, s"};
  if (device)
    for (const Precision& p : chosen) r.columns.insert(r.columns.end(), {fmt::format("{} {}, s", to_string(*device), p.name), "times as fast", "apart"});
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
    where.device = kCpu, where.precision = DType::f32, where.tf32 = false;
    std::optional<Side> cpu(std::in_place, name, where);
    const std::vector<double> cpu_seconds = cpu->seconds(o.repetitions);
    const double seconds = median(cpu_seconds);
    std::vector<std::string> row = {name, fmt::format("{:.4g}", seconds)};
    Json item = {{"case", name}, {"cpu_seconds", cpu_seconds}};
    for (const Precision& p : chosen) {
      if (!device) break;
      if (p.tf32 && !library) {
        row.insert(row.end(), {"-", "-", "-"});
        continue;
      }
      o.say(fmt::format("{} on {}, {}", name, to_string(*device), p.name));
      CaseOptions there = o;
      there.device = *device, there.precision = p.activations, there.tf32 = p.tf32;
      Side fast(name, there);
      const double difference = cpu->apart(fast), allowed = is_train_case(name) ? p.same_loss : p.same_labels;
      item["gpu"][p.name]["apart"] = difference;
      const std::string wrong = fmt::format("{}: cpu and {} {} are {:.2g} apart (wanted at most {:.0e}): nothing to compare", name, to_string(*device), p.name, difference, allowed);
      if (!(difference <= allowed)) {
        if (p.activations == DType::f32 && !p.tf32) fail(ErrorCode::numeric, "{}", wrong);
        row.insert(row.end(), {"-", "-", fmt::format("{:.1e}", difference)});
        r.notes.push_back(wrong);
        continue;
      }
      const std::vector<double> gpu_seconds = fast.seconds(o.repetitions);
      const double faster = seconds / median(gpu_seconds);
      row.insert(row.end(), {fmt::format("{:.4g}", median(gpu_seconds)), fmt::format("{:.1f}", faster), fmt::format("{:.1e}", difference)});
      item["gpu"][p.name]["seconds"] = gpu_seconds, item["gpu"][p.name]["speedup"] = faster;
    }
    o.say(name + ": counting");
    const std::vector<Work> work = cpu->work(name, where);
    cpu.reset();
    for (const Precision& p : kPrecisions) {
      const double bound = bound_seconds(work, p);
      row.push_back(fmt::format("{:.2g}", bound));
      item["projected"][p.name] = bound;
    }
    r.rows.push_back(row), items.push_back(item);
    release_cache(kCpu);
    if (device) release_cache(*device);
  }
  if (device) {
    const DeviceProperties p = device_properties(*device);
    r.notes.push_back(fmt::format("{}: {} ({}), {} multiprocessors; medians of {} repetitions", to_string(*device), p.name, p.detail, p.units, o.repetitions));
    r.data["gpu"] = {{"name", p.name}, {"detail", p.detail}};
    if (!library) r.notes.push_back("tf32 is cuDNN's alone, and was not measured: " + no_library);
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
    for (const Precision& p : kPrecisions)
      if (const Json measured = item.value("gpu", Json::object()).value(p.name, Json::object()); measured.contains("seconds"))
        bars.push_back({fmt::format("gpu {}", p.name), "#3a9d5d", median(measured.at("seconds").get<std::vector<double>>())});
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

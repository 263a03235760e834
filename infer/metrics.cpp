// Counting pairs of labels. Label maps are made of long runs of one pair, so the hash table is asked only where the pair changes.
#include "infer/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "tensor/error.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kGrain = 1 << 16;  // voxels per chunk

using PairCounts = std::unordered_map<std::uint64_t, std::int64_t>;

std::uint64_t key_of(std::int32_t reference, std::int32_t predicted) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(reference)) << 32 | static_cast<std::uint32_t>(predicted);
}

template <class R, class P>
PairCounts count_pairs(const R* reference, const P* predicted, std::int64_t voxels) {
  std::vector<PairCounts> workers(static_cast<std::size_t>(threads()));
  parallel_for_worker(voxels, kGrain, [&](int worker, std::int64_t begin, std::int64_t end) {
    PairCounts& counts = workers[static_cast<std::size_t>(worker)];
    for (std::int64_t i = begin; i < end;) {
      const R r = reference[i];
      const P p = predicted[i];
      std::int64_t run = i + 1;
      while (run < end && reference[run] == r && predicted[run] == p) ++run;
      counts[key_of(r, p)] += run - i;
      i = run;
    }
  });
  PairCounts total;
  for (const PairCounts& counts : workers)
    for (const auto& [key, n] : counts) total[key] += n;
  return total;
}

void check(const Tensor& t, const char* who) {
  require(t.defined() && (t.dtype() == DType::i32 || t.dtype() == DType::u8), "{}: labels must be i32 or u8, not {}", who,
          t.defined() ? name_of(t.dtype()) : "undefined");
  require(t.device().on_host(), "{}: labels must be in host memory, not on {}", who, to_string(t.device()));
}

// Calls f(typed pointer).
template <class F>
auto with_labels(const Tensor& t, F&& f) {
  return t.dtype() == DType::i32 ? f(t.data<std::int32_t>()) : f(t.data<std::uint8_t>());
}

template <class Value>
double mean_of(const std::vector<std::int32_t>& labels, Value&& value) {
  double sum = 0;
  std::int64_t n = 0;
  for (const std::int32_t label : labels) {
    const double d = value(label);
    if (std::isnan(d)) continue;
    sum += d;
    ++n;
  }
  return n ? sum / static_cast<double>(n) : kNaN;
}

}  // namespace

double Overlap::dice() const {
  const std::int64_t sum = reference + predicted;
  return sum ? 2.0 * static_cast<double>(both) / static_cast<double>(sum) : kNaN;
}

std::vector<Overlap> Confusion::overlaps() const {
  std::map<std::int32_t, Overlap> found;
  for (const Cell& c : cells) {
    found[c.reference].reference += c.voxels;
    found[c.predicted].predicted += c.voxels;
    if (c.reference == c.predicted) found[c.reference].both += c.voxels;
  }
  std::vector<Overlap> list;
  for (auto& [label, overlap] : found) {
    overlap.label = label;
    list.push_back(overlap);
  }
  return list;
}

std::int64_t Confusion::voxels() const {
  std::int64_t n = 0;
  for (const Cell& c : cells) n += c.voxels;
  return n;
}

double Confusion::accuracy() const {
  std::int64_t same = 0;
  for (const Cell& c : cells) same += c.reference == c.predicted ? c.voxels : 0;
  return voxels() ? static_cast<double>(same) / static_cast<double>(voxels()) : kNaN;
}

Confusion confusion(const Tensor& reference, const Tensor& predicted) {
  check(reference, "confusion, reference");
  check(predicted, "confusion, prediction");
  require(reference.shape() == predicted.shape(), "confusion: reference {} and prediction {} differ in shape", to_string(reference.shape()),
          to_string(predicted.shape()));
  const PairCounts counts = with_labels(reference, [&](const auto* r) {
    return with_labels(predicted, [&](const auto* p) { return count_pairs(r, p, reference.elements()); });
  });
  Confusion result;
  for (const auto& [key, n] : counts)
    result.cells.push_back({static_cast<std::int32_t>(key >> 32), static_cast<std::int32_t>(key & 0xffffffffu), n});
  std::sort(result.cells.begin(), result.cells.end(), [](const auto& a, const auto& b) {
    return a.reference != b.reference ? a.reference < b.reference : a.predicted < b.predicted;
  });
  return result;
}

std::vector<Overlap> overlaps(const Tensor& reference, const Tensor& predicted) { return confusion(reference, predicted).overlaps(); }

std::map<std::int32_t, std::int64_t> label_counts(const Tensor& labels) {
  std::map<std::int32_t, std::int64_t> counts;
  for (const Confusion::Cell& c : confusion(labels, labels).cells) counts[c.reference] = c.voxels;
  return counts;
}

double mean_foreground_dice(const std::vector<Overlap>& overlaps) {
  DiceAccumulator one;
  one.add(overlaps);
  return one.mean_case(one.foreground());
}

double DiceAccumulator::Entry::case_mean() const { return scored ? dice_sum / static_cast<double>(scored) : kNaN; }

void DiceAccumulator::add(const std::vector<Overlap>& overlaps) {
  ++cases_;
  for (const Overlap& o : overlaps) {
    Entry& e = entries_[o.label];
    e.sum.label = o.label;
    e.sum.both += o.both;
    e.sum.reference += o.reference;
    e.sum.predicted += o.predicted;
    e.cases += o.reference > 0;
    if (o.reference + o.predicted == 0) continue;
    ++e.scored;
    e.dice_sum += o.dice();
  }
}

std::vector<std::int32_t> DiceAccumulator::foreground() const {
  std::vector<std::int32_t> labels;
  for (const auto& [label, entry] : entries_)
    if (label != 0 && entry.scored > 0) labels.push_back(label);
  return labels;
}

std::vector<std::int32_t> DiceAccumulator::seen_in(std::int64_t cases) const {
  std::vector<std::int32_t> labels;
  for (const auto& [label, entry] : entries_)
    if (label != 0 && entry.cases >= cases) labels.push_back(label);
  return labels;
}

double DiceAccumulator::mean_pooled(const std::vector<std::int32_t>& labels) const {
  return mean_of(labels, [&](std::int32_t label) {
    const auto e = entries_.find(label);
    return e == entries_.end() ? kNaN : e->second.pooled();
  });
}

double DiceAccumulator::mean_case(const std::vector<std::int32_t>& labels) const {
  return mean_of(labels, [&](std::int32_t label) {
    const auto e = entries_.find(label);
    return e == entries_.end() ? kNaN : e->second.case_mean();
  });
}

}  // namespace vg

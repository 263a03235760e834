// Intensity normalisation. Quantiles come from two passes of counting (upper, then lower 16 bits of the value), exact and without a sorted copy:
// 256^3 voxels take a tenth of a second. Sums are taken per fixed piece and added in order: the same bits for any number of threads.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "infer/recipe.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

constexpr std::int64_t kPiece = 1 << 16;

// Order of the keys = order of the numbers; -0 becomes +0.
std::uint32_t key_of(float v) {
  const auto u = std::bit_cast<std::uint32_t>(v + 0.0f);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}
float value_of(std::uint32_t key) { return std::bit_cast<float>(key & 0x80000000u ? key & 0x7fffffffu : ~key); }
bool finite(float v) { return (std::bit_cast<std::uint32_t>(v) & 0x7f800000u) != 0x7f800000u; }

using Counts = std::vector<std::int64_t>;

// Sums the histograms that the workers filled.
template <class Body>
Counts count(std::int64_t n, std::size_t bins, Body&& body) {
  std::vector<Counts> per_worker(static_cast<std::size_t>(threads()));
  parallel_for_worker(n, kPiece, [&](int worker, std::int64_t begin, std::int64_t end) {
    Counts& counts = per_worker[static_cast<std::size_t>(worker)];
    if (counts.empty()) counts.resize(bins);
    body(counts.data(), begin, end);
  });
  Counts total(bins);
  for (const Counts& c : per_worker)
    for (std::size_t i = 0; i < c.size(); ++i) total[i] += c[i];
  return total;
}

// The bin that holds the value of this rank; rank becomes its rank within the bin.
std::size_t find_bin(const std::int64_t* counts, std::int64_t& rank) {
  std::size_t bin = 0;
  while (rank >= counts[bin]) rank -= counts[bin++];
  return bin;
}

struct Moments {
  std::int64_t count = 0, not_finite = 0;
  double sum = 0;
  float min = std::numeric_limits<float>::infinity(), max = -std::numeric_limits<float>::infinity();
};

// Over finite values, without zeros if asked.
Moments moments(const float* v, std::int64_t n, bool skip_zero) {
  std::vector<Moments> pieces(static_cast<std::size_t>((n + kPiece - 1) / kPiece));
  parallel_for(n, kPiece, [&](std::int64_t begin, std::int64_t end) {
    Moments m;
    for (std::int64_t i = begin; i < end; ++i) {
      if (!finite(v[i])) {
        ++m.not_finite;
      } else if (!skip_zero || v[i] != 0.0f) {
        ++m.count, m.sum += v[i];
        m.min = std::min(m.min, v[i]), m.max = std::max(m.max, v[i]);
      }
    }
    pieces[static_cast<std::size_t>(begin / kPiece)] = m;
  });
  Moments all;
  for (const Moments& m : pieces) {
    all.count += m.count, all.not_finite += m.not_finite, all.sum += m.sum;
    all.min = std::min(all.min, m.min), all.max = std::max(all.max, m.max);
  }
  return all;
}

double variance(const float* v, std::int64_t n, bool skip_zero, double mean, std::int64_t count) {
  std::vector<double> pieces(static_cast<std::size_t>((n + kPiece - 1) / kPiece));
  parallel_for(n, kPiece, [&](std::int64_t begin, std::int64_t end) {
    double sum = 0;
    for (std::int64_t i = begin; i < end; ++i)
      if (finite(v[i]) && (!skip_zero || v[i] != 0.0f)) sum += (v[i] - mean) * (v[i] - mean);
    pieces[static_cast<std::size_t>(begin / kPiece)] = sum;
  });
  double sum = 0;
  for (const double s : pieces) sum += s;
  return count ? sum / static_cast<double>(count) : 0.0;
}

NormaliseReport statistics(const float* v, std::int64_t n, const Intensity& how) {
  NormaliseReport r;
  if (how.kind == "quantile") {
    const std::vector<float> q = quantiles(v, n, {how.low, how.high}, &r.not_finite);
    if (!q.empty()) r.offset = q[0], r.scale = q[1] - q[0];
    r.constant = q.empty() || !(r.scale > 0.0f);
  } else if (how.kind == "zscore") {
    const bool skip_zero = how.mask == "nonzero";
    const Moments m = moments(v, n, skip_zero);
    const double mean = m.count ? m.sum / static_cast<double>(m.count) : 0.0;
    r.not_finite = m.not_finite;
    r.offset = static_cast<float>(mean);
    r.scale = static_cast<float>(std::max(std::sqrt(variance(v, n, skip_zero, mean, m.count)), 1e-8));
    r.constant = m.count == 0 || m.min == m.max;
  } else {
    const Moments m = moments(v, n, false);
    r.not_finite = m.not_finite;
    if (how.kind == "minmax") {
      r.offset = m.count ? m.min : 0.0f, r.scale = m.count ? m.max - m.min : 0.0f;
      r.constant = !(r.scale > 0.0f);
    }
  }
  return r;
}

// y may be v.
void apply(float* y, const float* v, std::int64_t n, const Intensity& how, const NormaliseReport& r) {
  const bool clip = how.kind == "quantile" && how.clip, keep_zero = how.kind == "zscore" && how.mask == "nonzero";
  parallel_for(n, kPiece, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float x = v[i], scaled = (x - r.offset) / r.scale, limited = clip ? std::min(std::max(scaled, 0.0f), 1.0f) : scaled;
      y[i] = !finite(x) || r.constant || (keep_zero && x == 0.0f) ? 0.0f : limited;
    }
  });
}

}  // namespace

std::vector<float> quantiles(const float* values, std::int64_t n, const std::vector<double>& q, std::int64_t* not_finite) {
  constexpr std::size_t kBins = 1 << 16;
  const Counts upper = count(n, kBins, [&](std::int64_t* counts, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) counts[key_of(values[i]) >> 16] += finite(values[i]);
  });
  std::int64_t total = 0;
  for (const std::int64_t c : upper) total += c;
  if (not_finite) *not_finite = n - total;
  if (total == 0) return {};

  // The two neighbours of each quantile's position q (total - 1), found to 16 bits; the rest of the bits are counted in those bins alone.
  struct Wanted {
    std::size_t bin;
    std::int64_t rank;  // within the bin
  };
  std::vector<Wanted> wanted;
  std::vector<double> position;
  for (const double fraction : q) {
    require(fraction >= 0 && fraction <= 1, "quantiles: {} (wanted 0 .. 1)", fraction);
    position.push_back(static_cast<double>(total - 1) * fraction);
    for (const std::int64_t step : {0, 1}) {
      std::int64_t rank = std::min(static_cast<std::int64_t>(position.back()) + step, total - 1);
      const std::size_t bin = find_bin(upper.data(), rank);
      wanted.push_back({bin, rank});
    }
  }
  std::vector<int> slot(kBins, -1);
  int slots = 0;
  for (const Wanted& w : wanted)
    if (slot[w.bin] < 0) slot[w.bin] = slots++;
  const Counts lower = count(n, kBins * static_cast<std::size_t>(slots), [&](std::int64_t* counts, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t key = key_of(values[i]);
      if (const int s = slot[key >> 16]; s >= 0) counts[static_cast<std::size_t>(s) * kBins + (key & 0xffffu)] += finite(values[i]);
    }
  });
  const auto value = [&](Wanted w) {
    const std::size_t low = find_bin(lower.data() + static_cast<std::size_t>(slot[w.bin]) * kBins, w.rank);
    return value_of(static_cast<std::uint32_t>(w.bin << 16 | low));
  };
  std::vector<float> result;
  for (std::size_t i = 0; i < q.size(); ++i) {
    // numpy's _lerp: from the nearer end, in the values' own precision.
    const float a = value(wanted[2 * i]), b = value(wanted[2 * i + 1]), step = b - a;
    const double t = position[i] - std::floor(position[i]);
    result.push_back(t >= 0.5 ? b - step * static_cast<float>(1.0 - t) : a + step * static_cast<float>(t));
  }
  return result;
}

Tensor normalise(const Tensor& volume, const Intensity& how, std::vector<NormaliseReport>* report) {
  const Shape s = volume.shape();
  require(volume.defined() && volume.dtype() == DType::f32 && volume.device().on_host() && (s.rank() == 3 || (s.rank() == 5 && s[0] == 1)),
          "normalise: got {} {} on {}, wanted f32 (D, H, W) or (1, D, H, W, C) on the host", name_of(volume.dtype()), to_string(s),
          to_string(volume.device()));
  require(how.kind == "none" || how.kind == "quantile" || how.kind == "zscore" || how.kind == "minmax", "normalise: unknown kind \"{}\"",
          how.kind);
  Tensor y(s, DType::f32, volume.device());
  const std::int64_t channels = s.rank() == 3 ? 1 : s.c(), voxels = channels ? volume.elements() / channels : 0;
  const float* from = volume.data<float>();
  float* to = y.data<float>();
  if (report) report->clear();
  std::vector<float> one(channels > 1 ? static_cast<std::size_t>(voxels) : 0);
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t i = 0; channels > 1 && i < voxels; ++i) one[static_cast<std::size_t>(i)] = from[i * channels + c];
    const float* channel = channels > 1 ? one.data() : from;
    const NormaliseReport r = statistics(channel, voxels, how);
    apply(channels > 1 ? one.data() : to, channel, voxels, how, r);
    for (std::int64_t i = 0; channels > 1 && i < voxels; ++i) to[i * channels + c] = one[static_cast<std::size_t>(i)];
    if (report) report->push_back(r);
  }
  return y;
}

}  // namespace vg

// The schedules' formulas. one_cycle: Smith, Topin, arXiv:1708.07120, with the corner cases of PyTorch's OneCycleLR, so that runs can be compared
// step by step.
#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tensor/error.h"

namespace vg {
namespace {

// From a to b along half a cosine as x goes from 0 to 1.
double cosine(double a, double b, double x) { return b + (a - b) / 2.0 * (std::cos(std::numbers::pi * x) + 1.0); }

}  // namespace

Rates rates_at(const ScheduleConfig& c, std::int64_t step, std::int64_t total) {
  const double s = static_cast<double>(step), S = static_cast<double>(std::max<std::int64_t>(total, 1));
  if (c.kind == "one_cycle") {
    // PyTorch counts total_steps = S + 1 values, so that the last one is never used for a step.
    const double peak = c.rise * (S + 1.0) - 1.0, start = c.rate / c.start_divisor, end = start / c.final_divisor;
    if (s < peak) return {cosine(start, c.rate, s / peak), cosine(c.high_momentum, c.low_momentum, s / peak)};
    const double x = (s - peak) / (S - peak);
    return {cosine(c.rate, end, x), cosine(c.low_momentum, c.high_momentum, x)};
  }
  const double warm = step < c.warmup ? (s + 1.0) / static_cast<double>(c.warmup) : 1.0;
  const double x = std::clamp((s - static_cast<double>(c.warmup)) / std::max(1.0, S - static_cast<double>(c.warmup)), 0.0, 1.0);
  if (c.kind == "constant") return {c.rate * warm};
  if (c.kind == "poly") return {warm * (c.final_rate + (c.rate - c.final_rate) * std::pow(1.0 - x, c.power))};
  if (c.kind == "cosine") return {warm * cosine(c.rate, c.final_rate, x)};
  fail(ErrorCode::invalid_argument, "schedule \"{}\" (known: constant, poly, cosine, one_cycle)", c.kind);
}

}  // namespace vg

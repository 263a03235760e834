// Learning rate (and momentum) as a function of the step: pure, so that a resumed run needs to remember the step alone.
#pragma once
#include <cstdint>
#include <string>

namespace vg {

struct ScheduleConfig {
  std::string kind = "one_cycle";  // "constant", "poly", "cosine", "one_cycle"
  double rate = 4e-3;              // the peak
  double final_rate = 0.0;         // poly, cosine: where it ends
  double power = 0.9;              // poly: rate (1 - s/S)^power
  std::int64_t warmup = 0;         // constant, poly, cosine: linear from 0 over so many steps
  // one_cycle as PyTorch's OneCycleLR: rises from rate/25 over 30 % of the steps and falls to rate/250000, both along a cosine; momentum mirrors it.
  double rise = 0.3, start_divisor = 25.0, final_divisor = 1e4;
  double low_momentum = 0.85, high_momentum = 0.95;
};

struct Rates {
  double rate = 0.0;
  double momentum = -1.0;  // < 0: the optimizer's own
};

// Rates of step `step` (from 0) of `total`. Throws invalid_argument for an unknown kind.
Rates rates_at(const ScheduleConfig& c, std::int64_t step, std::int64_t total);

}  // namespace vg

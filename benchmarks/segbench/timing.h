// How everything here is timed: repetitions for a given time, each by the wall clock and by the CPU time of all threads, of which the smallest and
// the median are kept. CPU time divided by the threads equals wall time on a quiet machine and does not count other processes' time slices on a busy one.
#pragma once
#include <algorithm>
#include <cstddef>
#include <functional>
#include <vector>

#include "tensor/os.h"
#include "tensor/parallel.h"

namespace vg::bench {

// Seconds; cpu: of all threads together.
struct Sample {
  double wall = 0, cpu = 0;
};

inline double least(std::vector<double> v) { return v.empty() ? 0.0 : *std::min_element(v.begin(), v.end()); }
inline double median(std::vector<double> v) {
  if (v.empty()) return 0.0;
  std::sort(v.begin(), v.end());
  const std::size_t half = v.size() / 2;
  return v.size() % 2 ? v[half] : (v[half - 1] + v[half]) / 2;
}

struct Samples {
  std::vector<double> wall, cpu;
  void add(const Sample& s) { wall.push_back(s.wall), cpu.push_back(s.cpu); }
};

inline Sample timed(const std::function<void()>& work) {
  const double wall = os::wall_seconds(), cpu = os::cpu_seconds();
  work();
  return {os::wall_seconds() - wall, os::cpu_seconds() - cpu};
}

// One untimed run, then repetitions until they took `seconds` together, at least `fewest`. `before` runs untimed before each.
inline Samples measure(double seconds, const std::function<void()>& work, int fewest = 3, const std::function<void()>& before = {}) {
  Samples all;
  if (before) before();
  work();
  for (double total = 0; total < seconds || static_cast<int>(all.wall.size()) < fewest;) {
    if (before) before();
    all.add(timed(work));
    total += all.wall.back();
  }
  return all;
}

}  // namespace vg::bench

// How everything here is timed: by the wall clock and by the CPU time of all threads, of which the smallest and the median are kept. CPU time
// divided by the threads equals wall time on a quiet machine and does not count other processes' time slices on a busy one. But the system adds a
// running thread's CPU time to its process only at clock ticks (1 to 10 ms): short work is timed in windows of many repetitions.
#pragma once
#include <time.h>

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

inline constexpr double kWindow = 0.1;  // seconds: a tick that is missing at its end is a few percent

inline double thread_cpu_seconds() {  // of the calling thread alone: exact at any time
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// One untimed run, then repetitions until they took `seconds` together, at least `fewest`. A sample is the mean over a window of repetitions that
// last at least `window` seconds. `before` runs before each repetition on the calling thread alone; its time is taken off.
inline Samples measure(double seconds, const std::function<void()>& work, int fewest = 1, const std::function<void()>& before = {}, double window = kWindow) {
  Samples all;
  if (before) before();
  work();
  const double start = os::wall_seconds();
  do {
    const double wall = os::wall_seconds(), cpu = os::cpu_seconds();
    double off_wall = 0, off_cpu = 0;
    int count = 0;
    do {
      if (before) {
        const double w = os::wall_seconds(), c = thread_cpu_seconds();
        before();
        off_wall += os::wall_seconds() - w, off_cpu += thread_cpu_seconds() - c;
      }
      work();
      ++count;
    } while (os::wall_seconds() - wall < window);
    all.add({(os::wall_seconds() - wall - off_wall) / count, (os::cpu_seconds() - cpu - off_cpu) / count});
  } while (os::wall_seconds() - start < seconds || static_cast<int>(all.wall.size()) < fewest);
  return all;
}

}  // namespace vg::bench

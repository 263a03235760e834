// A look into parallel_for for those who model other machines (segbench threads): how long each chunk of each call took.
#pragma once
#include <cstdint>
#include <vector>

namespace vg {

struct ParallelTrace {
  double (*clock)() = nullptr;             // seconds
  std::vector<std::vector<double>> calls;  // of every outermost parallel_for, in order: the seconds of its chunks
};

// While a trace is set and threads() is 1, calls are noted in it. nullptr: no more. For a program with one thread that computes.
void set_parallel_trace(ParallelTrace* trace);

}  // namespace vg

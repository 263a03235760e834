// The work in a kernel call by definition: multiply-adds of the plain sum; each tensor read once and written once, unless the definition needs two
// sweeps. What times are held against.
#pragma once
#include "benchmarks/segbench/cases.h"
#include "benchmarks/segbench/peak.h"
#include "benchmarks/segbench/record.h"

namespace vg::bench {

struct Cost {
  double flop = 0;  // of convolutions alone: others are bound by memory
  Traffic traffic;
};
Cost cost_of(const Call& call);
bool is_convolution(const Call& call);

// The calls of one step, or of one segmentation, of a case on the cpu.
std::vector<Call> record(const std::string& name, const CaseOptions& options);

// The same as mere numbers. Networks that the cpu runs plane by plane (infer/planes.h), in one call that no recording sees, count layer by layer: `chain`.
struct Work {
  double flop, bytes;
  int count;
};
std::vector<Work> work_of(const std::string& name, const CaseOptions& options);
std::vector<Work> work_of(const std::vector<ChainLayer>& chain);

}  // namespace vg::bench

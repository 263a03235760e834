// What this machine can do at most, measured now: multiply-adds in registers, and memory traffic of a given mix. Rates come from CPU time
// (timing.h), because clocks and neighbours move; kernels are judged against a peak measured within the same second.
#pragma once
#include <cstdint>
#include <string>

#include "benchmarks/segbench/timing.h"

namespace vg::bench {

std::string vector_target();  // "AVX3": the instruction set that Highway chose

// GFLOP/s of fused multiply-adds on f32, of one thread or of all together (a multiply-add counts two).
// `seconds` under kWindow, here and below: for a look only (timing.h).
double multiply_add_peak(bool all_threads, double seconds = kWindow);

// Memory traffic: `read` bytes are read, `write` bytes written, `update` bytes read and written in place, side by side in one sweep.
struct Traffic {
  double read = 0, write = 0, update = 0;
  double read_before = 0;    // of those, bytes that are read in an earlier sweep of their own
  bool stream = false;       // writes bypass the caches
  double bytes() const { return read + write + 2 * update + read_before; }
};
// CPU seconds / threads (median) that a plain loop takes for that traffic on all threads; 0 for no bytes.
double probe_seconds(const Traffic& t, double seconds = kWindow);

enum class Access { read, write, stream, copy };
const char* name_of(Access a);
// GB/s where every thread works on `bytes` of its own again and again (copy: half of them read, half written; both are counted).
double bandwidth(Access access, std::int64_t bytes, bool all_threads, double seconds = kWindow);

}  // namespace vg::bench

// The subcommands of segbench, each a function from options to a report. They throw vg::Error and print nothing but progress, through `say`.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "benchmarks/segbench/cases.h"
#include "benchmarks/segbench/report.h"

namespace vg::bench {

struct Options : CaseOptions {
  std::string name;           // the case
  bool quick = false;         // short measurements of small memory: does it work, not how fast is it
  int repetitions = 5;        // train, infer, io
  int rounds = 4;             // vs-peers
  std::string python = "python3";
  std::string scripts = "benchmarks/peers";
  std::vector<std::string> cases;  // of speedup; empty: all but tiny
  std::vector<std::string> precisions;  // of speedup's GPU side: fp32, tf32, bf16; empty: all
  std::vector<std::string> peers;  // of vs-peers; empty: all that fit the case
  bool loud = false;          // peers' own messages
  std::function<void(const std::string&)> say = [](const std::string&) {};
};

Report peak(const Options& o);
Report kernels(const Options& o);   // throws numeric: a result is not finite, or a convolution is further from the direct sum than rounding allows
Report train_case(const Options& o);
Report infer_case(const Options& o);
Report io(const Options& o);
Report thread_model(const Options& o);  // many cores, by counting imbalance
Report speedup(const Options& o);   // throws numeric: the GPU computes something else than the cpu
std::string speedup_svg(const Report& of_speedup);
Report vs_peers(const Options& o);  // throws numeric: a peer computes something else than we do

}  // namespace vg::bench

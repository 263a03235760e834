// segbench threads: what more cores than this machine has would make of a step, by counting. One thread runs it, and every chunk of every
// parallel_for is timed by the thread's own clock; then each call's chunks are dealt out again, in order, to the first of P workers that is free, as
// the queue would. A call takes as long as its last worker; what runs outside of any call takes as long as it took. Memory bandwidth, which cores
// share, and the cost of waking them are not in the model: it is a bound from imbalance alone.
#include <algorithm>
#include <functional>
#include <queue>

#include "benchmarks/segbench/commands.h"
#include "benchmarks/segbench/timing.h"
#include "tensor/parallel_trace.h"

namespace vg::bench {
namespace {

double longest_chain(const std::vector<double>& chunks, int workers) {
  std::priority_queue<double, std::vector<double>, std::greater<>> free_at;
  for (int i = 0; i < workers; ++i) free_at.push(0.0);
  double end = 0;
  for (const double seconds : chunks) {
    const double done = free_at.top() + seconds;
    free_at.pop(), free_at.push(done);
    end = std::max(end, done);
  }
  return end;
}

double sum(const std::vector<double>& v) {
  double all = 0;
  for (const double s : v) all += s;
  return all;
}

}  // namespace

Report thread_model(const Options& o) {
  set_threads(1);
  ParallelTrace trace;
  trace.clock = thread_cpu_seconds;
  double whole = 0;
  const auto traced = [&](const std::function<void()>& step) {
    step();
    set_parallel_trace(&trace);
    const double start = thread_cpu_seconds();
    step();
    whole = thread_cpu_seconds() - start;
    set_parallel_trace(nullptr);
  };
  if (is_train_case(o.name)) {
    TrainCase one(o.name, o);
    traced([&] { one.step(); });
  } else {
    InferCase one(o.name, o);
    traced([&] { one.run(); });
  }
  double inside = 0;
  for (const auto& call : trace.calls) inside += sum(call);
  const double outside = std::max(0.0, whole - inside);

  Report r;
  r.title = "threads " + o.name;
  r.columns = {"workers", "seconds", "times as fast", "of ideal", "of ideal without what is serial", "calls with fewer chunks than workers"};
  Json items = Json::array();
  for (const int workers : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}) {
    double seconds = 0;
    int short_calls = 0;
    for (const auto& call : trace.calls) seconds += longest_chain(call, workers), short_calls += static_cast<int>(call.size()) < workers;
    const double faster = whole / (outside + seconds);
    r.rows.push_back({std::to_string(workers), fmt::format("{:.4f}", outside + seconds), fmt::format("{:.2f}", faster), fmt::format("{:.0f} %", 100 * faster / workers),
                      fmt::format("{:.0f} %", 100 * inside / seconds / workers), fmt::format("{} of {}", short_calls, trace.calls.size())});
    items.push_back({{"workers", workers}, {"seconds", outside + seconds}, {"speedup", faster}});
  }
  r.notes.push_back(fmt::format("a step on one thread: {:.3f} s, of which {:.4f} s outside of parallel work; modelled: chunks of each call dealt out to workers in order, bandwidth not shared",
                                whole, outside));
  r.data = {{"case", o.name}, {"threads", items}, {"serial_seconds", outside}, {"calls", trace.calls.size()}};
  return r;
}

}  // namespace vg::bench

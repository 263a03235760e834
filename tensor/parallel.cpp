// parallel_for over oneTBB, or over plain std::thread where VG_PARALLEL_STD is defined. Both cut [0, count) into the same chunks.
#include "tensor/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel_trace.h"

#if !defined(VG_PARALLEL_STD)
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#endif

namespace vg {
namespace {

using Body = std::function<void(int worker, std::int64_t begin, std::int64_t end)>;

thread_local int this_worker = -1;  // -1 outside of every body

// Sets the worker's number for the time of one body, so that a nested call that runs in place reports the true one.
struct WorkerScope {
  explicit WorkerScope(int worker) : before(this_worker) { this_worker = worker; }
  ~WorkerScope() { this_worker = before; }
  int before;
};

void run_chunk(const Body& body, int worker, std::int64_t chunk, std::int64_t grain, std::int64_t count) {
  body(worker, chunk * grain, std::min(count, (chunk + 1) * grain));
}

#if !defined(VG_PARALLEL_STD)
// An arena of the wanted width. Process-wide, TBB starts as many workers as there are processors; tests ask for more.
struct Crew {
  explicit Crew(int threads)
      : threads(threads), width(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(threads)), arena(threads) {}

  void run(std::int64_t chunks, std::int64_t grain, std::int64_t count, const Body& body) {
    arena.execute([&] {
      // Isolated: while a thread waits here it takes no chunk of an outer loop, whose per-worker scratch is in use.
      tbb::this_task_arena::isolate([&] {
        tbb::parallel_for(tbb::blocked_range<std::int64_t>(0, chunks), [&](const tbb::blocked_range<std::int64_t>& range) {
          const WorkerScope scope(tbb::this_task_arena::current_thread_index());
          for (std::int64_t i = range.begin(); i < range.end(); ++i) run_chunk(body, this_worker, i, grain, count);
        });
      });
    });
  }

  int threads;
  tbb::global_control width;
  tbb::task_arena arena;
};
#else
struct Crew {
  explicit Crew(int threads) : threads(threads) {}

  void run(std::int64_t chunks, std::int64_t grain, std::int64_t count, const Body& body) {
    std::atomic<std::int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr error;
    const auto work = [&](int worker) {
      const WorkerScope scope(worker);
      try {
        for (std::int64_t i; !failed && (i = next++) < chunks;) run_chunk(body, worker, i, grain, count);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
      }
    };
    std::vector<std::thread> others;
    for (int worker = 1; worker < std::min<std::int64_t>(threads, chunks); ++worker) others.emplace_back(work, worker);
    work(0);
    for (std::thread& t : others) t.join();
    if (error) std::rethrow_exception(error);
  }

  int threads;
};
#endif

std::mutex crew_mutex;
std::shared_ptr<Crew> current_crew;
ParallelTrace* current_trace = nullptr;

std::shared_ptr<Crew> crew() {
  const std::lock_guard lock(crew_mutex);
  if (!current_crew) current_crew = std::make_shared<Crew>(os::hardware_threads());
  return current_crew;
}

}  // namespace

void set_parallel_trace(ParallelTrace* trace) { current_trace = trace; }

void set_threads(int threads) {
  require(threads >= 0 && threads <= 1024, "threads = {} (wanted 0..1024; 0: one per hardware thread)", threads);
  if (threads == 0) threads = os::hardware_threads();
  const std::lock_guard lock(crew_mutex);
  if (!current_crew || current_crew->threads != threads) current_crew = std::make_shared<Crew>(threads);
}

int threads() { return crew()->threads; }

void parallel_for_worker(std::int64_t count, std::int64_t grain, const Body& body) {
  require(grain > 0, "parallel_for: grain = {} (wanted > 0)", grain);
  if (count <= 0) return;
  const std::int64_t chunks = (count - 1) / grain + 1;
  const std::shared_ptr<Crew> all = crew();
  bool alone = all->threads == 1 || chunks == 1;
#if defined(VG_PARALLEL_STD)
  alone = alone || this_worker >= 0;  // nested: the threads are busy already
#endif
  if (!alone) return all->run(chunks, grain, count, body);
  const bool noted = current_trace && this_worker < 0 && all->threads == 1;
  const WorkerScope scope(std::max(this_worker, 0));
  std::vector<double> seconds;
  for (std::int64_t i = 0; i < chunks; ++i) {
    const double start = noted ? current_trace->clock() : 0.0;
    run_chunk(body, this_worker, i, grain, count);
    if (noted) seconds.push_back(current_trace->clock() - start);
  }
  if (noted) current_trace->calls.push_back(std::move(seconds));
}

void parallel_for(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t begin, std::int64_t end)>& body) {
  parallel_for_worker(count, grain, [&body](int, std::int64_t begin, std::int64_t end) { body(begin, end); });
}

}  // namespace vg

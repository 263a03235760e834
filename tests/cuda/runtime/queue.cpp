// Streams as queues that run as late as CUDA allows. A synchronisation runs what it must and nothing else; what no event orders runs in the order
// that a programmer would least expect. So code that forgot to order its work meets the consequences every time.
#include <algorithm>
#include <cstring>
#include <set>

#include "tensor/error.h"
#include "tests/cuda/runtime/handles.h"

namespace vg::fake_cuda {
namespace {

struct State {
  std::vector<std::shared_ptr<Queue>> defaults;  // by device
  std::vector<std::shared_ptr<Queue>> others;    // in the order of creation, destroyed ones with work left included
  std::set<cudaStream_t> streams;
  int streams_made = 0, runs_of_failing = 0;
  cudaError_t sticky = cudaSuccess;
  std::string running;
};
State& state() {
  static auto& s = *new State;  // never destroyed: the report at exit looks at it
  return s;
}

thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

std::shared_ptr<Queue> default_queue(int device) {
  auto& all = state().defaults;
  while (static_cast<int>(all.size()) <= device) {
    all.push_back(std::make_shared<Queue>());
    all.back()->device = static_cast<int>(all.size()) - 1;
  }
  return all[static_cast<std::size_t>(device)];
}

bool fails_on_purpose(const std::string& what) {
  const Options& o = options();
  return !o.fail_kernel.empty() && what.starts_with("kernel " + o.fail_kernel + ",") && ++state().runs_of_failing == o.fail_run;
}

void abandon() {
  State& s = state();
  for (auto& q : s.defaults) q->waiting.clear(), q->done = q->queued;
  for (auto& q : s.others) q->waiting.clear(), q->done = q->queued;
}

cudaError_t run_first(Queue& queue) {
  const Work work = std::move(queue.waiting.front());
  queue.waiting.pop_front();
  for (const Point& p : work.after)
    if (const cudaError_t e = run_until(p); e != cudaSuccess) return e;
  State& s = state();
  if (work.run) {
    const OpenMemory open;
    s.running = work.what;
    try {
      if (fails_on_purpose(work.what))
        s.sticky = cudaErrorIllegalAddress;
      else
        work.run();
    } catch (const std::exception& e) {
      complain(e.what());
      s.sticky = cudaErrorLaunchFailure;
    }
    s.running.clear();
  }
  ++queue.done;
  if (s.sticky != cudaSuccess) abandon();
  return s.sticky;
}

// The last work of `other` that new work of `queue` must wait for.
std::uint64_t waits_for(const Queue& queue, const Work& work, const Queue& other) {
  std::uint64_t last = 0;
  const auto look = [&](const Work& w) {
    for (const Point& p : w.after)
      if (p.queue.get() == &other) last = std::max(last, p.at);
  };
  for (const Work& w : queue.waiting) look(w);
  look(work);
  return last;
}

void count(const Queue& queue, const Work& work) {
  Traffic& t = traffic();
  t.kernels += work.what.starts_with("kernel ");
  if (!work.what.starts_with("copy ")) return;
  ++t.copies;
  const auto free_kernels = [&](const std::shared_ptr<Queue>& other) {
    if (other.get() == &queue || other->waiting.empty() || other->device != queue.device) return false;
    const std::uint64_t last = waits_for(queue, work, *other);
    std::uint64_t number = other->done;
    return std::any_of(other->waiting.begin(), other->waiting.end(), [&](const Work& w) { return ++number > last && w.what.starts_with("kernel "); });
  };
  const State& s = state();
  t.beside += std::any_of(s.defaults.begin(), s.defaults.end(), free_kernels) || std::any_of(s.others.begin(), s.others.end(), free_kernels);
}

}  // namespace

Traffic& traffic() {
  static Traffic t;
  return t;
}

std::recursive_mutex& lock() {
  static auto& mutex = *new std::recursive_mutex;
  return mutex;
}

int current_device() { return device_of_thread; }
void set_current_device(int device) { device_of_thread = device; }
cudaError_t sticky() { return state().sticky; }
std::string running() { return state().running; }

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}
cudaError_t take_last_error(bool keep) {
  const cudaError_t error = sticky() != cudaSuccess ? sticky() : last_error;
  if (!keep) last_error = cudaSuccess;
  return error;
}

std::shared_ptr<Queue> queue_of(cudaStream_t stream) {
  if (!stream) return default_queue(current_device());
  if (state().streams.contains(stream)) return stream->queue;
  complain("a stream is used that does not exist (any more)");
  return nullptr;
}

cudaStream_t make_stream(bool blocking) {
  State& s = state();
  auto queue = std::make_shared<Queue>();
  queue->device = current_device(), queue->number = ++s.streams_made, queue->blocking = blocking;
  s.others.push_back(queue);
  const auto stream = new CUstream_st{queue};
  s.streams.insert(stream);
  return stream;
}

// As on a GPU: the work that is queued is still done, some time.
void drop_stream(cudaStream_t stream) {
  stream->queue->destroyed = true;
  state().streams.erase(stream);
  delete stream;
}

cudaError_t enqueue(cudaStream_t stream, Work work) {
  if (sticky() != cudaSuccess) return sticky();
  const std::shared_ptr<Queue> queue = queue_of(stream);
  if (!queue) return cudaErrorInvalidResourceHandle;
  if (queue->recording) {
    queue->recording->push_back(std::move(work));
    return cudaSuccess;
  }
  // The default stream waits for what the blocking streams of its device hold, and they for it (CUDA programming guide, "Default stream").
  if (queue->number == 0) {
    for (const auto& other : state().others)
      if (other->blocking && other->device == queue->device && !other->waiting.empty()) work.after.push_back({other, other->queued});
  } else if (queue->blocking) {
    const auto first = default_queue(queue->device);
    if (!first->waiting.empty()) work.after.push_back({first, first->queued});
  }
  count(*queue, work);
  queue->waiting.push_back(std::move(work));
  ++queue->queued;
  return options().eager ? run_until({queue, queue->queued}) : cudaSuccess;
}

cudaError_t run_until(const Point& point) {
  if (sticky() != cudaSuccess) return sticky();
  const OpenMemory open;
  while (point.queue->done < point.at)
    if (const cudaError_t e = run_first(*point.queue); e != cudaSuccess) return e;
  return cudaSuccess;
}

cudaError_t run_all(int device) {
  const OpenMemory open;
  auto& others = state().others;
  for (std::size_t i = others.size(); i-- > 0;)
    if (others[i]->device == device)
      if (const cudaError_t e = run_until({others[i], others[i]->queued}); e != cudaSuccess) return e;
  std::erase_if(others, [](const auto& q) { return q->destroyed && q->waiting.empty(); });
  const auto first = default_queue(device);
  return run_until({first, first->queued});
}

cudaError_t run_one(Queue& queue) {
  if (sticky() != cudaSuccess || queue.waiting.empty()) return sticky();
  return run_first(queue);
}

bool will_write(const void* from, std::size_t bytes) {
  const char *first = static_cast<const char*>(from), *last = first + bytes;
  const auto any = [&](const std::vector<std::shared_ptr<Queue>>& queues) {
    for (const auto& q : queues)
      for (const Work& w : q->waiting)
        if (w.written.first < last && first < w.written.second) return true;
    return false;
  };
  return any(state().defaults) || any(state().others);
}

std::vector<std::string> waiting_work() {
  std::vector<std::string> names;
  const auto list = [&](const std::shared_ptr<Queue>& q) {
    const std::string where = q->number ? fmt::format("stream {}", q->number) : "the default stream";
    for (const Work& w : q->waiting)
      if (w.run) names.push_back(fmt::format("{} on {}", w.what, where));
  };
  for (const auto& q : state().defaults) list(q);
  for (const auto& q : state().others) list(q);
  return names;
}

std::size_t live_streams() { return state().streams.size(); }

}  // namespace vg::fake_cuda

namespace vg::simt {

// The launch of kernels/simt.h when the cuda slot is compiled by the host compiler.
cudaError_t queue_launch(const Launch& launch, std::shared_ptr<const void> arguments, cudaStream_t stream) {
  const std::lock_guard guard(fake_cuda::lock());
  const std::string what = fmt::format("kernel {}, grid {}, block {}", launch.kernel, to_string(launch.grid), to_string(launch.block));
  return fake_cuda::remember(fake_cuda::enqueue(stream, {what, [launch, arguments] { execute(launch); }, {}, {}}));
}

}  // namespace vg::simt

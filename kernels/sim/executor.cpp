// The scheduler: deals blocks to workers and turns to threads. One stack carries thread after thread of a block as plain calls; only when a thread
// waits does the next one get another stack. So a kernel without barriers costs a loop, and one with them a switch per thread and barrier.
#include "kernels/sim/executor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>

#include "kernels/sim/watch.h"
#include "kernels/sim/words.h"
#include "kernels/sim/worker.h"
#include "tensor/os.h"
#include "tensor/parallel.h"

namespace vg::sim {
namespace {

struct OrderChoice {
  Order order = Order::forward;
  std::uint64_t seed = 1;
};

OrderChoice from_environment() {
  const std::string text = os::environment("VG_SIM_ORDER");
  if (text.empty() || text == "forward") return {};
  if (text == "reverse") return {Order::reverse, 1};
  if (text == "random") return {Order::random, 1};
  if (text.rfind("random:", 0) == 0 && text.size() > 7 && text.find_first_not_of("0123456789", 7) == std::string::npos && text.size() < 27)
    return {Order::random, std::strtoull(text.c_str() + 7, nullptr, 10)};
  fail(ErrorCode::invalid_argument, "VG_SIM_ORDER = {} (wanted forward, reverse, random or random:SEED)", text);
}

std::mutex choice_mutex;

OrderChoice& choice() {
  static OrderChoice chosen = from_environment();
  return chosen;
}

OrderChoice current_choice() {
  const std::lock_guard lock(choice_mutex);
  return choice();
}

}  // namespace

void set_order(Order order, std::uint64_t seed) {
  const std::lock_guard lock(choice_mutex);
  choice() = {order, seed};
}

Order order() { return current_choice().order; }
std::uint64_t order_seed() { return current_choice().seed; }

}  // namespace vg::sim

namespace vg::simt {
namespace {

constinit thread_local Worker* this_worker = nullptr;  // while a chunk of blocks runs on this thread

std::uint64_t scramble(std::uint64_t x) {  // splitmix64 (Steele, Lea, Flood, OOPSLA 2014)
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Workers that nobody uses now. Their stacks stay mapped for the life of the process.
std::mutex spare_mutex;
std::vector<std::unique_ptr<Worker>>& spare() {
  static std::vector<std::unique_ptr<Worker>> workers;
  return workers;
}

class WorkerLoan {
 public:
  WorkerLoan() {
    {
      const std::lock_guard lock(spare_mutex);
      if (!spare().empty()) {
        worker_ = std::move(spare().back());
        spare().pop_back();
      }
    }
    if (!worker_) worker_ = std::make_unique<Worker>();
    this_worker = worker_.get();
  }
  ~WorkerLoan() {
    this_worker = nullptr;
    const std::lock_guard lock(spare_mutex);
    spare().push_back(std::move(worker_));
  }
  Worker& operator*() { return *worker_; }

 private:
  std::unique_ptr<Worker> worker_;
};

// A one-to-one shuffle of 0 .. count-1: i * step + shift modulo count, step coprime to count.
struct BlockShuffle {
  BlockShuffle(std::uint64_t count, std::uint64_t seed) : count(count), step(scramble(seed) % count), shift(scramble(seed + 1) % count) {
    while (std::gcd(step, count) != 1) ++step;
  }
  std::uint64_t operator()(std::uint64_t i) const {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(i) * step + shift) % count);
  }
  std::uint64_t count, step, shift;
};

}  // namespace

void execute(const Launch& launch) {
  if (this_worker)
    refuse_launch(launch.kernel, launch.grid, launch.block, launch.dynamic_shared, "a kernel cannot launch another one here");
  const sim::OrderChoice choice = sim::current_choice();
  const std::uint64_t blocks = launch.grid.count();
  if (blocks >> 62)
    refuse_launch(launch.kernel, launch.grid, launch.block, launch.dynamic_shared, "the simulator runs fewer than 2^62 blocks");
  const BlockShuffle shuffle(blocks, choice.seed);
  const watch::Launching watched(launch);
  const std::uint64_t chosen = watch::blocks_to_run(blocks);
  const std::uint64_t grain = watch::kOn ? chosen : (chosen + 255) / 256;  // few enough chunks that dealing costs nothing, enough of them to balance
  parallel_for(static_cast<std::int64_t>(chosen), static_cast<std::int64_t>(grain), [&](std::int64_t begin, std::int64_t end) {
    WorkerLoan worker;
    (*worker).begin(launch, choice.order, choice.seed);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint64_t k = static_cast<std::uint64_t>(i), n = chosen == blocks ? k : k + 1 == chosen ? blocks - 1 : k * (blocks / chosen);
      (*worker).run_block(choice.order == sim::Order::forward ? n : choice.order == sim::Order::reverse ? blocks - 1 - n : shuffle(n));
    }
  });
}

void* shared_array(SharedArray& array) { return this_worker->shared_array(array); }
void* dynamic_shared() { return this_worker->dynamic_shared(); }
void async_copy(char* to, const void* from, const char* file, int line) { this_worker->async_copy(to, from, file, line); }
void async_commit() { this_worker->async_commit(); }
void async_wait(int left, const char* file, int line) { this_worker->async_wait(left, file, line); }
Running running_thread() { return this_worker ? Running{this_worker->current(), &this_worker->context()} : Running{}; }
int lane_number() { return this_worker->current() % kLanes; }
void trap(const char* file, int line) { this_worker->fault(this_worker->current(), file, line, "__trap"); }

extern "C" __attribute__((visibility("hidden"))) void vg_sim_answer(Request* request) {
  if (!watch::left_out(*request)) this_worker->answer(*request);
}

void Worker::begin(const Launch& launch, sim::Order order, std::uint64_t seed) {
  launch_ = &launch;
  order_ = order;
  seed_ = seed;
  if (os_thread_ != &this_worker) {  // a suspended stack may hold addresses of the other thread's variables
    abandon_fibres();
    os_thread_ = &this_worker;
  }
  threads_ = static_cast<int>(launch.block.count());
  int i = 0;
  for (unsigned z = 0; z < launch.block.z; ++z)
    for (unsigned y = 0; y < launch.block.y; ++y)
      for (unsigned x = 0; x < launch.block.x; ++x) index_[i++] = {x, y, z};
  std::fill_n(home_, threads_, nullptr);
  const int warps = (threads_ + kLanes - 1) / kLanes;
  for (int w = 0; w < warps; ++w) {
    const int lanes = std::min(kLanes, threads_ - w * kLanes);
    warp_[w].exists = lanes == kLanes ? ~0u : (1u << lanes) - 1;
  }
  gridDim = dim3(launch.grid.x, launch.grid.y, launch.grid.z);
  blockDim = dim3(launch.block.x, launch.block.y, launch.block.z);
}

void Worker::run_block(std::uint64_t number) {
  const Shape3& grid = launch_->grid;
  block_ = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
            static_cast<unsigned>(number / grid.x / grid.y)};
  blockIdx = block_;
  random_ = scramble(seed_ ^ scramble(number));
  exited_ = 0;
  barrier_ = {};
  const int warps = (threads_ + kLanes - 1) / kLanes;
  for (int w = 0; w < warps; ++w) {
    warp_[w].ready = warp_[w].alive = warp_[w].exists;
    warp_[w].waiting = 0;
  }
  ready_warps_ = warps == 32 ? ~0u : (1u << warps) - 1;
  begin_shared();
  watch::block_begins(block_, arena_);

  Fibre& first = idle_fibre();
  current_ = pick();
  threadIdx = index_[current_];
  fibre_ = &first;
  Context::switch_to(main_, first.context);

  if (error_ || exited_ != threads_) {
    std::string stuck;
    if (!error_) stuck = deadlock();
    abandon_fibres();
    std::fill_n(home_, threads_, nullptr);
    end_shared();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    throw Error(ErrorCode::invalid_argument, stuck);
  }
  end_shared();
}

// Who is next among those that could run: lowest first, highest first, or drawn. Lowest first runs a warp as far as it can go, then the next.
int Worker::pick() {
  if (!ready_warps_) return kNobody;
  int w, lane;
  switch (order_) {
    case sim::Order::forward:
      w = std::countr_zero(ready_warps_);
      lane = std::countr_zero(warp_[w].ready);
      break;
    case sim::Order::reverse:
      w = 31 - std::countl_zero(ready_warps_);
      lane = 31 - std::countl_zero(warp_[w].ready);
      break;
    default:
      random_ ^= random_ << 13;  // xorshift64 (Marsaglia 2003)
      random_ ^= random_ >> 7;
      random_ ^= random_ << 17;
      const int r = static_cast<int>(random_ & 31), s = static_cast<int>(random_ >> 32 & 31);
      w = (std::countr_zero(std::rotr(ready_warps_, r)) + r) & 31;
      lane = (std::countr_zero(std::rotr(warp_[w].ready, s)) + s) & 31;
      break;
  }
  Warp& warp = warp_[w];
  warp.ready &= ~(1u << lane);
  if (!warp.ready) ready_warps_ &= ~(1u << w);
  return w * kLanes + lane;
}

void Worker::fibre_entry() {
  arrived();
  this_worker->fibre_loop();
}

void Worker::fibre_loop() {
  for (;;) {
    try {
      launch_->thread(launch_->arguments);
      finish_thread();
    } catch (...) {
      error_ = std::current_exception();
    }
    const int next = error_ ? kNobody : pick();
    if (next != kNobody && !home_[next]) {
      current_ = next;
      threadIdx = index_[next];
      continue;
    }
    Fibre& self = *fibre_;
    idle_.push_back(&self);
    if (next == kNobody) {
      Context::switch_to(self.context, main_);
    } else {
      current_ = next;
      threadIdx = index_[next];
      fibre_ = home_[next];
      Context::switch_to(self.context, fibre_->context);
    }
  }
}

// The running thread waits: another one gets its turn. Returns when somebody has made this one ready and it was picked.
void Worker::park() {
  Fibre& self = *fibre_;
  home_[current_] = &self;
  const int next = pick();
  if (next == kNobody) {
    Context::switch_to(self.context, main_);
  } else {
    if (next == current_) return;
    current_ = next;
    threadIdx = index_[next];
    fibre_ = home_[next] ? home_[next] : &idle_fibre();
    Context::switch_to(self.context, fibre_->context);
  }
}

Fibre& Worker::idle_fibre() {
  if (idle_.empty()) {
    auto fibre = std::make_unique<Fibre>();
    fibre->context.allocate(static_cast<int>(fibres_.size()));
    fibre->context.rewind(&Worker::fibre_entry);
    idle_.reserve(fibres_.size() + 1);
    idle_.push_back(fibre.get());
    fibres_.push_back(std::move(fibre));
  }
  Fibre& fibre = *idle_.back();
  idle_.pop_back();
  return fibre;
}

// Stacks of threads that will never go on are reused as they are: a kernel's local variables own nothing.
void Worker::abandon_fibres() {
  idle_.clear();
  for (auto& fibre : fibres_) {
    fibre->context.rewind(&Worker::fibre_entry);
    idle_.push_back(fibre.get());
  }
}

}  // namespace vg::simt

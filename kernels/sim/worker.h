// One worker of the sim device: the block that it runs now, who of its threads waits for what, stacks for those that wait, and shared memory.
// Private to this folder. A thread is its number in the block (x fastest); 32 in a row are a warp.
#pragma once
#include <bit>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "kernels/sim/context.h"
#include "kernels/sim/executor.h"
#include "kernels/sim/vectors.h"

namespace vg::simt {

inline constexpr int kLanes = 32;
inline constexpr int kNobody = -1;

struct Warp {
  unsigned ready = 0;    // lanes that could run now
  unsigned waiting = 0;  // lanes in a warp collective
  unsigned alive = 0;    // lanes that exist and have not returned
  unsigned exists = 0;
  Request* request[kLanes];  // of waiting lanes
};

struct Fibre {
  Context context;
};

// The place of one SIMT_SHARED array, valid while `block` is the serial number of the running block.
struct SharedPlace {
  std::uint64_t block = 0;
  char* data = nullptr;
};

class Worker {
 public:
  Worker();
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void begin(const Launch& launch, sim::Order order, std::uint64_t seed);  // on the thread that will call run_block
  void run_block(std::uint64_t number);                                    // number: x fastest

  // Called by the running thread.
  void answer(Request& request);
  void* shared_array(SharedArray& array);
  char* dynamic_shared() const { return arena_; }
  void async_copy(char* to, const void* from, const char* file, int line);
  void async_commit();
  void async_wait(int left, const char* file, int line);
  [[noreturn]] void fault(int thread, const char* file, int line, const std::string& what) const;
  int current() const { return current_; }
  const Context& context() const { return fibre_->context; }  // of the running thread

 private:
  static void fibre_entry();
  [[noreturn]] void fibre_loop();
  void finish_thread();
  int pick();
  void give_turn(int thread, Fibre& fibre);
  void park();
  void warp_collective(Request& request);
  void block_barrier(Request& request);
  Fibre& idle_fibre();
  void abandon_fibres();
  void resolve(Warp& warp, int first_thread, const Request& last);
  void resolve_matrix(Request* const* request, int first_thread);
  void check_shared16(int thread, const char* at, const char* word, const char* file, int line) const;
  std::string thread_name(int thread) const;
  std::string deadlock() const;
  void begin_shared();
  void end_shared();

  const Launch* launch_ = nullptr;
  sim::Order order_ = sim::Order::forward;
  std::uint64_t seed_ = 0, random_ = 0;

  // The running block.
  uint3 block_{0, 0, 0};
  int threads_ = 0, exited_ = 0;
  int current_ = kNobody;
  unsigned ready_warps_ = 0;  // bit w: warp w has a lane that could run now
  Warp warp_[kMaxBlockThreads / kLanes];
  uint3 index_[kMaxBlockThreads];  // threadIdx of each
  Fibre* home_[kMaxBlockThreads];  // where a waiting thread's stack is; null: not started, or returned
  struct Barrier {
    int waiting = 0, count = 0, result = 0;
    Collective what{};
    const char* file = nullptr;
    int line = 0;
  } barrier_;

  Context main_;
  Fibre* fibre_ = nullptr;  // the running one
  std::vector<std::unique_ptr<Fibre>> fibres_;
  std::vector<Fibre*> idle_;
  const void* os_thread_ = nullptr;  // an address that differs between the system's threads
  std::exception_ptr error_;

  // Shared memory: dynamic part first, then arrays in order of first use, red zones after each.
  char* arena_ = nullptr;
  std::size_t arena_used_ = 0, static_bytes_ = 0;
  std::uint64_t block_serial_ = 0;
  std::vector<SharedPlace> places_;
  struct RedZone {
    char* at;
    const SharedArray* after;  // null: after dynamic shared memory
  };
  std::vector<RedZone> red_zones_;

  // Asynchronous copies of each thread that have not been performed, oldest first; those of the group that is still open last.
  struct AsyncCopy {
    char* to;
    const void* from;
    int group;
    const char* file;
    int line;
  };
  struct AsyncQueue {
    std::uint64_t block = 0;  // valid while this is the serial number of the running block
    int open = 0;
    std::vector<AsyncCopy> copies;
  };
  void perform(const AsyncCopy& copy) const;
  AsyncQueue* own_queue();
  std::vector<AsyncQueue> async_;
};

// The GPU thread that this thread of the system plays now; -1: none, host code runs.
struct Running {
  int thread = -1;
  const Context* context = nullptr;
  bool on_stack(const void* p) const { return context->holds(p); }
};
Running running_thread();

const char* name_of(Collective what);
std::string place(const char* file, int line);  // "kernels/norm.cu:41"

}  // namespace vg::simt

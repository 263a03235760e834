// The sim device: runs CUDA kernels on the CPU. Blocks are dealt to the workers of parallel_for; the threads of a block take turns on one worker.
// A thread runs until it waits (barrier, shuffle, vote) or returns, so a program that obeys CUDA's rules gives the same result in every order of
// turns, and one that does not is found by changing the order, or by the checks made here. README.md in this folder tells how it works.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/sim/limits.h"

namespace vg::sim {

// In which order blocks start, and threads of a block take turns. A correct kernel gives equal bits in all of them.
enum class Order { forward, reverse, random };

// For every launch from now on. The environment variable VG_SIM_ORDER = forward | reverse | random[:seed] sets the first choice; without it: forward.
void set_order(Order order, std::uint64_t seed = 1);
Order order();
std::uint64_t order_seed();

// Runs `work` in each order (random: several seeds) and puts the order back: in_every_order([&](Order o) { launch, compare }).
template <class Work>
void in_every_order(Work&& work);

}  // namespace vg::sim

namespace vg::simt {

struct Launch {
  const char* kernel;
  Shape3 grid, block;
  std::size_t dynamic_shared;
  const void* arguments;
  void (*thread)(const void* arguments);  // one thread's whole work
  const void* function = nullptr;         // the kernel itself, and how long its arguments are: for reports
  std::size_t argument_bytes = 0;
};

// Returns when every block has run. Throws invalid_argument naming kernel, block, thread, file and line for what a GPU would answer with garbage, a
// hang or a fault; what a kernel throws comes out here too.
void execute(const Launch& launch);

// One SIMT_SHARED declaration in the source. `id` is given at first use and finds the array's place in a worker's arena.
struct SharedArray {
  const char *name, *file;
  int line;
  std::size_t bytes, alignment;
  std::atomic<std::uint32_t> id{0};
};
void* shared_array(SharedArray& array);  // where the running block keeps it; filled with 0xFF (NaN) at the block's start
void* dynamic_shared();

// What threads of a warp, or of a block, do together.
enum class Collective : std::uint8_t {
  sync_warp,
  shuffle,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  ballot,
  any,
  all,
  mma_bf16,
  mma_f16,
  load_matrix,
  load_matrix_transposed,
  barrier,
  barrier_or,
  barrier_and,
  barrier_count
};

// What one thread asks for, on its own stack. Lanes of a warp wait until every lane that `mask` names has asked for the same; barriers (which use
// only what, value, file and line) until every thread of the block has.
struct Request {
  std::uint64_t value;  // in: contribution or predicate; out: the result
  const char* file;
  int line, operand, width;
  unsigned mask;
  Collective what;
};
[[noreturn]] void trap(const char* file, int line);  // __trap()

// One lane's part of a matrix word; the request's value is its address.
struct MatrixProduct {
  float* d;           // [4]
  const unsigned* a;  // [4]
  const unsigned* b;  // [2]
};
struct MatrixLoad {
  unsigned* r;  // [4]
  const char* row;
};
// The running thread's asynchronous copies. from: null for zeros.
void async_copy(char* to, const void* from, const char* file, int line);
void async_commit();
void async_wait(int left, const char* file, int line);
int lane_number();                                   // of the running thread in its warp

}  // namespace vg::simt

// Returns with the request answered; other threads run meanwhile. (context.cpp)
extern "C" void vg_sim_ask(vg::simt::Request* request);

namespace vg::simt {

inline std::uint64_t warp_collective(Collective what, unsigned mask, std::uint64_t value, int operand, int width, const char* file,
                                     int line) {
  Request request{value, file, line, operand, width, mask, what};
  vg_sim_ask(&request);
  return request.value;
}

inline int block_barrier(Collective what, int predicate, const char* file, int line) {
  Request request{predicate != 0, file, line, 0, 0, 0, what};
  vg_sim_ask(&request);
  return static_cast<int>(request.value);
}

}  // namespace vg::simt

template <class Work>
void vg::sim::in_every_order(Work&& work) {
  struct Restore {
    Order before = order();
    std::uint64_t seed = order_seed();
    ~Restore() { set_order(before, seed); }
  } restore;
  set_order(Order::forward);
  work(Order::forward);
  set_order(Order::reverse);
  work(Order::reverse);
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    set_order(Order::random, seed);
    work(Order::random);
  }
}

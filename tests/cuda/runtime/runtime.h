// The fake CUDA runtime from inside: options, memory, queues, reports. It stands in for libcudart when the host code of the cuda device is tested on
// a machine without a GPU. Kernels run on the sim device's executor; what is checked is the host's part of the bargain: order, lifetimes, ranges.
//
// VG_CUDA_FAKE in the environment, words separated by commas:
//   eager          work runs when it is queued, as with CUDA_LAUNCH_BLOCKING=1 (the default is lazy: as late as CUDA allows, streams in the unkindest order)
//   strict         the host can reach device memory at no time; pinned sources must not change under a queued copy; leaks are told at the end;
//                  a program with complaints ends with exit code 86
//   report         at the end, one line on stderr says how many copies had kernels beside them, and how often a graph was launched (Traffic)
//   memory=64M     of each device (default 2G)      devices=2    how many      fail=KERNEL[:3]   the KERNEL's third run fails as on a broken GPU
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace vg::fake_cuda {

inline constexpr int kExitCode = 86;
inline constexpr int kMostDevices = 8;

struct Options {
  bool eager = false, strict = false, report = false;
  std::size_t memory = std::size_t{2} << 30;
  int devices = 1;
  int capability = 90;  // compute capability, times ten
  std::string fail_kernel;
  int fail_run = 1;
};
Options parse_options(const std::string& text);  // throws invalid_argument
Options& options();                              // from the environment at first; tests change it while nothing is queued or allocated

// Every function of this folder holds this lock while it looks at queues and buffers.
std::recursive_mutex& lock();

// --- reports (report.cpp) ---
void complain(const std::string& text);     // one line on stderr; counted
std::vector<std::string> take_complaints();  // for tests: all since the last call
void report_at_exit();                       // leaks and work nobody waited for

// --- memory (memory.cpp): each buffer ends at an unreadable page, is filled with 0xFF, and keeps its address range when freed ---
enum class Space { pageable, device, pinned };
struct Buffer {
  char* pages;  // start of the mapping; the guard page follows it
  std::size_t mapped;
  char* data;
  std::size_t bytes;
  Space space;
  int device;
  int number;  // counts allocations
  bool live;
};
cudaError_t allocate(Space space, int device, std::size_t bytes, void** data);
cudaError_t release(Space space, void* data);       // work that may use it is done
const Buffer* find(const void* address);            // in the mapping or guard page of a buffer, live or freed; null: none of ours
std::string describe(const void* address);          // "12 bytes past the end of device buffer 7 (400 bytes)"
std::size_t used(int device);
std::vector<const Buffer*> live_buffers();
// While at least one exists, device memory can be reached.
struct OpenMemory {
  OpenMemory();
  ~OpenMemory();
};

// --- queues (queue.cpp) ---
struct Queue;
struct Point {  // everything queued there up to number `at`
  std::shared_ptr<Queue> queue;
  std::uint64_t at = 0;
};
struct Work {
  std::string what;  // "kernel add_kernel, grid 1 x 1 x 1, block 256 x 1 x 1"
  std::function<void()> run;
  std::vector<Point> after;                        // to be done first, besides what is queued before it
  std::pair<const char*, const char*> written{};  // host memory that it will write
};
struct Queue {
  int device = 0, number = 0;  // number 0: the device's default stream
  bool blocking = true;        // ordered with the default stream
  bool destroyed = false;
  std::deque<Work> waiting;
  std::uint64_t queued = 0, done = 0;
  std::vector<Work>* recording = nullptr;  // a capture is going on: work is noted, not queued
};
// The queue of a handle (null: the current device's default stream). Null and a complaint if there is none.
std::shared_ptr<Queue> queue_of(cudaStream_t stream);
cudaError_t enqueue(cudaStream_t stream, Work work);
cudaError_t run_until(const Point& point);
cudaError_t run_all(int device);  // the streams made last come first, the default stream last
cudaError_t run_one(Queue& queue);  // what a query does: asking moves the world on a little
bool will_write(const void* from, std::size_t bytes);  // does waiting work write host memory there?
int current_device();
cudaError_t remember(cudaError_t error);  // for cudaGetLastError; returns it
cudaError_t sticky();                     // cudaSuccess until some work failed
struct Traffic {
  std::int64_t kernels = 0, copies = 0;
  std::int64_t beside = 0;  // copies that were queued while kernels of another stream waited that the copy does not wait for
  std::int64_t replays = 0;  // of graphs
};
Traffic& traffic();
std::string running();                    // what is being run now; empty: nothing

}  // namespace vg::fake_cuda

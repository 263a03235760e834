// What a hooks build finds. kernels/*.cu are compiled with -fsanitize=thread, but the functions that this makes the compiler call (__tsan_read4, ...)
// are ours: every access of a kernel arrives with address, size and place in the code, and is held against
//   bounds           device buffers (Storage) and shared arrays, exactly; host memory in kernels and device memory in host code
//   initialisation   one mark per byte: ever written, or copied to
//   races            last write and last reads of each word by {block, thread, barriers passed, __syncwarp passed}; shuffles order no memory
//   traffic          32-byte sectors and shared memory wavefronts of the k-th access of one place in the code by the 32 lanes of a warp
// Single-threaded by construction: a hooks build runs all blocks on one worker.
#pragma once
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace vg::simt::hooks {

enum class Finding : std::uint8_t { race, out_of_bounds, uninitialised, host_access };
const char* name_of(Finding f);

// One mistake in one pair of places; later cases of it are only counted.
struct Report {
  Finding what;
  std::uintptr_t place, other;  // in the code: this access, the earlier one it collides with (0: none)
  std::string text;             // who, where in which buffer
  std::int64_t count = 1;
};
std::vector<Report> take_reports();  // since the last call

// Traffic of one place in one kernel.
struct Traffic {
  const void* kernel;  // the function
  std::uintptr_t place;
  bool shared, store, atomic;
  int bytes;  // of one lane's access
  std::int64_t requests, lanes;
  std::int64_t moved, ideal;  // global: sectors of 32 bytes; shared: wavefronts (at most 32 different words each, one per bank)
};
std::vector<Traffic> traffic();

struct LaunchShapes {
  const char* name;
  const void* kernel;
  std::set<std::string> shapes;  // grid, block, dynamic shared memory, number of accesses: a kernel of one block differs by the last
  std::int64_t launches = 0, blocks = 0, blocks_run = 0;  // of all launches together
  unsigned threads = 0;                                   // of a block
  std::size_t dynamic_shared = 0;                         // the most of any launch
};
std::vector<LaunchShapes> launches();
// Counts of traffic() and launches() begin again.
void forget_counts();
// From now on only so many blocks of each launch run, evenly spread with the first and the last among them, unless it has at most 32, as the kernels that make
// tables of offsets have (0: all run). Results are wrong; counts can be scaled by blocks / blocks_run.
void sample_blocks(std::uint64_t most);

// Barriers, __syncwarp and waits for copies that were reached since the last forget_barriers(): "kernels/norm.cu:105 __syncthreads".
std::vector<std::string> barriers();
void forget_barriers();
// Leaves out the barrier or __syncwarp at "kernels/norm.cu:105"; "" ends it. Also the environment's VG_SIM_LEAVE_OUT.
void leave_out(const std::string& place);
// How often the barrier left out was reached.
std::int64_t times_left_out();

// Address space that kernels may use although most of it has no memory behind it: bounds are watched there, and nothing else. bytes 0: no longer.
void allow_virtual(void* data, std::size_t bytes);

// The buffer's contents become unwritten again.
void forget(const void* data, std::size_t bytes);

// Words of the executor (ldmatrix, cp.async) know their place as file and line: such places are small numbers, not addresses.
bool is_named(std::uintptr_t place);
std::string name_of_place(std::uintptr_t place);  // "kernels/conv_mma.cu:81"

// Where the program lies in memory: place - program_start() is what addr2line wants.
std::uintptr_t program_start();

}  // namespace vg::simt::hooks

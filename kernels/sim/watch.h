// Where the executor tells an observer what happens: launches, blocks, barriers, places of shared arrays. In the hooks build (-DVG_HOOKS=ON) the
// observer is hooks/; in every other build these are empty and cost nothing. Private to this folder.
#pragma once
#include "kernels/sim/executor.h"
#include "kernels/sim/vectors.h"

namespace vg::simt::watch {

#if defined(VG_HOOKS)
inline constexpr bool kOn = true;  // then one worker runs all blocks, one after the other
class Launching {                  // for as long as a launch runs; launches of several host threads wait for each other
 public:
  explicit Launching(const Launch& launch);
  ~Launching();
};
// How many of a launch's blocks run: all, unless hooks::sample_blocks() wants a few, evenly spread.
std::uint64_t blocks_to_run(std::uint64_t blocks);
void block_begins(uint3 block, char* dynamic_shared);
void block_ends();
void shared_array_placed(const SharedArray& array, char* data);
void block_synchronised();
void warp_asked(int warp, unsigned mask, Collective what);  // every lane of `mask` has arrived
// What a lane of a matrix word reads; what cp.async does when it is issued and when the wait for it is over: between, the target has no contents.
void reads(int thread, const void* from, std::size_t bytes, const char* file, int line);
void copy_issued(int thread, void* to, const void* from, const char* file, int line);
void copy_arrived(int thread, void* to, const char* file, int line);
// Is this barrier, __syncwarp or wait for copies the one that the mutation test leaves out? Notes that the place was reached.
bool left_out(const Request& request);
bool left_out(const char* file, int line);
#else
inline constexpr bool kOn = false;
struct Launching {
  explicit Launching(const Launch&) {}
};
constexpr std::uint64_t blocks_to_run(std::uint64_t blocks) { return blocks; }
inline void block_begins(uint3, char*) {}
inline void block_ends() {}
inline void shared_array_placed(const SharedArray&, char*) {}
inline void block_synchronised() {}
inline void warp_asked(int, unsigned, Collective) {}
inline void reads(int, const void*, std::size_t, const char*, int) {}
inline void copy_issued(int, void*, const void*, const char*, int) {}
inline void copy_arrived(int, void*, const char*, int) {}
constexpr bool left_out(const Request&) { return false; }
constexpr bool left_out(const char*, int) { return false; }
#endif

}  // namespace vg::simt::watch

// What a launch may ask for on every GPU that we build for (CUDA C++ programming guide, table "technical specifications per compute capability").
// Checked before every launch on both devices, so that a launch which a GPU would refuse also fails on the simulator.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "tensor/error.h"

namespace vg::simt {

inline constexpr std::int64_t kMaxGridX = 2147483647, kMaxGridYZ = 65535;
inline constexpr unsigned kMaxBlockThreads = 1024, kMaxBlockZ = 64;
inline constexpr std::size_t kStaticSharedBytes = 48 << 10;  // of one block, without opting in
inline constexpr std::size_t kSharedBytes =
    227 << 10;  // of one block, static and dynamic, after opting in (sm_90; sm_80: 163, sm_86/89: 99 KiB)

struct Shape3 {
  unsigned x, y, z;
  std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

inline std::string to_string(const Shape3& s) { return std::to_string(s.x) + " x " + std::to_string(s.y) + " x " + std::to_string(s.z); }

[[noreturn]] inline void refuse_launch(const char* kernel, const Shape3& grid, const Shape3& block, std::size_t shared_bytes,
                                       const std::string& why) {
  throw Error(ErrorCode::invalid_argument, std::string("kernel ") + kernel + ", grid " + to_string(grid) + ", block " + to_string(block) +
                                               ", " + std::to_string(shared_bytes) + " bytes of dynamic shared memory: " + why);
}

inline void check_launch(const char* kernel, const Shape3& grid, const Shape3& block, std::size_t shared_bytes) {
  const auto refuse = [&](const std::string& why) { refuse_launch(kernel, grid, block, shared_bytes, why); };
  if (grid.x > kMaxGridX) refuse("grid.x is at most " + std::to_string(kMaxGridX));
  if (grid.y > kMaxGridYZ || grid.z > kMaxGridYZ) refuse("grid.y and grid.z are at most " + std::to_string(kMaxGridYZ));
  if (block.count() == 0) refuse("a block has at least one thread");
  if (block.count() > kMaxBlockThreads) refuse("a block has at most " + std::to_string(kMaxBlockThreads) + " threads");
  if (block.z > kMaxBlockZ) refuse("block.z is at most " + std::to_string(kMaxBlockZ));
  if (shared_bytes > kSharedBytes) refuse("a block has at most " + std::to_string(kSharedBytes) + " bytes of shared memory");
}

}  // namespace vg::simt

// CUDA's own words for the host compiler: qualifiers, built-in variables, barriers, shuffles, votes, atomics. Included by kernels/simt.h alone.
// Semantics: CUDA C++ programming guide, "C++ language extensions". Stricter on purpose (a portable kernel obeys both rules): a mask may not name
// a lane that has returned or does not exist, and __syncthreads() may not be called after some thread of the block has returned.
// Absent on purpose: __shared__ (write SIMT_SHARED), atomics on floating-point numbers (their result depends on the order of arrival).
#pragma once
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/sim/executor.h"
#include "kernels/sim/math.h"
#include "kernels/sim/vectors.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// Set whenever a thread gets its turn. All threads of a block share one worker, that is, one operating system's thread.
inline constinit thread_local uint3 threadIdx{0, 0, 0}, blockIdx{0, 0, 0};
inline constinit thread_local dim3 blockDim{1, 1, 1}, gridDim{1, 1, 1};
inline constexpr int warpSize = 32;

// The place in the source travels as two default arguments: a report names the kernel's line.
#define VG_SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(VG_SIMT_HERE) { vg::simt::block_barrier(vg::simt::Collective::barrier, 0, file, line); }
inline int __syncthreads_or(int predicate, VG_SIMT_HERE) {
  return vg::simt::block_barrier(vg::simt::Collective::barrier_or, predicate, file, line);
}
inline int __syncthreads_and(int predicate, VG_SIMT_HERE) {
  return vg::simt::block_barrier(vg::simt::Collective::barrier_and, predicate, file, line);
}
inline int __syncthreads_count(int predicate, VG_SIMT_HERE) {
  return vg::simt::block_barrier(vg::simt::Collective::barrier_count, predicate, file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, VG_SIMT_HERE) {
  vg::simt::warp_collective(vg::simt::Collective::sync_warp, mask, 0, 0, 32, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, VG_SIMT_HERE) {
  return static_cast<unsigned>(vg::simt::warp_collective(vg::simt::Collective::ballot, mask, predicate != 0, 0, 32, file, line));
}
inline int __any_sync(unsigned mask, int predicate, VG_SIMT_HERE) {
  return static_cast<int>(vg::simt::warp_collective(vg::simt::Collective::any, mask, predicate != 0, 0, 32, file, line));
}
inline int __all_sync(unsigned mask, int predicate, VG_SIMT_HERE) {
  return static_cast<int>(vg::simt::warp_collective(vg::simt::Collective::all, mask, predicate != 0, 0, 32, file, line));
}

namespace vg::simt {
template <class T>
T exchange(Collective what, unsigned mask, T value, int operand, int width, const char* file, int line) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "shuffles move 4 or 8 byte numbers");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = warp_collective(what, mask, bits, operand, width, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace vg::simt

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, VG_SIMT_HERE) {
  return vg::simt::exchange(vg::simt::Collective::shuffle, mask, value, source, width, file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, VG_SIMT_HERE) {
  return vg::simt::exchange(vg::simt::Collective::shuffle_up, mask, value, static_cast<int>(delta), width, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, VG_SIMT_HERE) {
  return vg::simt::exchange(vg::simt::Collective::shuffle_down, mask, value, static_cast<int>(delta), width, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, VG_SIMT_HERE) {
  return vg::simt::exchange(vg::simt::Collective::shuffle_xor, mask, value, lane_mask, width, file, line);
}

[[noreturn]] inline void __trap(VG_SIMT_HERE) { vg::simt::trap(file, line); }
#undef VG_SIMT_HERE

inline void __threadfence_block() { __sync_synchronize(); }
inline void __threadfence() { __sync_synchronize(); }
inline void __threadfence_system() { __sync_synchronize(); }

// Blocks run on several workers, so these are real atomics; relaxed, as CUDA's are. Each returns the old value. CUDA has them for int, unsigned and
// unsigned long long (add, exchange, compare) and also long long (min, max).
namespace vg::simt {
template <class T>
concept AtomicInteger = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
template <class T>
concept AtomicOrdered = AtomicInteger<T> || std::is_same_v<T, long long>;

template <class T, class Change>
T atomic_change(T* address, Change change) {
  const std::atomic_ref<T> cell(*address);
  T old = cell.load(std::memory_order_relaxed);
  while (!cell.compare_exchange_weak(old, change(old), std::memory_order_relaxed)) {
  }
  return old;
}
}  // namespace vg::simt

template <vg::simt::AtomicInteger T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <vg::simt::AtomicInteger T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_sub(address, value, __ATOMIC_RELAXED);
}
template <vg::simt::AtomicInteger T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
template <vg::simt::AtomicInteger T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(address, &compare, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return compare;
}
template <vg::simt::AtomicOrdered T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return vg::simt::atomic_change(address, [value](T old) { return old < value ? old : value; });
}
template <vg::simt::AtomicOrdered T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return vg::simt::atomic_change(address, [value](T old) { return old > value ? old : value; });
}
template <vg::simt::AtomicOrdered T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_and(address, value, __ATOMIC_RELAXED);
}
template <vg::simt::AtomicOrdered T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}
template <vg::simt::AtomicOrdered T>
T atomicXor(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_xor(address, value, __ATOMIC_RELAXED);
}
// old >= limit ? 0 : old + 1, and old == 0 || old > limit ? limit : old - 1
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return vg::simt::atomic_change(address, [limit](unsigned old) { return old >= limit ? 0u : old + 1; });
}
inline unsigned atomicDec(unsigned* address, unsigned limit) {
  return vg::simt::atomic_change(address, [limit](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}

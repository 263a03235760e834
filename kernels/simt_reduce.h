// Sums over a warp and over a block in one fixed order, the same on sim and cuda: the project has no floating-point atomics, and every reduction on
// a device is built from these. For kernel files only.
//
//   warp:   v(i) + v(i ^ 16), then ^ 8, ^ 4, ^ 2, ^ 1: a butterfly; floating-point addition commutes, so all 32 lanes hold the same bits
//   block:  each warp as above, then the warps' results, padded with the neutral element to 32, as above
//
// Every thread of the warp (block) must call; block sizes are multiples of 32. Threads are numbered x fastest.
#pragma once
#include "kernels/simt.h"

namespace vg::simt {

inline constexpr unsigned kFullWarp = 0xffffffffu;

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Min {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

// Every lane receives the combination of all 32 values; `combine` must commute.
template <class Combine, class T>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
  SIMT_UNROLL
  for (int distance = 16; distance > 0; distance /= 2) value = combine(value, __shfl_xor_sync(kFullWarp, value, distance));
  return value;
}
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  return warp_reduce(value, Sum());
}
template <class T>
__device__ __forceinline__ T warp_max(T value) {
  return warp_reduce(value, Max());
}
template <class T>
__device__ __forceinline__ T warp_min(T value) {
  return warp_reduce(value, Min());
}

// Reduces N values of every thread together (two barriers in all, not two for each); every thread receives the results in `value`.
template <class Combine, class T, int N>
__device__ __forceinline__ void block_reduce(T (&value)[N], T neutral, Combine combine) {
  SIMT_SHARED(T, partial, [N][32]);
  const int thread = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
  const int warps = static_cast<int>(blockDim.x * blockDim.y * blockDim.z) / 32;
  const int lane = thread % 32;
  SIMT_UNROLL
  for (int i = 0; i < N; ++i) {
    value[i] = warp_reduce(value[i], combine);
    if (lane == 0) partial[i][thread / 32] = value[i];
  }
  __syncthreads();
  SIMT_UNROLL
  for (int i = 0; i < N; ++i) value[i] = warp_reduce(lane < warps ? partial[i][lane] : neutral, combine);
  __syncthreads();  // so that the next call may write `partial`
}

template <class T, int N>
__device__ __forceinline__ void block_sum(T (&value)[N]) {
  block_reduce(value, T(0), Sum());
}
template <class T>
__device__ __forceinline__ T block_sum(T value) {
  T one[1] = {value};
  block_reduce(one, T(0), Sum());
  return one[0];
}
// `lowest`: a value not above any other, such as -INFINITY.
template <class T>
__device__ __forceinline__ T block_max(T value, T lowest) {
  T one[1] = {value};
  block_reduce(one, lowest, Max());
  return one[0];
}

}  // namespace vg::simt

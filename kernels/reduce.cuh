// Sums that give the same bits every time: no atomics, every order fixed by the shape. Three stages, each a tree:
//   1. a block adds its chunk of a sample's voxels: threads in registers, then add_rows() through shared memory -> partial sums
//   2. sum_partials_kernel: a warp adds the chunks of one sample
//   3. the same kernel adds the samples as a binary tree, (0 + 1) + (2 + 3) ..., so that a batch split over devices at a power of two keeps its bits
#pragma once
#include "kernels/device.cuh"
#include "kernels/simt_reduce.h"

namespace vg {
namespace VG_NS {

inline constexpr int kMaxChunks = 1024;  // partial sums per sample and channel

// K sums side by side, as one state for add_rows.
template <int K>
struct Sums {
  float v[K];
  __device__ void merge(const Sums& other) { SIMT_UNROLL for (int k = 0; k < K; ++k) v[k] += other.v[k]; }
};

// Merges the states of all threads in one column of the block (Column in device.cuh); the thread of row 0 receives the result. Every thread calls.
template <class State>
__device__ inline void add_rows(State& state, const Column& c) {
  SIMT_SHARED(State, states, [kThreads]);
  states[threadIdx.x] = state;  // an earlier call's readers are done: behind its last barrier a thread reads its own state
  __syncthreads();
  int span = 1;
  while (span < c.rows) span *= 2;
  for (span /= 2; span > 0; span /= 2) {
    if (c.row < span && c.row + span < c.rows) states[threadIdx.x].merge(states[threadIdx.x + span * c.width]);
    __syncthreads();
  }
  state = states[threadIdx.x];
}

// sample[n, q] = sum over k of partial[n, q, k]      total[q] = sum over n of sample[n, q]      out[q] = beta out[q] + total[q]
// One block per q, one warp per sample. Any of sample, total, out may be null. Overwrites partial[n, q, 0].
template <int kBlock>
__global__ __launch_bounds__(kBlock) void sum_partials_kernel(float* __restrict__ partial, int samples, std::int64_t chunks,
                                                              float* __restrict__ sample, float* __restrict__ total,
                                                              float* __restrict__ out, float beta) {
  const std::int64_t q = blockIdx.x, quantities = gridDim.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int n = warp; n < samples; n += kBlock / 32) {
    float* chunk = partial + (n * quantities + q) * chunks;
    float sum = 0.0f;
    for (std::int64_t k = lane; k < chunks; k += 32) sum += chunk[k];
    sum = simt::warp_sum(sum);  // also the moment at which every lane has read
    if (lane == 0) {
      chunk[0] = sum;
      if (sample) sample[n * quantities + q] = sum;
    }
  }
  const std::int64_t stride = quantities * chunks;  // from sample to sample
  float* first = partial + q * chunks;
  for (int step = 1; step < samples; step *= 2) {
    __syncthreads();
    for (int n = 2 * step * static_cast<int>(threadIdx.x); n + step < samples; n += 2 * step * kBlock)
      first[n * stride] += first[(n + step) * stride];
  }
  if (threadIdx.x == 0) {
    if (total) total[q] = first[0];
    if (out) out[q] = (beta != 0.0f ? beta * out[q] : 0.0f) + first[0];
  }
}

inline void sum_partials(const Exec& ex, float* partial, std::int64_t samples, std::int64_t quantities, std::int64_t chunks, float* sample,
                         float* total, float* out, float beta) {
  VG_LAUNCH(ex, sum_partials_kernel<kThreads>, simt::blocks_for(quantities, 1), kThreads, 0, partial, static_cast<int>(samples), chunks,
            sample, total, out, beta);
}

}  // namespace VG_NS
}  // namespace vg

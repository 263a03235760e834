// Sums that give the same bits every time: no atomics, every order fixed by the shape. Three stages, each a tree:
//   1. a block adds its chunk of a sample's voxels: threads in registers, then add_rows() through shared memory -> partial sums
//   2. sum_partials_kernel: a block adds the chunks of one sample, for 8 channels
//   3. the same kernel adds the samples as a binary tree, (0 + 1) + (2 + 3) ..., so that a batch split over devices at a power of two keeps its bits
#pragma once
#include "kernels/device.cuh"
#include "kernels/simt_reduce.h"

namespace vg {
namespace VG_NS {

inline constexpr int kMaxChunks = 1024;  // partial sums per sample and channel
inline constexpr int kSumsOfBlock = 8;   // neighbouring quantities that a block of stage 2 adds: 32 bytes

// K sums side by side, as one state for add_rows.
template <int K>
struct Sums {
  float v[K];
  __device__ void merge(const Sums& other) { SIMT_UNROLL for (int k = 0; k < K; ++k) v[k] += other.v[k]; }
};

// V neighbouring sums as one store; `to` is aligned, as V channels of a multiple of V are.
template <int V>
__device__ inline void store_sums(float* to, const float* sums) {
  Pack<V> x;
  SIMT_UNROLL for (int j = 0; j < V; ++j) x.v[j] = sums[j];
  store<V>(to, x);
}

// Merges the states of all threads in one column of the block (Column in device.cuh); the thread of row 0 receives the result. Every thread calls. A state is
// floats alone; word by word in shared memory, so that neighbouring threads meet in no bank.
template <class State>
__device__ inline void add_rows(State& state, const Column& c) {
  constexpr int kWords = sizeof(State) / sizeof(float);
  SIMT_SHARED(float, words, [kWords][kThreads]);
  float* own = reinterpret_cast<float*>(&state);
  SIMT_UNROLL for (int i = 0; i < kWords; ++i) words[i][threadIdx.x] = own[i];  // an earlier call's readers have passed its last barrier
  __syncthreads();
  int span = 1;
  while (span < c.rows) span *= 2;
  for (span /= 2; span > 0; span /= 2) {
    if (c.row < span && c.row + span < c.rows) {
      State other;
      SIMT_UNROLL for (int i = 0; i < kWords; ++i) reinterpret_cast<float*>(&other)[i] = words[i][threadIdx.x + span * c.width];
      state.merge(other);
      SIMT_UNROLL for (int i = 0; i < kWords; ++i) words[i][threadIdx.x] = own[i];
    }
    __syncthreads();
  }
}

// sample[n, q] = sum over k of partial[n, k, q]      total[q] = sum over n of sample[n, q]      out[q] = beta out[q] + total[q]
// A block owns 8 neighbouring quantities q, a sector of each chunk k; kBlock / 8 threads share the chunks of each. Any of sample, total, out may be null.
// Overwrites partial[n, 0, q].
template <int kBlock>
__global__ __launch_bounds__(kBlock) void sum_partials_kernel(float* __restrict__ partial, int samples, std::int64_t chunks,
                                                              std::int64_t quantities, float* __restrict__ sample,
                                                              float* __restrict__ total, float* __restrict__ out, float beta) {
  SIMT_SHARED(float, warps, [kBlock / 32][kSumsOfBlock]);
  const int thread = static_cast<int>(threadIdx.x), x = thread % kSumsOfBlock, y = thread / kSumsOfBlock;
  const std::int64_t q = static_cast<std::int64_t>(blockIdx.x) * kSumsOfBlock + x, stride = chunks * quantities;  // from sample to sample
  float* first = partial + q;
  for (int n = 0; n < samples; ++n) {
    float sum = 0.0f;
    if (q < quantities)
      for (std::int64_t k = y; k < chunks; k += kBlock / kSumsOfBlock) sum += first[n * stride + k * quantities];
    SIMT_UNROLL for (int lanes = 16; lanes >= kSumsOfBlock; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
    if (thread % 32 < kSumsOfBlock) warps[thread / 32][x] = sum;
    __syncthreads();
    if (y == 0 && q < quantities) {
      SIMT_UNROLL for (int w = 1; w < kBlock / 32; ++w) sum += warps[w][x];
      first[n * stride] = sum;  // this thread alone has read it
      if (sample) sample[n * quantities + q] = sum;
    }
    if (n + 1 < samples) __syncthreads();
  }
  if (y != 0 || q >= quantities) return;
  for (int step = 1; step < samples; step *= 2)
    for (int n = 0; n + step < samples; n += 2 * step) first[n * stride] += first[(n + step) * stride];
  if (total) total[q] = first[0];
  if (out) out[q] = (beta != 0.0f ? beta * out[q] : 0.0f) + first[0];
}

inline void sum_partials(const Exec& ex, float* partial, std::int64_t samples, std::int64_t quantities, std::int64_t chunks, float* sample,
                         float* total, float* out, float beta) {
  VG_LAUNCH(ex, sum_partials_kernel<kThreads>, simt::blocks_for(quantities, kSumsOfBlock), kThreads, 0, partial, static_cast<int>(samples),
            chunks, quantities, sample, total, out, beta);
}

}  // namespace VG_NS
}  // namespace vg

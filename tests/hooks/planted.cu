// Kernels with one mistake each. The line that must be reported carries the bug's name: "HERE: missing_barrier".
#include "kernels/simt_tensor.h"
#include "tests/hooks/planted.h"

namespace vg::planted {

template <Bug kBug>
__global__ void missing(float* y, const float* x) {
  SIMT_SHARED(float, tile, [64]);
  const int t = static_cast<int>(threadIdx.x);
  float sum = 0.0f;
  for (int round = 0; round < 2; ++round) {
    tile[t] = x[t] + static_cast<float>(round);  // HERE: missing_second_barrier
    if (kBug != Bug::missing_barrier) __syncthreads();
    sum += tile[(t + 33) % 64];  // HERE: missing_barrier
    if (kBug != Bug::missing_second_barrier) __syncthreads();
  }
  y[blockIdx.x * 64 + t] = sum;
}

template <Bug kBug>
__global__ void within_warp(float* y, const float* x) {
  SIMT_SHARED(float, tile, [64]);
  const int t = static_cast<int>(threadIdx.x), warp = t / 32 * 32;
  tile[t] = x[t];
  float sum = 0.0f;
  if (kBug == Bug::none) __syncwarp();
  if (kBug == Bug::shuffle_for_syncwarp) sum = __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += tile[warp + (t + 1) % 32];  // HERE: missing_syncwarp HERE: shuffle_for_syncwarp
  y[blockIdx.x * 64 + t] = sum;
}

__global__ void blocks_race(float* y, const float* x) {
  y[threadIdx.x] = x[threadIdx.x];  // HERE: blocks_race
}

template <Bug kBug>
__global__ void counting(float* y, const float* x) {
  SIMT_SHARED(int, counter, [1]);
  if (threadIdx.x == 0) counter[0] = 0;
  __syncthreads();
  if (x[threadIdx.x] > 0.0f) atomicAdd(&counter[0], 1);  // HERE: atomic_and_plain
  if (kBug == Bug::none) __syncthreads();
  y[blockIdx.x * 64 + threadIdx.x] = static_cast<float>(counter[0]);
}

__global__ void shifted(float* y, const float* x, int shift) {
  const int t = static_cast<int>(blockIdx.x * 64 + threadIdx.x);
  const float value = x[threadIdx.x];
  y[t + shift] = value;  // HERE: past_buffer HERE: before_buffer
}

__global__ void past_shared(float* y, const float* x) {
  SIMT_SHARED(float, tile, [63]);
  const int t = static_cast<int>(threadIdx.x);
  float mine = x[t];
  if (t < 63) tile[t] = mine;
  if (t == 63) mine = tile[t];  // HERE: past_shared
  y[blockIdx.x * 64 + t] = mine;
}

__global__ void unwritten_shared(float* y, const float* x) {
  SIMT_SHARED(float, tile, [64]);
  const int t = static_cast<int>(threadIdx.x);
  if (t != 7) tile[t] = x[t];
  __syncthreads();
  y[blockIdx.x * 64 + t] = tile[t];  // HERE: unwritten_shared
}

__global__ void copy(float* y, const float* x) {
  y[blockIdx.x * 64 + threadIdx.x] = x[threadIdx.x];  // HERE: unwritten_global
}

__global__ void divergent(float* y, const float* x) {
  if (threadIdx.x < 32) __syncthreads();  // HERE: divergent
  y[blockIdx.x * 64 + threadIdx.x] = x[threadIdx.x];
}

template <Bug kBug>
__global__ void copies(float* y, const float* x) {
  SIMT_SHARED(float, tile, [64]);
  const int t = static_cast<int>(threadIdx.x);
  float sum = 0.0f;
  for (int round = 0; round < 2; ++round) {
    if (t < 16) simt::copy_async16(simt::shared_address(tile + 4 * t), x + 4 * t, true);  // HERE: copy_too_early
    simt::copy_async_commit();
    if (kBug != Bug::copy_not_awaited) simt::copy_async_wait<0>();
    __syncthreads();
    sum += tile[(t + 33) % 64];  // HERE: copy_not_awaited
    if (kBug != Bug::copy_too_early) __syncthreads();
  }
  y[blockIdx.x * 64 + t] = sum;
}

const char* name_of(Bug bug) {
  constexpr const char* names[] = {"none",
                                   "missing_barrier",
                                   "missing_second_barrier",
                                   "missing_syncwarp",
                                   "shuffle_for_syncwarp",
                                   "blocks_race",
                                   "atomic_and_plain",
                                   "past_buffer",
                                   "before_buffer",
                                   "past_shared",
                                   "unwritten_shared",
                                   "unwritten_global",
                                   "copy_not_awaited",
                                   "copy_too_early",
                                   "host_reads",
                                   "divergent"};
  return names[static_cast<int>(bug)];
}

void run(Bug bug, const Tensor& y_tensor, const Tensor& x_tensor) {
  float* y = const_cast<Tensor&>(y_tensor).data<float>();
  const float* x = x_tensor.data<float>();
  const auto go = [&](const auto& kernel) { SIMT_LAUNCH(kernel, 2, 64, 0, nullptr, y, x); };
  switch (bug) {
    case Bug::none:
      go(missing<Bug::none>), go(within_warp<Bug::none>), go(counting<Bug::none>), go(copies<Bug::none>);
      SIMT_LAUNCH(shifted, 2, 64, 0, nullptr, y, x, 0);
      break;
    case Bug::missing_barrier: go(missing<Bug::missing_barrier>); break;
    case Bug::missing_second_barrier: go(missing<Bug::missing_second_barrier>); break;
    case Bug::missing_syncwarp: go(within_warp<Bug::missing_syncwarp>); break;
    case Bug::shuffle_for_syncwarp: go(within_warp<Bug::shuffle_for_syncwarp>); break;
    case Bug::blocks_race: go(blocks_race); break;
    case Bug::atomic_and_plain: go(counting<Bug::atomic_and_plain>); break;
    case Bug::past_buffer: SIMT_LAUNCH(shifted, 2, 64, 0, nullptr, y, x, 1); break;
    case Bug::before_buffer: SIMT_LAUNCH(shifted, 2, 64, 0, nullptr, y, x, -1); break;
    case Bug::past_shared: go(past_shared); break;
    case Bug::unwritten_shared: go(unwritten_shared); break;
    case Bug::unwritten_global: go(copy); break;
    case Bug::copy_not_awaited: go(copies<Bug::copy_not_awaited>); break;
    case Bug::copy_too_early: go(copies<Bug::copy_too_early>); break;
    case Bug::host_reads: {
      volatile float first = x[0];  // HERE: host_reads
      static_cast<void>(first);
      break;
    }
    case Bug::divergent: go(divergent); break;
  }
}

__global__ void strided_global_kernel(float* y, const float* x, int stride) { y[threadIdx.x] = x[static_cast<int>(threadIdx.x) * stride]; }

__global__ void strided_shared_kernel(float* y, const float* x, int stride) {
  SIMT_SHARED(float, words, [1024]);
  const int t = static_cast<int>(threadIdx.x) * stride;
  words[t] = x[threadIdx.x];
  __syncwarp();
  y[threadIdx.x] = words[t];
}

struct alignas(16) Four {
  float v[4];
};
__global__ void fours_shared_kernel(float* y, const float* x) {
  SIMT_SHARED(Four, words, [32]);
  words[threadIdx.x] = reinterpret_cast<const Four*>(x)[threadIdx.x];
  __syncwarp();
  reinterpret_cast<Four*>(y)[threadIdx.x] = words[threadIdx.x];
}

__global__ void matrix_rows_kernel(float* y, const float* x, int stride) {
  SIMT_SHARED(Four, words, [32 * 9]);
  const int lane = static_cast<int>(threadIdx.x);
  words[lane * stride] = Four{{x[lane], 0.0f, 0.0f, 0.0f}};
  __syncwarp();
  unsigned r[4];
  simt::ldmatrix_x4(r, simt::shared_address(words + lane * stride));
  y[lane] = __uint_as_float(r[0]);
}
void matrix_rows(const Tensor& y, const Tensor& x, int stride) {
  SIMT_LAUNCH(matrix_rows_kernel, 1, 32, 0, nullptr, const_cast<Tensor&>(y).data<float>(), x.data<float>(), stride);
}

void strided_global(const Tensor& y, const Tensor& x, int stride) {
  SIMT_LAUNCH(strided_global_kernel, 1, 32, 0, nullptr, const_cast<Tensor&>(y).data<float>(), x.data<float>(), stride);
}
void strided_shared(const Tensor& y, const Tensor& x, int stride) {
  SIMT_LAUNCH(strided_shared_kernel, 1, 32, 0, nullptr, const_cast<Tensor&>(y).data<float>(), x.data<float>(), stride);
}
void fours_shared(const Tensor& y, const Tensor& x) {
  SIMT_LAUNCH(fours_shared_kernel, 1, 32, 0, nullptr, const_cast<Tensor&>(y).data<float>(), x.data<float>());
}

}  // namespace vg::planted

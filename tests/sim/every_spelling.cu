// Every CUDA word that kernels may use, in kernels that all compilers must take: test_sim includes this file and runs it on the sim device, and
// nvcc compiles it (kernels/cuda/CMakeLists.txt), so that the two lists of words cannot drift apart.
#include <climits>

#include "kernels/simt.h"
#include "kernels/simt_reduce.h"

namespace vg::spelling {

__constant__ float kWeights[4] = {1.0f, 0.5f, 0.25f, 0.125f};

// out[i] = the thread's own numbers folded together                                                                   one int per thread
__global__ void who_am_i(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] =
      static_cast<int>(threadIdx.x + 100 * threadIdx.y + 10000 * threadIdx.z + 1000000 * (blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z));
}

// y = a x + y, four at a time
template <class T>
__global__ void __launch_bounds__(128, 2) axpy4(T* __restrict__ y, const T* __restrict__ x, float a, int n4) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n4) return;
  const T u = __ldg(x + i);
  T v = y[i];
  v.x += a * u.x;
  v.y += a * u.y;
  v.z += a * u.z;
  v.w += a * u.w;
  y[i] = v;
}

// 16 x 16 tiles through padded shared memory                                                            in: (rows, columns), out: (columns, rows)
__global__ void transpose(float* out, const float* in, int rows, int columns) {
  SIMT_SHARED(float, tile, [16][17]);
  const int r = blockIdx.y * 16 + threadIdx.y, c = blockIdx.x * 16 + threadIdx.x;
  if (r < rows && c < columns) tile[threadIdx.y][threadIdx.x] = in[r * columns + c];
  __syncthreads();
  const int tr = blockIdx.x * 16 + threadIdx.y, tc = blockIdx.y * 16 + threadIdx.x;
  if (tr < columns && tc < rows) out[tr * rows + tc] = tile[threadIdx.x][threadIdx.y];
}

// Inclusive sum within a block of up to 1024 by doubling, in dynamic shared memory of blockDim.x floats.
__global__ void scan(float* data, int n) {
  SIMT_DYN_SHARED(float, buffer);
  const int i = threadIdx.x;
  buffer[i] = i < n ? data[i] : 0.0f;
  __syncthreads();
  for (int distance = 1; distance < static_cast<int>(blockDim.x); distance *= 2) {
    const float before = i >= distance ? buffer[i - distance] : 0.0f;
    __syncthreads();
    buffer[i] += before;
    __syncthreads();
  }
  if (i < n) data[i] = buffer[i];
}

// One row per block: mean and sum of squares.                                                                      out: (rows, 2), in: (rows, n)
__global__ void row_moments(float* out, const float* in, int n) {
  float v[2] = {0.0f, 0.0f};
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const float x = in[static_cast<std::int64_t>(blockIdx.x) * n + i];
    v[0] += x;
    v[1] += x * x;
  }
  simt::block_sum(v);
  if (threadIdx.x == 0) {
    out[2 * blockIdx.x] = v[0] / n;
    out[2 * blockIdx.x + 1] = v[1];
  }
}

// What each lane of one warp receives; 12 results per lane.                                                                   out: (12, 32)
__global__ void shuffles(int* out, long long* wide, double* real) {
  const int lane = threadIdx.x % warpSize;
  const unsigned all = 0xffffffffu;
  out[0 * 32 + lane] = __shfl_sync(all, lane * 3, 5);
  out[1 * 32 + lane] = __shfl_sync(all, lane, lane + 1, 8);
  out[2 * 32 + lane] = __shfl_up_sync(all, lane, 3);
  out[3 * 32 + lane] = __shfl_up_sync(all, lane, 3, 16);
  out[4 * 32 + lane] = __shfl_down_sync(all, lane, 2);
  out[5 * 32 + lane] = __shfl_down_sync(all, lane, 2, 4);
  out[6 * 32 + lane] = __shfl_xor_sync(all, lane, 7);
  out[7 * 32 + lane] = static_cast<int>(__ballot_sync(all, lane % 3 == 0));
  out[8 * 32 + lane] = __any_sync(all, lane == 31) + 10 * __any_sync(all, lane == 99);
  out[9 * 32 + lane] = __all_sync(all, lane < 32) + 10 * __all_sync(all, lane < 31);
  if (lane < 16)
    out[10 * 32 + lane] = __shfl_xor_sync(0x0000ffffu, lane, 1);
  else
    out[10 * 32 + lane] = __shfl_down_sync(0xffff0000u, lane, 1, 16);
  __syncwarp();
  out[11 * 32 + lane] = simt::warp_max(lane * 7 % 32) + 100 * simt::warp_min(lane + 5);
  wide[lane] = __shfl_xor_sync(all, lane * 10000000000ll, 31);
  real[lane] = simt::warp_sum(lane + 0.5);
}

// What the whole block agrees on.                                                                                                        out: (4)
__global__ void agreements(int* out) {
  const int i = threadIdx.x;
  const int some = __syncthreads_or(i == 7), none = __syncthreads_or(0);
  const int all = __syncthreads_and(1), most = __syncthreads_and(i != 7);
  const int count = __syncthreads_count(i % 3 == 0);
  const float top = simt::block_max(static_cast<float>(i ^ 21), -1.0f);
  if (i == 0) {
    out[0] = some + 10 * none;
    out[1] = all + 10 * most;
    out[2] = count;
    out[3] = static_cast<int>(top);
  }
}

// Every block and thread into the same cells.                                                       cells: 12 unsigned; wide: 3 unsigned long long
__global__ void atomics(unsigned* cells, int* low, unsigned long long* wide, long long* high) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&cells[0], i);
  atomicSub(&cells[1], 1u);
  atomicMax(&cells[2], i);
  atomicMin(&cells[3], i);
  atomicOr(&cells[4], 1u << i % 32);
  atomicAnd(&cells[5], ~(1u << i % 16));
  atomicXor(&cells[6], i);
  atomicInc(&cells[7], 6u);
  atomicDec(&cells[8], 6u);
  unsigned seen = atomicAdd(&cells[9], 0u), before;
  do {
    before = seen;
    seen = atomicCAS(&cells[9], before, before + 2);
  } while (seen != before);
  if (i == 17) atomicExch(&cells[10], i);
  atomicAdd(low, -1);
  atomicMin(low + 1, -static_cast<int>(i));
  atomicAdd(wide, 1ull << 33);
  atomicMax(wide + 1, static_cast<unsigned long long>(i) << 32);
  atomicMin(high, -static_cast<long long>(i) * 4000000000ll);
}

// A histogram in shared memory, then added to the global one.                                                                     bins: (64)
__global__ void histogram(unsigned* bins, const unsigned char* data, int n) {
  SIMT_SHARED(unsigned, local, [64]);
  for (int b = threadIdx.x; b < 64; b += blockDim.x) local[b] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&local[data[i] % 64], 1u);
  __syncthreads();
  for (int b = threadIdx.x; b < 64; b += blockDim.x) atomicAdd(&bins[b], local[b]);
}

// Functions whose result both compilers must agree on to the bit.                                                                   out: (40)
__global__ void exact_words(float* out, int* whole, float x, float y, float z) {
  int n = 0;
  out[n++] = __fadd_rn(x, y);
  out[n++] = __fsub_rn(x, y);
  out[n++] = __fmul_rn(x, y);
  out[n++] = __fdiv_rn(x, y);
  out[n++] = __fmaf_rn(x, y, z);
  out[n++] = fmaf(x, -y, z);
  out[n++] = __fsqrt_rn(x);
  out[n++] = __frcp_rn(x);
  out[n++] = __saturatef(x) + __saturatef(-x) + __saturatef(0.25f);
  out[n++] = fminf(x, y) + fmaxf(y, z) + min(x, y) + max(y, z);
  out[n++] = floorf(x) + ceilf(x) + truncf(x) + rintf(x) + roundf(x) + nearbyintf(x);
  out[n++] = fabsf(-x) + copysignf(x, -y);
  out[n++] = __int_as_float(__float_as_int(x) + 1);
  out[n++] = __uint_as_float(__float_as_uint(y) ^ 0x80000000u);
  out[n++] = __int2float_rn(16777217) + __uint2float_rn(3u);
  out[n++] = static_cast<float>(__longlong_as_double(__double_as_longlong(static_cast<double>(x)) + 1));
  out[n++] = static_cast<float>(__dadd_rn(x, y) + __dmul_rn(x, y) + __fma_rn(x, y, z));
  out[n++] = isnan(x) + isinf(y) + isfinite(z);
  out[n++] = kWeights[3] + kWeights[0];
  n = 0;
  whole[n++] = __float2int_rn(2.5f) + 10 * __float2int_rn(3.5f);
  whole[n++] = __float2int_rz(-2.7f) + 10 * __float2int_rd(-2.2f) + 100 * __float2int_ru(2.2f);
  whole[n++] = __float2int_rn(1e20f);
  whole[n++] = __float2int_rz(-1e20f);
  whole[n++] = static_cast<int>(__float2uint_rn(-5.0f) + __float2uint_rz(7.9f));
  whole[n++] = __popc(0xf0f0u) + 100 * __popcll(0xff00000000ffull);
  whole[n++] = __clz(1) + 100 * __clzll(1ll) + 10000 * __clz(0);
  whole[n++] = __ffs(8) + 100 * __ffsll(1ll << 40) + 10000 * __ffs(0);
  whole[n++] = static_cast<int>(__brev(0x12345678u));
  whole[n++] = static_cast<int>(__byte_perm(0x33221100u, 0x77665544u, 0x7152u));
  whole[n++] = __mulhi(-3, 1 << 31) + static_cast<int>(__umulhi(0xffffffffu, 0xffffffffu));
  whole[n++] = static_cast<int>(__umul64hi(~0ull, 5ull));
  whole[n++] = min(3, -4) + max(3, -4) + static_cast<int>(min(3u, 4u) + max(5u, 4u)) + static_cast<int>(min(3ll, 4ll));
}

// Functions that a GPU may round otherwise (errors: CUDA programming guide, "mathematical functions").                              out: (30)
__global__ void rough_words(float* out, float x) {
  int n = 0;
  out[n++] = expf(x);
  out[n++] = __expf(x);
  out[n++] = exp2f(x);
  out[n++] = logf(x);
  out[n++] = __logf(x);
  out[n++] = log2f(x);
  out[n++] = __log2f(x);
  out[n++] = log1pf(x);
  out[n++] = expm1f(x);
  out[n++] = sqrtf(x);
  out[n++] = rsqrtf(x);
  out[n++] = cbrtf(x);
  out[n++] = rcbrtf(x);
  out[n++] = tanhf(x);
  out[n++] = erff(x);
  out[n++] = erfcf(x);
  out[n++] = normcdff(x);
  out[n++] = sinf(x) + cosf(x);
  out[n++] = __sinf(x) + __cosf(x);
  out[n++] = powf(x, 1.5f);
  out[n++] = __powf(x, 1.5f);
  out[n++] = __fdividef(x, 3.0f);
  out[n++] = __frsqrt_rn(x);
  out[n++] = fmodf(x, 0.3f);
  float s, c;
  sincosf(x, &s, &c);
  out[n++] = s * c;
  __sincosf(x, &s, &c);
  out[n++] = s - c;
  out[n++] = static_cast<float>(exp(static_cast<double>(x)) + sqrt(static_cast<double>(x)) + rsqrt(static_cast<double>(x)));
  __threadfence();
  __threadfence_block();
}

// Vector types: sizes and alignments on the device, and their make_ functions.
__global__ void vectors(float4* f, int4* i, uchar4* u, double2* d) {
  static_assert(sizeof(float2) == 8 && alignof(float2) == 8 && sizeof(float3) == 12 && alignof(float3) == 4 && alignof(float4) == 16);
  static_assert(alignof(int4) == 16 && alignof(uint2) == 8 && sizeof(ushort4) == 8 && alignof(ushort4) == 8 && sizeof(uchar4) == 4);
  static_assert(alignof(double2) == 16 && alignof(ulonglong2) == 16 && sizeof(uint3) == 12);
  const float2 a = make_float2(1.0f, 2.0f);
  const float3 b = make_float3(3.0f, 4.0f, 5.0f);
  *f = make_float4(a.x, a.y, b.x, b.z);
  const int2 c = make_int2(1, 2);
  const uint4 e = make_uint4(3u, 4u, 5u, 6u);
  *i = make_int4(c.x, c.y, static_cast<int>(e.x), static_cast<int>(e.w));
  const ushort4 g = make_ushort4(7, 8, 9, 10);
  *u = make_uchar4(static_cast<unsigned char>(g.x), 2, 3, static_cast<unsigned char>(g.w));
  *d = make_double2(0.5, static_cast<double>(make_ulonglong2(1, 2).y));
}

__global__ void nothing() {}

// The host side: what a family's function does.
inline void run_axpy4(float* y, const float* x, float a, std::int64_t n4, void* stream) {
  SIMT_LAUNCH((axpy4<float4>), simt::blocks_for(n4, 128), 128, 0, stream, reinterpret_cast<float4*>(y), reinterpret_cast<const float4*>(x),
              a, static_cast<int>(n4));
}

}  // namespace vg::spelling

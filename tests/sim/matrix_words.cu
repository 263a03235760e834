// The words of kernels/simt_tensor.h in kernels that all compilers must take: matrix_test.cpp runs them on the sim device, and nvcc compiles them
// (kernels/cuda/CMakeLists.txt).
#include "kernels/simt_tensor.h"

namespace vg::spelling {

// d = a b with two warps, of which the first copies a and the second b, and each multiplies 8 columns. Step s + 1 is copied while s is multiplied.
// a: (16, 16 steps), b: (16 steps, 16) or, transposed, (16, 16 steps); d: (16, 16). The switches plant mistakes.
struct Mistakes {
  bool no_wait = false, no_first_barrier = false, no_second_barrier = false, wrong_fragment = false;
};
template <class H, bool kTransposed, bool kShuffles = false>
__global__ void matrix_words(float* d, const H* a, const H* b, int steps, Mistakes wrong) {
  SIMT_SHARED(uint4, tile, [2][2][16][2]);  // buffer; a or b; row; 8 halves
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = lane / 2, half = lane % 2, depth = 16 * steps;
  const auto fetch = [&](int step) {
    if (step < steps) {
      const H* from =
          warp == 0 || kTransposed ? (warp == 0 ? a : b) + row * depth + step * 16 + half * 8 : b + (step * 16 + row) * 16 + half * 8;
      simt::copy_async16(simt::shared_address(&tile[step % 2][warp][row][half]), from, true);
    }
    simt::copy_async_commit();
  };
  float sum[4] = {};
  fetch(0);
  for (int step = 0; step < steps; ++step) {
    fetch(step + 1);
    if (!wrong.no_wait) simt::copy_async_wait<1>();
    if (!wrong.no_first_barrier) __syncthreads();
    unsigned of_a[4], of_b[4];
    simt::ldmatrix_x4(of_a, simt::shared_address(&tile[step % 2][0][lane % 16][lane / 16]));
    // b's matrices in the order k 0 n 0, k 8 n 0, k 0 n 8, k 8 n 8
    if (kTransposed)
      simt::ldmatrix_x4(of_b, simt::shared_address(&tile[step % 2][1][lane / 16 * 8 + lane % 8][lane / 8 % 2]));
    else
      simt::ldmatrix_x4_trans(of_b, simt::shared_address(&tile[step % 2][1][lane % 16][lane / 16]));
    if (wrong.wrong_fragment) {
      const unsigned other = of_a[1];
      of_a[1] = of_a[2];
      of_a[2] = other;
    }
    const unsigned column[2] = {warp == 0 ? of_b[0] : of_b[2], warp == 0 ? of_b[1] : of_b[3]};
    if (kShuffles)
      simt::mma16816_by_shuffles<H>(sum, of_a, column);
    else
      simt::mma16816<H>(sum, of_a, column);
    if (!wrong.no_second_barrier) __syncthreads();
  }
  SIMT_UNROLL for (int r = 0; r < 4; ++r) d[(lane / 4 + r / 2 * 8) * 16 + warp * 8 + lane % 4 * 2 + r % 2] = sum[r];
}

// Two floats to halves and back; sixteen zeros where nothing is copied.                                          zeros: (8)
template <class H>
__global__ void half_words(float4* out, unsigned* zeros, float x, float y) {
  SIMT_SHARED(uint4, cell, [2]);
  const unsigned word = simt::pack2<H>(x, y);
  const float2 back = simt::unpack2<H>(word);
  out->x = back.x;
  out->y = back.y;
  simt::copy_async16(simt::shared_address(cell), nullptr, false);
  simt::copy_async16(simt::shared_address(cell) + 16, out, false);
  simt::copy_async_commit();
  simt::copy_async_wait<0>();
  SIMT_UNROLL for (int i = 0; i < 2; ++i) {
    zeros[4 * i] = cell[i].x;
    zeros[4 * i + 1] = cell[i].y;
    zeros[4 * i + 2] = cell[i].z;
    zeros[4 * i + 3] = cell[i].w;
  }
}

template __global__ void matrix_words<bf16, false>(float*, const bf16*, const bf16*, int, Mistakes);
template __global__ void matrix_words<bf16, true>(float*, const bf16*, const bf16*, int, Mistakes);
template __global__ void matrix_words<f16, false>(float*, const f16*, const f16*, int, Mistakes);
template __global__ void matrix_words<f16, true>(float*, const f16*, const f16*, int, Mistakes);
template __global__ void matrix_words<f16, true, true>(float*, const f16*, const f16*, int, Mistakes);
template __global__ void half_words<bf16>(float4*, unsigned*, float, float);
template __global__ void half_words<f16>(float4*, unsigned*, float, float);

}  // namespace vg::spelling

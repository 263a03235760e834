// Words of the tensor cores and of asynchronous copies, for kernels (simt.h): PTX under nvcc, emulated by the sim device.
//
//   simt::SharedAddress a = simt::shared_address(p);      where p lies in shared memory; adding an integer moves it by bytes
//   a = simt::kept(a);                                    the same, known in the loop that follows as one number
//   simt::mma16816<H>(d, a, b);                           d (16 x 8, float) += a (16 x 16, H) b (16 x 8, H), by a whole warp; H: bf16 or f16
//   simt::ldmatrix_x4(r, row), ldmatrix_x4_trans          four 8 x 8 matrices of 2-byte numbers, lane l giving the address of row l % 8 of matrix l / 8
//   simt::copy_async16(to, from, valid);                  16 bytes of global into shared memory, or 16 zeros; done only after
//   simt::copy_async16_at<bytes>(to, from);               the same, always valid, so many bytes further on both sides
//   simt::copy_async_commit(); copy_async_wait<N>();      this thread's committed groups but the last N have arrived; others see them after a barrier
//   simt::store_two(p, low, high);                        two floats as one store of 8 bytes
//   SIMT_LOOP for (...)                                   #pragma unroll 1: a body that is long enough as it stands
//   simt::pack2<H>(low, high), unpack2<H>(word)           two floats as two halves in one word
//
// Who holds what (PTX ISA, "Matrix fragments for mma.m16n8k16"): with g = lane / 4 and t = lane % 4, a word holds columns (of a) or rows (of b) 2t, 2t + 1:
//   a[0]: row g, k 2t..   a[1]: row g + 8   a[2]: row g, k + 8   a[3]: row g + 8, k + 8       b[0]: k 2t.., column g   b[1]: k + 8
//   d[0], d[1]: row g, columns 2t, 2t + 1   d[2], d[3]: row g + 8
// ldmatrix hands out exactly that: r[j] of lane l is row g, columns 2t, 2t + 1 of matrix j; transposed: rows 2t, 2t + 1, column g.
// From sm_80 on all of this is hardware. sm_75 multiplies f16 in two steps of eight k and copies through registers; bf16 it cannot multiply, and hosts refuse
// (require_tensor_cores in half.cuh).
#pragma once
#include "kernels/simt.h"
#include "tensor/dtype.h"

#if defined(__CUDACC__)
#define SIMT_LOOP _Pragma("unroll 1")
#define VG_SIMT_WORD __device__ __forceinline__
#define VG_SIMT_HERE
#define VG_SIMT_ALSO_HERE
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define VG_SIMT_SM80 1
#endif
#else
#define SIMT_LOOP
#define VG_SIMT_WORD inline
#define VG_SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define VG_SIMT_ALSO_HERE , VG_SIMT_HERE
#endif

namespace vg::simt {

template <class H>
VG_SIMT_WORD unsigned pack2(float low, float high) {
#if defined(VG_SIMT_SM80)
  unsigned word;
  if constexpr (std::is_same_v<H, bf16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return static_cast<unsigned>(H::from(high).bits) << 16 | H::from(low).bits;
#endif
}
template <class H>
VG_SIMT_WORD float2 unpack2(unsigned word) {
  if constexpr (std::is_same_v<H, bf16>) {
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u));
  } else {
#if defined(__CUDACC__)
    float2 v;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}" : "=f"(v.x), "=f"(v.y) : "r"(word));
    return v;
#else
    return make_float2(static_cast<float>(H{static_cast<std::uint16_t>(word)}),
                       static_cast<float>(H{static_cast<std::uint16_t>(word >> 16)}));
#endif
  }
}

#if defined(__CUDACC__)
using SharedAddress = unsigned;
VG_SIMT_WORD SharedAddress shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }
#else
using SharedAddress = char*;
inline SharedAddress shared_address(const void* p) { return static_cast<char*>(const_cast<void*>(p)); }
#endif

// The address as one number that stays in its register: compilers otherwise take a sum apart and add it up again in every turn of a loop.
VG_SIMT_WORD SharedAddress kept(SharedAddress a) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(a));
#endif
  return a;
}

// Host compilers would make two stores of a pair of floats, and the hooks count what memory sees.
VG_SIMT_WORD void store_two(float* p, float low, float high) {
#if defined(__CUDACC__)
  *reinterpret_cast<float2*>(p) = make_float2(low, high);
#else
  *reinterpret_cast<std::uint64_t*>(p) = static_cast<std::uint64_t>(__float_as_uint(high)) << 32 | __float_as_uint(low);
#endif
}

// The product by shuffles: the second opinion that tests of the emulation ask.
template <class H>
VG_SIMT_WORD void mma16816_by_shuffles(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const int lane = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32, g = lane / 4, t = lane % 4;
  SIMT_UNROLL for (int half = 0; half < 2; ++half) {
    for (int pair = 0; pair < 4; ++pair) {
      const float2 top = unpack2<H>(__shfl_sync(0xffffffffu, a[2 * half], 4 * g + pair)),
                   bottom = unpack2<H>(__shfl_sync(0xffffffffu, a[2 * half + 1], 4 * g + pair));
      SIMT_UNROLL for (int j = 0; j < 2; ++j) {
        const float2 column = unpack2<H>(__shfl_sync(0xffffffffu, b[half], 4 * (2 * t + j) + pair));
        d[j] += top.x * column.x + top.y * column.y;
        d[2 + j] += bottom.x * column.x + bottom.y * column.y;
      }
    }
  }
}

template <class H>
VG_SIMT_WORD void mma16816(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2] VG_SIMT_ALSO_HERE) {
  static_assert(std::is_same_v<H, bf16> || std::is_same_v<H, f16>);
#if defined(VG_SIMT_SM80)
  if constexpr (std::is_same_v<H, bf16>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(__CUDACC__)
  if constexpr (std::is_same_v<H, f16>)
    SIMT_UNROLL for (int half = 0; half < 2; ++half)
      asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
  else
    __trap();
#else
  MatrixProduct lane{d, a, b};
  warp_collective(std::is_same_v<H, bf16> ? Collective::mma_bf16 : Collective::mma_f16, 0xffffffffu,
                  reinterpret_cast<std::uintptr_t>(&lane), 0, 32, file, line);
#endif
}

VG_SIMT_WORD void ldmatrix_x4(unsigned (&r)[4], SharedAddress row VG_SIMT_ALSO_HERE) {
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
#else
  MatrixLoad lane{r, row};
  warp_collective(Collective::load_matrix, 0xffffffffu, reinterpret_cast<std::uintptr_t>(&lane), 0, 32, file, line);
#endif
}
VG_SIMT_WORD void ldmatrix_x4_trans(unsigned (&r)[4], SharedAddress row VG_SIMT_ALSO_HERE) {
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
#else
  MatrixLoad lane{r, row};
  warp_collective(Collective::load_matrix_transposed, 0xffffffffu, reinterpret_cast<std::uintptr_t>(&lane), 0, 32, file, line);
#endif
}

// Both addresses are multiples of 16. `from` is not read when it is not valid.
VG_SIMT_WORD void copy_async16(SharedAddress to, const void* from, bool valid VG_SIMT_ALSO_HERE) {
#if defined(VG_SIMT_SM80)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0)
               : "memory");
#elif defined(__CUDACC__)
  uint4 v = make_uint4(0, 0, 0, 0);
  if (valid) v = *static_cast<const uint4*>(from);
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#else
  async_copy(to, valid ? from : nullptr, file, line);
#endif
}
// The same for `to` + kBytes and `from` + kBytes: the distance is part of the instruction.
template <int kBytes>
VG_SIMT_WORD void copy_async16_at(SharedAddress to, const void* from VG_SIMT_ALSO_HERE) {
#if defined(VG_SIMT_SM80)
  asm volatile("cp.async.cg.shared.global [%0 + %2], [%1 + %2], 16;" ::"r"(to), "l"(__cvta_generic_to_global(from)), "n"(kBytes) : "memory");
#elif defined(__CUDACC__)
  copy_async16(to + kBytes, static_cast<const char*>(from) + kBytes, true);
#else
  async_copy(to + kBytes, static_cast<const char*>(from) + kBytes, file, line);
#endif
}
VG_SIMT_WORD void copy_async_commit() {
#if defined(VG_SIMT_SM80)
  asm volatile("cp.async.commit_group;" ::: "memory");
#elif !defined(__CUDACC__)
  async_commit();
#endif
}
template <int kLeft>
VG_SIMT_WORD void copy_async_wait(VG_SIMT_HERE) {
#if defined(VG_SIMT_SM80)
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
#elif !defined(__CUDACC__)
  async_wait(kLeft, file, line);
#endif
}

}  // namespace vg::simt

#undef VG_SIMT_WORD
#undef VG_SIMT_HERE
#undef VG_SIMT_ALSO_HERE
#undef VG_SIMT_SM80

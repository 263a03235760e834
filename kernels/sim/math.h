// CUDA's arithmetic for the host compiler. What a GPU approximates (__expf, rsqrtf, __fdividef) is computed exactly rounded or by libm here, so
// results agree within the errors listed in the CUDA programming guide, "mathematical functions", never to the bit.
// fmaf is a true fused operation, slow on a CPU without it at compile time: write a * b + c, which nvcc fuses, unless the fusion itself matters.
#pragma once
#include <math.h>
#include <stdlib.h>

#include <bit>
#include <cstdint>
#include <limits>

// glibc declares these names as its own internals, hence macros.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __powf(x, y) powf(x, y)
#define __sincosf(x, s, c) sincosf(x, s, c)

inline float rsqrtf(float x) noexcept { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) noexcept { return 1.0 / sqrt(x); }
inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
// Never fused with a neighbour by nvcc.
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }

inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

namespace vg::simt {
// The device's conversion to integer: NaN is 0, what does not fit becomes the nearest that does.
template <class Integer, class Real>
Integer to_integer(Real rounded) {
  if (!(rounded == rounded)) return 0;
  constexpr Real low = static_cast<Real>(std::numeric_limits<Integer>::min());
  constexpr Real beyond = static_cast<Real>(std::numeric_limits<Integer>::max() / 2 + 1) * Real{2};
  if (rounded <= low) return std::numeric_limits<Integer>::min();
  if (rounded >= beyond) return std::numeric_limits<Integer>::max();
  return static_cast<Integer>(rounded);
}
}  // namespace vg::simt

inline int __float2int_rn(float x) { return vg::simt::to_integer<int>(nearbyintf(x)); }
inline int __float2int_rz(float x) { return vg::simt::to_integer<int>(truncf(x)); }
inline int __float2int_rd(float x) { return vg::simt::to_integer<int>(floorf(x)); }
inline int __float2int_ru(float x) { return vg::simt::to_integer<int>(ceilf(x)); }
inline unsigned __float2uint_rn(float x) { return vg::simt::to_integer<unsigned>(nearbyintf(x)); }
inline unsigned __float2uint_rz(float x) { return vg::simt::to_integer<unsigned>(truncf(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }
inline int __ffsll(long long x) { return x ? std::countr_zero(static_cast<unsigned long long>(x)) + 1 : 0; }
inline unsigned __brev(unsigned x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(x);
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long long bytes = static_cast<unsigned long long>(y) << 32 | x;
  unsigned r = 0;
  for (int i = 0; i < 4; ++i) r |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * i & 7u) & 0xffu) << 8 * i;
  return r;
}
inline int __mulhi(int x, int y) { return static_cast<int>(static_cast<long long>(x) * y >> 32); }
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(static_cast<Wide>(x) * y >> 64);
}

// Loads and stores with a cache hint.
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
void __stcg(T* p, T value) {
  *p = value;
}

// CUDA has these in the global namespace.
#define VG_SIMT_MIN_MAX(T)                            \
  constexpr T min(T a, T b) { return b < a ? b : a; } \
  constexpr T max(T a, T b) { return a < b ? b : a; }
VG_SIMT_MIN_MAX(int)
VG_SIMT_MIN_MAX(unsigned)
VG_SIMT_MIN_MAX(long)
VG_SIMT_MIN_MAX(unsigned long)
VG_SIMT_MIN_MAX(long long)
VG_SIMT_MIN_MAX(unsigned long long)
#undef VG_SIMT_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

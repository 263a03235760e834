// CUDA's vector types with their alignment on the device (a misaligned float4 is a fault there; the undefined-behaviour sanitizer reports it here),
// their make_ functions, and dim3.
#pragma once

#define VG_SIMT_VECTOR(SCALAR, NAME, ALIGN1, ALIGN2, ALIGN4)                           \
  struct alignas(ALIGN1) NAME##1 {                                                     \
    SCALAR x;                                                                          \
  };                                                                                   \
  struct alignas(ALIGN2) NAME##2 {                                                     \
    SCALAR x, y;                                                                       \
  };                                                                                   \
  struct alignas(ALIGN1) NAME##3 {                                                     \
    SCALAR x, y, z;                                                                    \
  };                                                                                   \
  struct alignas(ALIGN4) NAME##4 {                                                     \
    SCALAR x, y, z, w;                                                                 \
  };                                                                                   \
  constexpr NAME##1 make_##NAME##1(SCALAR x) { return {x}; }                           \
  constexpr NAME##2 make_##NAME##2(SCALAR x, SCALAR y) { return {x, y}; }              \
  constexpr NAME##3 make_##NAME##3(SCALAR x, SCALAR y, SCALAR z) { return {x, y, z}; } \
  constexpr NAME##4 make_##NAME##4(SCALAR x, SCALAR y, SCALAR z, SCALAR w) { return {x, y, z, w}; }

VG_SIMT_VECTOR(signed char, char, 1, 2, 4)
VG_SIMT_VECTOR(unsigned char, uchar, 1, 2, 4)
VG_SIMT_VECTOR(short, short, 2, 4, 8)
VG_SIMT_VECTOR(unsigned short, ushort, 2, 4, 8)
VG_SIMT_VECTOR(int, int, 4, 8, 16)
VG_SIMT_VECTOR(unsigned, uint, 4, 8, 16)
VG_SIMT_VECTOR(float, float, 4, 8, 16)
#undef VG_SIMT_VECTOR

// CUDA 13 spells the four-wide ones by alignment (double4_16a); only the 16-byte ones, which one load moves, exist here.
struct alignas(16) longlong2 {
  long long x, y;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
struct alignas(16) double2 {
  double x, y;
};
constexpr longlong2 make_longlong2(long long x, long long y) { return {x, y}; }
constexpr ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }
constexpr double2 make_double2(double x, double y) { return {x, y}; }

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

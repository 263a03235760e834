// Which vector instruction sets the cpu kernels are compiled for. Include before any Highway header. One source is compiled once per set
// and the best one is chosen at run time: SSE4, AVX2 and AVX3 (AVX-512) on x86-64 with a portable fallback, NEON on aarch64. SSSE3, Ice
// Lake's extras and SVE would only add compile time: nothing here would use them.
#pragma once
#if defined(HWY_HIGHWAY_INCLUDED) && !defined(VG_SIMD_TARGETS)
#error "include kernels/simd.h before hwy/highway.h"
#endif
#define VG_SIMD_TARGETS
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif

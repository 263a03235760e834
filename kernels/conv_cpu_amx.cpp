// The kernels of the matrix unit (AMX, x86-64 servers from Sapphire Rapids on), by intrinsics: Highway knows no tiles. Every function names its
// instruction sets, so that the file is compiled like any other; nothing here runs unless matrix_unit() says so.
#include "kernels/conv_cpu_matrix.h"

#include <atomic>

#include "tensor/os_tiles.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace vg::cpu {

namespace {
std::atomic<bool> allowed{true};
}
void allow_matrix_unit(bool yes) { allowed = yes; }

#if defined(__x86_64__)
namespace {

#define VG_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))
#define VG_AMX __attribute__((noinline, target("avx512f,amx-tile,amx-bf16")))
#define VG_AMX_INLINE __attribute__((always_inline, target("avx512f,amx-tile,amx-bf16"))) inline
// Tile instructions touch memory behind the compiler's back.
#define VG_MEMORY() __asm__ volatile("" ::: "memory")

using std::int64_t;
using std::uint16_t;

// Do the processor and the system offer it?
bool available() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24, kF = 1u << 16, kBw = 1u << 30, kVl = 1u << 31;
  if ((d & (kBf16 | kTiles)) != (kBf16 | kTiles) || (b & (kF | kBw | kVl)) != (kF | kBw | kVl)) return false;
  constexpr unsigned kAvx512Bf16 = 1u << 5;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & kAvx512Bf16) && os::request_tile_registers();
}

VG_AMX void begin() {
  struct alignas(64) {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {};
    std::uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 8; ++i) config.bytes[i] = 64, config.rows[i] = 16;
  VG_MEMORY();
  _tile_loadconfig(&config);
}
VG_AMX void end() {
  _mm_sfence();  // stream()
  _tile_release();
}

// To the high halves of 16 words, and to words. (The forms with a mask: those without draw warnings from GCC 12 about its own header.)
VG_AVX512 inline __m512i raised(__m512i x) { return _mm512_maskz_slli_epi32(0xffff, x, 16); }
VG_AVX512 inline __m512i words(__m256i x) { return _mm512_maskz_cvtepu16_epi32(0xffff, x); }

struct Halves {
  __m256i high, low;
};
VG_AVX512 inline Halves halves(__m512 v) {
  const __m256i high = (__m256i)_mm512_cvtneps_pbh(v);
  return {high, (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(v, _mm512_castsi512_ps(raised(words(high)))))};
}

VG_AVX512 void split(uint16_t* to, int64_t pitch, int64_t low, const float* from, int64_t step, int64_t count, int64_t padded, int64_t voxels) {
  const int64_t whole = count / 16 * 16;
  const auto rest = static_cast<__mmask16>((1u << (count - whole)) - 1);
  for (int64_t v = 0; v < voxels; ++v, to += pitch, from += step) {
    int64_t c = 0;
    for (; c < whole; c += 16) {
      const Halves h = halves(_mm512_loadu_ps(from + c));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c), h.high);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c + low), h.low);
    }
    if (rest) {
      const Halves h = halves(_mm512_maskz_loadu_ps(rest, from + c));
      const __mmask16 lanes = padded > c ? static_cast<__mmask16>(0xffff) : rest;
      _mm256_mask_storeu_epi16(to + c, lanes, h.high);
      _mm256_mask_storeu_epi16(to + c + low, lanes, h.low);
      c += 16;
    }
    for (; c < padded; c += 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c), _mm256_setzero_si256());
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c + low), _mm256_setzero_si256());
    }
  }
}

// Of two neighbouring lines: 16 pairs of high halves, 16 pairs of low halves.
VG_AVX512 inline void pair_up(char* high, char* low, __m512 even, __m512 odd) {
  const Halves a = halves(even), b = halves(odd);
  _mm512_storeu_si512(high, _mm512_or_si512(words(a.high), raised(words(b.high))));
  _mm512_storeu_si512(low, _mm512_or_si512(words(a.low), raised(words(b.low))));
}

VG_AVX512 void pack(char* to, const float* lines, int64_t width) {
  const int64_t tiles = width / 16;
  for (int64_t t = 0; t < tiles; ++t)
    for (int64_t r = 0; r < 16; ++r) {
      const float* const even = lines + 2 * r * width + 16 * t;
      char* const row = to + t * kTileBytes + r * 64;
      pair_up(row, row + tiles * kTileBytes, _mm512_loadu_ps(even), _mm512_loadu_ps(even + width));
    }
}

VG_AMX void pairs(const MatrixSegment* segments, int count, const StripPlace* const* strips, const char* b, const float* init, float* out,
                  Ahead& ahead) {
  VG_MEMORY();
  _tile_loadd(0, init, 0);
  _tile_loadd(1, init + 16, 0);
  _tile_loadd(2, init, 0);
  _tile_loadd(3, init + 16, 0);
  for (const MatrixSegment* s = segments; s != segments + count; ++s) {
    const char *a0 = s->a + strips[0]->off[s->kind], *a1 = s->a + strips[1]->off[s->kind];
    const int64_t row = s->row, low = s->low;
    for (int64_t k = 0; k < s->steps; ++k, a0 += 64, a1 += 64, b += 4 * kTileBytes) {
      ahead.fetch(2);
      _tile_loadd(6, b, 64);
      _tile_loadd(4, a0, row);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, a1, row);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(7, b + kTileBytes, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
      _tile_loadd(4, a0 + low, row);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, a1 + low, row);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
      _tile_loadd(6, b + 2 * kTileBytes, 64);
      _tile_loadd(4, a0, row);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, a1, row);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(7, b + 3 * kTileBytes, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, out, 128);
  _tile_stored(1, out + 16, 128);
  _tile_stored(2, out + 512, 128);
  _tile_stored(3, out + 528, 128);
  VG_MEMORY();
}

VG_AMX void fours(const MatrixSegment* segments, int count, const StripPlace* const* strips, const char* b, const float* init, float* out,
                  Ahead& ahead) {
  VG_MEMORY();
  _tile_loadd(0, init, 0);
  _tile_loadd(1, init, 0);
  _tile_loadd(2, init, 0);
  _tile_loadd(3, init, 0);
  for (const MatrixSegment* s = segments; s != segments + count; ++s) {
    const char* const a = s->a;
    const char *a0 = a + strips[0]->off[s->kind], *a1 = a + strips[1]->off[s->kind], *a2 = a + strips[2]->off[s->kind], *a3 = a + strips[3]->off[s->kind];
    const int64_t row = s->row, low = s->low;
    for (int64_t k = 0; k < s->steps; ++k, a0 += 64, a1 += 64, a2 += 64, a3 += 64, b += 2 * kTileBytes) {
      ahead.fetch(2);
      _tile_loadd(6, b, 64);
      _tile_loadd(7, b + kTileBytes, 64);
      _tile_loadd(4, a0, row);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, a1, row);
      _tile_dpbf16ps(1, 5, 6);
      _tile_dpbf16ps(0, 4, 7);
      _tile_dpbf16ps(1, 5, 7);
      _tile_loadd(4, a2, row);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(5, a3, row);
      _tile_dpbf16ps(3, 5, 6);
      _tile_dpbf16ps(2, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
      _tile_loadd(4, a0 + low, row);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, a1 + low, row);
      _tile_dpbf16ps(1, 5, 6);
      _tile_loadd(4, a2 + low, row);
      _tile_dpbf16ps(2, 4, 6);
      _tile_loadd(5, a3 + low, row);
      _tile_dpbf16ps(3, 5, 6);
    }
  }
  _tile_stored(0, out, 64);
  _tile_stored(1, out + 256, 64);
  _tile_stored(2, out + 512, 64);
  _tile_stored(3, out + 768, 64);
  VG_MEMORY();
}

VG_AVX512 void copy(uint16_t* to, int64_t to_step, const uint16_t* from, int64_t from_step, int64_t count, int64_t voxels) {
  const auto lanes = static_cast<__mmask16>((1u << count) - 1);
  for (int64_t v = 0; v < voxels; ++v)
    _mm256_mask_storeu_epi16(to + v * to_step, lanes, _mm256_maskz_loadu_epi16(lanes, from + v * from_step));
}

VG_AVX512 void stream(float* to, const float* from, int64_t count) {
  int64_t i = 0;
  for (; i < count && reinterpret_cast<std::uintptr_t>(to + i) % 64; ++i) to[i] = from[i];
  for (; i + 16 <= count; i += 16) _mm512_stream_ps(to + i, _mm512_loadu_ps(from + i));
  for (; i < count; ++i) to[i] = from[i];
}

VG_AVX512 inline __m512 channels(const float* from, __mmask16 lanes) { return _mm512_maskz_loadu_ps(lanes, from); }

VG_AVX512 void pair_voxels(char* to, int64_t low, int64_t odd, const float* const* at, int64_t first, int64_t count, int64_t ahead) {
  const auto lanes = static_cast<__mmask16>((1u << count) - 1);
  Halves now = halves(channels(at[0] + first, lanes));
  for (int64_t j = 0; j < 16; ++j, to += 64) {
    const Halves next = halves(channels(at[2 * j + 1] + first, lanes));
    __builtin_prefetch(at[2 * j] + first + ahead, 0, 2);
    __builtin_prefetch(at[2 * j + 1] + first + ahead, 0, 2);
    _mm512_storeu_si512(to, _mm512_or_si512(words(now.high), raised(words(next.high))));
    _mm512_storeu_si512(to + low, _mm512_or_si512(words(now.low), raised(words(next.low))));
    if (!odd && j == 15) break;
    now = halves(channels(at[2 * j + 2] + first, lanes));
    if (!odd) continue;
    _mm512_storeu_si512(to + odd, _mm512_or_si512(words(next.high), raised(words(now.high))));
    _mm512_storeu_si512(to + odd + low, _mm512_or_si512(words(next.low), raised(words(now.low))));
  }
}

// 16 x 16 words turned over: to[j] is word j of all r.
VG_AVX512 inline void turn(__m512i (&to)[16], const __m512i (&r)[16]) {
  constexpr __mmask16 kAll = 0xffff;
  constexpr __mmask8 kAll64 = 0xff;
  __m512i u[16];
  for (int i = 0; i < 16; i += 4) {
    const __m512i t0 = _mm512_maskz_unpacklo_epi32(kAll, r[i], r[i + 1]), t1 = _mm512_maskz_unpackhi_epi32(kAll, r[i], r[i + 1]);
    const __m512i t2 = _mm512_maskz_unpacklo_epi32(kAll, r[i + 2], r[i + 3]), t3 = _mm512_maskz_unpackhi_epi32(kAll, r[i + 2], r[i + 3]);
    u[i] = _mm512_maskz_unpacklo_epi64(kAll64, t0, t2), u[i + 1] = _mm512_maskz_unpackhi_epi64(kAll64, t0, t2);
    u[i + 2] = _mm512_maskz_unpacklo_epi64(kAll64, t1, t3), u[i + 3] = _mm512_maskz_unpackhi_epi64(kAll64, t1, t3);
  }
  for (int k = 0; k < 4; ++k) {
    const __m512i v0 = _mm512_maskz_shuffle_i32x4(kAll, u[k], u[4 + k], 0x88), v1 = _mm512_maskz_shuffle_i32x4(kAll, u[8 + k], u[12 + k], 0x88);
    const __m512i v2 = _mm512_maskz_shuffle_i32x4(kAll, u[k], u[4 + k], 0xdd), v3 = _mm512_maskz_shuffle_i32x4(kAll, u[8 + k], u[12 + k], 0xdd);
    to[k] = _mm512_maskz_shuffle_i32x4(kAll, v0, v1, 0x88), to[k + 4] = _mm512_maskz_shuffle_i32x4(kAll, v2, v3, 0x88);
    to[k + 8] = _mm512_maskz_shuffle_i32x4(kAll, v0, v1, 0xdd), to[k + 12] = _mm512_maskz_shuffle_i32x4(kAll, v2, v3, 0xdd);
  }
}

VG_AVX512 void gather(float* const* to, int64_t lines, const float* from, int64_t step, int channels, int width, const float* next) {
  for (int64_t c = 0; c < width; c += 16)
    for (int64_t l = 0; l < lines; l += 16) {
      const int64_t count = lines - l < 16 ? lines - l : 16;
      const auto lanes = static_cast<__mmask16>((1u << count) - 1);
      __m512i r[16], t[16];
      for (int64_t i = 0; i < 16; ++i) {
        const int64_t at = (c + i) * step + l;
        r[i] = c + i < channels ? _mm512_maskz_loadu_epi32(lanes, from + at) : _mm512_setzero_si512();
        if (c + i < channels) __builtin_prefetch(next + at, 0, 2);
      }
      turn(t, r);
      for (int64_t k = 0; k < count; ++k) _mm512_storeu_si512(to[l + k] + c, t[k]);
    }
}

VG_AVX512 void scatter(float* to, int64_t step, const float* const* rows, int64_t count, int64_t columns, bool add) {
  for (int64_t first = 0; first < count; first += 16) {
    const int64_t left = count - first < 16 ? count - first : 16;
    const auto lanes = static_cast<__mmask16>((1u << left) - 1);
    __m512i r[16], t[16];
    for (int64_t i = 0; i < 16; ++i) r[i] = i < left ? _mm512_loadu_si512(rows[first + i]) : _mm512_setzero_si512();
    turn(t, r);
    for (int64_t c = 0; c < columns; ++c) {
      float* const y = to + c * step + first;
      const __m512 v = _mm512_castsi512_ps(t[c]);
      _mm512_mask_storeu_ps(y, lanes, add ? _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, y), v) : v);
    }
  }
}

VG_AVX512 void turn_voxels(char* to, const float* const* at, int64_t first, int64_t count, int64_t ahead) {
  const auto lanes = static_cast<__mmask16>((1u << count) - 1);
  __m512i high[16], low[16];
  for (int j = 0; j < 16; ++j) {
    __builtin_prefetch(at[2 * j] + first + ahead, 0, 2);
    __builtin_prefetch(at[2 * j + 1] + first + ahead, 0, 2);
    const Halves a = halves(channels(at[2 * j] + first, lanes)), b = halves(channels(at[2 * j + 1] + first, lanes));
    high[j] = _mm512_or_si512(words(a.high), raised(words(b.high))), low[j] = _mm512_or_si512(words(a.low), raised(words(b.low)));
  }
  __m512i turned[16];
  turn(turned, high);
  for (int k = 0; k < 16; ++k) _mm512_storeu_si512(to + 64 * k, turned[k]);
  turn(turned, low);
  for (int k = 0; k < 16; ++k) _mm512_storeu_si512(to + kTileBytes + 64 * k, turned[k]);
}

// The four sums of a weight gradient, in tiles 0 to 3.
VG_AMX_INLINE void begin_sums(bool fresh, float* const* out) {
  VG_MEMORY();
  if (fresh) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, out[0], 64);
    _tile_loadd(1, out[1], 64);
    _tile_loadd(2, out[2], 64);
    _tile_loadd(3, out[3], 64);
  }
}
VG_AMX_INLINE void end_sums(float* const* out) {
  _tile_stored(0, out[0], 64);
  _tile_stored(1, out[1], 64);
  _tile_stored(2, out[2], 64);
  _tile_stored(3, out[3], 64);
  VG_MEMORY();
}

VG_AMX void sums(const char* const* a, const char* const* b, int64_t low, int64_t steps, bool fresh, float* const* out) {
  begin_sums(fresh, out);
  const char *a0 = a[0], *a1 = a[1], *b0 = b[0], *b1 = b[1];
  for (int64_t k = 0; k < steps; ++k) {
    _tile_loadd(6, b0, 64);
    _tile_loadd(4, a0, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a1, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(7, b1, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(4, a0 + kTileBytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a1 + kTileBytes, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(6, b0 + low, 64);
    _tile_loadd(4, a0, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a1, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(7, b1 + low, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
    a0 += 2 * kTileBytes, a1 += 2 * kTileBytes, b0 += kTileBytes, b1 += kTileBytes;
  }
  end_sums(out);
}

VG_AMX void sums_tall(const char* const* a, const char* const* b, int64_t low, int64_t steps, bool fresh, float* const* out) {
  begin_sums(fresh, out);
  const char *a0 = a[0], *a1 = a[1], *a2 = a[2], *a3 = a[3], *b0 = b[0];
  for (int64_t k = 0; k < steps; ++k) {
    _tile_loadd(6, b0, 64);
    _tile_loadd(7, b0 + low, 64);
    _tile_loadd(4, a0, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a1, 64);
    _tile_dpbf16ps(1, 5, 6);
    _tile_dpbf16ps(0, 4, 7);
    _tile_dpbf16ps(1, 5, 7);
    _tile_loadd(4, a2, 64);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(5, a3, 64);
    _tile_dpbf16ps(3, 5, 6);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(4, a0 + kTileBytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, a1 + kTileBytes, 64);
    _tile_dpbf16ps(1, 5, 6);
    _tile_loadd(4, a2 + kTileBytes, 64);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(5, a3 + kTileBytes, 64);
    _tile_dpbf16ps(3, 5, 6);
    a0 += 2 * kTileBytes, a1 += 2 * kTileBytes, a2 += 2 * kTileBytes, a3 += 2 * kTileBytes, b0 += kTileBytes;
  }
  end_sums(out);
}

VG_AMX void sums_wide(const char* const* a, const char* const* b, int64_t low, int64_t steps, bool fresh, float* const* out) {
  begin_sums(fresh, out);
  const char *a0 = a[0], *b0 = b[0], *b1 = b[1], *b2 = b[2], *b3 = b[3];
  for (int64_t k = 0; k < steps; ++k) {
    _tile_loadd(4, a0, 64);
    _tile_loadd(5, a0 + kTileBytes, 64);
    _tile_loadd(6, b0, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b1, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(0, 5, 6);
    _tile_dpbf16ps(1, 5, 7);
    _tile_loadd(6, b2, 64);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, b3, 64);
    _tile_dpbf16ps(3, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(6, b0 + low, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b1 + low, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(6, b2 + low, 64);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, b3 + low, 64);
    _tile_dpbf16ps(3, 4, 7);
    a0 += 2 * kTileBytes, b0 += kTileBytes, b1 += kTileBytes, b2 += kTileBytes, b3 += kTileBytes;
  }
  end_sums(out);
}

}  // namespace

bool matrix_unit() {
  static const bool there = available();
  return there && allowed;
}

const MatrixKernels& matrix_kernels() {
  static const MatrixKernels kernels{begin, end, split, pack, gather, pairs, fours, copy, stream, pair_voxels, turn_voxels, sums, sums_tall, sums_wide, scatter};
  return kernels;
}

#else
bool matrix_unit() { return false; }
const MatrixKernels& matrix_kernels() {
  static const MatrixKernels none{};
  return none;
}
#endif

}  // namespace vg::cpu

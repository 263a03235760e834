// The register tile of the cpu convolutions: voxels x output-channel vectors stay in registers while segments of input and packed weights
// stream past. One source, compiled for every Highway target; 14 voxels x 2 vectors keep AVX-512's two multipliers at 90 % (measured, L1).
#include "kernels/conv_cpu.h"
#include "kernels/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv_cpu_tile.cpp"
#include "hwy/foreach_target.h"  // must precede highway.h
#include "hwy/highway.h"
#include "kernels/activation-inl.h"

#include <utility>

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

using cpu::kMaxVoxels;
using cpu::Segment;
using cpu::TileKernels;

// Accumulators + weight vectors + one broadcast must fit: 32 registers with AVX-512 and NEON, 16 with AVX2 and SSE4.
constexpr int kRegisters = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON       ? 32
                           : HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR ? 6
                                                                                  : 16;
constexpr int voxels_of(int vectors) {
  const int fit = ((kRegisters < cpu::kMostRegisters ? kRegisters : cpu::kMostRegisters) - 1 - vectors) / vectors;
  return fit < 1 ? 1 : fit < kMaxVoxels ? fit : kMaxVoxels;
}

// Byte offsets of voxels 0..8 from a base pointer: x86 addresses scale an index by 1, 2, 4 or 8, so four registers (1, 3, 5 and 7 steps)
// and a base every nine voxels reach a whole tile; compilers left alone spend one pointer per voxel and spill.
struct Steps {
  std::intptr_t s1, s3, s5, s7;
};
template <int R>
HWY_INLINE const char* at(const char* base, const Steps& s) {
  if constexpr (R == 0) return base;
  if constexpr (R == 1) return base + s.s1;
  if constexpr (R == 2) return base + 2 * s.s1;
  if constexpr (R == 3) return base + s.s3;
  if constexpr (R == 4) return base + 4 * s.s1;
  if constexpr (R == 5) return base + s.s5;
  if constexpr (R == 6) return base + 2 * s.s3;
  if constexpr (R == 7) return base + s.s7;
  if constexpr (R == 8) return base + 8 * s.s1;
}

template <int V, int N, int I, int v = 0>
HWY_INLINE void multiply(VF (&acc)[V][N], const VF (&w)[N], const char* const (&x)[3], const Steps& s) {
  if constexpr (v < V) {
    const VF b = hn::Set(F(), *reinterpret_cast<const float*>(at<v % 9>(x[v / 9], s) + 4 * I));
    for (int n = 0; n < N; ++n) acc[v][n] = hn::MulAdd(b, w[n], acc[v][n]);
    multiply<V, N, I, v + 1>(acc, w, x, s);
  }
}
template <int V, int N, int I>
HWY_INLINE void rank_one(VF (&acc)[V][N], const float* w, const char* const (&x)[3], const Steps& s) {
  VF wv[N];
  for (int n = 0; n < N; ++n) wv[n] = hn::LoadU(F(), w + (I * N + n) * kLanes);
  multiply<V, N, I>(acc, wv, x, s);
}

// Keeps the compiler from deriving one pointer or step from another.
#define VG_OPAQUE(variable) __asm__("" : "+r"(variable))

template <int V, int N>
void tile(const Segment* segments, int count, std::int64_t j, const float* w_base, const float* init, std::int64_t init_step, float* out,
          std::int64_t out_step, cpu::Ahead& ahead) {
  const F d;
  VF acc[V][N];
  HWY_UNROLL(28)
  for (int v = 0; v < V; ++v)
    for (int n = 0; n < N; ++n) acc[v][n] = hn::LoadU(d, init + v * init_step + n * kLanes);
  for (const Segment* g = segments; g != segments + count; ++g) {
    const std::intptr_t step = 4 * g->step, start = g->x + j * step;
    const char* x[3] = {reinterpret_cast<const char*>(start), reinterpret_cast<const char*>(start + 9 * step),
                        reinterpret_cast<const char*>(start + 18 * step)};
    const float* w = w_base + g->line * (N * kLanes);
    Steps s{step, 3 * step, 5 * step, 7 * step};
    if (V > 3) VG_OPAQUE(s.s3);
    if (V > 5) VG_OPAQUE(s.s5);
    if (V > 7) VG_OPAQUE(s.s7);
    std::int64_t i = g->length;
    for (; i >= 4; i -= 4) {
      VG_OPAQUE(x[0]);
      if (V > 9) VG_OPAQUE(x[1]);
      if (V > 18) VG_OPAQUE(x[2]);
      rank_one<V, N, 0>(acc, w, x, s);
      rank_one<V, N, 1>(acc, w, x, s);
      rank_one<V, N, 2>(acc, w, x, s);
      rank_one<V, N, 3>(acc, w, x, s);
      ahead.fetch(2);
      for (const char*& p : x) p += 16;
      w += 4 * N * kLanes;
    }
    for (; i > 0; --i) {
      rank_one<V, N, 0>(acc, w, x, s);
      for (const char*& p : x) p += 4;
      w += N * kLanes;
    }
  }
  HWY_UNROLL(28)
  for (int v = 0; v < V; ++v)
    for (int n = 0; n < N; ++n) hn::StoreU(acc[v][n], d, out + v * out_step + n * kLanes);
}

void finish(float* y, std::int64_t y_step, const float* tile, std::int64_t tile_step, int voxels, int channels, float beta,
            const Activation& activation) {
  with_activation(activation, [&](auto f) HWY_ATTR {
    for (int v = 0; v < voxels; ++v) {
      const float* from = tile + v * tile_step;
      float* to = y + v * y_step;
      if (beta == 0.0f)
        for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR { put<false>(f.forward(hn::LoadU(F(), from + c)), to + c, part); });
      else
        for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR { put<true>(f.forward(hn::LoadU(F(), from + c)), to + c, part); });
    }
  });
}

// Four channels x one vector of lines at a time become blocks of 4 x 4 in registers, and leave as runs of four channels: a gather takes one
// cache access per float. Runs are short and far apart: what is read next is fetched meanwhile.
void gather_lines(float* const* to, std::int64_t lines, const float* from, std::int64_t step, int channels, int width,
                  [[maybe_unused]] const float* next) {
  if (lines == 1 && step == 1) {
    for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR { store(load(from + c, part), to[0] + c, part); });
    for (int c = channels; c < width; ++c) to[0][c] = 0.0f;
    return;
  }
  int c = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::Repartition<double, F> pairs;
  const auto low = [](VF a, VF b) HWY_ATTR { return hn::BitCast(hn::Repartition<double, F>(), hn::InterleaveLower(F(), a, b)); };
  const auto high = [](VF a, VF b) HWY_ATTR { return hn::BitCast(hn::Repartition<double, F>(), hn::InterleaveUpper(F(), a, b)); };
  for (; c + 4 <= channels; c += 4)
    for (std::int64_t l = 0; l < lines; l += kLanes) {
      const std::int64_t count = lines - l < kLanes ? lines - l : kLanes;
      VF v[4];
      for (int k = 0; k < 4; ++k) {
        const float* x = from + (c + k) * step + l;
        v[k] = count == kLanes ? load(x, All{}) : load(x, Part{static_cast<std::size_t>(count)});
        __builtin_prefetch(next + (x - from), 0, 2);
      }
      const auto t0 = low(v[0], v[1]), t1 = high(v[0], v[1]), t2 = low(v[2], v[3]), t3 = high(v[2], v[3]);
      HWY_ALIGN float block[4 * kLanes];  // [line mod 4][line / 4][channel]
      hn::Store(hn::BitCast(F(), hn::InterleaveLower(pairs, t0, t2)), F(), block);
      hn::Store(hn::BitCast(F(), hn::InterleaveUpper(pairs, t0, t2)), F(), block + kLanes);
      hn::Store(hn::BitCast(F(), hn::InterleaveLower(pairs, t1, t3)), F(), block + 2 * kLanes);
      hn::Store(hn::BitCast(F(), hn::InterleaveUpper(pairs, t1, t3)), F(), block + 3 * kLanes);
      for (std::int64_t i = 0; i < count; ++i) {
        float* const line = to[l + i] + c;
        const float* const four = block + i % 4 * kLanes + i / 4 * 4;
        hn::StoreU(hn::LoadU(hn::CappedTag<float, 4>(), four), hn::CappedTag<float, 4>(), line);
      }
    }
#endif
  for (std::int64_t l = 0; l < lines; ++l) {
    for (int k = c; k < channels; ++k) to[l][k] = from[k * step + l];
    for (int k = channels; k < width; ++k) to[l][k] = 0.0f;
  }
}

template <int N, int... V>
void fill(TileKernels& k, std::integer_sequence<int, V...>) {
  k.max_voxels[N] = sizeof...(V);
  ((k.tile[N][V + 1] = tile<V + 1, N>), ...);
}

}  // namespace

const TileKernels* make_tile_kernels() {
  static const TileKernels kernels = [] {
    TileKernels k = {};
    k.lanes = static_cast<int>(kLanes);
    fill<1>(k, std::make_integer_sequence<int, voxels_of(1)>());
    fill<2>(k, std::make_integer_sequence<int, voxels_of(2)>());
    fill<3>(k, std::make_integer_sequence<int, voxels_of(3)>());
    k.finish = finish;
    k.gather_lines = gather_lines;
    return k;
  }();
  return &kernels;
}

}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vg {
HWY_EXPORT(make_tile_kernels);
const cpu::TileKernels& cpu::tile_kernels() { return *HWY_DYNAMIC_DISPATCH(make_tile_kernels)(); }
}  // namespace vg
#endif

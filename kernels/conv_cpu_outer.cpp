// Sums of outer products over voxels, for the weight gradient: a tile of dW (rows x vectors) stays in registers while rows of the image
// stream past; each voxel gives `rows` broadcasts from one tensor and a few vectors from the other. Which tensor is which:
// conv_cpu_weight.cpp.
#include "kernels/conv_cpu.h"
#include "kernels/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/conv_cpu_outer.cpp"
#include "hwy/foreach_target.h"  // must precede highway.h
#include "hwy/highway.h"
#include "kernels/simd-inl.h"

#include <utility>

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

using cpu::kMaxVoxels;
using cpu::OuterKernels;

// Accumulators, the vectors of b and one broadcast must fit into the registers.
constexpr int kRegisters = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON       ? 32
                           : HWY_TARGET == HWY_EMU128 || HWY_TARGET == HWY_SCALAR ? 6
                                                                                  : 16;
constexpr int rows_of(int vectors) {
  const int fit = ((kRegisters < cpu::kMostRegisters ? kRegisters : cpu::kMostRegisters) - 1 - vectors) / vectors;
  return fit < 1 ? 1 : fit < kMaxVoxels ? fit : kMaxVoxels;
}

template <int M, int N, int m = 0>
HWY_INLINE void multiply(VF (&acc)[M][N], const VF (&b)[N], const float* a) {
  if constexpr (m < M) {
    const VF x = hn::Set(F(), a[m]);
    for (int n = 0; n < N; ++n) acc[m][n] = hn::MulAdd(x, b[n], acc[m][n]);
    multiply<M, N, m + 1>(acc, b, a);
  }
}
template <int M, int N>
HWY_INLINE void voxel(VF (&acc)[M][N], const float*& a, const float*& b, std::int64_t a_step, std::int64_t b_step) {
  VF bv[N];
  for (int n = 0; n < N; ++n) bv[n] = hn::LoadU(F(), b + n * kLanes);
  multiply<M, N>(acc, bv, a);
  a += a_step, b += b_step;
}

template <int M, int N>
void outer(const cpu::Run* runs, int count, std::int64_t a_offset, std::int64_t b_offset, std::int64_t a_step, std::int64_t b_step,
           bool fresh, float* out, std::int64_t out_step, cpu::Ahead& ahead) {
  VF acc[M][N];
  HWY_UNROLL(28)
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) acc[m][n] = fresh ? hn::Zero(F()) : hn::LoadU(F(), out + m * out_step + n * kLanes);
  for (const cpu::Run* r = runs; r != runs + count; ++r) {
    const float *a = r->a + a_offset, *b = r->b + b_offset;
    std::int64_t left = r->count;
    for (; left >= 4; left -= 4) {
      ahead.fetch(4);
      voxel<M, N>(acc, a, b, a_step, b_step);
      voxel<M, N>(acc, a, b, a_step, b_step);
      voxel<M, N>(acc, a, b, a_step, b_step);
      voxel<M, N>(acc, a, b, a_step, b_step);
    }
    for (; left > 0; --left) voxel<M, N>(acc, a, b, a_step, b_step);
  }
  HWY_UNROLL(28)
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) hn::StoreU(acc[m][n], F(), out + m * out_step + n * kLanes);
}

// Four lines at a time become blocks of 4 x 4 in registers, which are laid out in a buffer of the first-level cache: whatever `step` is, `to`
// is then met in runs of `count` floats. (A scatter to lines that are a multiple of 4 KiB apart took half the time of the weight gradient.)
void transpose_lines(float* to, std::int64_t step, const float* const* rows, std::int64_t count, std::int64_t columns, bool add) {
  constexpr std::int64_t kPitch = cpu::kMostLines + 16;  // neighbouring columns do not fall on the same cache sets
  HWY_ALIGN float turned[kLanes * kPitch];
  for (std::int64_t c0 = 0; c0 < columns; c0 += kLanes) {
    const std::int64_t width = columns - c0 < kLanes ? columns - c0 : kLanes;
    std::int64_t r = 0;
#if HWY_TARGET != HWY_SCALAR
    const hn::Repartition<double, F> pairs;
    for (; r + 4 <= count; r += 4) {
      VF v[4];
      for (int k = 0; k < 4; ++k) {
        const float* from = rows[r + k] + c0;
        v[k] = width == kLanes ? load(from, All{}) : load(from, Part{static_cast<std::size_t>(width)});
      }
      const auto low = [&](VF a, VF b) HWY_ATTR { return hn::BitCast(pairs, hn::InterleaveLower(F(), a, b)); };
      const auto high = [&](VF a, VF b) HWY_ATTR { return hn::BitCast(pairs, hn::InterleaveUpper(F(), a, b)); };
      const auto t0 = low(v[0], v[1]), t1 = high(v[0], v[1]), t2 = low(v[2], v[3]), t3 = high(v[2], v[3]);
      HWY_ALIGN float block[4 * kLanes];  // [column mod 4][column / 4][row]
      hn::Store(hn::BitCast(F(), hn::InterleaveLower(pairs, t0, t2)), F(), block);
      hn::Store(hn::BitCast(F(), hn::InterleaveUpper(pairs, t0, t2)), F(), block + kLanes);
      hn::Store(hn::BitCast(F(), hn::InterleaveLower(pairs, t1, t3)), F(), block + 2 * kLanes);
      hn::Store(hn::BitCast(F(), hn::InterleaveUpper(pairs, t1, t3)), F(), block + 3 * kLanes);
      HWY_UNROLL(16)
      for (std::int64_t c = 0; c < kLanes; ++c) std::memcpy(turned + c * kPitch + r, block + c % 4 * kLanes + c / 4 * 4, 4 * sizeof(float));
    }
#endif
    for (; r < count; ++r)
      for (std::int64_t c = 0; c < width; ++c) turned[c * kPitch + r] = rows[r][c0 + c];
    for (std::int64_t c = 0; c < width; ++c) {
      float* const y = to + (c0 + c) * step;
      const float* const x = turned + c * kPitch;
      for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR { add ? put<true>(load(x + i, part), y + i, part) : store(load(x + i, part), y + i, part); });
    }
  }
}

void add(float* to, const float* from, std::int64_t count) {
  for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR { put<true>(load(from + i, part), to + i, part); });
}

void copy_channels(float* to, std::int64_t pitch, bool pad, const float* from, std::int64_t channels, std::int64_t count,
                   std::int64_t voxels) {
  for (std::int64_t v = 0; v < voxels; ++v, to += pitch, from += channels) {
    if (pad) {
      for (std::int64_t c = count / kLanes * kLanes; c < pitch; c += kLanes) hn::StoreU(hn::Zero(F()), F(), to + c);
    }
    for_vectors(count, [&](std::int64_t c, auto part) HWY_ATTR { store(load(from + c, part), to + c, part); });
  }
}

void add_periods(float* sum, std::int64_t period, const float* x, std::int64_t count) {
  for_pattern(count, period, [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR { put<true>(load(x + i, part), sum + j, part); });
}

template <int N, int... M>
void fill(OuterKernels& k, std::integer_sequence<int, M...>) {
  k.max_rows[N] = sizeof...(M);
  ((k.outer[N][M + 1] = outer<M + 1, N>), ...);
}

}  // namespace

const OuterKernels* make_outer_kernels() {
  static const OuterKernels kernels = [] {
    OuterKernels k = {};
    k.lanes = static_cast<int>(kLanes);
    fill<1>(k, std::make_integer_sequence<int, rows_of(1)>());
    fill<2>(k, std::make_integer_sequence<int, rows_of(2)>());
    fill<3>(k, std::make_integer_sequence<int, rows_of(3)>());
    k.add = add;
    k.copy_channels = copy_channels;
    k.transpose_lines = transpose_lines;
    k.add_periods = add_periods;
    return k;
  }();
  return &kernels;
}

}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace vg {
HWY_EXPORT(make_outer_kernels);
const cpu::OuterKernels& cpu::outer_kernels() { return *HWY_DYNAMIC_DISPATCH(make_outer_kernels)(); }
}  // namespace vg
#endif

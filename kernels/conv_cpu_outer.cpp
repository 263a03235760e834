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
  return fit < kMaxVoxels ? fit : kMaxVoxels;
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

// to[i step] = or += from[i]
void scatter_line(float* to, std::int64_t step, const float* from, std::int64_t count, bool add) {
  const VI index = hn::Mul(hn::Iota(I(), 0), hn::Set(I(), static_cast<std::int32_t>(step)));
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes, to += kLanes * step) {
    const VF x = hn::LoadU(F(), from + i);
    hn::ScatterIndex(add ? hn::Add(hn::GatherIndex(F(), to, index), x) : x, F(), to, index);
  }
  for (; i < count; ++i, to += step) *to = add ? *to + from[i] : from[i];
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
    k.scatter_line = scatter_line;
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

// Brightness on the cpu. Both passes go over vectors; the noise is made for a vector of counters at a time, each giving four numbers.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/intensity_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/intensity.h"
#include "kernels/vector_math-inl.h"

#ifndef VG_INTENSITY_CPU_RANGE
#define VG_INTENSITY_CPU_RANGE
namespace vg {

struct IntensityRange {
  float low, high;
};

}  // namespace vg
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

using U = hn::RebindToUnsigned<F>;
using VU = hn::Vec<U>;

// Both halves of the 64-bit products of all lanes with one number.
HWY_INLINE void multiply(VU a, std::uint32_t by, VU& high, VU& low) {
  const U u;
  const VU b = hn::Set(u, by);
  low = hn::Mul(a, b);
#if HWY_TARGET == HWY_SCALAR
  high = hn::Set(u, static_cast<std::uint32_t>(static_cast<std::uint64_t>(hn::GetLane(a)) * by >> 32));
#else
  const hn::RepartitionToWide<U> wide;
  const auto even = hn::MulEven(a, b), odd = hn::MulEven(hn::BitCast(u, hn::ShiftRight<32>(hn::BitCast(wide, a))), b);
  high = hn::OddEven(hn::BitCast(u, odd), hn::BitCast(u, hn::ShiftRight<32>(even)));
#endif
}

// philox(key, 0, first + lane) (tensor/random.h)
HWY_INLINE void philox_lanes(std::uint64_t key, std::uint64_t first, VU (&c)[4]) {
  const U u;
  HWY_ALIGN std::uint32_t low[kLanes], high[kLanes];
  for (std::int64_t i = 0; i < kLanes; ++i) {
    const std::uint64_t counter = first + static_cast<std::uint64_t>(i);
    low[i] = static_cast<std::uint32_t>(counter), high[i] = static_cast<std::uint32_t>(counter >> 32);
  }
  c[0] = hn::Load(u, low), c[1] = hn::Load(u, high), c[2] = c[3] = hn::Zero(u);
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    VU high0, low0, high1, low1;
    multiply(c[0], 0xD2511F53u, high0, low0), multiply(c[2], 0xCD9E8D57u, high1, low1);
    c[0] = hn::Xor(hn::Xor(high1, c[1]), hn::Set(u, k0));
    c[2] = hn::Xor(hn::Xor(high0, c[3]), hn::Set(u, k1));
    c[1] = low1, c[3] = low0;
  }
}

// The upper 24 bits as a whole float: 0 .. 2^24 - 1.
HWY_INLINE VF whole_of(VU bits) { return hn::ConvertTo(F(), hn::BitCast(I(), hn::ShiftRight<8>(bits))); }

// Two normals of two words each (Box, Muller); sine and cosine: Cephes' polynomials (sinf.c) within an eighth of a turn of the nearest quarter.
HWY_INLINE void normals(VU radius_bits, VU angle_bits, VF& first, VF& second) {
  const VF unit = set(0x1p-24f);
  const VF radius = hn::Sqrt(hn::Mul(set(-2.0f), log(hn::Mul(hn::Add(whole_of(radius_bits), set(1.0f)), unit))));
  const VF quarters = hn::Mul(hn::Mul(whole_of(angle_bits), unit), set(4.0f)), whole = hn::Floor(hn::Add(quarters, set(0.5f)));
  const VF a = hn::Mul(hn::Sub(quarters, whole), set(1.57079632679489662f)), a2 = hn::Mul(a, a);
  VF s = hn::MulAdd(a2, set(-1.9515295891e-4f), set(8.3321608736e-3f));
  s = hn::MulAdd(hn::Mul(a, a2), hn::MulAdd(a2, s, set(-1.6666654611e-1f)), a);
  VF c = hn::MulAdd(a2, set(2.443315711809948e-5f), set(-1.388731625493765e-3f));
  c = hn::MulAdd(hn::Mul(a2, a2), hn::MulAdd(a2, c, set(4.166664568298827e-2f)), hn::MulAdd(a2, set(-0.5f), set(1.0f)));
  const VI quarter = hn::ConvertTo(I(), whole), one = hn::Set(I(), 1), two = hn::Set(I(), 2);
  const auto is = [&](VI value, VI bit) HWY_ATTR { return hn::RebindMask(F(), hn::Eq(hn::And(value, bit), bit)); };
  const MF swapped = is(quarter, one);
  const VF sine = hn::IfThenElse(swapped, c, s), cosine = hn::IfThenElse(swapped, s, c);
  first = hn::Mul(radius, hn::IfThenElse(is(hn::Add(quarter, one), two), hn::Neg(cosine), cosine));
  second = hn::Mul(radius, hn::IfThenElse(is(quarter, two), hn::Neg(sine), sine));
}

IntensityRange range_of(const float* x, std::int64_t count) {
  VF low = set(__builtin_inff()), high = set(-__builtin_inff());
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const VF v = hn::LoadU(F(), x + i);
    low = hn::Min(low, v), high = hn::Max(high, v);
  }
  IntensityRange r = {hn::GetLane(hn::MinOfLanes(F(), low)), hn::GetLane(hn::MaxOfLanes(F(), high))};
  for (; i < count; ++i) r.low = x[i] < r.low ? x[i] : r.low, r.high = x[i] > r.high ? x[i] : r.high;
  return r;
}

// x: the numbers from `first`, a multiple of 4, on. `range`: null where gamma is 1.
void vary_block(float* x, std::int64_t first, std::int64_t count, const IntensityParams& p, const IntensityRange* range) {
  if (range || p.contrast != 1.0f || p.brightness != 0.0f) {
    const float low = range ? range->low : 0.0f, whole = range && range->high - low > 1e-6f ? range->high - low : 1e-6f;
    const VF base = set(low), extent = set(whole), per_extent = set(1.0f / whole), gamma = set(p.gamma);
    for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR {
      VF v = load(x + i, part);
      if (range) {
        const VF t = hn::Mul(hn::Sub(v, base), per_extent), power = exp(hn::Mul(gamma, log(hn::Max(t, set(0x1p-126f)))));
        v = hn::Add(base, hn::Mul(extent, hn::IfThenZeroElse(hn::Lt(t, set(0x1p-126f)), power)));
      }
      store(hn::Add(hn::Mul(v, set(p.contrast)), set(p.brightness)), x + i, part);
    });
  }
  if (p.noise == 0.0f) return;
  HWY_ALIGN float noise[4 * kLanes], part_of[4][kLanes];
  for (std::int64_t i = 0; i < count; i += 4 * kLanes) {
    VU bits[4];
    VF n[4];
    philox_lanes(p.key, static_cast<std::uint64_t>((first + i) / 4), bits);
    normals(bits[0], bits[1], n[0], n[1]), normals(bits[2], bits[3], n[2], n[3]);
    for (int j = 0; j < 4; ++j) hn::Store(n[j], F(), part_of[j]);
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      for (int j = 0; j < 4; ++j) noise[lane * 4 + j] = part_of[j][lane];
    const std::int64_t left = count - i < 4 * kLanes ? count - i : 4 * kLanes;
    for_vectors(left, [&](std::int64_t j, auto part)
                          HWY_ATTR { store(hn::MulAdd(set(p.noise), load(noise + j, part), load(x + i + j, part)), x + i + j, part); });
  }
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"

namespace vg {
namespace {
HWY_EXPORT(range_of);
HWY_EXPORT(vary_block);
static_assert(kBlockFloats % 4 == 0);  // a block begins where a call of the generator does
}  // namespace

namespace cpu {

void vary_intensity(const Exec&, Tensor& image, const IntensityParams& p) {
  const std::int64_t n = image.elements();
  if (n == 0 || !p.changes()) return;
  auto* x = image.data<float>();
  IntensityRange range{};
  if (p.gamma != 1.0f) {
    std::vector<IntensityRange> ranges(static_cast<std::size_t>((n + kBlockFloats - 1) / kBlockFloats));
    for_flat_blocks(n, [&](std::int64_t first, std::int64_t count) {
      ranges[static_cast<std::size_t>(first / kBlockFloats)] = HWY_DYNAMIC_DISPATCH(range_of)(x + first, count);
    });
    range = ranges[0];
    for (const IntensityRange& r : ranges) range = {std::min(range.low, r.low), std::max(range.high, r.high)};
  }
  for_flat_blocks(n, [&](std::int64_t first, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(vary_block)(x + first, first, count, p, p.gamma != 1.0f ? &range : nullptr);
  });
}

}  // namespace cpu

VG_KERNEL_HOME(vary_intensity);
VG_IMPL(cpu, cpu, vary_intensity);

}  // namespace vg
#endif

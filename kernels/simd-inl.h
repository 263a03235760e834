// Vector loops over floats for every instruction set: whole vectors, then a masked rest. Included once per target (Highway's
// foreach_target).
//
//   for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR { store(Mul(load(x + i, part), k), y + i, part); });
//
// `part` is All for whole vectors (plain loads and stores) and Part for the last few lanes, which read as zero and are not written. With
// streamed(y, bytes) as a third argument whole vectors bypass the caches, which halves the traffic of writing a big output.
#include <cstdint>
#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#if defined(VG_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef VG_SIMD_INL_H
#undef VG_SIMD_INL_H
#else
#define VG_SIMD_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {

namespace hn = ::hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;  // the widest vector of floats
using I = hn::RebindToSigned<F>;
using VF = hn::Vec<F>;
using VI = hn::Vec<I>;
using MF = hn::Mask<F>;
inline constexpr std::int64_t kLanes = hn::MaxLanes(F());  // exact: none of our targets has vectors of unknown length

struct All {
  bool stream = false;
};
struct Part {
  std::size_t lanes;  // 1 .. kLanes - 1
};

HWY_INLINE VF load(const float* p, All) { return hn::LoadU(F(), p); }
HWY_INLINE void store(VF v, float* p, All all) { all.stream ? hn::Stream(v, F(), p) : hn::StoreU(v, F(), p); }
HWY_INLINE VF keep(VF v, All) { return v; }

HWY_INLINE VF load(const float* p, Part part) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  return hn::MaskedLoad(hn::FirstN(F(), part.lanes), F(), p);
#else
  HWY_ALIGN float copy[kLanes] = {};
  std::memcpy(copy, p, part.lanes * sizeof(float));
  return hn::Load(F(), copy);
#endif
}
HWY_INLINE void store(VF v, float* p, Part part) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(F(), part.lanes), F(), p);
#else
  HWY_ALIGN float copy[kLanes];
  hn::Store(v, F(), copy);
  std::memcpy(p, copy, part.lanes * sizeof(float));
#endif
}
// v with the lanes beyond the part set to zero.
HWY_INLINE VF keep(VF v, Part part) { return hn::IfThenElseZero(hn::FirstN(F(), part.lanes), v); }

// v with the lanes beyond the part set to -infinity.
HWY_INLINE VF keep_largest(VF v, All) { return v; }
HWY_INLINE VF keep_largest(VF v, Part part) { return hn::IfThenElse(hn::FirstN(F(), part.lanes), v, hn::Set(F(), -__builtin_inff())); }

HWY_INLINE VF set(float x) { return hn::Set(F(), x); }

// Is writing around the caches possible (alignment) and worth it? A plain write also reads what it overwrites; on a server it fell from 42 to
// 15 GB/s where the output outgrew the caches, while a streamed one kept its 43 GB/s.
HWY_INLINE bool streamed(const float* y, std::int64_t bytes) {
  return bytes >= (std::int64_t{32} << 20) && reinterpret_cast<std::uintptr_t>(y) % (static_cast<std::size_t>(kLanes) * sizeof(float)) == 0;
}

template <class Body>
HWY_INLINE void for_vectors(std::int64_t count, const Body& body, bool stream = false) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, All{stream});
  if (i < count) body(i, Part{static_cast<std::size_t>(count - i)});
  if (stream) hwy::FlushStream();
}

// The same over [0, count) with the position in a pattern that repeats every `period` floats (a multiple of kLanes): body(i, j, part), j =
// i mod period.
template <class Body>
HWY_INLINE void for_pattern(std::int64_t count, std::int64_t period, const Body& body, bool stream = false) {
  std::int64_t i = 0;
  for (; i + period <= count; i += period)
    for (std::int64_t j = 0; j < period; j += kLanes) body(i + j, j, All{stream});
  std::int64_t j = 0;
  for (; i + kLanes <= count; i += kLanes, j += kLanes) body(i, j, All{stream});
  if (i < count) body(i, j, Part{static_cast<std::size_t>(count - i)});
  if (stream) hwy::FlushStream();
}

// What a gradient output receives: beta * what is there + g, and what is there is not read when beta is 0.
template <bool kAdd, class P>
HWY_INLINE void put(VF g, float* p, P part) {
  if constexpr (kAdd) g = hn::Add(load(p, part), g);
  store(g, p, part);
}

}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

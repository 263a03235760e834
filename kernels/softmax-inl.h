// Softmax of groups of 16 voxels, the inner step of the loss, softmax and decide kernels. A group is transposed so that voxels are the
// lanes: vectors are full for any number of classes, and maxima and sums over classes are plain vector operations. Element (voxel v, class
// c) is at c * 16 + v.
#include "hwy/cache_control.h"
#include "kernels/vector_math-inl.h"

#if defined(VG_SOFTMAX_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef VG_SOFTMAX_INL_H
#undef VG_SOFTMAX_INL_H
#else
#define VG_SOFTMAX_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {

inline constexpr std::int64_t kGroup = 16;  // voxels; a multiple of every target's vector

#if HWY_TARGET != HWY_SCALAR
// 4 floats from each of p, p + 4 stride, p + 8 stride, ...: one 128-bit block of the vector per address.
template <class D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const float* p, std::int64_t stride) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    return hn::LoadU(d, p);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, load_blocks(half, p + static_cast<std::int64_t>(hn::MaxLanes(half)) * stride, stride),
                       load_blocks(half, p, stride));
  }
}
template <class D>
HWY_INLINE void store_blocks(hn::Vec<D> v, D d, float* p, std::int64_t stride) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    hn::StoreU(v, d, p);
  } else {
    const hn::Half<D> half;
    store_blocks(hn::LowerHalf(half, v), half, p, stride);
    store_blocks(hn::UpperHalf(half, v), half, p + static_cast<std::int64_t>(hn::MaxLanes(half)) * stride, stride);
  }
}

// 4 x 4 in each 128-bit block: lane i of block b of output k is lane k of block b of input i.
HWY_INLINE void transpose_blocks(VF& a0, VF& a1, VF& a2, VF& a3) {
  const F f;
  const hn::Repartition<double, F> pairs;
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(f, a0, a1)), low23 = hn::BitCast(pairs, hn::InterleaveLower(f, a2, a3));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(f, a0, a1)), high23 = hn::BitCast(pairs, hn::InterleaveUpper(f, a2, a3));
  a0 = hn::BitCast(f, hn::InterleaveLower(pairs, low01, low23));
  a1 = hn::BitCast(f, hn::InterleaveUpper(pairs, low01, low23));
  a2 = hn::BitCast(f, hn::InterleaveLower(pairs, high01, high23));
  a3 = hn::BitCast(f, hn::InterleaveUpper(pairs, high01, high23));
}
#endif

// group[c * 16 + v] = x[v * C + c] for 16 voxels
HWY_INLINE void to_lanes(const float* x, std::int64_t C, float* group) {
#if HWY_TARGET != HWY_SCALAR
  const F f;
  for (std::int64_t v = 0; v < kGroup && C >= 2; v += kLanes) {
    const float* from = x + v * C;
    float* to = group + v;
    if (C == 2) {
      VF a, b;
      hn::LoadInterleaved2(f, from, a, b);
      hn::StoreU(a, f, to), hn::StoreU(b, f, to + kGroup);
    } else if (C == 3) {
      VF a, b, c;
      hn::LoadInterleaved3(f, from, a, b, c);
      hn::StoreU(a, f, to), hn::StoreU(b, f, to + kGroup), hn::StoreU(c, f, to + 2 * kGroup);
    } else {
      for (std::int64_t next = 0; next < C; next += 4) {
        const std::int64_t c = next + 4 <= C ? next : C - 4;  // the last four may overlap the ones before
        VF a0 = load_blocks(f, from + c, C), a1 = load_blocks(f, from + C + c, C);
        VF a2 = load_blocks(f, from + 2 * C + c, C), a3 = load_blocks(f, from + 3 * C + c, C);
        transpose_blocks(a0, a1, a2, a3);
        hn::StoreU(a0, f, to + c * kGroup), hn::StoreU(a1, f, to + (c + 1) * kGroup);
        hn::StoreU(a2, f, to + (c + 2) * kGroup), hn::StoreU(a3, f, to + (c + 3) * kGroup);
      }
    }
  }
  if (C >= 2) return;
#endif
  for (std::int64_t v = 0; v < kGroup; ++v)
    for (std::int64_t c = 0; c < C; ++c) group[c * kGroup + v] = x[v * C + c];
}

// y[v * C + c] = group[c * 16 + v] for 16 voxels
HWY_INLINE void from_lanes(const float* group, std::int64_t C, float* y) {
#if HWY_TARGET != HWY_SCALAR
  const F f;
  for (std::int64_t v = 0; v < kGroup && C >= 2; v += kLanes) {
    const float* from = group + v;
    float* to = y + v * C;
    if (C == 2) {
      hn::StoreInterleaved2(hn::LoadU(f, from), hn::LoadU(f, from + kGroup), f, to);
    } else if (C == 3) {
      hn::StoreInterleaved3(hn::LoadU(f, from), hn::LoadU(f, from + kGroup), hn::LoadU(f, from + 2 * kGroup), f, to);
    } else {
      for (std::int64_t next = 0; next < C; next += 4) {
        const std::int64_t c = next + 4 <= C ? next : C - 4;
        VF a0 = hn::LoadU(f, from + c * kGroup), a1 = hn::LoadU(f, from + (c + 1) * kGroup);
        VF a2 = hn::LoadU(f, from + (c + 2) * kGroup), a3 = hn::LoadU(f, from + (c + 3) * kGroup);
        transpose_blocks(a0, a1, a2, a3);
        store_blocks(a0, f, to + c, C), store_blocks(a1, f, to + C + c, C);
        store_blocks(a2, f, to + 2 * C + c, C), store_blocks(a3, f, to + 3 * C + c, C);
      }
    }
  }
  if (C >= 2) return;
#endif
  for (std::int64_t v = 0; v < kGroup; ++v)
    for (std::int64_t c = 0; c < C; ++c) y[v * C + c] = group[c * kGroup + v];
}

struct SoftmaxGroup {
  std::int64_t channels;
  float* e;     // exp(x - largest): 16 * channels floats
  float* rows;  // the same number, for a group that is not whole
  HWY_ALIGN float largest[kGroup], sum[kGroup], inverse[kGroup];

  // memory: 32 * c floats, 64-byte aligned
  SoftmaxGroup(std::int64_t c, float* memory) : channels(c), e(memory), rows(memory + kGroup * c) {}

  // e = x for `count` voxels, 0 for the rest of the group. The next group's logits are asked for meanwhile.
  HWY_INLINE void read(const float* x, std::int64_t count) {
    for (std::int64_t i = 0; i < kGroup * channels; i += 16) hwy::Prefetch(x + kGroup * channels + i);
    if (count < kGroup) {
      std::memcpy(rows, x, static_cast<std::size_t>(count * channels) * sizeof(float));
      std::memset(rows + count * channels, 0, static_cast<std::size_t>((kGroup - count) * channels) * sizeof(float));
      x = rows;
    }
    to_lanes(x, channels, e);
  }

  // Fills e, largest, sum and inverse = 1 / sum. Voxels that do not count (used[v] = 0) get finite values and inverse 0, whatever their
  // logits.
  HWY_INLINE void exponentials(const float* x, std::int64_t count, const float* used) {
    read(x, count);
    for (std::int64_t v = 0; v < kGroup; v += kLanes) {
      float* at = e + v;
      const MF counts = hn::Gt(hn::LoadU(F(), used + v), hn::Zero(F()));
      if (!hn::AllTrue(F(), counts))
        for (std::int64_t c = 0; c < channels; ++c)
          hn::StoreU(hn::IfThenElseZero(counts, hn::LoadU(F(), at + c * kGroup)), F(), at + c * kGroup);
      VF top = hn::LoadU(F(), at), total = hn::Zero(F());
      for (std::int64_t c = 1; c < channels; ++c) top = hn::Max(top, hn::LoadU(F(), at + c * kGroup));
      for (std::int64_t c = 0; c < channels; ++c) {
        const VF value = exp_nonpositive(hn::Sub(hn::LoadU(F(), at + c * kGroup), top));
        total = hn::Add(total, value);
        hn::StoreU(value, F(), at + c * kGroup);
      }
      hn::Store(top, F(), largest + v);
      hn::Store(total, F(), sum + v);
      hn::Store(hn::IfThenElseZero(counts, hn::Div(set(1.0f), total)), F(), inverse + v);
    }
  }

  // out[v] = sum over c of e[v, c] weights[c]
  HWY_INLINE void weighted(const float* weights, float* out) const {
    for (std::int64_t v = 0; v < kGroup; v += kLanes) {
      VF total = hn::Zero(F());
      for (std::int64_t c = 0; c < channels; ++c) total = hn::MulAdd(hn::LoadU(F(), e + c * kGroup + v), set(weights[c]), total);
      hn::StoreU(total, F(), out + v);
    }
  }

  // sums[c * 16 + v] += p
  HWY_INLINE void add_probabilities(float* sums) const {
    for (std::int64_t v = 0; v < kGroup; v += kLanes) {
      const VF k = hn::Load(F(), inverse + v);
      for (std::int64_t c = 0; c < channels; ++c)
        hn::StoreU(hn::MulAdd(hn::LoadU(F(), e + c * kGroup + v), k, hn::LoadU(F(), sums + c * kGroup + v)), F(), sums + c * kGroup + v);
    }
  }

  // e[v, c] = e[v, c] factor[v] (weights[c] + offset[v])
  HWY_INLINE void scale(const float* factor, const float* weights, const float* offset) {
    for (std::int64_t v = 0; v < kGroup; v += kLanes) {
      const VF k = hn::LoadU(F(), factor + v), o = hn::LoadU(F(), offset + v);
      for (std::int64_t c = 0; c < channels; ++c) {
        float* at = e + c * kGroup + v;
        hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(F(), at), k), hn::Add(set(weights[c]), o)), F(), at);
      }
    }
  }

  // y (+)= e for `count` voxels; stream: around the caches (the caller flushes).
  template <bool kAdd>
  HWY_INLINE void write(float* y, std::int64_t count, bool stream) {
    if (!kAdd && count == kGroup && !stream) return from_lanes(e, channels, y);
    from_lanes(e, channels, rows);
    if (!kAdd && count == kGroup) {
      for (std::int64_t i = 0; i < kGroup * channels; i += kLanes) hn::Stream(hn::LoadU(F(), rows + i), F(), y + i);
    } else {
      for_vectors(count * channels, [&](std::int64_t i, auto part) HWY_ATTR { put<kAdd>(load(rows + i, part), y + i, part); });
    }
  }
};

}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

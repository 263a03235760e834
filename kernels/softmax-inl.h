// Softmax of groups of 16 voxels, the inner step of the loss, softmax and argmax kernels. Two layouts, so that vectors are full for any C:
//   wide   (C > 8)   a voxel's logits are vectors; element (v, c) of a group is at v * padded + c, lanes from C to padded are 0
//   narrow (C <= 8)  the group is transposed and voxels are the lanes; element (v, c) is at c * 16 + v
#include "kernels/vector_math-inl.h"

#if defined(VG_SOFTMAX_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef VG_SOFTMAX_INL_H
#undef VG_SOFTMAX_INL_H
#else
#define VG_SOFTMAX_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {

inline constexpr std::int64_t kGroup = 16;  // a multiple of every target's vector
inline constexpr std::int64_t kNarrow = 8;

template <bool kWide>
struct SoftmaxGroup {
  std::int64_t channels, padded;  // padded: channels rounded up to 16
  float* e;                       // exp(x - largest): 16 * padded floats of the caller's
  HWY_ALIGN float largest[kGroup], sum[kGroup], inverse[kGroup];

  SoftmaxGroup(std::int64_t c, float* memory) : channels(c), padded((c + 15) / 16 * 16), e(memory) {}
  std::int64_t at(std::int64_t v, std::int64_t c) const { return kWide ? v * padded + c : c * kGroup + v; }

  // Fills e, largest, sum and inverse = 1 / sum for voxels [0, count). A voxel with skip(v), and those from count on, get e finite and inverse 0.
  template <class Skip>
  HWY_INLINE void exponentials(const float* x, std::int64_t count, const Skip& skip) {
    if constexpr (kWide) {
      for (std::int64_t v = 0; v < kGroup; ++v) {
        float* row = e + v * padded;
        if (v >= count || skip(v)) {
          std::memset(row, 0, static_cast<std::size_t>(padded) * sizeof(float));
          largest[v] = 0.0f, sum[v] = 1.0f;
          continue;
        }
        const float* from = x + v * channels;
        VF top = set(-__builtin_inff());
        for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR { top = hn::Max(top, keep_largest(load(from + c, part), part)); });
        top = hn::MaxOfLanes(F(), top);
        VF total = hn::Zero(F());
        for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR {
          const VF value = keep(exp_nonpositive(hn::Sub(load(from + c, part), top)), part);
          total = hn::Add(total, value);
          hn::StoreU(value, F(), row + c);
        });
        largest[v] = hn::GetLane(top);
        sum[v] = hn::GetLane(hn::SumOfLanes(F(), total));
      }
    } else {
      for (std::int64_t v = 0; v < kGroup; ++v) {
        if (v >= count || skip(v)) {
          for (std::int64_t c = 0; c < channels; ++c) e[c * kGroup + v] = 0.0f;
        } else {
          for (std::int64_t c = 0; c < channels; ++c) e[c * kGroup + v] = x[v * channels + c];
        }
      }
      for (std::int64_t v = 0; v < kGroup; v += kLanes) {
        VF top = hn::LoadU(F(), e + v), total = hn::Zero(F());
        for (std::int64_t c = 1; c < channels; ++c) top = hn::Max(top, hn::LoadU(F(), e + c * kGroup + v));
        for (std::int64_t c = 0; c < channels; ++c) {
          const VF value = exp_nonpositive(hn::Sub(hn::LoadU(F(), e + c * kGroup + v), top));
          total = hn::Add(total, value);
          hn::StoreU(value, F(), e + c * kGroup + v);
        }
        hn::Store(top, F(), largest + v);
        hn::Store(total, F(), sum + v);
      }
    }
    for (std::int64_t v = 0; v < kGroup; v += kLanes) hn::Store(hn::Div(set(1.0f), hn::Load(F(), sum + v)), F(), inverse + v);
    for (std::int64_t v = 0; v < kGroup; ++v)
      if (v >= count || skip(v)) inverse[v] = 0.0f;
  }

  // out[v] = sum over c of e[v, c] weights[c]; weights: padded floats.
  HWY_INLINE void weighted(const float* weights, float* out) const {
    if constexpr (kWide) {
      for (std::int64_t v = 0; v < kGroup; ++v) {
        VF total = hn::Zero(F());
        for (std::int64_t c = 0; c < padded; c += kLanes)
          total = hn::MulAdd(hn::LoadU(F(), e + v * padded + c), hn::LoadU(F(), weights + c), total);
        out[v] = hn::GetLane(hn::SumOfLanes(F(), total));
      }
    } else {
      for (std::int64_t v = 0; v < kGroup; v += kLanes) {
        VF total = hn::Zero(F());
        for (std::int64_t c = 0; c < channels; ++c) total = hn::MulAdd(hn::LoadU(F(), e + c * kGroup + v), set(weights[c]), total);
        hn::StoreU(total, F(), out + v);
      }
    }
  }

  // sums += p, element by element of the layout, over the group's voxels: wide padded floats, narrow 16 * channels.
  HWY_INLINE void add_probabilities(float* sums) const {
    if constexpr (kWide) {
      for (std::int64_t c = 0; c < padded; c += kLanes) {
        VF total = hn::LoadU(F(), sums + c);
        for (std::int64_t v = 0; v < kGroup; ++v) total = hn::MulAdd(hn::LoadU(F(), e + v * padded + c), set(inverse[v]), total);
        hn::StoreU(total, F(), sums + c);
      }
    } else {
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t v = 0; v < kGroup; v += kLanes)
          hn::StoreU(hn::MulAdd(hn::LoadU(F(), e + c * kGroup + v), hn::Load(F(), inverse + v), hn::LoadU(F(), sums + c * kGroup + v)), F(),
                     sums + c * kGroup + v);
    }
  }

  // y[v, c] (+)= e[v, c] factor[v] (weights[c] + offset[v]) for the first `count` voxels.
  template <bool kAdd>
  HWY_INLINE void write(float* y, std::int64_t count, const float* factor, const float* weights, const float* offset) {
    if constexpr (kWide) {
      for (std::int64_t v = 0; v < count; ++v) {
        const VF k = set(factor[v]), o = set(offset[v]);
        for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR {
          const VF scaled = hn::Mul(hn::LoadU(F(), e + v * padded + c), k);
          put<kAdd>(hn::Mul(scaled, hn::Add(hn::LoadU(F(), weights + c), o)), y + v * channels + c, part);
        });
      }
    } else {
      for (std::int64_t v = 0; v < kGroup; v += kLanes) {
        const VF k = hn::LoadU(F(), factor + v), o = hn::LoadU(F(), offset + v);
        for (std::int64_t c = 0; c < channels; ++c) {
          float* at = e + c * kGroup + v;
          hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(F(), at), k), hn::Add(set(weights[c]), o)), F(), at);
        }
      }
      for (std::int64_t v = 0; v < count; ++v)
        for (std::int64_t c = 0; c < channels; ++c) {
          float& to = y[v * channels + c];
          to = kAdd ? to + e[c * kGroup + v] : e[c * kGroup + v];
        }
    }
  }
};

}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

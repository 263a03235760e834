// Depth to space on the cpu. A voxel of x holds, channel by channel, the values of one small block of y: taking them apart is the
// de-interleaving load that every instruction set has for four taps (factor 2 in a plane); other factors go value by value.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/pixel_shuffle_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/pixel_shuffle.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// x[c * taps + t] -> fine[t][c]; a null `fine` is dropped. stream: every fine[t] is aligned, and goes around the caches.
void spread_voxel(float* const* fine, const float* x, std::int64_t taps, std::int64_t channels, bool stream) {
  std::int64_t c = 0;
  if (taps == 4) {
    for (; c + kLanes <= channels; c += kLanes) {
      VF v0, v1, v2, v3;
      hn::LoadInterleaved4(F(), x + 4 * c, v0, v1, v2, v3);
      if (fine[0]) store(v0, fine[0] + c, All{stream});
      if (fine[1]) store(v1, fine[1] + c, All{stream});
      if (fine[2]) store(v2, fine[2] + c, All{stream});
      if (fine[3]) store(v3, fine[3] + c, All{stream});
    }
  }
  for (std::int64_t t = 0; t < taps; ++t)
    if (fine[t])
      for (std::int64_t k = c; k < channels; ++k) fine[t][k] = x[k * taps + t];
}

// Output floats of `bytes` in all, in voxels of `channels`: may they be streamed?
bool spread_streamed(const float* y, std::int64_t bytes, std::int64_t channels) { return channels % kLanes == 0 && streamed(y, bytes); }
void spread_end() { hwy::FlushStream(); }

// The way back: x[c * taps + t] = beta x + fine[t][c], a null `fine` counting as 0.
void collect_voxel(float* x, bool add, const float* const* fine, std::int64_t taps, std::int64_t channels) {
  std::int64_t c = 0;
  if (taps == 4) {
    for (; c + kLanes <= channels; c += kLanes) {
      VF v0 = fine[0] ? load(fine[0] + c, All{}) : set(0.0f), v1 = fine[1] ? load(fine[1] + c, All{}) : set(0.0f);
      VF v2 = fine[2] ? load(fine[2] + c, All{}) : set(0.0f), v3 = fine[3] ? load(fine[3] + c, All{}) : set(0.0f);
      if (add) {
        VF o0, o1, o2, o3;
        hn::LoadInterleaved4(F(), x + 4 * c, o0, o1, o2, o3);
        v0 = hn::Add(o0, v0), v1 = hn::Add(o1, v1), v2 = hn::Add(o2, v2), v3 = hn::Add(o3, v3);
      }
      hn::StoreInterleaved4(v0, v1, v2, v3, F(), x + 4 * c);
    }
  }
  for (std::int64_t k = c; k < channels; ++k)
    for (std::int64_t t = 0; t < taps; ++t) {
      const float g = fine[t] ? fine[t][k] : 0.0f;
      x[k * taps + t] = add ? x[k * taps + t] + g : g;
    }
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"

namespace vg {
namespace {

HWY_EXPORT(spread_voxel);
HWY_EXPORT(spread_streamed);
HWY_EXPORT(spread_end);
HWY_EXPORT(collect_voxel);

// Walks over the voxels of the coarse tensor: body(offset of the voxel in it, the places of its block in `fine`, null beyond the border); end() after
// every piece of work, in its thread.
// P: float* or const float*
template <class P, class Body, class End>
void for_blocks(const Shape& coarse, const Shape& shape, P fine, const PixelShuffleParams& p, const Body& body, const End& end_piece) {
  const std::int64_t fd = p.factor[0], fh = p.factor[1], fw = p.factor[2], C = shape.c();
  assert(coarse.n() == shape.n() && coarse.c() == C * fd * fh * fw);
  assert(coarse.d() == (shape.d() + fd - 1) / fd && coarse.h() == (shape.h() + fh - 1) / fh && coarse.w() == (shape.w() + fw - 1) / fw);
  for_rows(coarse.n() * coarse.d() * coarse.h(), 2 * coarse.w() * coarse.c(), [&](std::int64_t begin, std::int64_t end) {
    std::vector<P> rows(static_cast<std::size_t>(fd * fh)), places(static_cast<std::size_t>(fd * fh * fw));
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t h = r % coarse.h(), d = r / coarse.h() % coarse.d(), n = r / coarse.h() / coarse.d();
      for (std::int64_t i = 0; i < fd * fh; ++i) {
        const std::int64_t z = d * fd + i / fh, y = h * fh + i % fh;
        rows[i] = z < shape.d() && y < shape.h() ? fine + ((n * shape.d() + z) * shape.h() + y) * shape.w() * C : nullptr;
      }
      for (std::int64_t w = 0; w < coarse.w(); ++w) {
        for (std::int64_t t = 0; t < fd * fh * fw; ++t) {
          const P row = rows[t / fw];
          const std::int64_t x = w * fw + t % fw;
          places[t] = row && x < shape.w() ? row + x * C : nullptr;
        }
        body((r * coarse.w() + w) * coarse.c(), places.data());
      }
    }
    end_piece();
  });
}

std::int64_t taps_of(const PixelShuffleParams& p) { return std::int64_t{p.factor[0]} * p.factor[1] * p.factor[2]; }

}  // namespace

namespace cpu {

void pixel_shuffle_forward(const Exec&, Tensor& y, const Tensor& x, const PixelShuffleParams& p) {
  const bool stream = taps_of(p) == 4 && HWY_DYNAMIC_DISPATCH(spread_streamed)(y.data<float>(), static_cast<std::int64_t>(y.bytes()), y.shape().c());
  for_blocks(x.shape(), y.shape(), y.data<float>(), p,
             [&](std::int64_t at, float* const* fine) { HWY_DYNAMIC_DISPATCH(spread_voxel)(fine, x.data<float>() + at, taps_of(p), y.shape().c(), stream); },
             [&] { if (stream) HWY_DYNAMIC_DISPATCH(spread_end)(); });
}

void pixel_shuffle_backward(const Exec&, const Grad& dx, const Tensor& dy, const PixelShuffleParams& p) {
  if (!dx.wanted()) return;
  for_blocks(dx.shape(), dy.shape(), dy.data<float>(), p, [&](std::int64_t at, const float* const* fine) {
    HWY_DYNAMIC_DISPATCH(collect_voxel)(dx.data() + at, dx.beta != 0.0f, fine, taps_of(p), dy.shape().c());
  }, [] {});
}

}  // namespace cpu

VG_KERNEL_HOME(pixel_shuffle_forward);
VG_KERNEL_HOME(pixel_shuffle_backward);
VG_IMPL(cpu, cpu, pixel_shuffle_forward);
VG_IMPL(cpu, cpu, pixel_shuffle_backward);

}  // namespace vg
#endif

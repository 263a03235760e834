// The blur on the cpu. On each axis a voxel has a short list of voxels that it adds up (one named twice at the border); forward and backward
// differ in these lists alone. Vectors over channels, tasks over rows; the repeated reads come from the first cache.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/blur_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/blur.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// to[w] = scale * the sum over `rows` and over the voxels from[first[w]] ... from[first[w + 1] - 1]
template <bool kAdd>
HWY_INLINE void sum_row(float* to, const float* const* rows, std::int64_t count, const std::int64_t* first, const std::int64_t* from,
                        std::int64_t voxels, std::int64_t channels, float scale) {
  for (std::int64_t w = 0; w < voxels; ++w)
    for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR {
      VF sum = set(0.0f);
      for (std::int64_t r = 0; r < count; ++r)
        for (std::int64_t i = first[w]; i < first[w + 1]; ++i) sum = hn::Add(sum, load(rows[r] + from[i] * channels + c, part));
      put<kAdd>(hn::Mul(sum, set(scale)), to + w * channels + c, part);
    });
}
void blur_row(float* to, bool add, const float* const* rows, std::int64_t count, const std::int64_t* first, const std::int64_t* from,
              std::int64_t voxels, std::int64_t channels, float scale) {
  add ? sum_row<true>(to, rows, count, first, from, voxels, channels, scale)
      : sum_row<false>(to, rows, count, first, from, voxels, channels, scale);
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"

namespace vg {
namespace {

HWY_EXPORT(blur_row);

// Voxel v of one axis adds up from[first[v]] ... from[first[v + 1] - 1].
struct Sources {
  std::vector<std::int64_t> first = {0}, from;

  Sources(std::int64_t extent, std::int64_t kernel, bool backward) {
    for (std::int64_t v = 0; v < extent; ++v) {
      if (!backward) {
        for (std::int64_t t = 0; t < kernel; ++t) from.push_back(std::max<std::int64_t>(v - t, 0));
      } else {
        for (std::int64_t u = v; u < std::min(extent, v + kernel); ++u)
          from.insert(from.end(), static_cast<std::size_t>(v == 0 ? kernel - u : 1), u);
      }
      first.push_back(static_cast<std::int64_t>(from.size()));
    }
  }
};

void run_blur(float* to, bool add, const float* x, const Shape& s, const BlurParams& p, bool backward) {
  const Sources on_d(s.d(), p.kernel[0], backward), on_h(s.h(), p.kernel[1], backward), on_w(s.w(), p.kernel[2], backward);
  const std::int64_t row = s.w() * s.c(), taps = std::int64_t{p.kernel[0]} * p.kernel[1] * p.kernel[2];
  for_rows(s.n() * s.d() * s.h(), row * taps, [&](std::int64_t begin, std::int64_t end) {
    std::vector<const float*> rows;
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t h = r % s.h(), d = r / s.h() % s.d(), n = r / s.h() / s.d();
      rows.clear();
      for (std::int64_t i = on_d.first[d]; i < on_d.first[d + 1]; ++i)
        for (std::int64_t j = on_h.first[h]; j < on_h.first[h + 1]; ++j)
          rows.push_back(x + ((n * s.d() + on_d.from[i]) * s.h() + on_h.from[j]) * row);
      HWY_DYNAMIC_DISPATCH(blur_row)
      (to + r * row, add, rows.data(), static_cast<std::int64_t>(rows.size()), on_w.first.data(), on_w.from.data(), s.w(), s.c(),
       1.0f / static_cast<float>(taps));
    }
  });
}

}  // namespace

namespace cpu {

void blur_forward(const Exec&, Tensor& y, const Tensor& x, const BlurParams& p) {
  assert(y.shape() == x.shape());
  run_blur(y.data<float>(), false, x.data<float>(), x.shape(), p, false);
}

void blur_backward(const Exec&, const Grad& dx, const Tensor& dy, const BlurParams& p) {
  if (!dx.wanted()) return;
  assert(dx.shape() == dy.shape());
  run_blur(dx.data(), dx.beta != 0.0f, dy.data<float>(), dy.shape(), p, true);
}

}  // namespace cpu

VG_KERNEL_HOME(blur_forward);
VG_KERNEL_HOME(blur_backward);
VG_IMPL(cpu, cpu, blur_forward);
VG_IMPL(cpu, cpu, blur_backward);

}  // namespace vg
#endif

// Upsampling on the cpu. Both directions work on one row at a time and separate the axes: along D and H whole rows are blended as flat
// vectors (any C), then the row is stretched or gathered along W with vectors over channels.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/upsample_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/simd-inl.h"
#include "kernels/upsample.h"

#ifndef VG_UPSAMPLE_CPU_TAPS
#define VG_UPSAMPLE_CPU_TAPS
namespace vg {

// y[u] = weight x[low] + (1 - weight) x[high] on one axis; high = low where the weight is 1.
struct Stretch {
  std::int64_t low, high;
  float weight;
};
// dx[v] = sum over u in [first, first + count) of weights[u - first] dy[u] on one axis.
struct Gather {
  std::int64_t first, count;
  const float* weights;
};

}  // namespace vg
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// sum[i] = sum over k of weights[k] rows[k][i]
void blend_rows(float* sum, const float* const* rows, const float* weights, std::int64_t count, std::int64_t floats) {
  for_vectors(floats, [&](std::int64_t i, auto part) HWY_ATTR {
    VF total = hn::Mul(set(weights[0]), load(rows[0] + i, part));
    for (std::int64_t k = 1; k < count; ++k) total = hn::MulAdd(set(weights[k]), load(rows[k] + i, part), total);
    store(total, sum + i, part);
  });
}

// Each voxel of `x` `factor` times.
void repeat_row(float* y, const float* x, std::int64_t voxels, std::int64_t channels, std::int64_t factor) {
  for (std::int64_t w = 0; w < voxels; ++w)
    for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR {
      const VF v = load(x + w * channels + c, part);
      for (std::int64_t k = 0; k < factor; ++k) store(v, y + (w * factor + k) * channels + c, part);
    });
}

void stretch_row(float* y, const float* x, const Stretch* taps, std::int64_t voxels, std::int64_t channels) {
  for (std::int64_t u = 0; u < voxels; ++u) {
    const Stretch t = taps[u];
    const float *low = x + t.low * channels, *high = x + t.high * channels;
    const VF a = set(t.weight), b = set(1.0f - t.weight);
    for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR {
      const VF v = load(low + c, part);
      store(t.low == t.high ? v : hn::MulAdd(b, load(high + c, part), hn::Mul(a, v)), y + u * channels + c, part);
    });
  }
}

template <bool kAdd>
HWY_INLINE void gather_voxels(float* dx, const float* dy, const Gather* taps, std::int64_t voxels, std::int64_t channels) {
  for (std::int64_t v = 0; v < voxels; ++v) {
    const Gather t = taps[v];
    const float* from = dy + t.first * channels;
    for_vectors(channels, [&](std::int64_t c, auto part) HWY_ATTR {
      VF sum = hn::Mul(set(t.weights[0]), load(from + c, part));
      for (std::int64_t k = 1; k < t.count; ++k) sum = hn::MulAdd(set(t.weights[k]), load(from + k * channels + c, part), sum);
      put<kAdd>(sum, dx + v * channels + c, part);
    });
  }
}
void gather_row(float* dx, bool add, const float* dy, const Gather* taps, std::int64_t voxels, std::int64_t channels) {
  add ? gather_voxels<true>(dx, dy, taps, voxels, channels) : gather_voxels<false>(dx, dy, taps, voxels, channels);
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"

namespace vg {
namespace {

HWY_EXPORT(blend_rows);
HWY_EXPORT(repeat_row);
HWY_EXPORT(stretch_row);
HWY_EXPORT(gather_row);

// Sources of the `extent` * `factor` outputs of one axis. linear: at (u + 1/2) / factor - 1/2, clamped to [0, extent - 1].
std::vector<Stretch> stretch_taps(std::int64_t extent, std::int64_t factor, bool linear) {
  std::vector<Stretch> taps(static_cast<std::size_t>(extent * factor));
  for (std::int64_t u = 0; u < extent * factor; ++u) {
    const double at =
        linear ? std::clamp((static_cast<double>(u) + 0.5) / static_cast<double>(factor) - 0.5, 0.0, static_cast<double>(extent - 1))
               : static_cast<double>(u / factor);
    const std::int64_t low = static_cast<std::int64_t>(at);
    const double beyond = at - static_cast<double>(low);
    taps[u] = {low, beyond > 0 ? low + 1 : low, static_cast<float>(1 - beyond)};
  }
  return taps;
}

// The transpose of `stretch`: for each input the outputs that read it.
struct GatherTaps {
  std::vector<Gather> taps;
  std::vector<float> weights;
  GatherTaps(const std::vector<Stretch>& stretch, std::int64_t extent, std::int64_t factor) {
    const std::int64_t outputs = extent * factor, reach = 2 * factor;      // an input's outputs lie within one factor of its own
    weights.reserve(static_cast<std::size_t>(extent * (reach + factor)));  // no reallocation: taps point into it
    for (std::int64_t v = 0; v < extent; ++v) {
      Gather g{0, 0, weights.data() + weights.size()};
      for (std::int64_t u = std::max<std::int64_t>(0, v * factor - factor); u < std::min(outputs, v * factor + reach); ++u) {
        const Stretch& s = stretch[u];
        const float weight = s.low == v ? s.weight : s.high == v ? 1.0f - s.weight : 0.0f;
        if (weight == 0.0f) continue;
        if (g.count++ == 0) g.first = u;
        weights.push_back(weight);
      }
      taps.push_back(g);
    }
  }
};

}  // namespace

namespace cpu {

void upsample_forward(const Exec&, Tensor& y, const Tensor& x, const UpsampleParams& p) {
  const Shape& s = x.shape();
  const std::int64_t D = s.d(), H = s.h(), W = s.w(), C = s.c(), fd = p.factor[0], fh = p.factor[1], fw = p.factor[2];
  assert(y.shape() == Shape({s.n(), D * fd, H * fh, W * fw, C}));
  const std::int64_t row = W * C, y_row = row * fw;
  const float* from = x.data<float>();
  float* to = y.data<float>();
  if (!p.linear) {
    for_rows(s.n() * D * H, y_row * fd * fh, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        float* first = to + (r / H * fd * H * fh + r % H * fh) * y_row;
        HWY_DYNAMIC_DISPATCH(repeat_row)(first, from + r * row, W, C, fw);
        for (std::int64_t k = 1; k < fd * fh; ++k) std::copy_n(first, y_row, first + (k / fh * H * fh + k % fh) * y_row);
      }
    });
    return;
  }
  const std::vector<Stretch> on_d = stretch_taps(D, fd, true), on_h = stretch_taps(H, fh, true), on_w = stretch_taps(W, fw, true);
  for_rows(s.n() * D * fd * H * fh, 2 * y_row, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> blended(static_cast<std::size_t>(row));
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t n = r / (H * fh) / (D * fd);
      const Stretch &d = on_d[r / (H * fh) % (D * fd)], &h = on_h[r % (H * fh)];
      const float* rows[4];
      float weights[4];
      std::int64_t count = 0;
      for (int i = 0; i < (d.low == d.high ? 1 : 2); ++i)
        for (int j = 0; j < (h.low == h.high ? 1 : 2); ++j) {
          rows[count] = from + ((n * D + (i ? d.high : d.low)) * H + (j ? h.high : h.low)) * row;
          weights[count++] = (i ? 1.0f - d.weight : d.weight) * (j ? 1.0f - h.weight : h.weight);
        }
      if (count > 1) HWY_DYNAMIC_DISPATCH(blend_rows)(blended.data(), rows, weights, count, row);
      HWY_DYNAMIC_DISPATCH(stretch_row)(to + r * y_row, count > 1 ? blended.data() : rows[0], on_w.data(), W * fw, C);
    }
  });
}

void upsample_backward(const Exec&, const Grad& dx, const Tensor& dy, const UpsampleParams& p) {
  if (!dx.wanted()) return;
  const Shape& s = dx.shape();
  const std::int64_t D = s.d(), H = s.h(), W = s.w(), C = s.c(), fd = p.factor[0], fh = p.factor[1], fw = p.factor[2];
  assert(dy.shape() == Shape({s.n(), D * fd, H * fh, W * fw, C}));
  const std::int64_t row = W * C, dy_row = row * fw;
  const GatherTaps on_d(stretch_taps(D, fd, p.linear), D, fd), on_h(stretch_taps(H, fh, p.linear), H, fh),
      on_w(stretch_taps(W, fw, p.linear), W, fw);
  for_rows(s.n() * D * H, dy_row * fd * fh, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> sum(static_cast<std::size_t>(dy_row)), weights;
    std::vector<const float*> rows;
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t n = r / H / D;
      const Gather &d = on_d.taps[r / H % D], &h = on_h.taps[r % H];
      rows.clear(), weights.clear();
      for (std::int64_t i = 0; i < d.count; ++i)
        for (std::int64_t j = 0; j < h.count; ++j) {
          rows.push_back(dy.data<float>() + ((n * D * fd + d.first + i) * H * fh + h.first + j) * dy_row);
          weights.push_back(d.weights[i] * h.weights[j]);
        }
      HWY_DYNAMIC_DISPATCH(blend_rows)(sum.data(), rows.data(), weights.data(), static_cast<std::int64_t>(rows.size()), dy_row);
      HWY_DYNAMIC_DISPATCH(gather_row)(dx.data() + r * row, dx.beta != 0.0f, sum.data(), on_w.taps.data(), W, C);
    }
  });
}

}  // namespace cpu

VG_KERNEL_HOME(upsample_forward);
VG_KERNEL_HOME(upsample_backward);
VG_IMPL(cpu, cpu, upsample_forward);
VG_IMPL(cpu, cpu, upsample_backward);

}  // namespace vg
#endif

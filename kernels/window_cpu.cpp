// Windows on the cpu: rows of voxels along W are the unit of work. Decisions are taken for 16 voxels at a time (kernels/softmax-inl.h).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/window_cpu.cpp"
#include "kernels/simd.h"

#include <cmath>

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/softmax-inl.h"
#include "kernels/window.h"

#ifndef VG_WINDOW_CPU_ROW
#define VG_WINDOW_CPU_ROW
namespace vg {

// A row of voxels to decide. Each pointer but `scores`, `classes_of` and `work` may be null.
struct DecideRow {
  const float* scores;
  std::int64_t voxels, classes, kept;
  std::int32_t* classes_of;  // (voxels, kept)
  float *confidence, *entropy;
  float scale;           // 1 / (total_d total_h)
  const float* total_w;  // along the row
  float* work;           // 32 * classes floats, on a cache line
};

}  // namespace vg
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// to[i] += (weight * along[i / channels]) * from[i]
void blend_row(float* to, const float* from, float weight, const float* along, std::int64_t voxels, std::int64_t channels) {
  for (std::int64_t v = 0; v < voxels; ++v) {
    const VF k = set(weight * along[v]);
    float* y = to + v * channels;
    const float* x = from + v * channels;
    for_vectors(channels, [&](std::int64_t i, auto part) HWY_ATTR { store(hn::Add(load(y + i, part), hn::Mul(k, load(x + i, part))), y + i, part); });
  }
}

// The classes of one voxel in the order of their scores, as many as are kept. Each is the best of those that come after the last one.
void rank_classes(const DecideRow& r, std::int64_t voxel, std::int32_t best, float confidence, float factor) {
  const float* s = r.scores + voxel * r.classes;
  std::int32_t* classes_of = r.classes_of + voxel * r.kept;
  float* chances = r.confidence ? r.confidence + voxel * r.kept : nullptr;
  classes_of[0] = best;
  if (chances) chances[0] = confidence;
  std::int64_t last = best;
  for (std::int64_t k = 1; k < r.kept; ++k) {
    std::int64_t next = -1;
    for (std::int64_t c = 0; c < r.classes; ++c) {
      const bool after = s[c] < s[last] || (s[c] == s[last] && c > last);
      if (after && (next < 0 || s[c] > s[next])) next = c;
    }
    last = next < 0 ? last : next;  // NaN comes after nothing
    classes_of[k] = static_cast<std::int32_t>(last);
    if (chances) chances[k] = std::exp((s[last] - s[best]) * factor) * confidence;
  }
}

void decide_row(const DecideRow& r) {
  SoftmaxGroup group(r.classes, r.work);
  HWY_ALIGN std::int32_t winners[kGroup];
  HWY_ALIGN float factor[kGroup], confidence[kGroup], entropy[kGroup];
  for (std::int64_t v0 = 0; v0 < r.voxels; v0 += kGroup) {
    const std::int64_t count = r.voxels - v0 < kGroup ? r.voxels - v0 : kGroup;
    group.read(r.scores + v0 * r.classes, count);
    for (std::int64_t v = 0; v < count; ++v) factor[v] = r.total_w ? r.scale / r.total_w[v0 + v] : r.scale;
    for (std::int64_t v = count; v < kGroup; ++v) factor[v] = 1.0f;
    for (std::int64_t v = 0; v < kGroup; v += kLanes) {
      const float* e = group.e + v;
      VF top = hn::LoadU(F(), e);
      VI winner = hn::Zero(I());
      for (std::int64_t c = 1; c < r.classes; ++c) {
        const VF value = hn::LoadU(F(), e + c * kGroup);
        const MF larger = hn::Gt(value, top);
        top = hn::IfThenElse(larger, value, top);
        winner = hn::IfThenElse(hn::RebindMask(I(), larger), hn::Set(I(), static_cast<std::int32_t>(c)), winner);
      }
      hn::Store(winner, I(), winners + v);
      if (!r.confidence && !r.entropy) continue;
      const VF k = hn::Load(F(), factor + v);
      VF sum = hn::Zero(F()), moment = hn::Zero(F());
      for (std::int64_t c = 0; c < r.classes; ++c) {
        const VF t = hn::Mul(hn::Sub(hn::LoadU(F(), e + c * kGroup), top), k), p = exp_nonpositive(t);
        sum = hn::Add(sum, p);
        moment = hn::Add(moment, hn::IfThenElseZero(hn::Gt(p, hn::Zero(F())), hn::Mul(p, t)));
      }
      hn::Store(hn::Div(set(1.0f), sum), F(), confidence + v);
      hn::Store(hn::Sub(log(sum), hn::Div(moment, sum)), F(), entropy + v);
    }
    if (r.kept == 1) {
      std::memcpy(r.classes_of + v0, winners, static_cast<std::size_t>(count) * sizeof(std::int32_t));
      if (r.confidence) std::memcpy(r.confidence + v0, confidence, static_cast<std::size_t>(count) * sizeof(float));
    } else {
      for (std::int64_t v = 0; v < count; ++v) rank_classes(r, v0 + v, winners[v], r.confidence ? confidence[v] : 0.0f, factor[v]);
    }
    if (r.entropy) std::memcpy(r.entropy + v0, entropy, static_cast<std::size_t>(count) * sizeof(float));
  }
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"

namespace vg {
namespace {
HWY_EXPORT(blend_row);
HWY_EXPORT(decide_row);
}  // namespace

namespace cpu {

void cut_window(const Exec&, Tensor& window, const Tensor& image, const WindowParams& p) {
  const Shape &w = window.shape(), &s = image.shape();
  const std::int64_t c = s.c(), lo = std::clamp<std::int64_t>(-p.start[2], 0, w.w()), hi = std::clamp<std::int64_t>(s.w() - p.start[2], lo, w.w());
  assert(w.n() == 1 && s.n() == 1 && w.c() == c);
  for_rows(w.d() * w.h(), w.w() * c, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t z = p.start[0] + row / w.h(), y = p.start[1] + row % w.h();
      float* to = window.data<float>() + row * w.w() * c;
      if (z < 0 || z >= s.d() || y < 0 || y >= s.h()) {
        std::fill_n(to, w.w() * c, 0.0f);
        continue;
      }
      const float* from = image.data<float>() + ((z * s.h() + y) * s.w() + p.start[2]) * c;
      std::fill_n(to, lo * c, 0.0f);
      std::copy(from + lo * c, from + hi * c, to + lo * c);
      std::fill_n(to + hi * c, (w.w() - hi) * c, 0.0f);
    }
  });
}

void blend_window(const Exec&, Tensor& sums, const Tensor& scores, const Tensor& weights, const BlendParams& p) {
  const Shape &w = scores.shape(), &s = sums.shape();
  assert(w.n() == 1 && s.n() == 1 && w.c() == s.c() && weights.elements() == w.d() + w.h() + w.w());
  const float* weight = weights.data<float>();
  const std::int64_t lo = std::max<std::int64_t>(0, -p.start[2]), hi = std::min(w.w(), s.w() - p.start[2]), c = s.c();
  for_rows(w.d() * w.h(), w.w() * c, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t kz = row / w.h(), ky = row % w.h(), z = p.start[0] + kz, y = p.start[1] + ky;
      if (z < 0 || z >= p.depth || y < 0 || y >= s.h() || lo >= hi) continue;
      HWY_DYNAMIC_DISPATCH(blend_row)
      (sums.data<float>() + ((z % s.d() * s.h() + y) * s.w() + p.start[2] + lo) * c, scores.data<float>() + (row * w.w() + lo) * c, weight[kz] * weight[w.d() + ky],
       weight + w.d() + w.h() + lo, hi - lo, c);
    }
  });
}

void decide(const Exec&, Tensor& labels, Tensor& confidence, Tensor& entropy, const Tensor& scores, const Tensor& totals, const DecideParams& p) {
  const Shape &to = labels.shape(), &s = scores.shape();
  const std::int64_t W = to.w(), C = s.c(), K = to.c();
  const bool bytes = labels.dtype() == DType::u8;
  assert(to.n() == s.n() && to.d() <= s.d() && (!bytes || C <= 256) && K >= 1 && K <= C && (!confidence.defined() || confidence.shape() == to));
  const float* total = totals.defined() ? totals.data<float>() : nullptr;
  for_rows(to.n() * to.d() * to.h(), W * C, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> memory(static_cast<std::size_t>(32 * C + 16));
    std::vector<std::int32_t> wide(static_cast<std::size_t>(bytes ? W * K : 0));
    float* work = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) / 4 % 16;  // whole cache lines
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t n = row / (to.d() * to.h()), z = row / to.h() % to.d(), y = row % to.h(), at = row * W;
      const std::int64_t from = ((n * s.d() + (z + p.from[0]) % s.d()) * s.h() + y + p.from[1]) * s.w() + p.from[2];
      HWY_DYNAMIC_DISPATCH(decide_row)
      ({scores.data<float>() + from * C, W, C, K, bytes ? wide.data() : labels.data<std::int32_t>() + at * K, confidence.defined() ? confidence.data<float>() + at * K : nullptr,
        entropy.defined() ? entropy.data<float>() + at : nullptr, total ? 1.0f / (total[z] * total[to.d() + y]) : 1.0f, total ? total + to.d() + to.h() : nullptr, work});
      if (bytes) std::copy(wide.begin(), wide.end(), labels.data<std::uint8_t>() + at * K);
    }
  });
}

}  // namespace cpu

VG_KERNEL_HOME(cut_window);
VG_KERNEL_HOME(blend_window);
VG_KERNEL_HOME(decide);
VG_IMPL(cpu, cpu, cut_window);
VG_IMPL(cpu, cpu, blend_window);
VG_IMPL(cpu, cpu, decide);

}  // namespace vg
#endif

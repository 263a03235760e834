// Softmax + cross-entropy + Dice and softmax on the cpu, 16 voxels at a time (kernels/softmax-inl.h). A block of voxels keeps its
// class sums in vectors of floats for 256 voxels, then in doubles; blocks are added in order, samples by a binary tree.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/loss_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/loss.h"
#include "kernels/softmax-inl.h"

#ifndef VG_LOSS_CPU_BLOCKS
#define VG_LOSS_CPU_BLOCKS
namespace vg {

// A run of voxels of one sample.
struct LossBlock {
  const float* logits;
  const void* labels;  // u8 where `bytes`, else i32; nullptr for softmax
  bool bytes;
  std::int64_t voxels, channels;
  std::int32_t ignore;
  float* work;                    // loss_work_floats(channels)
  std::int64_t output_bytes = 0;  // of the whole tensor

  std::int32_t label(std::int64_t v) const {
    return bytes ? static_cast<const std::uint8_t*>(labels)[v] : static_cast<const std::int32_t*>(labels)[v];
  }
};
inline std::int64_t loss_work_floats(std::int64_t channels) { return 48 * channels + 16; }

// dlogits[c] = p_c (even[c] + shift - sum p (even + label)) for every class, and more for the label's: see dice_ce_gradient.
struct LossSlopes {
  const float *even, *label;  // (C) d loss / d p_c: for every voxel, and what the label's class has on top
  float ce, scale;            // ce_weight / voxels counted; the gradient from above
};

}  // namespace vg
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// used[v] = 1 for the group's voxels that count, 0 for ignored ones and beyond the end.
HWY_INLINE void find_used(const LossBlock& b, std::int64_t v0, std::int64_t count, float* used) {
  for (std::int64_t v = 0; v < kGroup; ++v) used[v] = v < count && b.label(v0 + v) != b.ignore ? 1.0f : 0.0f;
}

// totals: I (C), P (C), T (C), sum of -log p[label], voxels counted
void dice_ce_sums(const LossBlock& b, double* totals) {
  const std::int64_t C = b.channels;
  SoftmaxGroup group(C, b.work);
  float* sums = b.work + 2 * kGroup * C;
  std::memset(totals, 0, static_cast<std::size_t>(3 * C + 2) * sizeof(double));
  HWY_ALIGN float logs[kGroup], used[kGroup];
  for (std::int64_t first = 0; first < b.voxels; first += 16 * kGroup) {
    std::memset(sums, 0, static_cast<std::size_t>(kGroup * C) * sizeof(float));
    const std::int64_t end = first + 16 * kGroup < b.voxels ? first + 16 * kGroup : b.voxels;
    for (std::int64_t v0 = first; v0 < end; v0 += kGroup) {
      const std::int64_t count = end - v0 < kGroup ? end - v0 : kGroup;
      const float* x = b.logits + v0 * C;
      find_used(b, v0, count, used);
      group.exponentials(x, count, used);
      group.add_probabilities(sums);
      for (std::int64_t v = 0; v < kGroup; v += kLanes) hn::Store(log(hn::Load(F(), group.sum + v)), F(), logs + v);
      for (std::int64_t v = 0; v < count; ++v) {
        if (used[v] == 0.0f) continue;
        const std::int64_t label = b.label(v0 + v);
        totals[label] += static_cast<double>(group.e[label * kGroup + v] * group.inverse[v]);
        totals[2 * C + label] += 1;
        totals[3 * C] += static_cast<double>(logs[v]) + (static_cast<double>(group.largest[v]) - static_cast<double>(x[v * C + label]));
        totals[3 * C + 1] += 1;
      }
    }
    for (std::int64_t c = 0; c < C; ++c)
      for (std::int64_t v = 0; v < kGroup; ++v) totals[C + c] += static_cast<double>(sums[c * kGroup + v]);
  }
}

// With u_c = even[c] + t_c label[c] = d loss / d p_c (the Dice part) and k = ce:
//   dlogits_c = scale (p_c (u_c - sum p u) + k (p_c - t_c))
//             = scale p_c (even_c + k - sum p u)  +  t_c scale (p_c label_c - k)
template <bool kAdd>
HWY_INLINE void gradient(const LossBlock& b, const LossSlopes& s, float* dx) {
  const bool stream = !kAdd && dx != b.logits && streamed(dx, b.output_bytes);
  const std::int64_t C = b.channels;
  SoftmaxGroup group(C, b.work);
  HWY_ALIGN float used[kGroup], even[kGroup], factor[kGroup], offset[kGroup], extra[kGroup];
  for (std::int64_t v0 = 0; v0 < b.voxels; v0 += kGroup) {
    const std::int64_t count = b.voxels - v0 < kGroup ? b.voxels - v0 : kGroup;
    find_used(b, v0, count, used);
    group.exponentials(b.logits + v0 * C, count, used);
    group.weighted(s.even, even);
    for (std::int64_t v = 0; v < kGroup; ++v) {
      factor[v] = s.scale * group.inverse[v];
      offset[v] = extra[v] = 0.0f;
      if (used[v] == 0.0f) continue;
      const std::int64_t label = b.label(v0 + v);
      const float p = group.e[label * kGroup + v] * group.inverse[v];
      offset[v] = s.ce - (even[v] * group.inverse[v] + p * s.label[label]);
      extra[v] = s.scale * (p * s.label[label] - s.ce);
    }
    group.scale(factor, s.even, offset);
    for (std::int64_t v = 0; v < count; ++v)
      if (used[v] != 0.0f) group.e[b.label(v0 + v) * kGroup + v] += extra[v];
    group.write<kAdd>(dx + v0 * C, count, stream);
  }
  if (stream) hwy::FlushStream();
}
void dice_ce_gradient(const LossBlock& b, const LossSlopes& s, float* dx, bool add) {
  add ? gradient<true>(b, s, dx) : gradient<false>(b, s, dx);
}

void softmax_block(const LossBlock& b, float* y) {
  const std::int64_t C = b.channels;
  const bool stream = y != b.logits && streamed(y, b.output_bytes);
  SoftmaxGroup group(C, b.work);
  HWY_ALIGN float used[kGroup];
  for (float& u : used) u = 1.0f;
  for (std::int64_t v0 = 0; v0 < b.voxels; v0 += kGroup) {
    const std::int64_t count = b.voxels - v0 < kGroup ? b.voxels - v0 : kGroup;
    group.exponentials(b.logits + v0 * C, count, used);
    for (std::int64_t v = 0; v < kGroup; v += kLanes)
      for (std::int64_t c = 0; c < C; ++c) {
        float* at = group.e + c * kGroup + v;
        hn::StoreU(hn::Mul(hn::LoadU(F(), at), hn::Load(F(), group.inverse + v)), F(), at);
      }
    group.write<false>(y + v0 * C, count, stream);
  }
  if (stream) hwy::FlushStream();
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"

namespace vg {
namespace {

HWY_EXPORT(dice_ce_sums);
HWY_EXPORT(dice_ce_gradient);
HWY_EXPORT(softmax_block);

// Blocks of voxels of one sample: a multiple of 256, so that a block's inner sums do not depend on where the sample ends.
struct VoxelBlocks {
  explicit VoxelBlocks(const Shape& s) : samples(s.n()), voxels(s.voxels()), channels(s.c()) {
    block = std::max<std::int64_t>(1, kBlockFloats / channels / 256) * 256;
    blocks = (voxels + block - 1) / block;
  }
  std::int64_t samples, voxels, channels, block, blocks;

  // body(n, k, block without pointers, first voxel in the tensor)
  void for_each(const std::function<void(std::int64_t n, std::int64_t k, LossBlock& b, std::int64_t voxel)>& body) const {
    parallel_for(samples * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> memory(static_cast<std::size_t>(loss_work_floats(channels)));
      float* work = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) / 4 % 16;  // whole cache lines
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t n = i / blocks, k = i % blocks;
        LossBlock b{nullptr, nullptr, false, std::min(block, voxels - k * block), channels, -1, work};
        body(n, k, b, n * voxels + k * block);
      }
    });
  }
};

void set_labels(LossBlock& b, const Tensor& labels, std::int64_t voxel, std::int32_t ignore) {
  assert(labels.dtype() == DType::u8 || labels.dtype() == DType::i32);
  b.bytes = labels.dtype() == DType::u8;
  b.labels = static_cast<const std::uint8_t*>(labels.raw()) + voxel * (b.bytes ? 1 : 4);
  b.ignore = ignore;
}

// One Dice term: (2 I + smooth) / (P + T + smooth), 1 where nothing is there, nothing is predicted and nothing smooths.
struct DiceTerm {
  double numerator, denominator;
  DiceTerm(double I, double P, double T, const DiceCeParams& p)
      : numerator(2 * I + static_cast<double>(p.smooth_numerator)), denominator(P + T + static_cast<double>(p.smooth_denominator)) {}
  double value() const { return denominator > 0 ? numerator / denominator : 1.0; }
};

}  // namespace

namespace cpu {

void dice_ce_forward(const Exec& ex, Tensor& result, Tensor& sums, const Tensor& logits, const Tensor& labels, const DiceCeParams& p) {
  const VoxelBlocks cut(logits.shape());
  const std::int64_t C = cut.channels, N = cut.samples, width = 3 * C + 2;
  assert(labels.elements() == N * cut.voxels && sums.shape() == Shape({N, C, 3}) && result.elements() == 4);
  double* parts = ex.scratch->reserve<double>(N * cut.blocks * width);
  cut.for_each([&](std::int64_t n, std::int64_t k, LossBlock& b, std::int64_t voxel) {
    b.logits = logits.data<float>() + voxel * C;
    set_labels(b, labels, voxel, p.ignore);
    HWY_DYNAMIC_DISPATCH(dice_ce_sums)(b, parts + (n * cut.blocks + k) * width);
  });
  std::vector<double> total(static_cast<std::size_t>(N * width));
  double dice = 0;
  std::int64_t terms = 0;
  const std::int64_t first = p.background ? 0 : 1;
  const auto add_terms = [&](const double* t) {
    for (std::int64_t c = first; c < C; ++c, ++terms) dice += DiceTerm(t[c], t[C + c], t[2 * C + c], p).value();
  };
  for (std::int64_t n = 0; n < N; ++n) {
    double* t = total.data() + n * width;
    for (std::int64_t k = 0; k < cut.blocks; ++k)
      for (std::int64_t j = 0; j < width; ++j) t[j] += parts[(n * cut.blocks + k) * width + j];
    for (std::int64_t c = 0; c < C; ++c)
      for (std::int64_t j = 0; j < 3; ++j) sums.data<float>()[(n * C + c) * 3 + j] = static_cast<float>(t[j * C + c]);
    if (p.per_sample) add_terms(t);
  }
  tree_sum(total.data(), N, width);
  if (!p.per_sample) add_terms(total.data());
  const double count = total[3 * C + 1], ce = count > 0 ? total[3 * C] / count : 0.0,
               lost = count > 0 && terms > 0 ? 1 - dice / static_cast<double>(terms) : 0.0;
  float* out = result.data<float>();
  out[0] = static_cast<float>(static_cast<double>(p.ce_weight) * ce + static_cast<double>(p.dice_weight) * lost);
  out[1] = static_cast<float>(ce), out[2] = static_cast<float>(lost), out[3] = static_cast<float>(count);
}

void dice_ce_backward(const Exec&, const Grad& dlogits, const Tensor& logits, const Tensor& labels, const Tensor& sums,
                      const Tensor& result, const Tensor& scale, const DiceCeParams& p) {
  if (!dlogits.wanted()) return;
  const VoxelBlocks cut(logits.shape());
  const std::int64_t C = cut.channels, N = cut.samples, groups = p.per_sample ? N : 1;
  const double count = static_cast<double>(result.data<float>()[3]);
  // d loss / d p_c of one voxel = -dice_weight / terms * (2 t_c / denominator - numerator / denominator^2)
  std::vector<double> total(static_cast<std::size_t>(N * C * 3));
  std::copy_n(sums.data<float>(), N * C * 3, total.data());
  if (!p.per_sample) tree_sum(total.data(), N, C * 3);
  std::vector<float> slopes(static_cast<std::size_t>(groups * 2 * C));
  const std::int64_t first = p.background ? 0 : 1, terms = groups * (C - first);
  for (std::int64_t m = 0; m < groups; ++m)
    for (std::int64_t c = first; c < C; ++c) {
      const double* t = total.data() + (m * C + c) * 3;
      const DiceTerm term(t[0], t[1], t[2], p);
      if (term.denominator <= 0) continue;
      const double k = static_cast<double>(p.dice_weight) / static_cast<double>(terms) / term.denominator;
      slopes[m * 2 * C + c] = static_cast<float>(k * term.value());
      slopes[(m * 2 + 1) * C + c] = static_cast<float>(-2 * k);
    }
  const float ce = count > 0 ? static_cast<float>(static_cast<double>(p.ce_weight) / count) : 0.0f;
  cut.for_each([&](std::int64_t n, std::int64_t, LossBlock& b, std::int64_t voxel) {
    b.logits = logits.data<float>() + voxel * C;
    set_labels(b, labels, voxel, p.ignore);
    b.output_bytes = static_cast<std::int64_t>(dlogits.tensor.bytes());
    const float* even = slopes.data() + (p.per_sample ? n : 0) * 2 * C;
    HWY_DYNAMIC_DISPATCH(dice_ce_gradient)
    (b, {even, even + C, ce, scale.data<float>()[0]}, dlogits.data() + voxel * C, dlogits.beta != 0.0f);
  });
}

void softmax(const Exec&, Tensor& y, const Tensor& x) {
  assert(x.shape() == y.shape());
  VoxelBlocks(x.shape()).for_each([&](std::int64_t, std::int64_t, LossBlock& b, std::int64_t voxel) {
    b.logits = x.data<float>() + voxel * b.channels, b.output_bytes = static_cast<std::int64_t>(y.bytes());
    HWY_DYNAMIC_DISPATCH(softmax_block)(b, y.data<float>() + voxel * b.channels);
  });
}

}  // namespace cpu

VG_KERNEL_HOME(dice_ce_forward);
VG_KERNEL_HOME(dice_ce_backward);
VG_KERNEL_HOME(softmax);
VG_IMPL(cpu, cpu, dice_ce_forward);
VG_IMPL(cpu, cpu, dice_ce_backward);
VG_IMPL(cpu, cpu, softmax);

}  // namespace vg
#endif

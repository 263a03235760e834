// Normalisation on the cpu. Every pass runs over the flat (voxel, channel) axis in blocks with per-channel patterns (kernels/blocks.h);
// sums are kept in vectors of floats for at most 32 rows of the pattern, then in doubles.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/activation-inl.h"
#include "kernels/norm.h"

#ifndef VG_NORM_CPU_BLOCKS
#define VG_NORM_CPU_BLOCKS
namespace vg {

// What a block's functions read. Patterns have `period` floats, one per position in the repeating channel pattern.
struct NormBlock {
  const float *x, *dy;
  std::int64_t count, period, channels;
  const float *mean, *scale, *beta;  // patterns: z = (x - mean) scale + beta; from_output: `mean` holds 1 / scale
  const float *minus, *slope;        // patterns: dx = scale g - minus - slope (x - mean)
  float* work;                       // 3 * period
  std::int64_t output_bytes;         // of the whole tensor
  Activation activation;
  bool from_output = false;  // x is y = f(z), f identity or leaky_relu
};
inline constexpr std::int64_t kFoldRows = 32;

}  // namespace vg
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// Moves sums[period] into totals[channels] and clears them.
void fold(float* sums, std::int64_t period, double* totals, std::int64_t channels) {
  for (std::int64_t j = 0; j < period; j += channels)
    for (std::int64_t c = 0; c < channels; ++c) totals[c] += static_cast<double>(sums[j + c]);
  std::memset(sums, 0, static_cast<std::size_t>(period) * sizeof(float));
}

// totals[c] = sum of (x - shift), totals[channels + c] = sum of (x - shift)^2, where `shift` is the mean of the block's first rows, given
// back in shift[channels]. The rows that the shift comes from are a fixed part of the block, so their distance from the block's mean is
// bounded by the block's own deviation (between-group variance): the one-pass variance does not cancel.
void norm_moments(const NormBlock& b, float* shift, double* totals) {
  const std::int64_t period = b.period, channels = b.channels, tile = kFoldRows * period;
  float *pattern = b.work, *s1 = pattern + period, *s2 = s1 + period;
  std::memset(s1, 0, static_cast<std::size_t>(2 * period) * sizeof(float));
  const std::int64_t head = b.count < tile ? b.count : tile;
  for_pattern(head, period, [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR {
    store(hn::Add(load(s1 + j, part), load(b.x + i, part)), s1 + j, part);
  });
  std::memset(totals, 0, static_cast<std::size_t>(2 * channels) * sizeof(double));
  fold(s1, period, totals, channels);
  for (std::int64_t c = 0; c < channels; ++c) {
    shift[c] = static_cast<float>(totals[c] / static_cast<double>(head / channels));
    totals[c] = 0;
  }
  for (std::int64_t j = 0; j < period; j += channels) std::memcpy(pattern + j, shift, static_cast<std::size_t>(channels) * sizeof(float));
  for (std::int64_t first = 0; first < b.count; first += tile) {
    const float* x = b.x + first;
    for_pattern(b.count - first < tile ? b.count - first : tile, period, [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR {
      const VF d = keep(hn::Sub(load(x + i, part), load(pattern + j, part)), part);
      store(hn::Add(load(s1 + j, part), d), s1 + j, part);
      store(hn::MulAdd(d, d, load(s2 + j, part)), s2 + j, part);
    });
    fold(s1, period, totals, channels);
    fold(s2, period, totals + channels, channels);
  }
}

void norm_apply_block(const NormBlock& b, float* y) {
  const bool stream = y != b.x && streamed(y, b.output_bytes);
  with_activation(b.activation, [&](auto f) HWY_ATTR {
    const auto body = [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR {
      const VF centred = hn::Sub(load(b.x + i, part), load(b.mean + j, part));
      store(f.forward(hn::MulAdd(centred, load(b.scale + j, part), load(b.beta + j, part))), y + i, part);
    };
    for_pattern(b.count, b.period, body, stream);
  });
}

// The gradient's view of one place: x - mean, and z = (x - mean) scale + beta.
struct Place {
  VF centred, z;
};
struct FromInput {
  template <class P>
  HWY_INLINE Place at(const NormBlock& b, const float* x, std::int64_t j, P part) const {
    const VF centred = hn::Sub(load(x, part), load(b.mean + j, part));
    return {centred, hn::MulAdd(centred, load(b.scale + j, part), load(b.beta + j, part))};
  }
};
struct FromOutput {
  float undo;  // 1 / alpha
  template <class P>
  HWY_INLINE Place at(const NormBlock& b, const float* x, std::int64_t j, P part) const {
    const VF y = load(x, part), z = hn::IfThenElse(hn::Lt(y, hn::Zero(F())), hn::Mul(y, set(undo)), y);
    return {hn::Mul(hn::Sub(z, load(b.beta + j, part)), load(b.mean + j, part)), z};
  }
};
// body(activation, FromInput or FromOutput)
template <class Body>
HWY_INLINE void with_places(const NormBlock& b, const Body& body) {
  if (b.from_output) {
    const float alpha = b.activation.kind == ActivationKind::leaky_relu ? b.activation.alpha : 1.0f;
    return body(LeakyRelu{alpha}, FromOutput{1.0f / alpha});
  }
  with_activation(b.activation, [&](auto f) HWY_ATTR { body(f, FromInput{}); });
}

// totals[c] = sum of g, totals[channels + c] = sum of g (x - mean), with g = dy f'(z)
void norm_gradient_sums(const NormBlock& b, double* totals) {
  const std::int64_t period = b.period, channels = b.channels, tile = kFoldRows * period;
  float *s1 = b.work, *s2 = s1 + period;
  std::memset(s1, 0, static_cast<std::size_t>(2 * period) * sizeof(float));
  std::memset(totals, 0, static_cast<std::size_t>(2 * channels) * sizeof(double));
  with_places(b, [&](auto f, auto from) HWY_ATTR {
    for (std::int64_t first = 0; first < b.count; first += tile) {
      const float *x = b.x + first, *dy = b.dy + first;
      for_pattern(b.count - first < tile ? b.count - first : tile, period, [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR {
        const Place p = from.at(b, x + i, j, part);
        const VF g = f.backward(load(dy + i, part), p.z);
        store(hn::Add(load(s1 + j, part), g), s1 + j, part);
        store(hn::MulAdd(g, p.centred, load(s2 + j, part)), s2 + j, part);
      });
      fold(s1, period, totals, channels);
      fold(s2, period, totals + channels, channels);
    }
  });
}

template <bool kAdd>
HWY_INLINE void write_gradient(const NormBlock& b, float* dx) {
  const bool stream = !kAdd && dx != b.dy && dx != b.x && streamed(dx, b.output_bytes);
  with_places(b, [&](auto f, auto from) HWY_ATTR {
    const auto body = [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR {
      const Place p = from.at(b, b.x + i, j, part);
      const VF g = f.backward(load(b.dy + i, part), p.z);
      const VF d = hn::MulSub(load(b.scale + j, part), g, load(b.minus + j, part));
      put<kAdd>(hn::NegMulAdd(load(b.slope + j, part), p.centred, d), dx + i, part);
    };
    for_pattern(b.count, b.period, body, stream);
  });
}
void norm_gradient_block(const NormBlock& b, float* dx, bool add) { add ? write_gradient<true>(b, dx) : write_gradient<false>(b, dx); }

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "kernels/blocks.h"

namespace vg {
namespace {

HWY_EXPORT(norm_moments);
HWY_EXPORT(norm_apply_block);
HWY_EXPORT(norm_gradient_sums);
HWY_EXPORT(norm_gradient_block);

// Mean and sum of squared deviations of `count` values. Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979.
struct Moments {
  double count = 0, mean = 0, squares = 0;
  void merge(const Moments& o) {
    const double both = count + o.count, d = o.mean - mean;
    if (both == 0) return;
    squares += o.squares + d * d * count * o.count / both;
    mean += d * o.count / both;
    count = both;
  }
};

// Patterns of mean, scale = gamma rstd and beta for group m (a sample, or the batch): 3 * period floats.
void fill_patterns(float* pattern, const ChannelBlocks& cut, std::int64_t m, const Tensor& mean, const Tensor& rstd, const Tensor& gamma,
                   const Tensor& beta) {
  const float *mu = mean.data<float>() + m * cut.channels, *r = rstd.data<float>() + m * cut.channels;
  for (std::int64_t c = 0; c < cut.channels; ++c) {
    pattern[c] = mu[c];
    pattern[cut.period + c] = gamma.defined() ? gamma.data<float>()[c] * r[c] : r[c];
    pattern[2 * cut.period + c] = beta.defined() ? beta.data<float>()[c] : 0.0f;
  }
  for (int k = 0; k < 3; ++k) repeat(pattern + k * cut.period, cut.channels, pattern + k * cut.period, cut.period);
}

NormBlock block_of(const ChannelBlocks& cut, std::int64_t k, const float* patterns, const Activation& activation) {
  NormBlock b{};
  b.count = cut.floats(k), b.period = cut.period, b.channels = cut.channels;
  b.mean = patterns, b.scale = patterns + cut.period, b.beta = patterns + 2 * cut.period;
  b.activation = activation;
  return b;
}

}  // namespace

namespace cpu {

void norm_statistics(const Exec& ex, Tensor& mean, Tensor& rstd, const Tensor& x, const NormParams& p) {
  const ChannelBlocks cut(x.shape());
  const std::int64_t C = cut.channels, groups = mean.shape()[0];
  assert(groups == cut.samples || groups == 1);
  Moments* parts = ex.scratch->reserve<Moments>(cut.samples * cut.blocks * C);  // (N, blocks, C)
  cut.for_each([&](std::int64_t n, std::int64_t k, std::int64_t offset) {
    std::vector<float> work(static_cast<std::size_t>(3 * cut.period + C));
    std::vector<double> totals(static_cast<std::size_t>(2 * C));
    NormBlock b = block_of(cut, k, nullptr, {});
    b.x = x.data<float>() + offset, b.work = work.data();
    float* shift = work.data() + 3 * cut.period;
    HWY_DYNAMIC_DISPATCH(norm_moments)(b, shift, totals.data());
    const double count = static_cast<double>(b.count / C);
    Moments* to = parts + (n * cut.blocks + k) * C;
    for (std::int64_t c = 0; c < C; ++c) {
      const double s1 = totals[c], s2 = totals[C + c];
      to[c] = {count, shift[c] + s1 / count, std::max(0.0, s2 - s1 * s1 / count)};
    }
  });
  const auto sample = [&](std::int64_t n, std::int64_t c) -> Moments& { return parts[n * cut.blocks * C + c]; };
  for (std::int64_t n = 0; n < cut.samples; ++n)
    for (std::int64_t k = 1; k < cut.blocks; ++k)
      for (std::int64_t c = 0; c < C; ++c) sample(n, c).merge(parts[(n * cut.blocks + k) * C + c]);
  if (groups == 1)
    for (std::int64_t step = 1; step < cut.samples; step *= 2)
      for (std::int64_t n = 0; n + step < cut.samples; n += 2 * step)
        for (std::int64_t c = 0; c < C; ++c) sample(n, c).merge(sample(n + step, c));
  for (std::int64_t n = 0; n < groups; ++n)
    for (std::int64_t c = 0; c < C; ++c) {
      const Moments& m = sample(n, c);
      mean.data<float>()[n * C + c] = static_cast<float>(m.mean);
      rstd.data<float>()[n * C + c] = static_cast<float>(1.0 / std::sqrt(m.squares / m.count + static_cast<double>(p.eps)));
    }
}

void norm_apply(const Exec& ex, Tensor& y, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& gamma, const Tensor& beta,
                const NormParams& p) {
  const ChannelBlocks cut(x.shape());
  const std::int64_t groups = mean.shape()[0];
  assert(x.shape() == y.shape() && (groups == cut.samples || groups == 1) && p.activation.kind != ActivationKind::prelu);
  float* patterns = ex.scratch->reserve<float>(groups * 3 * cut.period);
  for (std::int64_t m = 0; m < groups; ++m) fill_patterns(patterns + m * 3 * cut.period, cut, m, mean, rstd, gamma, beta);
  cut.for_each([&](std::int64_t n, std::int64_t k, std::int64_t offset) {
    NormBlock b = block_of(cut, k, patterns + (groups == 1 ? 0 : n) * 3 * cut.period, p.activation);
    b.x = x.data<float>() + offset, b.output_bytes = static_cast<std::int64_t>(y.bytes());
    HWY_DYNAMIC_DISPATCH(norm_apply_block)(b, y.data<float>() + offset);
  });
}

void norm_backward(const Exec& ex, const Grad& dx, const Grad& dgamma, const Grad& dbeta, const Tensor& dy, const Tensor& x,
                   const Tensor& mean, const Tensor& rstd, const Tensor& gamma, const Tensor& beta, const NormParams& p) {
  const ChannelBlocks cut(x.shape());
  const std::int64_t C = cut.channels, groups = mean.shape()[0];
  assert(x.shape() == dy.shape() && (groups == cut.samples || groups == 1) && p.activation.kind != ActivationKind::prelu);
  // Scratch: sums (N, blocks, 2, C) f64, then per group five patterns: mean, scale, beta, minus, slope.
  const std::int64_t doubles = cut.samples * cut.blocks * 2 * C;
  double* sums = ex.scratch->reserve<double>(doubles + (groups * 5 * cut.period + 1) / 2);
  float* patterns = reinterpret_cast<float*>(sums + doubles);
  assert(!p.from_output || p.activation.kind == ActivationKind::identity || p.activation.kind == ActivationKind::leaky_relu);
  for (std::int64_t m = 0; m < groups; ++m) {
    float* pattern = patterns + m * 5 * cut.period;
    fill_patterns(pattern, cut, m, mean, rstd, gamma, beta);
    if (p.from_output)
      for (std::int64_t j = 0; j < cut.period; ++j) pattern[j] = 1.0f / pattern[cut.period + j];
  }
  const auto group = [&](std::int64_t n) { return groups == 1 ? 0 : n; };
  const auto sample = [&](std::int64_t n) { return sums + n * cut.blocks * 2 * C; };

  if (dgamma.wanted() || dbeta.wanted() || !p.constant) {
    cut.for_each([&](std::int64_t n, std::int64_t k, std::int64_t offset) {
      std::vector<float> work(static_cast<std::size_t>(2 * cut.period));
      NormBlock b = block_of(cut, k, patterns + group(n) * 5 * cut.period, p.activation);
      b.x = x.data<float>() + offset, b.dy = dy.data<float>() + offset, b.work = work.data(), b.from_output = p.from_output;
      HWY_DYNAMIC_DISPATCH(norm_gradient_sums)(b, sample(n) + k * 2 * C);
    });
    for (std::int64_t n = 0; n < cut.samples; ++n)
      for (std::int64_t k = 1; k < cut.blocks; ++k)
        for (std::int64_t j = 0; j < 2 * C; ++j) sample(n)[j] += sample(n)[k * 2 * C + j];
  }
  // A group's own sums must be read before the tree over the samples overwrites them.
  const auto fill_slopes = [&](std::int64_t m, std::int64_t voxels) {
    float* pattern = patterns + m * 5 * cut.period;
    const float *r = rstd.data<float>() + m * C, *scale = pattern + cut.period;
    for (std::int64_t c = 0; c < C; ++c) {
      const double per_voxel = p.constant ? 0.0 : static_cast<double>(scale[c]) / static_cast<double>(voxels);
      pattern[3 * cut.period + c] = p.constant ? 0.0f : static_cast<float>(per_voxel * sample(m)[c]);
      pattern[4 * cut.period + c] =
          p.constant ? 0.0f : static_cast<float>(per_voxel * static_cast<double>(r[c]) * static_cast<double>(r[c]) * sample(m)[C + c]);
    }
    for (int k = 3; k < 5; ++k) repeat(pattern + k * cut.period, C, pattern + k * cut.period, cut.period);
  };
  if (groups > 1)
    for (std::int64_t m = 0; m < groups; ++m) fill_slopes(m, cut.voxels);
  // Sum of g h = rstd sum of g (x - mean), then the tree over the samples.
  std::vector<double> tree(static_cast<std::size_t>(cut.samples * 2 * C));
  if (dgamma.wanted() || dbeta.wanted() || !p.constant) {
    for (std::int64_t n = 0; n < cut.samples; ++n)
      for (std::int64_t c = 0; c < C; ++c) {
        tree[n * 2 * C + c] = sample(n)[c];
        tree[(n * 2 + 1) * C + c] = sample(n)[C + c] * (groups == 1 ? 1.0 : static_cast<double>(rstd.data<float>()[n * C + c]));
      }
    tree_sum(tree.data(), cut.samples, 2 * C);
  }
  if (groups == 1) {
    if (!p.constant) std::copy_n(tree.data(), 2 * C, sample(0));
    fill_slopes(0, cut.samples * cut.voxels);
    for (std::int64_t c = 0; c < C; ++c) tree[C + c] *= static_cast<double>(rstd.data<float>()[c]);
  }
  for (std::int64_t c = 0; c < C; ++c) {
    if (dgamma.wanted()) dgamma.data()[c] = (dgamma.beta != 0 ? dgamma.data()[c] : 0.0f) + static_cast<float>(tree[C + c]);
    if (dbeta.wanted()) dbeta.data()[c] = (dbeta.beta != 0 ? dbeta.data()[c] : 0.0f) + static_cast<float>(tree[c]);
  }
  if (!dx.wanted()) return;
  cut.for_each([&](std::int64_t n, std::int64_t k, std::int64_t offset) {
    const float* pattern = patterns + group(n) * 5 * cut.period;
    NormBlock b = block_of(cut, k, pattern, p.activation);
    b.x = x.data<float>() + offset, b.dy = dy.data<float>() + offset;
    b.minus = pattern + 3 * cut.period, b.slope = pattern + 4 * cut.period, b.from_output = p.from_output;
    b.output_bytes = static_cast<std::int64_t>(dx.tensor.bytes());
    HWY_DYNAMIC_DISPATCH(norm_gradient_block)(b, dx.data() + offset, dx.beta != 0);
  });
}

void norm_update_running(const Exec&, Tensor& running_mean, Tensor& running_var, const Tensor& mean, const Tensor& rstd,
                         const RunningParams& p) {
  const double momentum = p.momentum, unbiased = p.count > 1 ? static_cast<double>(p.count) / static_cast<double>(p.count - 1) : 1.0;
  for (std::int64_t c = 0; c < mean.elements(); ++c) {
    const double r = rstd.data<float>()[c], variance = std::max(0.0, 1.0 / (r * r) - static_cast<double>(p.eps));
    float &m = running_mean.data<float>()[c], &v = running_var.data<float>()[c];
    m = static_cast<float>((1 - momentum) * m + momentum * mean.data<float>()[c]);
    v = static_cast<float>((1 - momentum) * v + momentum * variance * unbiased);
  }
}

void norm_rstd(const Exec&, Tensor& rstd, const Tensor& var, const RunningParams& p) {
  for (std::int64_t c = 0; c < var.elements(); ++c)
    rstd.data<float>()[c] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(var.data<float>()[c]) + static_cast<double>(p.eps)));
}

}  // namespace cpu

VG_KERNEL_HOME(norm_statistics);
VG_KERNEL_HOME(norm_apply);
VG_KERNEL_HOME(norm_backward);
VG_KERNEL_HOME(norm_update_running);
VG_KERNEL_HOME(norm_rstd);
VG_IMPL(cpu, cpu, norm_statistics);
VG_IMPL(cpu, cpu, norm_apply);
VG_IMPL(cpu, cpu, norm_backward);
VG_IMPL(cpu, cpu, norm_update_running);
VG_IMPL(cpu, cpu, norm_rstd);

}  // namespace vg
#endif

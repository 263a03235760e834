// Activation functions on the cpu: flat vector loops, memory-bound; the parametric one with a channel pattern (kernels/blocks.h).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/activation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// `bytes`: of the whole output, for the choice between stores into and around the caches.
void activate(const Activation& p, float* y, std::int64_t bytes, const float* x, std::int64_t count) {
  with_activation(p, [&](auto f) HWY_ATTR {
    const auto body = [&](std::int64_t i, auto part) HWY_ATTR { store(f.forward(load(x + i, part)), y + i, part); };
    for_vectors(count, body, y != x && streamed(y, bytes));
  });
}

void activate_backward(const Activation& p, float* dx, std::int64_t bytes, bool add, const float* dy, const float* x, std::int64_t count) {
  with_activation(p, [&](auto f) HWY_ATTR {
    const auto gradient = [&](std::int64_t i, auto part) HWY_ATTR { return f.backward(load(dy + i, part), load(x + i, part)); };
    if (add)
      for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR { put<true>(gradient(i, part), dx + i, part); });
    else
      for_vectors(
          count, [&](std::int64_t i, auto part) HWY_ATTR { put<false>(gradient(i, part), dx + i, part); },
          dx != dy && dx != x && streamed(dx, bytes));
  });
}

void prelu(float* y, const float* x, const float* slope, std::int64_t count, std::int64_t period) {
  for_pattern(count, period, [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR {
    const VF v = load(x + i, part);
    store(hn::IfThenElse(hn::Lt(v, hn::Zero(F())), hn::Mul(load(slope + j, part), v), v), y + i, part);
  });
}

void prelu_backward(float* dx, bool add, const float* dy, const float* x, const float* slope, std::int64_t count, std::int64_t period) {
  const auto gradient = [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR {
    const VF g = load(dy + i, part);
    return hn::IfThenElse(hn::Gt(load(x + i, part), hn::Zero(F())), g, hn::Mul(load(slope + j, part), g));
  };
  if (add)
    for_pattern(count, period, [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR { put<true>(gradient(i, j, part), dx + i, part); });
  else
    for_pattern(count, period, [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR { put<false>(gradient(i, j, part), dx + i, part); });
}

// sums[period] += dy min(x, 0)
void prelu_slope_sums(float* sums, const float* dy, const float* x, std::int64_t count, std::int64_t period) {
  for_pattern(count, period, [&](std::int64_t i, std::int64_t j, auto part) HWY_ATTR {
    const VF v = load(x + i, part), negative = hn::IfThenElseZero(hn::Lt(v, hn::Zero(F())), v);
    store(hn::MulAdd(load(dy + i, part), negative, load(sums + j, part)), sums + j, part);
  });
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"

namespace vg {
namespace {

HWY_EXPORT(activate);
HWY_EXPORT(activate_backward);
HWY_EXPORT(prelu);
HWY_EXPORT(prelu_backward);
HWY_EXPORT(prelu_slope_sums);

// The slope of each channel as a pattern; a single slope serves all.
std::vector<float> slope_pattern(const Tensor& slope, const ChannelBlocks& cut) {
  assert(slope.elements() == cut.channels || slope.elements() == 1);
  std::vector<float> pattern(static_cast<std::size_t>(cut.period));
  repeat(slope.data<float>(), slope.elements(), pattern.data(), cut.period);
  return pattern;
}

// dslope: each block's sums per channel, a sample's blocks in order, then the tree over the samples.
void add_slope_gradient(const Grad& dslope, const Tensor& dy, const Tensor& x, const ChannelBlocks& cut, Scratch& scratch) {
  const std::int64_t C = cut.channels, tile = 32 * cut.period;
  double* parts = scratch.reserve<double>(cut.samples * cut.blocks * C);
  cut.for_each([&](std::int64_t n, std::int64_t k, std::int64_t offset) {
    double* to = parts + (n * cut.blocks + k) * C;
    std::fill_n(to, C, 0.0);
    std::vector<float> sums(static_cast<std::size_t>(cut.period));
    for (std::int64_t first = 0; first < cut.floats(k); first += tile) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      HWY_DYNAMIC_DISPATCH(prelu_slope_sums)
      (sums.data(), dy.data<float>() + offset + first, x.data<float>() + offset + first, std::min(tile, cut.floats(k) - first), cut.period);
      for (std::int64_t j = 0; j < cut.period; ++j) to[j % C] += static_cast<double>(sums[j]);
    }
  });
  std::vector<double> tree(static_cast<std::size_t>(cut.samples * C));
  for (std::int64_t n = 0; n < cut.samples; ++n)
    for (std::int64_t k = 0; k < cut.blocks; ++k)
      for (std::int64_t c = 0; c < C; ++c) tree[n * C + c] += parts[(n * cut.blocks + k) * C + c];
  tree_sum(tree.data(), cut.samples, C);
  const bool shared = dslope.tensor.elements() == 1;
  if (shared)
    for (std::int64_t c = 1; c < C; ++c) tree[0] += tree[c];
  for (std::int64_t c = 0; c < (shared ? 1 : C); ++c)
    dslope.data()[c] = (dslope.beta != 0 ? dslope.data()[c] : 0.0f) + static_cast<float>(tree[c]);
}

}  // namespace

namespace cpu {

void activation_forward(const Exec&, Tensor& y, const Tensor& x, const Tensor& slope, const Activation& p) {
  assert(x.shape() == y.shape());
  float* to = y.data<float>();
  const float* from = x.data<float>();
  if (p.kind == ActivationKind::prelu) {
    const ChannelBlocks cut(x.shape());
    const std::vector<float> pattern = slope_pattern(slope, cut);
    cut.for_each([&](std::int64_t, std::int64_t k, std::int64_t offset) {
      HWY_DYNAMIC_DISPATCH(prelu)(to + offset, from + offset, pattern.data(), cut.floats(k), cut.period);
    });
  } else {
    for_flat_blocks(x.elements(), [&](std::int64_t i, std::int64_t count) {
      HWY_DYNAMIC_DISPATCH(activate)(p, to + i, static_cast<std::int64_t>(y.bytes()), from + i, count);
    });
  }
}

void activation_backward(const Exec& ex, const Grad& dx, const Grad& dslope, const Tensor& dy, const Tensor& x, const Tensor& slope,
                         const Activation& p) {
  assert(x.shape() == dy.shape());
  const float *gradient = dy.data<float>(), *from = x.data<float>();
  if (p.kind == ActivationKind::prelu) {
    const ChannelBlocks cut(x.shape());
    if (dslope.wanted()) add_slope_gradient(dslope, dy, x, cut, *ex.scratch);
    if (!dx.wanted()) return;
    const std::vector<float> pattern = slope_pattern(slope, cut);
    cut.for_each([&](std::int64_t, std::int64_t k, std::int64_t offset) {
      HWY_DYNAMIC_DISPATCH(prelu_backward)
      (dx.data() + offset, dx.beta != 0, gradient + offset, from + offset, pattern.data(), cut.floats(k), cut.period);
    });
  } else if (dx.wanted()) {
    for_flat_blocks(x.elements(), [&](std::int64_t i, std::int64_t count) {
      HWY_DYNAMIC_DISPATCH(activate_backward)
      (p, dx.data() + i, static_cast<std::int64_t>(dx.tensor.bytes()), dx.beta != 0, gradient + i, from + i, count);
    });
  }
}

}  // namespace cpu

VG_KERNEL_HOME(activation_forward);
VG_KERNEL_HOME(activation_backward);
VG_IMPL(cpu, cpu, activation_forward);
VG_IMPL(cpu, cpu, activation_backward);

}  // namespace vg
#endif

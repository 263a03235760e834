// Optimizers and the gradient norm on the cpu: one pass over flat buffers.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optim_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/optim.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

void adam_floats(float* w, float* m, float* v, const float* g, const float* scalars, const AdamParams& p, std::int64_t count) {
  const float lr = scalars[kLearningRate], momentum = scalars[kBeta1];
  const VF scale = set(scalars[kGradScale]), decay = set(p.weight_decay), keep_w = set(1.0f - lr * p.weight_decay);
  const VF beta1 = set(momentum), rest1 = set(1.0f - momentum), beta2 = set(p.beta2), rest2 = set(1.0f - p.beta2);
  const VF step = set(lr / scalars[kBias1]), inverse_bias2 = set(1.0f / scalars[kBias2]), eps = set(p.eps);
  const bool l2 = !p.decoupled && p.weight_decay != 0.0f, shrink = p.decoupled && p.weight_decay != 0.0f;
  for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR {
    VF gradient = hn::Mul(scale, load(g + i, part)), weight = load(w + i, part);
    if (l2) gradient = hn::MulAdd(decay, weight, gradient);
    if (shrink) weight = hn::Mul(weight, keep_w);
    const VF m1 = hn::MulAdd(beta1, load(m + i, part), hn::Mul(rest1, gradient));
    const VF v1 = hn::MulAdd(beta2, load(v + i, part), hn::Mul(rest2, hn::Mul(gradient, gradient)));
    const VF root = hn::Add(hn::Sqrt(hn::Mul(v1, inverse_bias2)), eps);
    store(hn::NegMulAdd(step, hn::Div(m1, root), weight), w + i, part);
    store(m1, m + i, part);
    store(v1, v + i, part);
  });
}

void sgd_floats(float* w, float* m, const float* g, const float* scalars, const SgdParams& p, std::int64_t count) {
  const VF lr = set(scalars[kLearningRate]), scale = set(scalars[kGradScale]), decay = set(p.weight_decay), momentum = set(scalars[kBeta1]);
  for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR {
    const VF weight = load(w + i, part), gradient = hn::MulAdd(decay, weight, hn::Mul(scale, load(g + i, part)));
    const VF m1 = hn::MulAdd(momentum, load(m + i, part), gradient);
    store(m1, m + i, part);
    store(hn::NegMulAdd(lr, p.nesterov ? hn::MulAdd(momentum, m1, gradient) : m1, weight), w + i, part);
  });
}

// Sum of x^2: 1024 floats at a time in vectors, then doubles.
double squares(const float* x, std::int64_t count) {
  double total = 0;
  for (std::int64_t first = 0; first < count; first += 1024) {
    HWY_ALIGN float lanes[4 * kLanes] = {};
    std::int64_t slot = 0;  // four sums in turn: additions do not wait for each other
    for_vectors(count - first < 1024 ? count - first : 1024, [&](std::int64_t i, auto part) HWY_ATTR {
      const VF v = load(x + first + i, part);
      hn::Store(hn::MulAdd(v, v, hn::Load(F(), lanes + slot * kLanes)), F(), lanes + slot * kLanes);
      slot = (slot + 1) % 4;
    });
    for (float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "kernels/blocks.h"

namespace vg {
namespace {

HWY_EXPORT(adam_floats);
HWY_EXPORT(sgd_floats);
HWY_EXPORT(squares);

}  // namespace

namespace cpu {

void adam_step(const Exec&, Tensor& w, Tensor& m, Tensor& v, const Tensor& g, const Tensor& scalars, const AdamParams& p) {
  assert(w.elements() == m.elements() && w.elements() == v.elements() && w.elements() == g.elements() &&
         scalars.elements() == kOptimScalars);
  if (scalars.data<float>()[kSkip] != 0.0f) return;
  for_flat_blocks(w.elements(), [&](std::int64_t i, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(adam_floats)
    (w.data<float>() + i, m.data<float>() + i, v.data<float>() + i, g.data<float>() + i, scalars.data<float>(), p, count);
  });
}

void sgd_step(const Exec&, Tensor& w, Tensor& m, const Tensor& g, const Tensor& scalars, const SgdParams& p) {
  assert(w.elements() == g.elements() && m.elements() == w.elements() && scalars.elements() == kOptimScalars);
  if (scalars.data<float>()[kSkip] != 0.0f) return;
  for_flat_blocks(w.elements(), [&](std::int64_t i, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(sgd_floats)(w.data<float>() + i, m.data<float>() + i, g.data<float>() + i, scalars.data<float>(), p, count);
  });
}

void sum_squares(const Exec& ex, Tensor& out, const Tensor& x) {
  const std::int64_t chunks = (x.elements() + kBlockFloats - 1) / kBlockFloats;
  double* parts = ex.scratch->reserve<double>(chunks + 1);
  parts[0] = 0;
  for_flat_blocks(x.elements(), [&](std::int64_t i, std::int64_t count) {
    parts[i / kBlockFloats] = HWY_DYNAMIC_DISPATCH(squares)(x.data<float>() + i, count);
  });
  tree_sum(parts, chunks, 1);
  out.data<float>()[0] = static_cast<float>(parts[0]);
}

void clip_scale(const Exec&, Tensor& scalars, const Tensor& sum, const ClipParams& p) {
  const float norm = std::sqrt(sum.data<float>()[0]) * p.inverse_scale, ratio = p.max_norm / (norm + 1e-6f);
  scalars.data<float>()[kGradScale] = p.max_norm <= 0.0f || ratio >= 1.0f ? p.inverse_scale : p.inverse_scale * ratio;
}

void loss_scale_step(const Exec&, Tensor& scalar_values, Tensor& state_values, const Tensor& sum, const LossScaleParams& p) {
  float* const state = state_values.data<float>();
  const float total = sum.data<float>()[0];
  next_loss_scale(scalar_values.data<float>(), state, total, std::sqrt(total) / state[kScale], p);
}

}  // namespace cpu

VG_KERNEL_HOME(adam_step);
VG_KERNEL_HOME(sgd_step);
VG_KERNEL_HOME(sum_squares);
VG_KERNEL_HOME(clip_scale);
VG_KERNEL_HOME(loss_scale_step);
VG_IMPL(cpu, cpu, adam_step);
VG_IMPL(cpu, cpu, sgd_step);
VG_IMPL(cpu, cpu, sum_squares);
VG_IMPL(cpu, cpu, clip_scale);
VG_IMPL(cpu, cpu, loss_scale_step);

}  // namespace vg
#endif

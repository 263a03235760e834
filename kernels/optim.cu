// Optimizer steps over flat buffers, the gradient's norm, and the clipping factor. The step reads what changes (learning rate, bias corrections, loss
// scale) from device memory, so the host never waits for a value and a captured graph stays valid.
#include "kernels/optim.h"

#include "kernels/reduce.cuh"

namespace vg {
namespace VG_NS {

// 16 bytes read and 12 written per parameter.
template <int V>
__global__ __launch_bounds__(kThreads) void adam_step_kernel(float* __restrict__ w, float* __restrict__ m, float* __restrict__ v,
                                                             const float* __restrict__ g, const float* __restrict__ scalars, AdamParams p,
                                                             std::int64_t n) {
  const float rate = scalars[kLearningRate], step = rate / scalars[kBias1], bias2 = scalars[kBias2], scale = scalars[kGradScale],
              beta1 = scalars[kBeta1];
  if (scalars[kSkip] != 0.0f) return;
  const float keep = p.decoupled ? 1.0f - rate * p.weight_decay : 1.0f, decay = p.decoupled ? 0.0f : p.weight_decay;
  for (std::int64_t i = flat_begin<V>(); i < n; i += flat_step<V>()) {
    Pack<V> pw = load<V>(w + i), pm = load<V>(m + i), pv = load<V>(v + i);
    const Pack<V> pg = load<V>(g + i);
    SIMT_UNROLL for (int j = 0; j < V; ++j) {
      const float grad = scale * pg.v[j] + decay * pw.v[j];
      pm.v[j] = beta1 * pm.v[j] + (1.0f - beta1) * grad;
      pv.v[j] = p.beta2 * pv.v[j] + (1.0f - p.beta2) * grad * grad;
      pw.v[j] = pw.v[j] * keep - step * pm.v[j] / (sqrtf(pv.v[j] / bias2) + p.eps);
    }
    store<V>(w + i, pw);
    store<V>(m + i, pm);
    store<V>(v + i, pv);
  }
}

void adam_step(const Exec& ex, Tensor& w, Tensor& m, Tensor& v, const Tensor& g, const Tensor& scalars, const AdamParams& p) {
  const std::int64_t n = w.elements();
  assert(m.elements() == n && v.elements() == n && g.elements() == n && scalars.elements() == kOptimScalars);
  const bool fours = in_fours(n, w.data<float>(), m.data<float>(), v.data<float>(), g.data<float>());
  const auto adam_step_any = fours ? adam_step_kernel<4> : adam_step_kernel<1>;
  VG_LAUNCH(ex, adam_step_any, flat_blocks(n, fours), kThreads, 0, w.data<float>(), m.data<float>(), v.data<float>(), g.data<float>(),
            scalars.data<float>(), p, n);
}

template <int V>
__global__ __launch_bounds__(kThreads) void sgd_step_kernel(float* __restrict__ w, float* __restrict__ m, const float* __restrict__ g,
                                                            const float* __restrict__ scalars, SgdParams p, std::int64_t n) {
  const float rate = scalars[kLearningRate], scale = scalars[kGradScale], momentum = scalars[kBeta1];
  if (scalars[kSkip] != 0.0f) return;
  for (std::int64_t i = flat_begin<V>(); i < n; i += flat_step<V>()) {
    Pack<V> pw = load<V>(w + i), pm = load<V>(m + i);
    const Pack<V> pg = load<V>(g + i);
    SIMT_UNROLL for (int j = 0; j < V; ++j) {
      const float grad = scale * pg.v[j] + p.weight_decay * pw.v[j];
      pm.v[j] = momentum * pm.v[j] + grad;
      pw.v[j] -= rate * (p.nesterov ? grad + momentum * pm.v[j] : pm.v[j]);
    }
    store<V>(w + i, pw);
    store<V>(m + i, pm);
  }
}

void sgd_step(const Exec& ex, Tensor& w, Tensor& m, const Tensor& g, const Tensor& scalars, const SgdParams& p) {
  const std::int64_t n = w.elements();
  assert(m.elements() == n && g.elements() == n && scalars.elements() == kOptimScalars);
  const bool fours = in_fours(n, w.data<float>(), m.data<float>(), g.data<float>());
  const auto sgd_step_any = fours ? sgd_step_kernel<4> : sgd_step_kernel<1>;
  VG_LAUNCH(ex, sgd_step_any, flat_blocks(n, fours), kThreads, 0, w.data<float>(), m.data<float>(), g.data<float>(), scalars.data<float>(),
            p, n);
}

// partial[block] = sum of x^2 over the block's chunk.
template <int V>
__global__ __launch_bounds__(kThreads) void sum_squares_kernel(float* __restrict__ partial, const float* __restrict__ x, std::int64_t n,
                                                               std::int64_t chunk) {
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < n ? begin + chunk : n;
  float sum = 0.0f;
  for (std::int64_t i = begin + static_cast<int>(threadIdx.x) * V; i < end; i += kThreads * V) {
    const Pack<V> a = load<V>(x + i);
    SIMT_UNROLL for (int j = 0; j < V; ++j) sum += a.v[j] * a.v[j];
  }
  sum = simt::block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

void sum_squares(const Exec& ex, Tensor& out, const Tensor& x) {
  const std::int64_t n = x.elements();
  const bool fours = in_fours(n, x.data<float>());
  std::int64_t chunk = 16 * kThreads;  // a multiple of 4 in every case, so vectors stay aligned
  if (n > chunk * kMaxChunks) chunk = ((n + kMaxChunks - 1) / kMaxChunks + 3) / 4 * 4;
  const unsigned chunks = simt::blocks_for(n, chunk);
  float* partial = ex.scratch->reserve<float>(chunks);
  const auto sum_squares_any = fours ? sum_squares_kernel<4> : sum_squares_kernel<1>;
  VG_LAUNCH(ex, sum_squares_any, chunks, kThreads, 0, partial, x.data<float>(), n, chunk);
  sum_partials(ex, partial, 1, 1, chunks, nullptr, out.data<float>(), nullptr, 0.0f);
}

__global__ __launch_bounds__(32) void clip_scale_kernel(float* scalars, const float* sum, ClipParams p) {
  if (threadIdx.x != 0) return;
  const float norm = sqrtf(sum[0]) * p.inverse_scale, factor = p.max_norm / (norm + 1e-6f);
  scalars[kGradScale] = p.inverse_scale * (p.max_norm > 0.0f && !(factor >= 1.0f) ? factor : 1.0f);  // a NaN norm gives NaN, as in PyTorch
}

void clip_scale(const Exec& ex, Tensor& scalars, const Tensor& sum, const ClipParams& p) {
  VG_LAUNCH(ex, clip_scale_kernel, 1, 32, 0, scalars.data<float>(), sum.data<float>(), p);
}

__global__ __launch_bounds__(32) void loss_scale_step_kernel(float* scalars, float* state, const float* sum, LossScaleParams p) {
  if (threadIdx.x != 0) return;
  next_loss_scale(scalars, state, sum[0], sqrtf(sum[0]) / state[kScale], p);
}

void loss_scale_step(const Exec& ex, Tensor& scalars, Tensor& state, const Tensor& sum, const LossScaleParams& p) {
  assert(scalars.elements() == kOptimScalars && state.elements() == kLossScaleState);
  VG_LAUNCH(ex, loss_scale_step_kernel, 1, 32, 0, scalars.data<float>(), state.data<float>(), sum.data<float>(), p);
}

}  // namespace VG_NS

VG_DEVICE_IMPL(adam_step);
VG_DEVICE_IMPL(sgd_step);
VG_DEVICE_IMPL(sum_squares);
VG_DEVICE_IMPL(clip_scale);
VG_DEVICE_IMPL(loss_scale_step);

}  // namespace vg

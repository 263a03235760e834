// Instance and batch normalisation. Statistics: one read of x. Forward: one read, one write, with the activation. Backward: two reads of dy and x
// (the sums must be known before the first dx), one write.
#include "kernels/norm.h"

#include "kernels/activation.cuh"
#include "kernels/half.cuh"
#include "kernels/moments.cuh"

namespace vg {
namespace VG_NS {

// ---- statistics ----------------------------------------------------------------------------------------------------------------------------------

// Moments of each chunk. A thread takes four rows at a time: four loads in flight, and one division for all of them.
template <int V, class T>
__global__ __launch_bounds__(kThreads) void norm_moments_kernel(PartialMoments partial, const T* __restrict__ x, int samples,
                                                                std::int64_t channels, std::int64_t voxels, std::int64_t chunk) {
  const Column c = column_of_thread<V>(channels);
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < voxels ? begin + chunk : voxels;
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    MomentsOf<V> all{};
    const T* column = x + n * voxels * channels + c.first;
    std::int64_t r = c.active ? begin + c.row : end;
    for (; r + 3 * c.rows < end; r += 4 * c.rows) {
      Pack<V> row[4];
      SIMT_UNROLL for (int k = 0; k < 4; ++k) row[k] = load<V>(column + (r + k * c.rows) * channels);
      MomentsOf<V> four{4.0f, {}, {}};
      SIMT_UNROLL for (int j = 0; j < V; ++j) {
        const float mean = 0.25f * ((row[0].v[j] + row[1].v[j]) + (row[2].v[j] + row[3].v[j]));
        four.mean[j] = mean;
        SIMT_UNROLL for (int k = 0; k < 4; ++k) four.m2[j] += (row[k].v[j] - mean) * (row[k].v[j] - mean);
      }
      all.merge(four);
    }
    for (; r < end; r += c.rows) {
      const Pack<V> row = load<V>(column + r * channels);
      MomentsOf<V> one{1.0f, {}, {}};
      SIMT_UNROLL for (int j = 0; j < V; ++j) one.mean[j] = row.v[j];
      all.merge(one);
    }
    add_rows(all, c);
    if (c.active && c.row == 0) {
      const std::int64_t part = static_cast<std::int64_t>(n) * gridDim.x + blockIdx.x;
      float* own = partial.values + part * 2 * channels + c.first;
      store_sums<V>(own, all.mean);
      store_sums<V>(own + channels, all.m2);
      if (c.first == 0) partial.counts[part] = all.count;
    }
  }
}

// Threads of a block by 8 channels: 32 threads share parts [first, end) of each; the thread with y = 0 receives the result. Every thread calls.
struct MergeThread {
  int x, y;
  std::int64_t channel;
};
__device__ inline MergeThread merge_thread() {
  const int thread = static_cast<int>(threadIdx.x), x = thread % kSumsOfBlock;
  return {x, thread / kSumsOfBlock, static_cast<std::int64_t>(blockIdx.x) * kSumsOfBlock + x};
}
__device__ inline Moments merge_parts(const PartialMoments& from, std::int64_t sample, std::int64_t channels, std::int64_t first,
                                      std::int64_t end, const MergeThread& t) {
  SIMT_SHARED(float, warps, [3][kThreads / 32][kSumsOfBlock]);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  Moments all{};
  if (t.channel < channels) {
    const float *count = from.counts + sample * from.parts, *at = from.values + sample * from.parts * 2 * channels + t.channel;
    for (std::int64_t k = first + t.y; k < end; k += kThreads / kSumsOfBlock)
      all.merge({count[k], at[2 * k * channels], at[(2 * k + 1) * channels]});
  }
  SIMT_UNROLL for (int lanes = 16; lanes >= kSumsOfBlock; lanes /= 2) {
    const Moments other{__shfl_down_sync(0xffffffffu, all.count, lanes), __shfl_down_sync(0xffffffffu, all.mean, lanes),
                        __shfl_down_sync(0xffffffffu, all.m2, lanes)};
    all.merge(other);
  }
  if (thread % 32 < kSumsOfBlock) {
    warps[0][warp][t.x] = all.count;
    warps[1][warp][t.x] = all.mean;
    warps[2][warp][t.x] = all.m2;
  }
  __syncthreads();
  if (t.y == 0) SIMT_UNROLL for (int w = 1; w < kThreads / 32; ++w) all.merge({warps[0][w][t.x], warps[1][w][t.x], warps[2][w][t.x]});
  return all;
}

// Many parts become fewer: `each` neighbours one. grid: (channels / 8, parts of `to`, samples)
__global__ __launch_bounds__(kThreads) void norm_merge_kernel(PartialMoments to, PartialMoments from, std::int64_t channels,
                                                              std::int64_t each) {
  const MergeThread t = merge_thread();
  const std::int64_t first = blockIdx.y * each, end = first + each < from.parts ? first + each : from.parts;
  const Moments all = merge_parts(from, blockIdx.z, channels, first, end, t);
  if (t.y != 0 || t.channel >= channels) return;
  const std::int64_t part = blockIdx.z * to.parts + blockIdx.y;
  to.values[part * 2 * channels + t.channel] = all.mean;
  to.values[(part * 2 + 1) * channels + t.channel] = all.m2;
  if (t.channel == 0) to.counts[part] = all.count;
}

// The parts of each sample, then (batch) the samples as a binary tree. Overwrites values[n, 0, ., c].
__global__ __launch_bounds__(kThreads) void norm_statistics_kernel(float* __restrict__ mean, float* __restrict__ rstd,
                                                                   PartialMoments partial, int samples, std::int64_t channels,
                                                                   std::int64_t voxels, bool batch, float eps) {
  const MergeThread t = merge_thread();
  const int y = t.y;
  const std::int64_t c = t.channel, stride = 2 * channels * partial.parts;  // from sample to sample
  const float count = static_cast<float>(voxels);
  float *means = partial.values + c, *m2s = means + channels;
  for (int n = 0; n < samples; ++n) {
    const Moments all = merge_parts(partial, n, channels, 0, partial.parts, t);
    if (y == 0 && c < channels) {
      means[n * stride] = all.mean;  // this thread alone has read them
      m2s[n * stride] = all.m2;
      if (!batch) {
        mean[n * channels + c] = all.mean;
        rstd[n * channels + c] = 1.0f / sqrtf(all.m2 / count + eps);
      }
    }
    if (n + 1 < samples) __syncthreads();
  }
  if (!batch || y != 0 || c >= channels) return;
  for (int step = 1; step < samples; step *= 2)
    for (int n = 0; n + step < samples; n += 2 * step) {
      const int here = step, there = samples - (n + step) < step ? samples - (n + step) : step;  // samples in either branch
      Moments a{here * count, means[n * stride], m2s[n * stride]};
      a.merge({there * count, means[(n + step) * stride], m2s[(n + step) * stride]});
      means[n * stride] = a.mean;
      m2s[n * stride] = a.m2;
    }
  mean[c] = means[0];
  rstd[c] = 1.0f / sqrtf(m2s[0] / (count * static_cast<float>(samples)) + eps);
}

void finish_statistics(const Exec& ex, Tensor& mean, Tensor& rstd, const PartialMoments& partial, std::int64_t voxels, float eps) {
  const std::int64_t channels = mean.shape()[1], samples = partial.samples;
  PartialMoments last = partial;
  const unsigned blocks = simt::blocks_for(channels, kSumsOfBlock);
  if (partial.parts > kPartsAtOnce) {
    const std::int64_t each = (partial.parts + kMergedParts - 1) / kMergedParts;
    last.parts = (partial.parts + each - 1) / each;
    last.values = partial.merged;
    last.counts = last.values + samples * last.parts * 2 * channels;
    VG_LAUNCH(ex, norm_merge_kernel, dim3(blocks, static_cast<unsigned>(last.parts), static_cast<unsigned>(samples)), kThreads, 0, last, partial,
              channels, each);
  }
  VG_LAUNCH(ex, norm_statistics_kernel, blocks, kThreads, 0, mean.data<float>(), rstd.data<float>(), last, static_cast<int>(samples), channels,
            voxels, mean.shape()[0] == 1, eps);
}

void norm_statistics(const Exec& ex, Tensor& mean, Tensor& rstd, const Tensor& x, const NormParams& p) {
  for_float_type(x.dtype(), "norm_statistics", [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t channels = x.shape().c(), voxels = x.shape().voxels(), samples = x.shape().n();
    assert(mean.shape() == rstd.shape() && mean.shape()[1] == channels && (mean.shape()[0] == 1 || mean.shape()[0] == samples));
    const T* in = x.data<T>();
    const bool fours = in_fours(channels, in);
    const ColumnGrid g = column_grid(voxels, channels, fours, kMaxChunks);
    float* memory = ex.scratch->reserve<float>(moments_floats(samples, channels, g.chunks));
    const PartialMoments partial = moments_in(memory, samples, channels, g.chunks);
    const auto norm_moments_any = fours ? norm_moments_kernel<4, T> : norm_moments_kernel<1, T>;
    VG_LAUNCH(ex, norm_moments_any, g.grid(samples), kThreads, 0, partial, in, static_cast<int>(samples), channels, voxels, g.chunk);
    finish_statistics(ex, mean, rstd, partial, voxels, p.eps);
  });
}

// ---- forward -------------------------------------------------------------------------------------------------------------------------------------

// V neighbouring numbers of a parameter or statistic: one load where they lie on 16 bytes. A parameter may lie anywhere in the buffer of all of them.
template <int V>
__device__ inline Pack<V> per_channel(const float* p) {
  if (V == 1 || reinterpret_cast<std::uintptr_t>(p) % sizeof(Pack<V>) == 0) return load<V>(p);
  Pack<V> x;
  SIMT_UNROLL for (int j = 0; j < V; ++j) x.v[j] = p[j];
  return x;
}

// What normalises V channels of one sample; without gamma and beta: 1 and 0.
template <int V>
struct Affine {
  Pack<V> mean, rstd, gamma, beta;
  __device__ Affine(const float* means, const float* rstds, const float* gammas, const float* betas, std::int64_t statistic,
                    std::int64_t channel)
      : mean(per_channel<V>(means + statistic + channel)), rstd(per_channel<V>(rstds + statistic + channel)), beta{} {
    SIMT_UNROLL for (int j = 0; j < V; ++j) gamma.v[j] = 1.0f;
    if (gammas) gamma = per_channel<V>(gammas + channel);
    if (betas) beta = per_channel<V>(betas + channel);
  }
};

// h = (x - mean) rstd and z = h gamma + beta of one place, from x or from y = f(z).
struct Place {
  float h, z;
  template <int V>
  __device__ Place(const Affine<V>& a, int j, float x, const Activation& f, bool from_output) {
    if (from_output) {
      z = f.kind == ActivationKind::leaky_relu && x < 0.0f ? x / f.alpha : x;
      h = (z - a.beta.v[j]) / a.gamma.v[j];
    } else {
      h = (x - a.mean.v[j]) * a.rstd.v[j];
      z = h * a.gamma.v[j] + a.beta.v[j];
    }
  }
};

// stride: from sample to sample in mean and rstd, 0 for batch statistics. y may be x.
template <int V, class T>
__global__ __launch_bounds__(kThreads, 4) void norm_apply_kernel(T* y, const T* x, const float* __restrict__ mean,
                                                                 const float* __restrict__ rstd, const float* __restrict__ gamma,
                                                                 const float* __restrict__ beta, std::int64_t stride, Activation f,
                                                                 int samples, std::int64_t channels, std::int64_t voxels,
                                                                 std::int64_t chunk) {
  const Column c = column_of_thread<V>(channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < voxels ? begin + chunk : voxels;
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    const Affine<V> a(mean, rstd, gamma, beta, n * stride, c.first);
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const std::int64_t i = (n * voxels + r) * channels + c.first;
      Pack<V> z = load<V>(x + i);
      SIMT_UNROLL for (int j = 0; j < V; ++j) z.v[j] =
          activate(f.kind, f.alpha, (z.v[j] - a.mean.v[j]) * (a.rstd.v[j] * a.gamma.v[j]) + a.beta.v[j]);
      store<V>(y + i, z);
    }
  }
}

void norm_apply(const Exec& ex, Tensor& y, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& gamma, const Tensor& beta,
                const NormParams& p) {
  for_float_type(x.dtype(), "norm_apply", [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t channels = x.shape().c(), voxels = x.shape().voxels(), samples = x.shape().n();
    assert(y.shape() == x.shape() && p.activation.kind != ActivationKind::prelu);
    const bool fours = in_fours(channels, y.data<T>(), x.data<T>());
    const ColumnGrid g = column_grid(voxels, channels, fours);
    const auto norm_apply_any = fours ? norm_apply_kernel<4, T> : norm_apply_kernel<1, T>;
    VG_LAUNCH(ex, norm_apply_any, g.grid(samples), kThreads, 0, y.data<T>(), x.data<T>(), mean.data<float>(), rstd.data<float>(),
              data_or_null(gamma), data_or_null(beta), mean.shape()[0] == 1 ? std::int64_t{0} : channels, p.activation,
              static_cast<int>(samples), channels, voxels, g.chunk);
  });
}

// ---- backward ------------------------------------------------------------------------------------------------------------------------------------

// partial[0, n, chunk, c] = sum of dz, partial[1, n, chunk, c] = sum of dz h, with dz = dy f'(z).
template <int V, class T>
__global__ __launch_bounds__(kThreads) void norm_backward_sums_kernel(float* __restrict__ partial, const T* __restrict__ dy,
                                                                      const T* __restrict__ x, const float* __restrict__ mean,
                                                                      const float* __restrict__ rstd, const float* __restrict__ gamma,
                                                                      const float* __restrict__ beta, std::int64_t stride, Activation f,
                                                                      bool from_output, int samples, std::int64_t channels,
                                                                      std::int64_t voxels, std::int64_t chunk) {
  const Column c = column_of_thread<V>(channels);
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < voxels ? begin + chunk : voxels;
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    Sums<2 * V> sum{};
    if (c.active) {
      const Affine<V> a(mean, rstd, gamma, beta, n * stride, c.first);
      for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
        const std::int64_t i = (n * voxels + r) * channels + c.first;
        const Pack<V> xs = load<V>(x + i), g = load<V>(dy + i);
        SIMT_UNROLL for (int j = 0; j < V; ++j) {
          const Place place(a, j, xs.v[j], f, from_output);
          const float dz = g.v[j] * activate_slope(f.kind, f.alpha, place.z);
          sum.v[j] += dz;
          sum.v[V + j] += dz * place.h;
        }
      }
    }
    add_rows(sum, c);
    if (c.active && c.row == 0) {
      float* own = partial + (static_cast<std::int64_t>(n) * gridDim.x + blockIdx.x) * channels + c.first;
      store_sums<V>(own, sum.v);
      store_sums<V>(own + static_cast<std::int64_t>(samples) * channels * gridDim.x, sum.v + V);
    }
  }
}

// sum_dz, sum_dzh: (N, C) or (1, C) with stride 0; null when mean and rstd are constants. count: voxels in each sum. dx may be dy's memory.
template <int V, class T>
__global__ __launch_bounds__(kThreads) void norm_backward_kernel(T* dx, const T* dy, const T* __restrict__ x,
                                                                 const float* __restrict__ mean, const float* __restrict__ rstd,
                                                                 const float* __restrict__ gamma, const float* __restrict__ beta,
                                                                 std::int64_t stride, const float* __restrict__ sum_dz,
                                                                 const float* __restrict__ sum_dzh, float count, Activation f,
                                                                 bool from_output, float keep, int samples, std::int64_t channels,
                                                                 std::int64_t voxels, std::int64_t chunk) {
  const Column c = column_of_thread<V>(channels);
  if (!c.active) return;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < voxels ? begin + chunk : voxels;
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    const Affine<V> a(mean, rstd, gamma, beta, n * stride, c.first);
    Pack<V> mean_dz{}, mean_dzh{};
    if (sum_dz) {
      mean_dz = per_channel<V>(sum_dz + n * stride + c.first);
      mean_dzh = per_channel<V>(sum_dzh + n * stride + c.first);
      SIMT_UNROLL for (int j = 0; j < V; ++j) {
        mean_dz.v[j] /= count;
        mean_dzh.v[j] /= count;
      }
    }
    for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
      const std::int64_t i = (n * voxels + r) * channels + c.first;
      const Pack<V> xs = load<V>(x + i);
      Pack<V> g = load<V>(dy + i);
      SIMT_UNROLL for (int j = 0; j < V; ++j) {
        const Place place(a, j, xs.v[j], f, from_output);
        const float dz = g.v[j] * activate_slope(f.kind, f.alpha, place.z);
        g.v[j] = a.rstd.v[j] * a.gamma.v[j] * (dz - mean_dz.v[j] - place.h * mean_dzh.v[j]);
      }
      store<V>(dx + i, g, keep);
    }
  }
}

void norm_backward(const Exec& ex, const Grad& dx, const Grad& dgamma, const Grad& dbeta, const Tensor& dy, const Tensor& x,
                   const Tensor& mean, const Tensor& rstd, const Tensor& gamma, const Tensor& beta, const NormParams& p) {
  for_float_type(x.dtype(), "norm_backward", [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t channels = x.shape().c(), voxels = x.shape().voxels(), samples = x.shape().n();
    assert(dy.shape() == x.shape() && p.activation.kind != ActivationKind::prelu);
    const bool batch = mean.shape()[0] == 1, coupled = dx.wanted() && !p.constant;  // coupled: every dx depends on all dy of its channel
    const std::int64_t stride = batch ? 0 : channels;
    const T *g = dy.data<T>(), *in = x.data<T>();
    const float *gammas = data_or_null(gamma), *betas = data_or_null(beta);
    T* out = data_or_null_of<T>(dx);
    const bool fours = in_fours(channels, out, g, in);

    const float *sum_dz = nullptr, *sum_dzh = nullptr;
    if (coupled || dgamma.wanted() || dbeta.wanted()) {
      const ColumnGrid grid = column_grid(voxels, channels, fours, kMaxChunks);
      const std::int64_t partials = samples * channels * grid.chunks;
      float* partial = ex.scratch->reserve<float>(2 * partials + 2 * samples * channels + 2 * channels);
      float *sample = partial + 2 * partials, *total = sample + 2 * samples * channels;
      const auto norm_backward_sums_any = fours ? norm_backward_sums_kernel<4, T> : norm_backward_sums_kernel<1, T>;
      VG_LAUNCH(ex, norm_backward_sums_any, grid.grid(samples), kThreads, 0, partial, g, in, mean.data<float>(), rstd.data<float>(), gammas,
                betas, stride, p.activation, p.from_output, static_cast<int>(samples), channels, voxels, grid.chunk);
      sum_partials(ex, partial, samples, channels, grid.chunks, sample, total, dbeta.wanted() ? dbeta.data() : nullptr, dbeta.beta);
      sum_partials(ex, partial + partials, samples, channels, grid.chunks, sample + samples * channels, total + channels,
                   dgamma.wanted() ? dgamma.data() : nullptr, dgamma.beta);
      if (coupled) {
        sum_dz = batch ? total : sample;
        sum_dzh = batch ? total + channels : sample + samples * channels;
      }
    }
    if (!out) return;
    const ColumnGrid grid = column_grid(voxels, channels, fours);
    const auto norm_backward_any = fours ? norm_backward_kernel<4, T> : norm_backward_kernel<1, T>;
    VG_LAUNCH(ex, norm_backward_any, grid.grid(samples), kThreads, 0, out, g, in, mean.data<float>(), rstd.data<float>(), gammas, betas,
              stride, sum_dz, sum_dzh, static_cast<float>(batch ? samples * voxels : voxels), p.activation, p.from_output, dx.beta,
              static_cast<int>(samples), channels, voxels, grid.chunk);
  });
}

// ---- running statistics: a handful of numbers ----------------------------------------------------------------------------------------------------

__global__ __launch_bounds__(kThreads) void norm_update_running_kernel(float* __restrict__ running_mean, float* __restrict__ running_var,
                                                                       const float* __restrict__ mean, const float* __restrict__ rstd,
                                                                       float momentum, float eps, float unbias, std::int64_t channels) {
  for (std::int64_t c = flat_begin<1>(); c < channels; c += flat_step<1>()) {
    const float var = 1.0f / (rstd[c] * rstd[c]) - eps;
    running_mean[c] = (1.0f - momentum) * running_mean[c] + momentum * mean[c];
    running_var[c] = (1.0f - momentum) * running_var[c] + momentum * unbias * (var > 0.0f ? var : 0.0f);
  }
}

void norm_update_running(const Exec& ex, Tensor& running_mean, Tensor& running_var, const Tensor& mean, const Tensor& rstd,
                         const RunningParams& p) {
  const std::int64_t channels = running_mean.elements();
  const double count = static_cast<double>(p.count), unbias = p.count > 1 ? count / (count - 1.0) : 1.0;
  VG_LAUNCH(ex, norm_update_running_kernel, flat_blocks(channels, false), kThreads, 0, running_mean.data<float>(),
            running_var.data<float>(), mean.data<float>(), rstd.data<float>(), p.momentum, p.eps, static_cast<float>(unbias), channels);
}

__global__ __launch_bounds__(kThreads) void norm_rstd_kernel(float* __restrict__ rstd, const float* __restrict__ var, float eps,
                                                             std::int64_t channels) {
  for (std::int64_t c = flat_begin<1>(); c < channels; c += flat_step<1>()) rstd[c] = 1.0f / sqrtf(var[c] + eps);
}

void norm_rstd(const Exec& ex, Tensor& rstd, const Tensor& var, const RunningParams& p) {
  const std::int64_t channels = var.elements();
  VG_LAUNCH(ex, norm_rstd_kernel, flat_blocks(channels, false), kThreads, 0, rstd.data<float>(), var.data<float>(), p.eps, channels);
}

}  // namespace VG_NS

VG_DEVICE_IMPL(norm_statistics);
VG_DEVICE_IMPL(norm_apply);
VG_DEVICE_IMPL(norm_backward);
VG_DEVICE_IMPL(norm_update_running);
VG_DEVICE_IMPL(norm_rstd);

}  // namespace vg

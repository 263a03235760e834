// Softmax, cross-entropy and soft Dice on logits. All share one scheme (class_tile.cuh): a block copies a tile of voxels into shared memory, one thread
// works on one voxel, and the classes' sums are taken crosswise, one thread per class.
#include "kernels/loss.h"

#include "kernels/class_tile.cuh"
#include "kernels/reduce.cuh"

namespace vg {
namespace VG_NS {

// row := exp(row - max); returns the sum of it. `max` is handed out for the logarithm.
__device__ inline float exponentials(float* row, int classes, float* max) {
  float most = row[0], sum = 0.0f;
  for (int c = 1; c < classes; ++c) most = row[c] > most ? row[c] : most;
  for (int c = 0; c < classes; ++c) {
    row[c] = expf(row[c] - most);
    sum += row[c];
  }
  *max = most;
  return sum;
}

// ---- forward -------------------------------------------------------------------------------------------------------------------------------------

// class_sums[n, chunk, c, {I, P, T}] and voxel_sums[n, chunk, {-log p, counted}]. grid: (chunks, 1, samples).
// Shared: the tile, the sums of `groups` threads per class, one label per voxel.
template <class T, class Label>
__global__ __launch_bounds__(kTileThreads) void dice_ce_forward_kernel(float* __restrict__ class_sums, float* __restrict__ voxel_sums,
                                                                       const T* __restrict__ logits, const Label* __restrict__ labels,
                                                                       int samples, std::int64_t voxels, std::int64_t chunk, int classes,
                                                                       int tile_size, int groups, int ignore) {
  SIMT_DYN_SHARED(float, tile);
  const int pitch = pitch_of(classes), thread = static_cast<int>(threadIdx.x);
  float* sums = tile + tile_size * pitch;  // [groups][classes][3]
  int* label_of = reinterpret_cast<int*>(sums + groups * classes * 3);
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < voxels ? begin + chunk : voxels;
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    for (int i = thread; i < groups * classes * 3; i += kTileThreads) sums[i] = 0.0f;
    float of_voxels[2] = {0.0f, 0.0f};  // -log p, counted
    for (std::int64_t first = begin; first < end; first += tile_size) {
      const int count = static_cast<int>(end - first < tile_size ? end - first : tile_size);
      for_tile(count, classes, CopyIn<T>{tile, logits + (n * voxels + first) * classes});
      __syncthreads();
      if (thread < count) {
        float* row = tile + thread * pitch;
        const int label = static_cast<int>(labels[n * voxels + first + thread]);
        label_of[thread] = label == ignore ? -1 : label;
        if (label != ignore) {
          const float logit = row[label];
          float max;
          const float sum = exponentials(row, classes, &max), scale = 1.0f / sum;
          for (int c = 0; c < classes; ++c) row[c] *= scale;
          of_voxels[0] += logf(sum) - (logit - max);
          of_voxels[1] += 1.0f;
        } else {
          for (int c = 0; c < classes; ++c) row[c] = 0.0f;
        }
      }
      __syncthreads();
      for (int i = thread; i < groups * classes; i += kTileThreads) {
        const int c = i % classes;
        float both = 0.0f, predicted = 0.0f, truth = 0.0f;
        for (int v = i / classes; v < count; v += groups) {
          const float p = tile[v * pitch + c];
          predicted += p;
          if (label_of[v] == c) both += p, truth += 1.0f;
        }
        sums[3 * i] += both;
        sums[3 * i + 1] += predicted;
        sums[3 * i + 2] += truth;
      }
      __syncthreads();
    }
    const std::int64_t own = static_cast<std::int64_t>(n) * gridDim.x + blockIdx.x;
    for (int q = thread; q < 3 * classes; q += kTileThreads) {
      float sum = 0.0f;
      for (int g = 0; g < groups; ++g) sum += sums[g * classes * 3 + q];
      class_sums[own * 3 * classes + q] = sum;
    }
    simt::block_sum(of_voxels);
    if (thread < 2) voxel_sums[own * 2 + thread] = of_voxels[thread];
  }
}

// 2 I + s over P + T + s, for one class of one sample or of the batch.
struct DiceTerm {
  float numerator, denominator;
};
__device__ inline DiceTerm dice_term(const float* ipt, const DiceCeParams& p) {
  return {2.0f * ipt[0] + p.smooth_numerator, ipt[1] + ipt[2] + p.smooth_denominator};
}

// sums: (sets, C, 3), a set being a sample or the batch; voxels: -log p and the count. One block.
__global__ __launch_bounds__(kThreads) void dice_ce_result_kernel(float* __restrict__ result, const float* __restrict__ sums,
                                                                  const float* __restrict__ voxels, int sets, int classes, DiceCeParams p) {
  const int first = p.background ? 0 : 1, counting = classes - first, terms = sets * counting;
  float dice = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < terms; i += kThreads) {
    const DiceTerm term = dice_term(sums + (i / counting * classes + first + i % counting) * 3, p);
    dice += term.numerator / term.denominator;
  }
  dice = simt::block_sum(dice);
  if (threadIdx.x != 0) return;
  const float counted = voxels[1], ce = counted > 0.0f ? voxels[0] / counted : 0.0f;
  const float dice_loss = counted > 0.0f && terms > 0 ? 1.0f - dice / static_cast<float>(terms) : 0.0f;
  result[0] = p.ce_weight * ce + p.dice_weight * dice_loss;
  result[1] = ce;
  result[2] = dice_loss;
  result[3] = counted;
}

void dice_ce_forward(const Exec& ex, Tensor& result, Tensor& sums, const Tensor& logits, const Tensor& labels, const DiceCeParams& p) {
  for_float_type(logits.dtype(), "dice_ce_forward", [&](auto zero) {
    using T = decltype(zero);
    const Shape& s = logits.shape();
    const int classes = static_cast<int>(s.c()), tile = tile_voxels(classes), samples = static_cast<int>(s.n());
    assert(labels.elements() == s.n() * s.voxels() && sums.elements() == s.n() * classes * 3);
    const int groups = classes < kTileThreads ? kTileThreads / classes : 1;
    const std::int64_t voxels = s.voxels();
    std::int64_t chunk = std::int64_t{tile} * 8;
    if (voxels > chunk * kMaxChunks) chunk = (voxels / kMaxChunks / tile + 1) * tile;
    const unsigned chunks = simt::blocks_for(voxels, chunk);
    float* class_sums = ex.scratch->reserve<float>(samples * std::int64_t{chunks} * (3 * classes + 2) + 3 * classes + 2);
    float* voxel_sums = class_sums + samples * std::int64_t{chunks} * 3 * classes;
    float *class_total = voxel_sums + samples * std::int64_t{chunks} * 2, *voxel_total = class_total + 3 * classes;
    const std::size_t bytes = tile_bytes(classes, groups * classes * 3 + tile);
    const dim3 grid(chunks, 1, samples < kMaxGridYZ ? samples : kMaxGridYZ);
    if (labels.dtype() == DType::u8)
      VG_LAUNCH(ex, (dice_ce_forward_kernel<T, std::uint8_t>), grid, kTileThreads, bytes, class_sums, voxel_sums, logits.data<T>(),
                labels.data<std::uint8_t>(), samples, voxels, chunk, classes, tile, groups, p.ignore);
    else
      VG_LAUNCH(ex, (dice_ce_forward_kernel<T, std::int32_t>), grid, kTileThreads, bytes, class_sums, voxel_sums, logits.data<T>(),
                labels.data<std::int32_t>(), samples, voxels, chunk, classes, tile, groups, p.ignore);
    sum_partials(ex, class_sums, samples, 3 * classes, chunks, sums.data<float>(), class_total, nullptr, 0.0f);
    sum_partials(ex, voxel_sums, samples, 2, chunks, nullptr, voxel_total, nullptr, 0.0f);
    VG_LAUNCH(ex, dice_ce_result_kernel, 1, kThreads, 0, result.data<float>(), p.per_sample ? sums.data<float>() : class_total, voxel_total,
              p.per_sample ? samples : 1, classes, p);
  });
}

// ---- backward ------------------------------------------------------------------------------------------------------------------------------------

// With D = numerator/denominator of a class, M terms in the mean, and p_c the probability of one voxel:
//   d(1 - dice)/dp_c = a_c t_c + b_c,   a_c = -2 / (M denominator),   b_c = numerator / (M denominator^2)
// slopes[set, c] = dice_weight (a_c, b_c); zero for classes that do not count. sums: (N, C, 3); work: as many floats, for the tree over the samples.
__global__ __launch_bounds__(kThreads) void dice_slopes_kernel(float2* __restrict__ slopes, float* __restrict__ work,
                                                               const float* __restrict__ sums, int samples, int classes, DiceCeParams p) {
  const int first = p.background ? 0 : 1, sets = p.per_sample ? samples : 1;
  const float terms = static_cast<float>(sets) * static_cast<float>(classes - first);
  for (std::int64_t i = flat_begin<1>(); i < static_cast<std::int64_t>(sets) * classes; i += flat_step<1>()) {
    const float* own = sums + 3 * i;
    if (!p.per_sample) {  // this thread's class of every sample, in its own part of `work`
      const std::int64_t stride = 3 * static_cast<std::int64_t>(classes);
      float* column = work + 3 * i;
      for (int n = 0; n < samples; ++n)
        for (int k = 0; k < 3; ++k) column[n * stride + k] = own[n * stride + k];
      for (int step = 1; step < samples; step *= 2)
        for (int n = 0; n + step < samples; n += 2 * step)
          for (int k = 0; k < 3; ++k) column[n * stride + k] += column[(n + step) * stride + k];
      own = column;
    }
    const DiceTerm term = dice_term(own, p);
    const float share = p.dice_weight / (terms * term.denominator);
    slopes[i] = i % classes < first ? float2{0.0f, 0.0f} : float2{-2.0f * share, share * term.numerator / term.denominator};
  }
}

// dlogit_c = scale (ce_weight / counted (p_c - t_c) + p_c (g_c - sum over k of p_k g_k)),  g_c = a_c t_c + b_c. Shared: the tile, the sample's slopes.
template <class T, class Label>
__global__ __launch_bounds__(kTileThreads) void dice_ce_backward_kernel(T* dlogits, const T* logits, const Label* __restrict__ labels,
                                                                        const float2* __restrict__ slopes, const float* __restrict__ result,
                                                                        const float* __restrict__ scale, float beta, int samples,
                                                                        std::int64_t voxels, int classes, int tile_size, DiceCeParams p) {
  SIMT_DYN_SHARED(float, tile);
  const int pitch = pitch_of(classes), thread = static_cast<int>(threadIdx.x);
  float *label_slope = tile + tile_size * pitch, *slope = label_slope + classes;
  const std::int64_t first = blockIdx.x * static_cast<std::int64_t>(tile_size);
  const int count = static_cast<int>(voxels - first < tile_size ? voxels - first : tile_size);
  const float from_above = scale[0], ce = p.ce_weight / result[3];
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    for (int c = thread; c < classes; c += kTileThreads) {
      const float2 both = slopes[(p.per_sample ? static_cast<std::int64_t>(n) * classes : 0) + c];
      label_slope[c] = both.x;
      slope[c] = both.y;
    }
    const std::int64_t at = (n * voxels + first) * classes;
    for_tile(count, classes, CopyIn<T>{tile, logits + at});
    __syncthreads();
    if (thread < count) {
      float* row = tile + thread * pitch;
      const int label = static_cast<int>(labels[n * voxels + first + thread]);
      if (label == p.ignore) {
        for (int c = 0; c < classes; ++c) row[c] = 0.0f;
      } else {
        float max;
        const float inverse = 1.0f / exponentials(row, classes, &max);
        float mean = row[label] * label_slope[label];  // of g under p
        for (int c = 0; c < classes; ++c) mean += row[c] * slope[c];
        mean *= inverse;
        for (int c = 0; c < classes; ++c) {
          const float probability = row[c] * inverse, truth = c == label ? 1.0f : 0.0f;
          const float g = truth * label_slope[c] + slope[c];
          row[c] = from_above * (ce * (probability - truth) + probability * (g - mean));
        }
      }
    }
    __syncthreads();
    for_tile(count, classes, CopyOut<T>{dlogits + at, tile, beta});
  }
}

void dice_ce_backward(const Exec& ex, const Grad& dlogits, const Tensor& logits, const Tensor& labels, const Tensor& sums,
                      const Tensor& result, const Tensor& scale, const DiceCeParams& p) {
  for_float_type(logits.dtype(), "dice_ce_backward", [&](auto zero) {
    using T = decltype(zero);
    if (!dlogits.wanted()) return;
    const Shape& s = logits.shape();
    const int classes = static_cast<int>(s.c()), tile = tile_voxels(classes), samples = static_cast<int>(s.n());
    assert(dlogits.shape() == s && labels.elements() == s.n() * s.voxels());
    const std::int64_t sets = p.per_sample ? samples : 1, pairs = sets * classes;
    float2* slopes = ex.scratch->reserve<float2>(pairs + 2 * std::int64_t{samples} * classes);  // 3 floats of work are less than 2 float2
    VG_LAUNCH(ex, dice_slopes_kernel, flat_blocks(pairs, false), kThreads, 0, slopes, reinterpret_cast<float*>(slopes + pairs),
              sums.data<float>(), samples, classes, p);
    const std::size_t bytes = tile_bytes(classes, 2 * classes);
    const dim3 grid(simt::blocks_for(s.voxels(), tile), 1, samples < kMaxGridYZ ? samples : kMaxGridYZ);
    if (labels.dtype() == DType::u8)
      VG_LAUNCH(ex, (dice_ce_backward_kernel<T, std::uint8_t>), grid, kTileThreads, bytes, data_of<T>(dlogits), logits.data<T>(),
                labels.data<std::uint8_t>(), slopes, result.data<float>(), scale.data<float>(), dlogits.beta, samples, s.voxels(), classes,
                tile, p);
    else
      VG_LAUNCH(ex, (dice_ce_backward_kernel<T, std::int32_t>), grid, kTileThreads, bytes, data_of<T>(dlogits), logits.data<T>(),
                labels.data<std::int32_t>(), slopes, result.data<float>(), scale.data<float>(), dlogits.beta, samples, s.voxels(), classes,
                tile, p);
  });
}

// ---- softmax -------------------------------------------------------------------------------------------------------------------------------------

// rows: voxels of all samples. No __restrict__: y may be x; a block has its whole tile before it writes.
template <class T>
__global__ __launch_bounds__(kTileThreads) void softmax_kernel(T* y, const T* x, std::int64_t rows, int classes, int tile_size) {
  SIMT_DYN_SHARED(float, tile);
  const std::int64_t first = blockIdx.x * static_cast<std::int64_t>(tile_size);
  const int count = static_cast<int>(rows - first < tile_size ? rows - first : tile_size), thread = static_cast<int>(threadIdx.x);
  for_tile(count, classes, CopyIn<T>{tile, x + first * classes});
  __syncthreads();
  if (thread < count) {
    float *row = tile + thread * pitch_of(classes), max;
    const float inverse = 1.0f / exponentials(row, classes, &max);
    for (int c = 0; c < classes; ++c) row[c] *= inverse;
  }
  __syncthreads();
  for_tile(count, classes, CopyOut<T>{y + first * classes, tile, 0.0f});
}

void softmax(const Exec& ex, Tensor& y, const Tensor& x) {
  for_float_type(x.dtype(), "softmax", [&](auto zero) {
    using T = decltype(zero);
    assert(y.shape() == x.shape());
    const int classes = static_cast<int>(x.shape()[x.shape().rank() - 1]), tile = tile_voxels(classes);
    const std::int64_t rows = x.elements() / classes;
    VG_LAUNCH(ex, softmax_kernel<T>, simt::blocks_for(rows, tile), kTileThreads, tile_bytes(classes, 0), y.data<T>(), x.data<T>(), rows,
              classes, tile);
  });
}

}  // namespace VG_NS

VG_DEVICE_IMPL(dice_ce_forward);
VG_DEVICE_IMPL(dice_ce_backward);
VG_DEVICE_IMPL(softmax);

}  // namespace vg

// Mean and variance from parts: what norm.cu makes of x, and the convolution's epilogue (conv_tensor.cuh) of what it writes. Parts are merged in an order
// that the shape of one sample fixes.
#pragma once
#include "kernels/reduce.cuh"

namespace vg {
namespace VG_NS {

// Count, mean and sum of squared deviations. Two sets merge without cancellation (Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm
// for computing sample variances", 1979), which sum and sum of squares do not: a bright constant background would eat the variance.
struct Moments {
  float count, mean, m2;
  __device__ void merge(const Moments& other) {
    if (other.count == 0.0f) return;
    const float total = count + other.count, share = other.count / total, d = other.mean - mean;
    mean += d * share;
    m2 += other.m2 + d * d * count * share;
    count = total;
  }
};
// The same for V channels, which have one count.
template <int V>
struct MomentsOf {
  float count, mean[V], m2[V];
  __device__ void merge(const MomentsOf& other) {
    if (other.count == 0.0f) return;
    const float total = count + other.count, share = other.count / total;
    SIMT_UNROLL for (int j = 0; j < V; ++j) {
      const float d = other.mean[j] - mean[j];
      mean[j] += d * share;
      m2[j] += other.m2[j] + d * d * count * share;
    }
    count = total;
  }
};


// Of a few rows that one thread meets one by one. Deviations are taken from the first, which costs no division a row; since it belongs to the set, m2 can
// lose no more digits than the number of rows has.
template <int V>
struct RowMoments {
  float count, first[V], sum[V], squares[V];
  __device__ void add(const Pack<V>& row) {
    SIMT_UNROLL for (int j = 0; j < V; ++j) {
      if (count == 0.0f) first[j] = row.v[j];
      const float d = row.v[j] - first[j];
      sum[j] += d;
      squares[j] += d * d;
    }
    count += 1.0f;
  }
  __device__ MomentsOf<V> moments() const {
    MomentsOf<V> all{count, {}, {}};
    const float one = count > 0.0f ? 1.0f / count : 0.0f;
    SIMT_UNROLL for (int j = 0; j < V; ++j) {
      all.mean[j] = first[j] + sum[j] * one;
      const float m2 = squares[j] - sum[j] * sum[j] * one;
      all.m2[j] = m2 > 0.0f ? m2 : 0.0f;
    }
    return all;
  }
};

// values[n, part, {mean, m2}, c], counts[n, part]; merged: room for the parts of a first round of merging.
struct PartialMoments {
  float *values, *counts, *merged;
  std::int64_t samples, parts;
};
// More parts than kPartsAtOnce are first merged into at most kMergedParts, by blocks of their own.
inline constexpr std::int64_t kPartsAtOnce = 128, kMergedParts = 32;

inline std::int64_t moments_floats(std::int64_t samples, std::int64_t channels, std::int64_t parts) {
  return samples * (parts + kMergedParts) * (2 * channels + 1);
}
// Laid out in moments_floats() of memory on 16 bytes.
inline PartialMoments moments_in(float* memory, std::int64_t samples, std::int64_t channels, std::int64_t parts) {
  return {memory, memory + samples * parts * 2 * channels, memory + samples * parts * (2 * channels + 1), samples, parts};
}

// mean, rstd of `voxels` a sample: (N, C), or (1, C) of the batch. In norm.cu.
void finish_statistics(const Exec& ex, Tensor& mean, Tensor& rstd, const PartialMoments& partial, std::int64_t voxels, float eps);

}  // namespace VG_NS
}  // namespace vg

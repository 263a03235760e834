// The matrix product behind convolution ("implicit GEMM"): rows are output voxels m, columns output channels, and the sum runs over k = (tap, channel).
// The left matrix, A[m, k] = x[voxel m shifted by tap, channel], is never stored: blocks gather pieces of it straight into shared memory.
//
//   block: BM voxels x BN channels; thread: TM x 4 of them in registers; k advances in steps of 16
//   per step a thread moves a few 128-bit words to shared memory and then makes 16 * TM * 4 multiply-adds from it
//   two buffers: while step t is multiplied, the words of step t + 1 are on their way from memory, and one barrier per step is enough
//
// Index arithmetic stays out of the inner loop: a voxel's coordinates are found once per tile, a tap's offset comes from a table (conv_gather.cuh).
// The scheme is that of cuDNN's IMPLICIT_PRECOMP_GEMM (Chetlur et al., arXiv:1410.0759).
#pragma once
#include "kernels/activation.cuh"
#include "kernels/conv_gather.cuh"

namespace vg {
namespace VG_NS {

inline constexpr int kStep = 16;  // BK

// Where results go: columns [0, first.channels) belong to the first tensor, the rest to the second.
struct SinkPart {
  float* data;
  int channels;
  float beta;
};
struct Sink {
  SinkPart first, second;
  const float* bias;  // (columns) or null
  Activation activation;
  bool fours;  // rows of both start on 16 bytes: a thread's four columns are one store
};

template <int V>
__device__ inline void write_columns(const Sink& s, std::int64_t voxel, int column, const Pack<V>& v) {
  if (column < s.first.channels)
    store<V>(s.first.data + voxel * s.first.channels + column, v, s.first.beta);
  else if (column < s.first.channels + s.second.channels)
    store<V>(s.second.data + voxel * s.second.channels + column - s.first.channels, v, s.second.beta);
}

// A call, not inlined: a thread finishes up to 32 sums, and 32 copies of every activation would be most of the kernel.
__attribute__((noinline)) __device__ inline Pack<4> activate_four(ActivationKind kind, float alpha, Pack<4> v) {
  SIMT_UNROLL for (int j = 0; j < 4; ++j) v.v[j] = activate(kind, alpha, v.v[j]);
  return v;
}

// v: columns [column, column + 4) of output voxel `voxel`.
__device__ inline void write_four(const Sink& s, std::int64_t voxel, int column, Pack<4> v) {
  SIMT_UNROLL for (int j = 0; j < 4; ++j) {
    if (s.bias && column + j < s.first.channels + s.second.channels) v.v[j] += s.bias[column + j];
  }
  if (s.activation.kind != ActivationKind::identity) v = activate_four(s.activation.kind, s.activation.alpha, v);
  if (s.fours)
    write_columns<4>(s, voxel, column, v);
  else
    SIMT_UNROLL for (int j = 0; j < 4; ++j) write_columns<1>(s, voxel, column + j, Pack<1>{{v.v[j]}});
}

// One voxel of a tile.
struct TileRow {
  std::int64_t in;   // number of the voxel (n, q in_step) in the source, over all samples; meaningful only with a tap that stays inside
  std::int64_t out;  // number of the output voxel, over all samples; -1: beyond the last
  int d, h, w;       // q in_step; far outside for a row beyond the last, so that every tap misses
  int unused;
};
__device__ inline TileRow tile_row(const Gather& g, const GatherClass& c, std::int64_t m, std::int64_t lattice) {
  constexpr int kOutside = -(1 << 30);
  const bool narrow = m <= 0x7fffffff && lattice <= 0x7fffffff;
  const std::int64_t n = narrow ? static_cast<unsigned>(m) / static_cast<unsigned>(lattice) : m / lattice;
  if (n >= g.samples) return {0, -1, kOutside, kOutside, kOutside, 0};
  const Voxel q = voxel_at(m - n * lattice, c.lattice());
  const int d = q.d * c.d.in_step, h = q.h * c.h.in_step, w = q.w * c.w.in_step;
  const Extent in{g.axis[0].in, g.axis[1].in, g.axis[2].in}, out{g.axis[0].out, g.axis[1].out, g.axis[2].out};
  return {n * in.voxels() + row_at(d, h, w, in),
          n * out.voxels() +
              row_at(q.d * c.d.out_step + c.d.out_first, q.h * c.h.out_step + c.h.out_first, q.w * c.w.out_step + c.w.out_first, out),
          d,
          h,
          w,
          0};
}

// x0, x1: sources. packed: weights [class, row, padded columns]. With splits > 1 (gridDim.y) a block sums its share of k only and writes
// partial[split, output voxel, padded columns]; conv_splits_kernel finishes.
// grid: (tiles of voxels x tiles of columns, splits, classes). V: 4 when four neighbouring channels are one load, else 1.
template <int BM, int BN, int TM, int V, int kBlock = BM / TM*(BN / 4)>
__global__ __launch_bounds__(kBlock, kBlock == 256 ? 2 : 384 / kBlock) void conv_gemm_kernel(
    Gather g, const float* __restrict__ x0, const float* __restrict__ x1, const Tap* __restrict__ taps, const float* __restrict__ packed,
    int padded, Sink sink, float* __restrict__ partial, std::int64_t partial_stride) {
  constexpr int kLoadsA = BM * (kStep / 4) / kBlock, kWordsB = kStep * BN / 4, kLoadsB = (kWordsB - 1) / kBlock + 1;
  constexpr int kTaps = 4 / V, kGroup = TM < 4 ? TM : 4, kGroups = TM / kGroup;
  static_assert(BM % (kBlock / 4) == 0 && TM % kGroup == 0);
  // Four more floats per row of A: its columns, written by lanes with different k, then lie in different banks.
  SIMT_SHARED(Pack<4>, tile_a, [2][kStep][BM / 4 + 1]);
  SIMT_SHARED(Pack<4>, tile_b, [2][kStep][BN / 4]);
  SIMT_SHARED(TileRow, rows, [BM]);

  const GatherClass c = gather_class(g, static_cast<int>(blockIdx.z));
  const std::int64_t lattice = c.lattice().voxels();
  const int column_tiles = padded / BN, thread = static_cast<int>(threadIdx.x);
  const std::int64_t first_m = static_cast<std::int64_t>(blockIdx.x / column_tiles) * BM;
  const int first_column = static_cast<int>(blockIdx.x % column_tiles) * BN;
  if (first_m >= lattice * g.samples) return;  // the grid is that of the largest class
  taps += blockIdx.z * g.class_rows;
  packed += blockIdx.z * g.class_rows * padded + first_column;
  const int depth = c.taps() * g.channels(), steps = (depth + kStep - 1) / kStep;
  const int share = (steps + static_cast<int>(gridDim.y) - 1) / static_cast<int>(gridDim.y), begin = static_cast<int>(blockIdx.y) * share;
  const int end = begin + share < steps ? begin + share : steps;

  for (int r = thread; r < BM; r += kBlock) rows[r] = tile_row(g, c, first_m + r, lattice);
  __syncthreads();

  // Thread t gathers channels k = 4 (t mod 4) .. + 3 of voxels t / 4, t / 4 + kBlock / 4, ...: four lanes share a 64-byte piece of a voxel.
  const int my_k = thread % 4 * 4;
  TileRow mine[kLoadsA];
  SIMT_UNROLL for (int i = 0; i < kLoadsA; ++i) mine[i] = rows[thread / 4 + i * (kBlock / 4)];
  Pack<4> next_a[kLoadsA], next_b[kLoadsB];

  const auto fetch = [&](int step) {
    const int k = step * kStep + my_k;
    Tap tap[kTaps];
    SIMT_UNROLL for (int e = 0; e < kTaps; ++e) {
      if (k + e * V < depth)
        tap[e] = taps[k + e * V];
      else
        tap[e] = Tap{0, -(1 << 30), 0, 0, 0};
    }
    SIMT_UNROLL for (int i = 0; i < kLoadsA; ++i) {
      SIMT_UNROLL for (int e = 0; e < kTaps; ++e) {
        const Tap& t = tap[e];
        const bool inside = static_cast<unsigned>(mine[i].d + t.d) < static_cast<unsigned>(g.axis[0].in) &&
                            static_cast<unsigned>(mine[i].h + t.h) < static_cast<unsigned>(g.axis[1].in) &&
                            static_cast<unsigned>(mine[i].w + t.w) < static_cast<unsigned>(g.axis[2].in);
        Pack<V> value{};
        if (inside) value = load<V>((t.source ? x1 : x0) + mine[i].in * (t.source ? g.channels1 : g.channels0) + t.offset);
        SIMT_UNROLL for (int j = 0; j < V; ++j) next_a[i].v[e * V + j] = value.v[j];
      }
    }
    SIMT_UNROLL for (int i = 0; i < kLoadsB; ++i) {
      const int word = thread + i * kBlock, row = step * kStep + word / (BN / 4);
      next_b[i] = Pack<4>{};
      if (word < kWordsB && row < depth) next_b[i] = load<4>(packed + static_cast<std::int64_t>(row) * padded + word % (BN / 4) * 4);
    }
  };
  const auto deposit = [&](int buffer) {
    SIMT_UNROLL for (int i = 0; i < kLoadsA; ++i) {
      const int m = thread / 4 + i * (kBlock / 4);
      SIMT_UNROLL for (int j = 0; j < 4; ++j) tile_a[buffer][my_k + j][m / 4].v[m % 4] = next_a[i].v[j];
    }
    SIMT_UNROLL for (int i = 0; i < kLoadsB; ++i) {
      const int word = thread + i * kBlock;
      if (word < kWordsB) tile_b[buffer][word / (BN / 4)][word % (BN / 4)] = next_b[i];
    }
  };

  // The thread's voxels: kGroup from my_row, kGroup from my_row + BM / kGroups, ...
  const int my_column = thread % (BN / 4), my_row = thread / (BN / 4) * kGroup;
  float sum[TM][4] = {};
  if (begin < end) {
    fetch(begin);
    deposit(0);
  }
  __syncthreads();
  for (int step = begin; step < end; ++step) {
    const int buffer = (step - begin) % 2;
    if (step + 1 < end) fetch(step + 1);
    SIMT_UNROLL for (int k = 0; k < kStep; ++k) {
      const Pack<4> b = tile_b[buffer][k][my_column];
      SIMT_UNROLL for (int group = 0; group < kGroups; ++group) {
        const int row = my_row + group * (BM / kGroups);
        const Pack<kGroup> a = load<kGroup>(&tile_a[buffer][k][row / 4].v[row % 4]);
        SIMT_UNROLL for (int i = 0; i < kGroup; ++i) SIMT_UNROLL for (int j = 0; j < 4; ++j) sum[group * kGroup + i][j] += a.v[i] * b.v[j];
      }
    }
    if (step + 1 < end) deposit(1 - buffer);
    __syncthreads();
  }

  SIMT_UNROLL for (int i = 0; i < TM; ++i) {
    const std::int64_t voxel = rows[my_row + i / kGroup * (BM / kGroups) + i % kGroup].out;
    if (voxel < 0) continue;
    const int column = first_column + my_column * 4;
    const Pack<4> four{{sum[i][0], sum[i][1], sum[i][2], sum[i][3]}};
    if (gridDim.y > 1)
      store<4>(partial + blockIdx.y * partial_stride + voxel * padded + column, four);
    else
      write_four(sink, voxel, column, four);
  }
}

// Adds the splits in their order and finishes as the product itself would have.
template <int kBlock>
__global__ __launch_bounds__(kBlock) void conv_splits_kernel(Sink sink, const float* __restrict__ partial, std::int64_t partial_stride,
                                                             int splits, int padded) {
  const std::int64_t word = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x, voxel = word / (padded / 4);
  if (word * 4 >= partial_stride) return;
  Pack<4> sum = load<4>(partial + word * 4);
  for (int s = 1; s < splits; ++s) {
    const Pack<4> more = load<4>(partial + s * partial_stride + word * 4);
    SIMT_UNROLL for (int j = 0; j < 4; ++j) sum.v[j] += more.v[j];
  }
  write_four(sink, voxel, static_cast<int>(word % (padded / 4)) * 4, sum);
}

}  // namespace VG_NS
}  // namespace vg

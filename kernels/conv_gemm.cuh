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
  __host__ __device__ int columns() const { return first.channels + second.channels; }
};

template <int V>
__device__ inline void write_columns(const Sink& s, std::int64_t voxel, int column, const Pack<V>& v) {
  if (column < s.first.channels)
    store<V>(s.first.data + voxel * s.first.channels + column, v, s.first.beta);
  else if (column < s.columns())
    store<V>(s.second.data + voxel * s.second.channels + column - s.first.channels, v, s.second.beta);
}

// A call, not inlined: a thread finishes up to 32 sums, and 32 copies of every activation would be most of the kernel.
__attribute__((noinline)) __device__ inline Pack<4> activate_four(ActivationKind kind, float alpha, Pack<4> v) {
  SIMT_UNROLL for (int j = 0; j < 4; ++j) v.v[j] = activate(kind, alpha, v.v[j]);
  return v;
}

// Bias of columns [column, column + 4); zero beyond the last.
__device__ inline Pack<4> bias_of_four(const Sink& s, int column) {
  Pack<4> b{};
  if (!s.bias) return b;
  if (column + 4 <= s.columns() && reinterpret_cast<std::uintptr_t>(s.bias) % 16 == 0) return load<4>(s.bias + column);
  SIMT_UNROLL for (int j = 0; j < 4; ++j) if (column + j < s.columns()) b.v[j] = s.bias[column + j];
  return b;
}

// What sums become before they are stored.
__device__ inline Pack<4> finish_four(const Sink& s, Pack<4> v, const Pack<4>& bias) {
  if (s.bias) SIMT_UNROLL for (int j = 0; j < 4; ++j) v.v[j] += bias.v[j];
  return s.activation.kind == ActivationKind::identity ? v : activate_four(s.activation.kind, s.activation.alpha, v);
}

struct alignas(16) Position {
  int d, h, w, unused;
};
// One voxel of a tile, as the gather sees it.
struct TileRow {
  std::int64_t in;   // number of the voxel (n, q in_step) in the source, over all samples; meaningful only with a tap that stays inside
  std::int64_t out;  // number of the output voxel, over all samples; -1: beyond the last
  int d, h, w;       // q in_step; far outside for a row beyond the last, so that every tap misses
};
__device__ inline TileRow tile_row(const Gather& g, const GatherClass& c, std::int64_t m, std::int64_t lattice) {
  constexpr int kOutside = -(1 << 30);
  const bool narrow = m <= 0x7fffffff && lattice <= 0x7fffffff;
  const std::int64_t n = narrow ? static_cast<unsigned>(m) / static_cast<unsigned>(lattice) : m / lattice;
  if (n >= g.samples) return {0, -1, kOutside, kOutside, kOutside};
  const Voxel q = voxel_at(m - n * lattice, c.lattice());
  const int d = q.d * c.d.in_step, h = q.h * c.h.in_step, w = q.w * c.w.in_step;
  const Extent in{g.axis[0].in, g.axis[1].in, g.axis[2].in}, out{g.axis[0].out, g.axis[1].out, g.axis[2].out};
  return {n * in.voxels() + row_at(d, h, w, in),
          n * out.voxels() +
              row_at(q.d * c.d.out_step + c.d.out_first, q.h * c.h.out_step + c.h.out_first, q.w * c.w.out_step + c.w.out_first, out),
          d, h, w};
}

// x0, x1: sources. packed: weights [class, row, padded columns]. With splits > 1 (gridDim.y) a block sums its share of k only and writes
// partial[split, output voxel, padded columns]; conv_splits_kernel finishes.
// grid: (tiles of voxels x tiles of columns, splits, classes). V, how the sources are read: 4: four neighbouring channels are one load; 1: neighbouring
// lanes read neighbouring channels; 0: neighbouring voxels of an image with so few channels that these are what lies side by side.
template <int BM, int BN, int TM, int V, int kBlock = BM / TM*(BN / 4)>
__global__ __launch_bounds__(kBlock, kBlock == 256 ? 2 : 384 / kBlock) void conv_gemm_kernel(
    Gather g, const float* __restrict__ x0, const float* __restrict__ x1, const Tap* __restrict__ taps, const float* __restrict__ packed,
    int padded, Sink sink, float* __restrict__ partial, std::int64_t partial_stride) {
  constexpr int kLoadsA = BM * (kStep / 4) / kBlock, kWordsB = kStep * BN / 4, kLoadsB = (kWordsB - 1) / kBlock + 1;
  constexpr int kNeighbours = V == 4 ? 4 : 1;  // channels of one load
  constexpr int kTaps = 4 / kNeighbours, kGroup = TM < 4 ? TM : 4, kGroups = TM / kGroup;
  constexpr int kVoxels = V == 0 ? 1 : kLoadsA, kApart = V == 0 ? BM : kBlock / 4;  // of a thread's gather
  static_assert(BM % (kBlock / 4) == 0 && kBlock % BM == 0 && TM % kGroup == 0);
  // Rows of A are 8 floats longer than BM, and every four of them 8 more: row k begins 8 (k / 4 + k) floats further on, modulo the 32 banks. So the lanes
  // of a warp, which write 8 voxels each of four rows k = i, i + 4, ... (V = 4) or i, i + 1, ... (V = 1), meet in no bank.
  constexpr int kPitchA = BM / 4 + 2, kRowsB = BN / 4;
  SIMT_SHARED(Pack<4>, tile_a, [2][kStep / 4][4 * kPitchA + 2]);
  SIMT_SHARED(Pack<4>, tile_b, [2][kStep][kRowsB]);
  // Of each voxel: number in the source, number in the destination (16 numbers and a gap, for 8 rows apart by 4 to be read at once), coordinates.
  SIMT_SHARED(std::int64_t, row_in, [BM]);
  SIMT_SHARED(std::int64_t, row_out, [BM + BM / 16]);
  SIMT_SHARED(Position, row_at, [BM]);

  const GatherClass c = gather_class(g, static_cast<int>(blockIdx.z));
  const std::int64_t lattice = c.lattice().voxels();
  const int column_tiles = padded / BN, thread = static_cast<int>(threadIdx.x);
  const std::int64_t first_m = static_cast<std::int64_t>(blockIdx.x / column_tiles) * BM;
  const int first_column = static_cast<int>(blockIdx.x % column_tiles) * BN;
  if (first_m >= lattice * g.samples) return;  // the grid is that of the largest class
  taps += blockIdx.z * (g.class_rows / kNeighbours);
  packed += blockIdx.z * g.class_rows * padded + first_column;
  const int depth = c.taps() * g.channels(), steps = (depth + kStep - 1) / kStep;
  const int share = (steps + static_cast<int>(gridDim.y) - 1) / static_cast<int>(gridDim.y), begin = static_cast<int>(blockIdx.y) * share;
  const int end = begin + share < steps ? begin + share : steps;

  for (int r = thread; r < BM; r += kBlock) {
    const TileRow row = tile_row(g, c, first_m + r, lattice);
    row_in[r] = row.in;
    row_out[r + r / 16] = row.out;
    const Position at{row.d, row.h, row.w, 0};
    row_at[r] = at;
  }
  __syncthreads();

  // Thread t gathers voxels t / 4, t / 4 + kBlock / 4, ... With i = t mod 4: channels k = 4 i .. 4 i + 3 of each (V = 4), so that four lanes share a 64-byte
  // piece of a voxel, or k = i, i + 4, i + 8, i + 12 (V = 1), neighbouring lanes neighbouring channels. V = 0: voxel t mod BM alone, and of it the channels
  // k = t / BM, t / BM + kBlock / BM, ..., which are those of the whole warp.
  const int my_k = V == 0 ? thread / BM : thread % 4, my_m = V == 0 ? thread % BM : thread / 4;
  std::int64_t my_in[kVoxels];
  Position my_at[kVoxels];
  SIMT_UNROLL for (int i = 0; i < kVoxels; ++i) {
    my_in[i] = row_in[my_m + i * kApart];
    my_at[i] = row_at[my_m + i * kApart];
  }
  Pack<4> next_a[kLoadsA], next_b[kLoadsB];

  const auto tap_at = [&](int entry) {
    Tap t{0, kNoTap, 0, 0};
    if (entry * kNeighbours < depth) t = taps[entry];
    return t;
  };
  const auto gather = [&](const Tap& t, int i) {
    const bool inside = static_cast<unsigned>(my_at[i].d + t.d) < static_cast<unsigned>(g.axis[0].in) &&
                        static_cast<unsigned>(my_at[i].h + t.h) < static_cast<unsigned>(g.axis[1].in) &&
                        static_cast<unsigned>(my_at[i].w + t.w) < static_cast<unsigned>(g.axis[2].in);
    Pack<kNeighbours> value{};
    const bool second = V != 0 && t.source();
    if (inside) value = load<kNeighbours>((second ? x1 : x0) + my_in[i] * (second ? g.channels1 : g.channels0) + t.offset());
    return value;
  };
  const auto fetch = [&](int step) {
    if constexpr (V == 0) {
      SIMT_UNROLL for (int e = 0; e < 4 * kLoadsA; ++e) next_a[e / 4].v[e % 4] =
          gather(tap_at(step * kStep + my_k + e * (kBlock / BM)), 0).v[0];
    } else {
      SIMT_UNROLL for (int e = 0; e < kTaps; ++e) {
        const Tap t = tap_at(step * (kStep / kNeighbours) + my_k + 4 * e);
        SIMT_UNROLL for (int i = 0; i < kLoadsA; ++i) {
          const Pack<kNeighbours> value = gather(t, i);
          SIMT_UNROLL for (int j = 0; j < kNeighbours; ++j) next_a[i].v[e * kNeighbours + j] = value.v[j];
        }
      }
    }
    SIMT_UNROLL for (int i = 0; i < kLoadsB; ++i) {
      const int word = thread + i * kBlock, row = step * kStep + word / kRowsB;
      next_b[i] = Pack<4>{};
      if (word < kWordsB && row < depth) next_b[i] = load<4>(packed + static_cast<std::int64_t>(row) * padded + word % kRowsB * 4);
    }
  };
  const auto deposit = [&](int buffer) {
    SIMT_UNROLL for (int i = 0; i < kLoadsA; ++i) {
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        const int m = V == 0 ? my_m : my_m + i * kApart,
                  first_k = (4 * i + j) * (kBlock / BM);  // V = 0: k = first_k + my_k, in one group of four
        tile_a[buffer][V == 4   ? my_k
                       : V == 1 ? j
                                : first_k / 4][(V == 4   ? j
                                                : V == 1 ? my_k
                                                         : first_k % 4 + my_k) *
                                                   kPitchA +
                                               m / 4]
            .v[m % 4] = next_a[i].v[j];
      }
    }
    SIMT_UNROLL for (int i = 0; i < kLoadsB; ++i) {
      const int word = thread + i * kBlock;
      if (word < kWordsB) tile_b[buffer][word / kRowsB][word % kRowsB] = next_b[i];
    }
  };

  // The thread's voxels: kGroup from my_row, kGroup from my_row + BM / kGroups, ...
  const TilePart part = tile_part<kRowsB>(thread);
  const int my_row = part.row * kGroup, column = first_column + part.column * 4;
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
      const Pack<4> b = tile_b[buffer][k][part.column];
      SIMT_UNROLL for (int group = 0; group < kGroups; ++group) {
        const int row = my_row + group * (BM / kGroups);
        const Pack<kGroup> a = load<kGroup>(&tile_a[buffer][k / 4][k % 4 * kPitchA + row / 4].v[row % 4]);
        SIMT_UNROLL for (int i = 0; i < kGroup; ++i) SIMT_UNROLL for (int j = 0; j < 4; ++j) sum[group * kGroup + i][j] += a.v[i] * b.v[j];
      }
    }
    if (step + 1 < end) deposit(1 - buffer);
    __syncthreads();
  }

  const auto out = [&](int row) { return row_out[row + row / 16]; };
  const Pack<4> bias = gridDim.y > 1 ? Pack<4>{} : bias_of_four(sink, column);
  if (gridDim.y > 1 || sink.fours) {
    SIMT_UNROLL for (int i = 0; i < TM; ++i) {
      const std::int64_t voxel = out(my_row + i / kGroup * (BM / kGroups) + i % kGroup);
      if (voxel < 0) continue;
      const Pack<4> four{{sum[i][0], sum[i][1], sum[i][2], sum[i][3]}};
      if (gridDim.y > 1)
        store<4>(partial + blockIdx.y * partial_stride + voxel * padded + column, four);
      else
        write_columns<4>(sink, voxel, column, finish_four(sink, four, bias));
    }
    return;
  }
  // Rows that begin anywhere go through the memory of A, closely packed, so that neighbouring lanes store neighbouring numbers. A lane writes its four columns
  // in an order of its own, begun at (its row) mod 4: the four rows of a warp are then in different banks.
  constexpr int kRows = BM / kGroups;
  static_assert(kRows * BN <= 8 * (kStep / 4) * (4 * kPitchA + 2));
  const int width = sink.columns() - first_column < BN ? sink.columns() - first_column : BN, turn = part.row % 4;
  float* staged = tile_a[0][0][0].v;
  SIMT_UNROLL for (int group = 0; group < kGroups; ++group) {
    if (group > 0) __syncthreads();
    SIMT_UNROLL for (int i = 0; i < kGroup; ++i) {
      const float(&own)[4] = sum[group * kGroup + i];
      const Pack<4> v = finish_four(sink, Pack<4>{{own[0], own[1], own[2], own[3]}}, bias);
      SIMT_UNROLL for (int j = 0; j < 4; ++j) {
        const int which = (j + turn) % 4, o = part.column * 4 + which;
        const float low = which % 2 ? v.v[1] : v.v[0], high = which % 2 ? v.v[3] : v.v[2];
        if (o < width) staged[(my_row + i) * width + o] = which < 2 ? low : high;
      }
    }
    __syncthreads();
    int row = thread / width, o = thread % width;
    const int rows_on = kBlock / width, columns_on = kBlock % width;
    for (int number = thread; number < kRows * width; number += kBlock) {
      const std::int64_t voxel = out(row + group * kRows);
      if (voxel >= 0) write_columns<1>(sink, voxel, first_column + o, Pack<1>{{staged[number]}});
      o += columns_on;
      row += rows_on + (o >= width ? 1 : 0);
      o -= o >= width ? width : 0;
    }
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
  const int column = static_cast<int>(word % (padded / 4)) * 4;
  sum = finish_four(sink, sum, bias_of_four(sink, column));
  if (sink.fours)
    write_columns<4>(sink, voxel, column, sum);
  else
    SIMT_UNROLL for (int j = 0; j < 4; ++j) write_columns<1>(sink, voxel, column + j, Pack<1>{{sum.v[j]}});
}

}  // namespace VG_NS
}  // namespace vg

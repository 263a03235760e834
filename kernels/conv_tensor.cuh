// Convolution of 2-byte floats on tensor cores: the matrix product of conv_gather.cuh with mma.m16n8k16, sums in float.
//
//   block: 128 or 256 output voxels (a box) x BN output channels; warp: 16 MT of the voxels x all BN, which are MT x BN / 8 products of 16 x 8
//   for each chunk of KC input channels
//     the halo of the box -> shared memory, once; the next chunk's is on its way meanwhile (cp.async)
//     an entry: 16 channels of ROW taps, either 3 neighbours along W or a single one. For each stage of S entries, whose weights come through two buffers:
//       for each tap of an entry: ldmatrix fetches fragments of 16 MT shifted voxels and BN channels, and MT BN / 8 mma follow
//
// The shift by a tap is one addition to the addresses of MT fragments; within a row of taps it is part of the instruction. Weights lie in memory in the order
// in which they are used (conv_half.cuh packs them), with zeros where the last stage of a chunk has no entry. README.md, "On tensor cores", has pictures.
#pragma once
#include "kernels/activation.cuh"
#include "kernels/conv_halo.cuh"
#include "kernels/conv_sources.cuh"
#include "kernels/moments.cuh"

namespace vg {
namespace VG_NS {

inline constexpr int kRing = 2;  // buffers for weights

// work(0), ..., work(n - 1), with numbers that are known to the compiler.
template <int n, class Work>
__device__ inline void each_of(const Work& work) {
  [&]<int... i>(std::integer_sequence<int, i...>) { (work(std::integral_constant<int, i>{}), ...); }(std::make_integer_sequence<int, n>{});
}

template <int BN, int ROW>
struct TensorTile {
  static constexpr int mt = BN == 64 ? 2 : 4;  // 64, 64, 32 sums a lane for BN = 64, 32, 16
  static constexpr int warps = ROW == 3 && BN == 64 ? 8 : 4, voxels = 16 * mt * warps;
  static constexpr int entries = ROW == 1 ? 4 : BN == 16 ? 3 : 2;  // S
  static constexpr int shifts = entries == 3 ? 4 : entries;        // words of a stage in the table of shifts
  static constexpr int slab = entries * ROW * 2 * BN;              // weights of a stage, in pieces of 16 bytes
  static_assert(ROW == 3 || BN == 64);  // with fewer columns, shifting the fragments would be too large a part of the work
};
// The same for the host.
struct TensorStage {
  int mt, warps, voxels, entries, shifts, slab;
};
template <int BN, int ROW>
constexpr TensorStage stage_of() {
  using T = TensorTile<BN, ROW>;
  return {T::mt, T::warps, T::voxels, T::entries, T::shifts, T::slab};
}
inline TensorStage tensor_stage(int bn, int row) {
  return row == 1 ? stage_of<64, 1>() : bn == 16 ? stage_of<16, 3>() : bn == 32 ? stage_of<32, 3>() : stage_of<64, 3>();
}

template <class H>
struct HalfSink {
  H* data[2];
  int channels[2];  // columns [0, channels[0]) belong to the first tensor, the rest to the second
  float beta[2];
  const float* bias;  // (columns) or null
  Activation activation;
  bool eights;  // rows of both start on 16 bytes and hold multiples of 8
  __host__ __device__ int columns() const { return channels[0] + channels[1]; }
};

// A call, not inlined, as in conv_gemm.cuh.
__attribute__((noinline)) __device__ inline Pack<4> activate_sums(ActivationKind kind, float alpha, Pack<4> v) {
  SIMT_UNROLL for (int j = 0; j < 4; ++j) v.v[j] = activate(kind, alpha, v.v[j]);
  return v;
}

// v: columns [column, column + 8) of output voxel `voxel`, bias included.
template <class H>
__device__ inline void write_eight(const HalfSink<H>& s, std::int64_t voxel, int column, Pack<4> low, Pack<4> high) {
  if (s.activation.kind != ActivationKind::identity) {
    low = activate_sums(s.activation.kind, s.activation.alpha, low);
    high = activate_sums(s.activation.kind, s.activation.alpha, high);
  }
  const Pack<8> v{{low.v[0], low.v[1], low.v[2], low.v[3], high.v[0], high.v[1], high.v[2], high.v[3]}};
  if (s.eights) {
    const bool second = column >= s.channels[0];
    if (column >= s.columns()) return;
    H* to = second ? s.data[1] + voxel * s.channels[1] + column - s.channels[0] : s.data[0] + voxel * s.channels[0] + column;
    store<8>(to, v, second ? s.beta[1] : s.beta[0]);
    return;
  }
  SIMT_UNROLL for (int j = 0; j < 8; ++j) {
    if (column + j >= s.columns()) break;
    const bool second = column + j >= s.channels[0];
    H* to = second ? s.data[1] + voxel * s.channels[1] + column + j - s.channels[0] : s.data[0] + voxel * s.channels[0] + column + j;
    store<1>(to, Pack<1>{{v.v[j]}}, second ? s.beta[1] : s.beta[0]);
  }
}
template <class H>
__device__ inline float bias_of(const HalfSink<H>& s, int column) {
  return s.bias && column < s.columns() ? s.bias[column] : 0.0f;
}
__device__ inline Pack<4> sum_of(Pack<4> a, const Pack<4>& b) {
  SIMT_UNROLL for (int j = 0; j < 4; ++j) a.v[j] += b.v[j];
  return a;
}

// A warp writes its `rows` rows of BN sums where tensors' rows hold no multiple of 8: neighbouring lanes write neighbouring channels, in windows that begin
// on 64 bytes. Voxels along W whose rows follow one another in memory are one long row. `own`: the warp's sums, groups of columns exchanged by row;
// `first`: the warp's first voxel in the box.
template <int BN, class H>
__device__ inline void write_rows(const HalfSink<H>& s, const HaloClass& c, const HaloTile& tile, const Gather& g, TileShape shape,
                                  std::int64_t first_voxel, int first_column, const float* own, const float* bias, int first, int rows) {
  constexpr int kGroups = BN / 8, kRowsPerLine = BN == 16 ? 2 : 1;
  const int lane = static_cast<int>(threadIdx.x) % 32, across = 1 << shape.log_w;
  for (int t = 0; t < 2; ++t) {
    const int begin = t == 0 ? 0 : s.channels[0], end = begin + s.channels[t];  // columns of this tensor, and of these the block's
    const int low = begin > first_column ? begin : first_column, high = end < first_column + BN ? end : first_column + BN, width = high - low;
    if (width <= 0) continue;
    const bool joined = width == s.channels[t] && c.w.apart * c.w.out_step == 1;
    const int run = !joined ? 1 : across < rows ? across : rows;
    const float inverse = 1.0f / static_cast<float>(width);
    for (int base = 0; base < rows; base += 32 * run) {
      // A lane finds the place of one run, all write it.
      const int own_row = base + lane * run, v = first + own_row, tw = v & (across - 1);
      long long at = 0;
      int own_count = 0;
      if (own_row < rows) {
        const std::int64_t voxel = tile.voxel(c, g, v >> (shape.log_w + shape.log_h), v >> shape.log_w & ((1 << shape.log_h) - 1), tw);
        const int left = c.w.lattice - (tile.qw + c.w.apart * tw);
        if (voxel >= 0) at = (first_voxel + voxel) * s.channels[t] + (low - begin), own_count = (left < run ? left : run) * width;
      }
      for (int k = 0; k < 32 && base + k * run < rows; ++k) {
        H* to = s.data[t] + __shfl_sync(0xffffffffu, at, k);
        const int count = __shfl_sync(0xffffffffu, own_count, k), r0 = base + k * run;
        const auto put = [&](int i) __attribute__((always_inline)) {
          if (i < 0 || i >= count) return;
          const int down = small_quotient(i, inverse), column = low - first_column + i - down * width, r = r0 + down;
          float x = own[r * BN + (column / 8 ^ r / kRowsPerLine % kGroups) * 8 + column % 8] + bias[column];
          if (s.activation.kind != ActivationKind::identity) x = activate_sums(s.activation.kind, s.activation.alpha, Pack<4>{{x}}).v[0];
          store<1>(to + i, Pack<1>{{x}}, s.beta[t]);
        };
        int i = lane - static_cast<int>(reinterpret_cast<std::uintptr_t>(to) / sizeof(H) % 32);
        put(i);
        for (i += 32; i < count; i += 32) put(i);
      }
    }
  }
}

// x as it is after it was stored as H.
template <class H>
__device__ inline float stored(float x) {
  return simt::unpack2<H>(simt::pack2<H>(x, 0.0f)).x;
}

// packed: [class, tile of columns, chunk, stage][entry of the stage, tap of the entry, 8 of its 16 channels, BN columns, 1 of the 8]. With gridDim.y > 1 a
// block sums its share of the chunks and writes partial[split, lower or upper 4 of 8 columns, output voxel, padded columns / 8, 4]. grid: (samples x boxes x tiles of columns, splits, classes).
// planes: KC / 8, namely 2, 4 or 8; buffers: for halos; 2, or 1 for a single chunk or where two do not fit.
// moments: of the output as it is stored, a part a box; wanted (values not null) of one class, unsplit and without activation.
template <class H, int BN, int ROW>
__global__ __launch_bounds__(32 * TensorTile<BN, ROW>::warps, TensorTile<BN, ROW>::warps == 8 ? 2 : 3) void conv_tensor_kernel(
    Gather g, TileShape shape, HalfSources<H> source, const H* __restrict__ packed, int padded, int class_slabs, int planes, int buffers,
    HalfSink<H> sink, float* __restrict__ partial, std::int64_t partial_stride, PartialMoments moments) {
  using Tile = TensorTile<BN, ROW>;
  constexpr int kWarps = Tile::warps, kBlock = 32 * kWarps, MT = Tile::mt, S = Tile::entries, kSlab = Tile::slab;
  SIMT_DYN_SHARED(uint4, memory);
  // What is not needed in the innermost loop waits in shared memory: that loop has use for every register.
  struct Later {
    HaloClass c;
    HaloTile tile;
    std::int64_t first_input, first_output;  // voxels of the sample
    int plane, positions, first_chunk, end_chunk, column_tile;
    int shifts, where;  // words of the dynamic memory; the shifts end where the other begins
  };
  SIMT_SHARED(Later, later, [1]);
  struct alignas(4 * Tile::shifts) Shifts {
    unsigned v[Tile::shifts];
  };

  const HaloClass c = halo_class(g, static_cast<int>(blockIdx.z), shape);
  const int column_tiles = padded / BN, thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int column_tile = static_cast<int>(blockIdx.x % column_tiles);
  const int box = static_cast<int>(blockIdx.x / column_tiles), n = box / c.tiles();
  if (n >= g.samples) return;  // the grid is that of the class with most boxes
  const HaloTile tile = halo_tile(c, shape, box - n * c.tiles());

  const int positions = c.positions(), plane = plane_length(positions, planes), chunks = source.chunks[0] + source.chunks[1];
  const int slices = planes / 2, entries = c.taps() / ROW * slices, stages = (entries + S - 1) / S;  // a slice: 16 channels
  const int share = (chunks + static_cast<int>(gridDim.y) - 1) / static_cast<int>(gridDim.y),
            first_chunk = static_cast<int>(blockIdx.y) * share;
  const int end_chunk = stages == 0 ? first_chunk : first_chunk + share < chunks ? first_chunk + share : chunks;
  const int halo_pieces = plane * planes;
  const simt::SharedAddress halo = simt::shared_address(memory), ring = halo + buffers * halo_pieces * 16;
  const int first_shift = (buffers * halo_pieces + kRing * kSlab) * 4, first_where = first_shift + stages * Tile::shifts;
  unsigned* const words = reinterpret_cast<unsigned*>(memory);

  if (thread == 0)
    later[0] = {c,
                tile,
                n * (static_cast<std::int64_t>(g.axis[0].in) * g.axis[1].in * g.axis[2].in),
                n * (static_cast<std::int64_t>(g.axis[0].out) * g.axis[1].out * g.axis[2].out),
                plane,
                positions,
                first_chunk,
                end_chunk,
                column_tile,
                first_shift,
                first_where};
  find_halo(words + first_where, c, tile, g, thread, kBlock);
  for (int word = thread; word < stages * Tile::shifts; word += kBlock) {
    const int s = word % Tile::shifts, e = word / Tile::shifts * S + s, row = e / slices;
    const int jw = ROW == 1 ? row % c.w.taps : 0, dh = ROW == 1 ? row / c.w.taps : row;
    const bool real = s < S && e < entries;
    words[first_shift + word] = real ? static_cast<unsigned>(c.tap(dh / c.h.taps, dh % c.h.taps, jw) + e % slices * 2 * plane) * 16 : 0;
  }
  __syncthreads();

  const auto fetch_halo = [&](int chunk, simt::SharedAddress to) {
    const int log_planes = planes == 2 ? 1 : planes == 4 ? 2 : 3, my_plane = static_cast<int>(threadIdx.x) & (planes - 1);
    const int second = chunk >= source.chunks[0] ? 1 : 0, pitch = second ? source.pitch[1] : source.pitch[0];
    const int channel = ((chunk - (second ? source.chunks[0] : 0)) * planes + my_plane) * 8, end = later[0].positions;
    const unsigned* where = words + later[0].where;
    const H* from = (second ? source.data[1] : source.data[0]) + later[0].first_input * pitch + channel;
    int p = static_cast<int>(threadIdx.x) >> log_planes;
    to = to + (my_plane * later[0].plane + p) * 16;
    for (; p < end; p += kBlock >> log_planes) {
      const unsigned voxel = where[p];
      const bool valid = voxel != kOutside && channel < pitch;
      simt::copy_async16(to, valid ? from + static_cast<std::uint64_t>(voxel) * static_cast<unsigned>(pitch) : from, valid);
      to = to + (kBlock >> log_planes) * 16;
    }
  };
  // A warp copies kLoads x 512 bytes of a slab, lane by lane: distances that an instruction can hold.
  constexpr int kLoads = (kSlab / 32 + kWarps - 1) / kWarps;
  static_assert(kSlab % (32 * kLoads) == 0);
  const int my_piece = warp * 32 * kLoads + lane;
  const H* ahead = packed +
                   ((static_cast<std::int64_t>(blockIdx.z) * column_tiles + column_tile) * class_slabs + first_chunk * stages) * (kSlab * 8) +
                   my_piece * 8;
  const simt::SharedAddress my_ring = simt::kept(ring + (my_piece + kSlab) * 16);
  const auto fetch_weights = [&](int from_end) {
    if (kSlab == kBlock * kLoads || my_piece < kSlab)
      each_of<kLoads>([&]<int i>(std::integral_constant<int, i>) { simt::copy_async16_at<i * 512>(my_ring - from_end, ahead); });
  };

  // Lane l names row l % 16 of a fragment's 16 voxels, and the first (l < 16) or second 8 of its 16 channels.
  simt::SharedAddress my_a[MT];
  SIMT_UNROLL for (int i = 0; i < MT; ++i) {
    const int v = warp * 16 * MT + i * 16 + lane % 16, tw = v & ((1 << shape.log_w) - 1),
              th = v >> shape.log_w & ((1 << shape.log_h) - 1), td = v >> (shape.log_w + shape.log_h);
    my_a[i] = halo + (lane / 16 * plane + c.output(td, th, tw)) * 16;
  }
  // Of weights, lanes 0-7 and 8-15 name columns 0-7 of channels 0-7 and 8-15, lanes 16-31 columns 8-15.
  const simt::SharedAddress my_b = simt::kept(ring + (lane / 8 % 2 * BN + lane / 16 * 8 + lane % 8) * 16);

  float sum[MT][BN / 8][4] = {};
  if (first_chunk < end_chunk) {
    fetch_weights(kSlab * 16);
    ahead += kSlab * 8;
  }
  // Halos are fetched one chunk ahead, or with one buffer when all have read the last.
  int now = 0, other = (buffers - 1) * halo_pieces * 16;  // where this stage's weights begin; from this chunk's halo to the other one, in bytes
  for (int chunk = first_chunk - (buffers - 1); chunk < later[0].end_chunk; ++chunk) {
    const int next = chunk + (buffers - 1);
    const bool real = chunk >= later[0].first_chunk;
    if (next < later[0].end_chunk) fetch_halo(next, halo + (real && other > 0 ? other : 0));
    if (buffers == 1 || !real) {
      simt::copy_async_commit();
      simt::copy_async_wait<0>();
      __syncthreads();
      if (!real) continue;
    }
    const bool more = chunk + 1 < later[0].end_chunk;
    const Shifts *by = reinterpret_cast<const Shifts*>(words + later[0].shifts),
                 *const end = reinterpret_cast<const Shifts*>(words + later[0].where);
    while (by != end) {
      const Shifts stage = *by++;
      if (by != end || more) fetch_weights(now);
      simt::copy_async_commit();
      SIMT_UNROLL for (int s = 0; s < S; ++s) {
        SIMT_UNROLL for (int j = 0; j < ROW; ++j) {
          unsigned a[MT][4], b[BN / 16][4];
          SIMT_UNROLL for (int i = 0; i < MT; ++i) simt::ldmatrix_x4(a[i], my_a[i] + stage.v[s] + j * 16);
          SIMT_UNROLL for (int p = 0; p < BN / 16; ++p) simt::ldmatrix_x4(b[p], my_b + now + ((s * ROW + j) * 2 * BN + p * 16) * 16);
          SIMT_UNROLL for (int i = 0; i < MT; ++i) SIMT_UNROLL for (int p = 0; p < BN / 16; ++p) {
            simt::mma16816<H>(sum[i][2 * p], a[i], {b[p][0], b[p][1]});
            simt::mma16816<H>(sum[i][2 * p + 1], a[i], {b[p][2], b[p][3]});
          }
        }
      }
      ahead += kSlab * 8;
      now = kSlab * 16 - now;
      simt::copy_async_wait<0>();
      __syncthreads();
    }
    SIMT_UNROLL for (int i = 0; i < MT; ++i) my_a[i] = my_a[i] + other;
    other = -other;
  }

  // Sums go through shared memory, so that a thread gets 8 neighbouring channels: 16 bytes. Rows of BN floats, whose groups of 8 are exchanged such that
  // neither the writes (4 rows of 8 columns at a time) nor the reads (half a group each, by 8 lanes) meet in a bank.
  constexpr int kGroups = BN / 8, kRowsPerLine = BN == 16 ? 2 : 1;
  float* own = reinterpret_cast<float*>(memory) + warp * 16 * MT * BN;
  SIMT_UNROLL for (int i = 0; i < MT; ++i) {
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      const int r = i * 16 + half * 8 + lane / 4, exchange = r / kRowsPerLine % kGroups;
      SIMT_UNROLL for (int group = 0; group < kGroups; ++group)
          simt::store_two(own + r * BN + (group ^ exchange) * 8 + lane % 4 * 2, sum[i][group][2 * half], sum[i][group][2 * half + 1]);
    }
  }
  float* bias = reinterpret_cast<float*>(memory) + Tile::voxels * BN;
  if (thread < BN) bias[thread] = gridDim.y > 1 ? 0.0f : bias_of(sink, later[0].column_tile * BN + thread);
  __syncthreads();
  const int group = lane % kGroups, column = later[0].column_tile * BN + group * 8;
  const std::int64_t first_voxel = later[0].first_output;
  const bool by_row = gridDim.y == 1 && !sink.eights;
  if (by_row) {
    write_rows<BN>(sink, later[0].c, later[0].tile, g, shape, first_voxel, later[0].column_tile * BN, own, bias, warp * 16 * MT, 16 * MT);
    if (!moments.values) return;
  }
  RowMoments<8> seen{};
  for (int r = lane / kGroups; r < 16 * MT; r += 32 / kGroups) {
    const int place = group ^ r / kRowsPerLine % kGroups;
    const float* from = own + r * BN + place * 8;
    const bool odd = (BN == 64 ? place / 4 : r / kRowsPerLine) % 2 != 0;
    const int first = odd ? 4 : 0, second = 4 - first;
    const Pack<4> one = sum_of(load<4>(from + first), load<4>(bias + group * 8 + first)),
                  other_half = sum_of(load<4>(from + second), load<4>(bias + group * 8 + second));
    const Pack<4> low = odd ? other_half : one, high = odd ? one : other_half;
    const int v = warp * 16 * MT + r;
    const std::int64_t voxel = later[0].tile.voxel(later[0].c, g, v >> (shape.log_w + shape.log_h),
                                                   v >> shape.log_w & ((1 << shape.log_h) - 1), v & ((1 << shape.log_w) - 1));
    if (voxel < 0) continue;
    if (gridDim.y > 1) {
      float* to = partial + blockIdx.y * partial_stride + ((first_voxel + voxel) * padded + column) / 2;
      store<4>(to, low);
      store<4>(to + partial_stride / 2, high);
    } else {
      if (!by_row) write_eight(sink, first_voxel + voxel, column, low, high);
      if (moments.values) {
        Pack<8> row;
        SIMT_UNROLL for (int j = 0; j < 4; ++j) row.v[j] = stored<H>(low.v[j]), row.v[4 + j] = stored<H>(high.v[j]);
        seen.add(row);
      }
    }
  }
  if (!moments.values) return;

  // Lanes of one group merge, then the warps.
  MomentsOf<8> all = seen.moments();
  SIMT_UNROLL for (int lanes = 16; lanes >= kGroups; lanes /= 2) {
    MomentsOf<8> other;
    other.count = __shfl_down_sync(0xffffffffu, all.count, lanes);
    SIMT_UNROLL for (int j = 0; j < 8; ++j) {
      other.mean[j] = __shfl_down_sync(0xffffffffu, all.mean[j], lanes);
      other.m2[j] = __shfl_down_sync(0xffffffffu, all.m2[j], lanes);
    }
    all.merge(other);
  }
  float *const means = bias + BN, *const m2s = means + kWarps * BN, *const counts = m2s + kWarps * BN;
  if (lane < kGroups) {
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      store_sums<4>(means + warp * BN + lane * 8 + half * 4, all.mean + half * 4);
      store_sums<4>(m2s + warp * BN + lane * 8 + half * 4, all.m2 + half * 4);
    }
    if (lane == 0) counts[warp] = all.count;
  }
  __syncthreads();
  const int columns = sink.columns(), own_column = later[0].column_tile * BN + thread;
  if (thread >= BN || own_column >= columns) return;
  Moments box_moments{counts[0], means[thread], m2s[thread]};
  SIMT_UNROLL for (int w = 1; w < kWarps; ++w) box_moments.merge({counts[w], means[w * BN + thread], m2s[w * BN + thread]});
  const std::int64_t part = blockIdx.x / static_cast<unsigned>(padded / BN);  // sample by sample: all boxes are of one class
  moments.values[part * 2 * columns + own_column] = box_moments.mean;
  moments.values[(part * 2 + 1) * columns + own_column] = box_moments.m2;
  if (own_column == 0) moments.counts[part] = box_moments.count;
}

// Adds the splits in their order and finishes as the product itself would have. A thread has 8 columns of a voxel.
template <class H>
__global__ __launch_bounds__(kThreads) void conv_tensor_splits_kernel(HalfSink<H> sink, const float* __restrict__ partial,
                                                                      std::int64_t partial_stride, int splits, int padded) {
  const std::int64_t eight = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, voxel = eight / (padded / 8);
  if (eight * 8 >= partial_stride) return;
  const int column = static_cast<int>(eight % (padded / 8)) * 8;
  Pack<4> low{}, high{};
  for (int s = 0; s < splits; ++s) {
    low = sum_of(low, load<4>(partial + s * partial_stride + eight * 4));
    high = sum_of(high, load<4>(partial + s * partial_stride + partial_stride / 2 + eight * 4));
  }
  SIMT_UNROLL for (int j = 0; j < 4; ++j) {
    low.v[j] += bias_of(sink, column + j);
    high.v[j] += bias_of(sink, column + 4 + j);
  }
  write_eight(sink, voxel, column, low, high);
}

}  // namespace VG_NS
}  // namespace vg

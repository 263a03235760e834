// Convolution of 2-byte floats on tensor cores: the matrix product of conv_gather.cuh with mma.m16n8k16, sums in float.
//
//   block: 64 MT output voxels (a box) x BN output channels; warp: 16 MT voxels x WN = 16 or 32 channels, which are MT x 2 or MT x 4 products of 16 x 8
//   for each chunk of KC input channels
//     the halo of the box -> shared memory, once; the next chunk's is on its way meanwhile (cp.async)
//     for each row of taps (ROW = 3 neighbours along W, or single taps): the row's weights come through two buffers, one barrier a row
//       for each 16 channels: ldmatrix fetches fragments of 16 MT shifted voxels and WN channels, and up to 16 mma follow
//
// MT is 4, or 2 where the halo of 256 voxels does not fit. The shift by a tap is one addition to the addresses of MT fragments; within a row it is part of the instruction. Weights lie in memory in the order in
// which they are used (conv_half.cu packs them). README.md, "On tensor cores", has pictures.
#pragma once
#include "kernels/activation.cuh"
#include "kernels/conv_halo.cuh"
#include "kernels/half.cuh"

namespace vg {
namespace VG_NS {

inline constexpr int kRing = 2;  // buffers for weights

template <int BN>
struct Warps {
  static constexpr int n = BN == 64 ? 2 : 1, m = 4, block = 32 * n * m;
  static constexpr int columns = BN / n;  // WN
};

template <class H>
struct HalfSources {
  const H* data[2];
  int pitch[2];   // channels in memory, a multiple of 8
  int chunks[2];  // of KC channels
};

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

// Bytes of dynamic shared memory: halos, ring, table of positions, table of taps; afterwards the same place holds the sums.
__host__ __device__ inline int tensor_shared_bytes(const HaloClass& c, int bn, int kc, int row, int mt, int buffers) {
  const int planes = kc / 8, halo = plane_length(c.positions(), planes) * planes * 16 * buffers;
  const int main = halo + kRing * row * planes * bn * 16 + (c.positions() + c.taps() + 1) * 4, sums = (64 * mt + 1) * bn * 4;
  return main > sums ? main : sums;
}

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

// packed: [class, tile of columns, chunk, row of taps][tap of the row, 8 channels, BN columns, 1 of the 8]. With gridDim.y > 1 a block sums its share of
// the chunks and writes partial[split, output voxel, padded columns]. grid: (samples x boxes x tiles of columns, splits, classes).
// buffers: for halos; 2, or 1 for a single chunk or where two do not fit.
template <class H, int BN, int KC, int ROW, int MT>
__global__ __launch_bounds__(Warps<BN>::block, BN == 64 ? 2 : 4) void conv_tensor_kernel(Gather g, TileShape shape, HalfSources<H> source,
                                                                                         const H* __restrict__ packed, int padded,
                                                                                         int class_slabs, int buffers, HalfSink<H> sink,
                                                                                         float* __restrict__ partial,
                                                                                         std::int64_t partial_stride) {
  constexpr int kBlock = Warps<BN>::block, WN = Warps<BN>::columns, kPlanes = KC / 8;
  constexpr int kSlab = ROW * kPlanes * BN, kSlabLoads = (kSlab + kBlock - 1) / kBlock;  // in pieces of 16 bytes
  SIMT_DYN_SHARED(uint4, memory);
  // What the end needs of the geometry waits in shared memory: the loop has use for every register.
  struct Later {
    HaloClass c;
    HaloTile tile;
  };
  SIMT_SHARED(Later, later, [1]);

  const HaloClass c = halo_class(g, static_cast<int>(blockIdx.z), shape);
  const int column_tiles = padded / BN, thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int warp_m = warp % Warps<BN>::m, warp_n = warp / Warps<BN>::m;
  const int column_tile = static_cast<int>(blockIdx.x % column_tiles);
  const int box = static_cast<int>(blockIdx.x / column_tiles), n = box / c.tiles();
  if (n >= g.samples) return;  // the grid is that of the class with most boxes
  const HaloTile tile = halo_tile(c, shape, box - n * c.tiles());

  const int positions = c.positions(), plane = plane_length(positions, kPlanes), chunks = source.chunks[0] + source.chunks[1];
  const int rows = ROW == 1 ? c.taps() : c.d.taps * c.h.taps;
  const int share = (chunks + static_cast<int>(gridDim.y) - 1) / static_cast<int>(gridDim.y),
            first_chunk = static_cast<int>(blockIdx.y) * share;
  const int end_chunk = first_chunk + share < chunks ? first_chunk + share : chunks;
  const int steps = first_chunk < end_chunk ? (end_chunk - first_chunk) * rows : 0;
  const unsigned halo_bytes = static_cast<unsigned>(plane * kPlanes * 16);
  const simt::SharedAddress halo = simt::shared_address(memory), ring = halo + buffers * halo_bytes;
  unsigned* where = reinterpret_cast<unsigned*>(memory + buffers * plane * kPlanes + kRing * kSlab);
  unsigned* offset = where + positions;

  if (thread == 0) later[0] = {c, tile};
  find_halo(where, c, tile, g, thread, kBlock);
  for (int r = thread; r < rows; r += kBlock) {
    const int jw = ROW == 1 ? r % c.w.taps : 0, dh = ROW == 1 ? r / c.w.taps : r;
    offset[r] = static_cast<unsigned>(c.tap(dh / c.h.taps, dh % c.h.taps, jw)) * 16;
  }
  __syncthreads();

  const std::int64_t in_voxels = static_cast<std::int64_t>(g.axis[0].in) * g.axis[1].in * g.axis[2].in;
  const auto fetch_halo = [&](int chunk, simt::SharedAddress to) {
    const int second = chunk >= source.chunks[0] ? 1 : 0, pitch = second ? source.pitch[1] : source.pitch[0];
    const int channel = (chunk - (second ? source.chunks[0] : 0)) * KC + thread % kPlanes * 8;
    const H* from = (second ? source.data[1] : source.data[0]) + n * in_voxels * pitch + channel;
    to = to + (thread % kPlanes * plane + thread / kPlanes) * 16;
    for (int p = thread / kPlanes; p < positions; p += kBlock / kPlanes) {
      const unsigned voxel = where[p];
      const bool valid = voxel != kOutside && channel < pitch;
      simt::copy_async16(to, valid ? from + static_cast<std::uint64_t>(voxel) * static_cast<unsigned>(pitch) : from, valid);
      to = to + kBlock / kPlanes * 16;
    }
  };
  const H* ahead = packed +
                   ((static_cast<std::int64_t>(blockIdx.z) * column_tiles + column_tile) * class_slabs + first_chunk * rows) * (kSlab * 8) +
                   thread * 8;
  const simt::SharedAddress my_ring = ring + thread * 16;
  const auto fetch_weights = [&](unsigned buffer) {
    SIMT_UNROLL for (int i = 0; i < kSlabLoads; ++i) if (kSlab % kBlock == 0 || thread + i * kBlock < kSlab)
        simt::copy_async16(my_ring + buffer + i * kBlock * 16, ahead + i * kBlock * 8, true);
    ahead += kSlab * 8;
  };

  // Lane l names row l % 16 of a fragment's 16 voxels, and the first (l < 16) or second 8 of its 16 channels.
  simt::SharedAddress my_a[MT];
  SIMT_UNROLL for (int i = 0; i < MT; ++i) {
    const int v = warp_m * 16 * MT + i * 16 + lane % 16, tw = v & ((1 << shape.log_w) - 1),
              th = v >> shape.log_w & ((1 << shape.log_h) - 1), td = v >> (shape.log_w + shape.log_h);
    my_a[i] = halo + (lane / 16 * plane + c.output(td, th, tw)) * 16;
  }
  // Of weights, lanes 0-7 and 8-15 name columns 0-7 of channels 0-7 and 8-15, lanes 16-31 columns 8-15.
  const simt::SharedAddress my_b = ring + (lane / 8 % 2 * BN + warp_n * WN + lane / 16 * 8 + lane % 8) * 16;

  float sum[MT][WN / 8][4] = {};
  if (steps > 0) {
    fetch_halo(first_chunk, halo);
    fetch_weights(0);
  }
  simt::copy_async_commit();
  unsigned now = 0, current = 0;  // which of the weights' buffers and of the halos this step reads, in bytes
  int left = steps;
  for (int chunk = first_chunk; left > 0; ++chunk) {
    if (buffers == 1 && chunk > first_chunk) {
      fetch_halo(chunk, halo);
      simt::copy_async_commit();
    }
    simt::copy_async_wait<0>();
    __syncthreads();
    if (buffers == 2 && chunk + 1 < end_chunk) fetch_halo(chunk + 1, halo + (halo_bytes - current));
    for (int row = 0; row < rows; ++row) {
      if (--left > 0) fetch_weights(kSlab * 16 - now);
      simt::copy_async_commit();
      SIMT_UNROLL for (int k = 0; k < KC / 16; ++k) {
        const unsigned at = offset[row] + current + k * 2 * static_cast<unsigned>(plane) * 16;
        SIMT_UNROLL for (int j = 0; j < ROW; ++j) {
          unsigned a[MT][4], b[WN / 16][4];
          SIMT_UNROLL for (int i = 0; i < MT; ++i) simt::ldmatrix_x4(a[i], my_a[i] + at + j * 16);
          SIMT_UNROLL for (int p = 0; p < WN / 16; ++p) simt::ldmatrix_x4(b[p], my_b + now + ((j * kPlanes + 2 * k) * BN + p * 16) * 16);
          SIMT_UNROLL for (int i = 0; i < MT; ++i) SIMT_UNROLL for (int p = 0; p < WN / 16; ++p) {
            simt::mma16816<H>(sum[i][2 * p], a[i], {b[p][0], b[p][1]});
            simt::mma16816<H>(sum[i][2 * p + 1], a[i], {b[p][2], b[p][3]});
          }
        }
      }
      now = kSlab * 16 - now;
      simt::copy_async_wait<0>();
      __syncthreads();
    }
    if (buffers == 2) current = halo_bytes - current;
  }

  // Sums go through shared memory, so that a thread gets 8 neighbouring channels: 16 bytes. Rows of WN floats, whose groups of 8 are exchanged such that
  // neither the writes (4 rows of 8 columns at a time) nor the reads (half a group of all rows in 128 or 256 bytes) meet in a bank.
  constexpr int kGroups = WN / 8, kRowsPerLine = 32 / WN;
  float* own = reinterpret_cast<float*>(memory) + warp * 16 * MT * WN;
  SIMT_UNROLL for (int i = 0; i < MT; ++i) {
    SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      const int r = i * 16 + half * 8 + lane / 4, exchange = r / kRowsPerLine % kGroups;
      SIMT_UNROLL for (int group = 0; group < kGroups; ++group) *
          reinterpret_cast<Pack<2>*>(own + r * WN + (group ^ exchange) * 8 +
                                     lane % 4 * 2) = {{sum[i][group][2 * half], sum[i][group][2 * half + 1]}};
    }
  }
  float* bias = reinterpret_cast<float*>(memory) + 64 * MT * BN;
  if (thread < BN) bias[thread] = gridDim.y > 1 ? 0.0f : bias_of(sink, column_tile * BN + thread);
  __syncthreads();
  const int group = lane % kGroups, own_column = warp_n * WN + group * 8, column = column_tile * BN + own_column;
  const std::int64_t first_voxel = static_cast<int>(blockIdx.x) / column_tiles / later[0].c.tiles() *
                                   static_cast<std::int64_t>(g.axis[0].out) * g.axis[1].out * g.axis[2].out;
  for (int r = lane / kGroups; r < 16 * MT; r += 32 / kGroups) {
    const float* from = own + r * WN + (group ^ r / kRowsPerLine % kGroups) * 8;
    const bool odd = r / kRowsPerLine % 2 != 0;
    const Pack<4> one = load<4>(from + (odd ? 4 : 0)), other = load<4>(from + (odd ? 0 : 4));
    const Pack<4> low = sum_of(odd ? other : one, load<4>(bias + own_column)),
                  high = sum_of(odd ? one : other, load<4>(bias + own_column + 4));
    const int v = warp_m * 16 * MT + r;
    const std::int64_t voxel = later[0].tile.voxel(later[0].c, g, v >> (shape.log_w + shape.log_h),
                                                   v >> shape.log_w & ((1 << shape.log_h) - 1), v & ((1 << shape.log_w) - 1));
    if (voxel < 0) continue;
    if (gridDim.y > 1) {
      float* to = partial + blockIdx.y * partial_stride + (first_voxel + voxel) * padded + column;
      store<4>(to, low);
      store<4>(to + 4, high);
    } else {
      write_eight(sink, first_voxel + voxel, column, low, high);
    }
  }
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
    low = sum_of(low, load<4>(partial + s * partial_stride + eight * 8));
    high = sum_of(high, load<4>(partial + s * partial_stride + eight * 8 + 4));
  }
  SIMT_UNROLL for (int j = 0; j < 4; ++j) {
    low.v[j] += bias_of(sink, column + j);
    high.v[j] += bias_of(sink, column + 4 + j);
  }
  write_eight(sink, voxel, column, low, high);
}

}  // namespace VG_NS
}  // namespace vg

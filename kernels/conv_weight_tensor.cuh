// The weight gradient of 2-byte floats on tensor cores: the product of conv_weight.cu with mma.m16n8k16, sums in float.
//
//   dw[(tap, i), o] = sum over output voxels z of  x[z moved by tap, i] dy[z, o]
//
//   block: KC channels, some or all taps, BN columns; it walks boxes of 128 output voxels. The halo of a box's x and its dy come to shared memory once for
//          all of that, by cp.async, while the box before is multiplied: one barrier a box
//   warp: E entries (16 channels of ROW = 3 taps that are neighbours along W, or of one tap) x BN columns, whose sums stay in its registers all along
//   for each 16 voxels: ldmatrix fetches E ROW fragments of x, shifted by their taps, and BN / 16 of dy; E ROW BN / 8 mma follow
//
// In memory a voxel is a row of channels, and both factors want their channels as rows of voxels: ldmatrix.trans turns them on the way.
#pragma once
#include "kernels/conv_halo.cuh"
#include "kernels/conv_sources.cuh"
#include "kernels/conv_weight_sum.cuh"

namespace vg {
namespace VG_NS {

inline constexpr int kWeightBox = 128, kWeightSteps = kWeightBox / 16;  // voxels of a box; of 16 voxels each
inline constexpr int kMostWeightWarps = 12;                             // 168 registers for each lane
inline constexpr int kMostBoxes = 512;                                  // of a block

template <int ROW, int BN>
struct WeightWarps {
  static constexpr int entries = ROW == 3 && BN == 64 ? 1 : 2;  // E: 96 or 48 sums a lane for rows of taps, 64 for single ones
  static constexpr int dy_plane = kWeightBox + 64 / BN;  // as plane_length says
};
// The kernel's run-time shape: which part of the product a block has.
struct WeightBlocks {
  TileShape shape;
  int planes;            // KC / 8: 2, 4 or 8
  int groups;            // of E entries in KC channels of all taps: what one warp takes
  int group_blocks;      // how many blocks share them
  int column_tiles;      // of BN columns
  int buffers;           // 2, or 1 where two do not fit
  int boxes, at_a_time;  // of a sample; of these, a block's
};

// partial[n, part of the boxes, (tap, channel), padded columns]. grid: (channel chunks x group_blocks x column_tiles, parts, samples).
template <class H, int ROW, int BN>
__global__ __launch_bounds__(32 * kMostWeightWarps) void conv_weight_tensor_kernel(
    Gather g, WeightBlocks b, HalfSources<H> source, const H* __restrict__ dy, int dy_pitch, float* __restrict__ partial) {
  constexpr int E = WeightWarps<ROW, BN>::entries, kColumnPlanes = BN / 8, kDyPlane = WeightWarps<ROW, BN>::dy_plane,
                kDyBytes = kDyPlane * kColumnPlanes * 16;
  constexpr int kTurn = E * ROW * BN >= 192 ? 2 : 4;  // steps of a turn of the innermost loop
  struct alignas(4 * kTurn) Shifts {
    unsigned v[kTurn];
  };
  SIMT_DYN_SHARED(uint4, memory);
  // What copies and the end need waits in shared memory: the loop between has use for every register.
  struct Later {
    HaloClass c;
    int second, first_channel, column_tile, entries, plane, halo_pieces, positions, begin, end;
  };
  SIMT_SHARED(Later, later, [1]);
  const HaloClass c = halo_class(g, 0, b.shape);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), lane = thread % 32, warp = thread / 32;
  const int positions = c.positions(), plane = plane_length(positions, b.planes), halo_pieces = plane * b.planes;
  const int column_tile = static_cast<int>(blockIdx.x) % b.column_tiles, others = static_cast<int>(blockIdx.x) / b.column_tiles;
  const int chunk = others / b.group_blocks, first_entry = (others % b.group_blocks * (threads / 32) + warp) * E;
  const int second = chunk >= source.chunks[0] ? 1 : 0, first_channel = (chunk - (second ? source.chunks[0] : 0)) * b.planes * 8;
  const int slices = b.planes / 2, entries = c.taps() / ROW * slices;  // a slice: 16 channels

  // [halos][dy][voxels of each step, as a shift][first output of each box, 21 bits an axis][where halo positions lie: d, h, w]
  const simt::SharedAddress halo = simt::shared_address(memory), dys = halo + b.buffers * halo_pieces * 16;
  unsigned* shift = reinterpret_cast<unsigned*>(memory + b.buffers * (halo_pieces + kDyPlane * kColumnPlanes));
  std::uint64_t* first = reinterpret_cast<std::uint64_t*>(shift + kWeightSteps);
  unsigned* where = shift + kWeightSteps + 2 * b.at_a_time;
  const auto output_of = [&](int v) {
    const TileShape& t = b.shape;
    return c.output(v >> (t.log_w + t.log_h), v >> t.log_w & ((1 << t.log_h) - 1), v & ((1 << t.log_w) - 1));
  };
  if (thread < kWeightSteps) shift[thread] = static_cast<unsigned>(output_of(thread * 16)) * 16;
  const int begin = static_cast<int>(blockIdx.y) * b.at_a_time, end = begin + b.at_a_time < b.boxes ? begin + b.at_a_time : b.boxes;
  for (int i = thread; i < end - begin; i += threads) {
    const HaloTile tile = halo_tile(c, b.shape, begin + i);
    first[i] = static_cast<std::uint64_t>(tile.qd) << 42 | static_cast<std::uint64_t>(tile.qh) << 21 | static_cast<std::uint64_t>(tile.qw);
  }
  if (thread == 0) later[0] = {c, second, first_channel, column_tile, entries, plane, halo_pieces, positions, begin, end};
  const HaloIndex index(c);
  for (int p = thread; p < positions; p += threads) {
    const Voxel v = index.at(c, p);
    where[p] = static_cast<unsigned>(v.d) << 22 | static_cast<unsigned>(v.h) << 11 | static_cast<unsigned>(v.w);
  }

  // Lane l names row l % 8 of matrix l / 8; of x: channels 0-7 and 8-15 of voxels 0-7, then of voxels 8-15; of dy: voxels 0-7 and 8-15 of columns 0-7, then
  // of columns 8-15. Entries beyond the last repeat the first; nobody stores them.
  simt::SharedAddress my_x[E];
  SIMT_UNROLL for (int e = 0; e < E; ++e) {
    const int entry = first_entry + e < entries ? first_entry + e : 0, row = entry / slices;
    const int jw = ROW == 1 ? row % c.w.taps : 0, dh = ROW == 1 ? row / c.w.taps : row;
    my_x[e] = halo + ((entry % slices * 2 + lane / 8 % 2) * plane + output_of(lane / 16 * 8 + lane % 8) +
                      c.tap(dh / c.h.taps, dh % c.h.taps, jw)) * 16;
  }
  const simt::SharedAddress my_dy = dys + (lane / 16 * kDyPlane + lane % 16) * 16;

  const auto fetch = [&](int n, int box, int buffer) {
    const Later& l = later[0];
    const std::uint64_t q = first[box - l.begin];
    const HaloTile tile{static_cast<int>(q >> 42), static_cast<int>(q >> 21 & 0x1fffff), static_cast<int>(q & 0x1fffff)};
    const Voxel corner = halo_corner(l.c, tile);
    const Extent in{g.axis[0].in, g.axis[1].in, g.axis[2].in}, out{g.axis[0].out, g.axis[1].out, g.axis[2].out};
    const int log_planes = b.planes == 2 ? 1 : b.planes == 4 ? 2 : 3, thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x),
              my_plane = thread & (b.planes - 1);
    const int pitch = l.second ? source.pitch[1] : source.pitch[0], channel = l.first_channel + my_plane * 8;
    const H* x = (l.second ? source.data[1] : source.data[0]) + n * in.voxels() * pitch + channel;
    simt::SharedAddress to = halo + (buffer * l.halo_pieces + my_plane * l.plane + (thread >> log_planes)) * 16;
    for (int p = thread >> log_planes; p < l.positions; p += threads >> log_planes) {
      const unsigned at = where[p];
      const int d = corner.d + static_cast<int>(at >> 22) * l.c.d.unit, h = corner.h + static_cast<int>(at >> 11 & 2047) * l.c.h.unit,
                w = corner.w + static_cast<int>(at & 2047) * l.c.w.unit;
      const bool valid = inside(g, d, h, w) && channel < pitch;
      simt::copy_async16(to, valid ? x + row_at(d, h, w, in) * pitch : dy, valid);
      to = to + (threads >> log_planes) * 16;
    }
    const int column = l.column_tile * BN + thread % kColumnPlanes * 8;
    const H* rows = dy + n * out.voxels() * dy_pitch + column;
    to = dys + (buffer * kDyPlane * kColumnPlanes + thread % kColumnPlanes * kDyPlane + thread / kColumnPlanes) * 16;
    for (int v = thread / kColumnPlanes; v < kWeightBox; v += threads / kColumnPlanes) {
      const TileShape& t = b.shape;
      const std::int64_t voxel = tile.voxel(l.c, g, v >> (t.log_w + t.log_h), v >> t.log_w & ((1 << t.log_h) - 1), v & ((1 << t.log_w) - 1));
      const bool valid = voxel >= 0 && column < dy_pitch;
      simt::copy_async16(to, valid ? rows + voxel * dy_pitch : dy, valid);
      to = to + threads / kColumnPlanes * 16;
    }
    simt::copy_async_commit();
  };

  __syncthreads();
  const int ahead = b.buffers - 1;  // boxes; with one buffer a box is waited for at once
  for (int n = static_cast<int>(blockIdx.z); n < g.samples; n += static_cast<int>(gridDim.z)) {
    float sum[E * ROW][BN / 8][4] = {};
    for (int box = later[0].begin - ahead, now = 0; box < later[0].end; ++box) {
      simt::copy_async_wait<0>();
      __syncthreads();
      if (box + ahead < later[0].end) fetch(n, box + ahead, now);
      if (ahead == 0) {
        simt::copy_async_wait<0>();
        __syncthreads();
      } else {
        now = 1 - now;
        if (box < later[0].begin) continue;
      }
      simt::SharedAddress from_x[E], from_dy = my_dy + now * kDyBytes;
      SIMT_UNROLL for (int e = 0; e < E; ++e) from_x[e] = my_x[e] + now * later[0].halo_pieces * 16;
      SIMT_LOOP for (int step = 0; step < kWeightSteps; step += kTurn) {
        const Shifts by = *reinterpret_cast<const Shifts*>(shift + step);
        SIMT_UNROLL for (int t = 0; t < kTurn; ++t) {
          unsigned fx[E * ROW][4], fdy[BN / 16][4];
          SIMT_UNROLL for (int e = 0; e < E; ++e) SIMT_UNROLL for (int j = 0; j < ROW; ++j)
              simt::ldmatrix_x4_trans(fx[e * ROW + j], from_x[e] + by.v[t] + j * 16);
          SIMT_UNROLL for (int p = 0; p < BN / 16; ++p) simt::ldmatrix_x4_trans(fdy[p], from_dy + (2 * p * kDyPlane + t * 16) * 16);
          SIMT_UNROLL for (int m = 0; m < E * ROW; ++m) SIMT_UNROLL for (int p = 0; p < BN / 16; ++p) {
            simt::mma16816<H>(sum[m][2 * p], fx[m], {fdy[p][0], fdy[p][1]});
            simt::mma16816<H>(sum[m][2 * p + 1], fx[m], {fdy[p][2], fdy[p][3]});
          }
        }
        from_dy = from_dy + kTurn * 16 * 16;
      }
    }

    const Later& l = later[0];
    const int channels = l.second ? g.channels1 : g.channels0, padded = b.column_tiles * BN, slices = b.planes / 2;
    const int first_entry = (static_cast<int>(blockIdx.x) / b.column_tiles % b.group_blocks * (threads / 32) + warp) * E;
    float* tile = partial + (n * static_cast<std::int64_t>(gridDim.y) + blockIdx.y) * g.class_rows * padded + l.column_tile * BN + lane % 4 * 2;
    SIMT_UNROLL for (int e = 0; e < E; ++e) SIMT_UNROLL for (int j = 0; j < ROW; ++j) SIMT_UNROLL for (int half = 0; half < 2; ++half) {
      const int entry = first_entry + e, channel = l.first_channel + entry % slices * 16 + half * 8 + lane / 4;
      if (entry >= l.entries || channel >= channels) continue;
      float* row = tile + (static_cast<std::int64_t>(entry / slices * ROW + j) * g.channels() + (l.second ? g.channels0 : 0) + channel) * padded;
      SIMT_UNROLL for (int group = 0; group < BN / 8; ++group)
          simt::store_two(row + group * 8, sum[e * ROW + j][group][2 * half], sum[e * ROW + j][group][2 * half + 1]);
    }
  }
}

// How the product is cut; by the shape of one sample alone.
struct WeightCut {
  WeightBlocks blocks;
  int row, bn, warps, chunks[2];
  std::size_t shared_bytes;
  int grid() const { return (chunks[0] + chunks[1]) * blocks.group_blocks * blocks.column_tiles; }
};

// Fills in what follows from row, bn, planes and shape. Returns the cost in cycles of an H100 multiprocessor, as cost_of_cut in conv_half.cuh does, or 0 if
// shared memory does not suffice.
inline double cost_of_weight_cut(const Gather& g, int columns, WeightCut& cut) {
  WeightBlocks& b = cut.blocks;
  const HaloClass c = halo_class(g, 0, b.shape);
  if (static_cast<double>(c.d.extent) * c.h.extent * c.pitch > kTensorShared || c.d.extent > 1023 || c.h.extent > 2047 || c.pitch > 2047)
    return 0.0;
  if (cut.row == 3 && (c.w.taps != 3 || c.w.step != 1)) return 0.0;
  const int entries_of_warp = cut.row == 3 && cut.bn == 64 ? 1 : 2;
  const int entries = c.taps() / cut.row * (b.planes / 2), kc = b.planes * 8;
  b.groups = (entries + entries_of_warp - 1) / entries_of_warp;
  b.group_blocks = (b.groups + kMostWeightWarps - 1) / kMostWeightWarps;
  cut.warps = (b.groups + b.group_blocks - 1) / b.group_blocks;
  b.column_tiles = (columns + cut.bn - 1) / cut.bn;
  b.boxes = c.tiles();
  cut.chunks[0] = (g.channels0 + kc - 1) / kc;
  cut.chunks[1] = (g.channels1 + kc - 1) / kc;
  const int pieces = plane_length(c.positions(), b.planes) * b.planes + (kWeightBox + 64 / cut.bn) * cut.bn / 8;
  for (b.buffers = 2; b.buffers > 0; --b.buffers) {
    cut.shared_bytes = static_cast<std::size_t>(b.buffers * pieces * 16 + (kWeightSteps + c.positions()) * 4);
    if (cut.shared_bytes + kMostBoxes * sizeof(std::uint64_t) > kTensorShared) continue;
    // 1.61 cycles an mma (62 % of the peak), 4 an ldmatrix, 24 bytes a cycle from the L2 cache
    const double products = 1.61 * entries_of_warp * cut.row * cut.bn / 8, fragments = 4.0 * (entries_of_warp * cut.row + cut.bn / 16);
    const double box = kWeightSteps * cut.warps * (products > fragments ? products : fragments) + pieces * 16 / 24.0;
    return (b.buffers == 1 ? 1.25 : 1.0) * box * b.boxes * cut.grid();
  }
  return 0.0;
}

// False where no cut fits.
inline bool cut_weight_product(const Gather& g, int columns, WeightCut& best) {
  double least = 0.0;
  for (const int row : {3, 1})
    for (const int planes : {2, 4, 8})
      for (int log_w = 3; log_w <= 7; ++log_w)
        for (int log_h = 0; log_w + log_h <= 7; ++log_h) {
          WeightCut cut{};
          cut.blocks.shape = {7 - log_w - log_h, log_h, log_w};
          cut.blocks.planes = planes;
          cut.row = row;
          cut.bn = row == 1 || columns > 32 ? 64 : columns > 16 ? 32 : 16;
          const double cost = cost_of_weight_cut(g, columns, cut);
          if (cost == 0.0 || (least != 0.0 && cost >= least)) continue;
          least = cost;
          best = cut;
        }
  return least != 0.0;
}

// How many boxes of a sample a block walks: such that all blocks together fill an H100 once, since each leaves its own sums in memory. At most 65536 voxels, 4096
// additions one after the other, so that rounding does not build up.
inline int boxes_at_a_time(const WeightCut& cut) {
  const int by_registers = kMostWeightWarps / cut.warps, by_memory = static_cast<int>((227u << 10) / (cut.shared_bytes + 1024)),
            resident = by_registers < by_memory ? by_registers : by_memory, wanted = 132 * resident / cut.grid();
  const int boxes = (cut.blocks.boxes + (wanted > 0 ? wanted : 1) - 1) / (wanted > 0 ? wanted : 1);
  return boxes < 2 ? 2 : boxes < kMostBoxes ? boxes : kMostBoxes;
}

// False: shared memory does not hold the halo of any box, and conv_weight_kernel has to serve.
template <class H>
bool multiply_halves_weight(const Exec& ex, const Gather& g, const Grad& dw, const Tensor& dy, const Tensor& x0, const Tensor& x1) {
  const int columns = static_cast<int>(dy.shape().c());
  WeightCut cut{};
  if (!cut_weight_product(g, columns, cut)) return false;
  require_tensor_cores<H>(ex, "conv_backward_weight");
  WeightBlocks& b = cut.blocks;
  const int padded = b.column_tiles * cut.bn;
  const std::int64_t elements = g.class_rows * padded;
  b.at_a_time = boxes_at_a_time(cut);
  cut.shared_bytes += b.at_a_time * sizeof(std::uint64_t);
  const int parts = (b.boxes + b.at_a_time - 1) / b.at_a_time;

  // [partial sums][padded x0][padded x1][padded dy]
  const std::int64_t partial_bytes = whole_piece(g.samples * parts * elements * 4);
  char* memory = ex.scratch->reserve<char>(partial_bytes + padded_bytes(x0) + padded_bytes(x1) + padded_bytes(dy));
  float* partial = reinterpret_cast<float*>(memory);
  memory += partial_bytes;
  const HalfSources<H> source{{in_eights<H>(ex, x0, memory), in_eights<H>(ex, x1, memory)},
                              {pitch_of(x0), x1.defined() ? pitch_of(x1) : 0},
                              {cut.chunks[0], cut.chunks[1]}};
  const H* rows = in_eights<H>(ex, dy, memory);
  const auto conv_weight_any = cut.row == 1    ? conv_weight_tensor_kernel<H, 1, 64>
                               : cut.bn == 16 ? conv_weight_tensor_kernel<H, 3, 16>
                               : cut.bn == 32 ? conv_weight_tensor_kernel<H, 3, 32>
                                              : conv_weight_tensor_kernel<H, 3, 64>;
  const dim3 grid(static_cast<unsigned>(cut.grid()), static_cast<unsigned>(parts),
                  static_cast<unsigned>(g.samples < kMaxGridYZ ? g.samples : kMaxGridYZ));
  VG_LAUNCH(ex, conv_weight_any, grid, 32 * cut.warps, cut.shared_bytes, g, b, source, rows, pitch_of(dy), partial);
  const int lanes = parts < 8 ? 1 : 8;
  const auto conv_weight_sum_any = lanes == 1 ? conv_weight_sum_kernel<1> : conv_weight_sum_kernel<8>;
  VG_LAUNCH(ex, conv_weight_sum_any, simt::blocks_for(elements, 32), 32 * lanes, 0, dw.data(), dw.beta, partial, g.samples, parts, elements,
            padded, static_cast<int>(g.class_rows), g.channels(), columns);
  return true;
}

}  // namespace VG_NS
}  // namespace vg

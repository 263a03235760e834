// Tiles of output voxels, and the piece of the source that all taps of a tile need: its halo. Loaded into shared memory once, it serves every tap, because
// a tap is nothing but a constant offset in it.
//
//   output t of a tile (per axis 0 <= t < tile) and tap j read halo position t step + j
//
// How that holds for any stride and dilation: outputs of one tile lie `apart` voxels apart, chosen so that what a tile reads is a lattice of its own.
// Dilation d is d interleaved convolutions without dilation (apart = d, step = 1); stride 2 is step = 2. Along W a step above 1 stores positions 0, step,
// 2 step, ... side by side, then 1, step + 1, ...: eight neighbouring outputs always read eight neighbours in memory, so no two in one bank.
#pragma once
#include "kernels/conv_gather.cuh"

namespace vg {
namespace VG_NS {

inline constexpr int kTensorShared = 96 << 10;  // what every GPU since sm_80 gives a block

struct HaloAxis {
  int taps, step, extent;            // extent: positions that a tile needs
  int unit, origin, in_step;         // position p of a tile whose first output is q: source voxel q in_step + origin + p unit
  int apart, tiles;                  // tile number a: outputs q = a % apart + apart (a / apart tile + t)
  int lattice, out_first, out_step;  // output q is voxel q out_step + out_first
  int first_tap, tap_step;           // tap j is the kernel's tap first_tap + j tap_step
};

struct TileShape {
  int log_d, log_h, log_w;
};

__host__ __device__ inline int common_divisor(int a, int b) {
  while (b != 0) {
    const int rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

__host__ __device__ inline HaloAxis halo_axis(const AxisClass& a, const GatherAxis& axis, int log_tile) {
  HaloAxis x{};
  x.taps = a.taps;
  x.in_step = a.in_step;
  x.lattice = a.lattice;
  x.out_first = a.out_first;
  x.out_step = a.out_step;
  x.first_tap = a.first;
  x.tap_step = axis.tap_step;
  x.origin = a.delta;
  if (a.taps <= 1) {
    x.apart = x.step = 1;
    x.unit = a.in_step;
  } else {
    const bool descending = a.delta_step < 0;  // positions ascend: the last tap comes first
    x.unit = descending ? -a.delta_step : a.delta_step;
    if (descending) {
      x.origin += (a.taps - 1) * a.delta_step;
      x.first_tap += (a.taps - 1) * axis.tap_step;
      x.tap_step = -axis.tap_step;
    }
    const int common = common_divisor(a.in_step, x.unit);
    x.apart = x.unit / common;
    x.step = a.in_step / common;
  }
  const int tile = 1 << log_tile, own = (a.lattice + x.apart - 1) / x.apart;
  x.tiles = x.apart * ((own + tile - 1) / tile);
  x.extent = (tile - 1) * x.step + (a.taps > 1 ? a.taps : 1);
  return x;
}

struct HaloClass {
  HaloAxis d, h, w;
  int column, pitch;  // along W: positions of one remainder modulo step, and of all
  __host__ __device__ int taps() const { return d.taps * h.taps * w.taps; }
  __host__ __device__ int positions() const { return d.extent * h.extent * pitch; }
  __host__ __device__ int tiles() const { return d.tiles * h.tiles * w.tiles; }
  // Where the source voxel of output (0, 0, 0) and tap (jd, jh, jw) is kept.
  __host__ __device__ int tap(int jd, int jh, int jw) const { return (jd * h.extent + jh) * pitch + jw % w.step * column + jw / w.step; }
  // Where tap (0, 0, 0) of output (td, th, tw) is.
  __host__ __device__ int output(int td, int th, int tw) const { return (td * d.step * h.extent + th * h.step) * pitch + tw; }
};
__host__ __device__ inline HaloClass halo_class(const Gather& g, int number, const TileShape& tile) {
  const GatherClass c = gather_class(g, number);
  HaloClass x{halo_axis(c.d, g.axis[0], tile.log_d), halo_axis(c.h, g.axis[1], tile.log_h), halo_axis(c.w, g.axis[2], tile.log_w), 0, 0};
  x.column = (x.w.extent + x.w.step - 1) / x.w.step;
  x.pitch = x.column * x.w.step;
  return x;
}

// p / d for 0 <= p < 2^20 by way of a float: both are exact there.
__device__ inline int small_quotient(int p, float inverse) { return static_cast<int>((static_cast<float>(p) + 0.5f) * inverse); }

inline constexpr unsigned kOutside = 0xffffffffu;

// One tile: which outputs it has.
struct HaloTile {
  int qd, qh, qw;  // its first output
  // The output voxel of (td, th, tw) within the sample, or -1 beyond the last.
  __device__ std::int64_t voxel(const HaloClass& c, const Gather& g, int td, int th, int tw) const {
    const int d = qd + c.d.apart * td, h = qh + c.h.apart * th, w = qw + c.w.apart * tw;
    if (d >= c.d.lattice || h >= c.h.lattice || w >= c.w.lattice) return -1;
    return row_at(d * c.d.out_step + c.d.out_first, h * c.h.out_step + c.h.out_first, w * c.w.out_step + c.w.out_first,
                  {g.axis[0].out, g.axis[1].out, g.axis[2].out});
  }
};
__device__ inline HaloTile halo_tile(const HaloClass& c, const TileShape& tile, int number) {
  const int aw = number % c.w.tiles, dh = number / c.w.tiles, ah = dh % c.h.tiles, ad = dh / c.h.tiles;
  return {ad % c.d.apart + c.d.apart * (ad / c.d.apart << tile.log_d), ah % c.h.apart + c.h.apart * (ah / c.h.apart << tile.log_h),
          aw % c.w.apart + c.w.apart * (aw / c.w.apart << tile.log_w)};
}

// Which of the halo's voxels lies at a position: its number along each axis.
struct HaloIndex {
  float per_slice, per_line, per_column;
  __device__ explicit HaloIndex(const HaloClass& c)
      : per_slice(1.0f / static_cast<float>(c.h.extent * c.pitch)),
        per_line(1.0f / static_cast<float>(c.pitch)),
        per_column(1.0f / static_cast<float>(c.column)) {}
  __device__ Voxel at(const HaloClass& c, int p) const {
    const int d = small_quotient(p, per_slice), in_slice = p - d * c.h.extent * c.pitch, h = small_quotient(in_slice, per_line),
              in_line = in_slice - h * c.pitch, remainder = small_quotient(in_line, per_column);
    return {d, h, (in_line - remainder * c.column) * c.w.step + remainder};
  }
};
// The source voxel of halo voxel (0, 0, 0).
__device__ inline Voxel halo_corner(const HaloClass& c, const HaloTile& t) {
  return {t.qd * c.d.in_step + c.d.origin, t.qh * c.h.in_step + c.h.origin, t.qw * c.w.in_step + c.w.origin};
}
__device__ inline bool inside(const Gather& g, int d, int h, int w) {
  return static_cast<unsigned>(d) < static_cast<unsigned>(g.axis[0].in) && static_cast<unsigned>(h) < static_cast<unsigned>(g.axis[1].in) &&
         static_cast<unsigned>(w) < static_cast<unsigned>(g.axis[2].in);
}

// where[position] = the source voxel within the sample, or kOutside. By all threads of the block.
__device__ inline void find_halo(unsigned* where, const HaloClass& c, const HaloTile& t, const Gather& g, int thread, int threads) {
  const HaloIndex index(c);
  const Voxel corner = halo_corner(c, t);
  for (int p = thread; p < c.positions(); p += threads) {
    const Voxel v = index.at(c, p);
    const int d = corner.d + v.d * c.d.unit, h = corner.h + v.h * c.h.unit, w = corner.w + v.w * c.w.unit;
    where[p] = inside(g, d, h, w)
                   ? (static_cast<unsigned>(d) * static_cast<unsigned>(g.axis[1].in) + static_cast<unsigned>(h)) *
                             static_cast<unsigned>(g.axis[2].in) +
                         static_cast<unsigned>(w)
                   : kOutside;
  }
}

// Shared memory keeps a halo as planes of 8 channels: 16 bytes per position, so that eight neighbours are 128 bytes, one for each bank. A plane's length
// leaves a rest of 8 / planes modulo 8: eight lanes that write the planes of 1, 2 or 4 neighbours (of 8, 4, 2 planes) meet no bank twice either.
__host__ __device__ inline int plane_length(int positions, int planes) { return positions + (8 / planes + 8 - positions % 8) % 8; }

}  // namespace VG_NS
}  // namespace vg

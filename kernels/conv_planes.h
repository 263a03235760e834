// Convolution of a volume plane by plane on the cpu, for an executor that keeps no more planes than are still needed (infer/planes.h). The same
// engines as conv_forward's; what differs is where planes lie, that an output may be computed in part, and that the caller chooses the arithmetic.
#pragma once
#include <span>
#include <vector>

#include "kernels/activation.h"

namespace vg::cpu {

// Voxels [begin, end) of a row.
struct RowSpan {
  std::int64_t begin = 0, end = 0;
  bool empty() const { return begin >= end; }
  friend bool operator==(RowSpan a, RowSpan b) { return a.begin == b.begin && a.end == b.end; }
};

// A convolution of stride 1 whose output has its input's extents: one tap, or three on every axis with as much padding as dilation.
struct PlaneLayer {
  std::int64_t extent[3];    // D, H, W
  std::int64_t in_channels, out_channels;
  std::int64_t kernel;       // 1 or 3
  std::int64_t dilation[3];
  const float* weight;       // (O, I, k, k, k)
  const float* bias;         // (O) or null
  Activation activation;     // not prelu
};

// Outputs of a tile along D, H, W: {4, 4, 4}, {2, 4, 4}, {2, 2, 2}: Winograd's F; {1, m, m}: Winograd's within planes, the three taps of D summed as
// they are; {1, 0, 0}: the plain sum. A group is what tiles make of planes: outputs start + j dilation (j < tile[0]) of inputs
// start + (k - 1) dilation (k < tile[0] + 2).
struct PlaneTile {
  int d = 1, hw = 0;
  friend bool operator==(PlaneTile a, PlaneTile b) { return a.d == b.d && a.hw == b.hw; }
};

// Seconds of one core for the whole layer by a cost model (at 3 GHz): good for comparing tiles.
double plane_seconds(const PlaneLayer& layer, PlaneTile tile);

// The layer's weights, packed for conv_planes.
std::vector<float> packed_planes(const PlaneLayer& layer, PlaneTile tile);

// packed: packed_planes(layer, tile), or null: packed anew. out[z], in[z]: planes (H, W, channels), z < D. in: null is a plane of zeros; out: null is not written. `starts`: first planes of the groups.
// wanted: rows [group][y], or null: everything. Computed is what widen() makes of it, and only that.
void conv_planes(const Exec& ex, const PlaneLayer& layer, PlaneTile tile, const float* packed, std::span<const std::int64_t> starts,
                 float* const* out, const float* const* in, const RowSpan* wanted);
std::size_t conv_planes_scratch(const PlaneLayer& layer, PlaneTile tile, std::int64_t groups);  // bytes

// The rows of one group, widened to whole tiles (to whole rows for the plain sum of three taps, whose rounding depends on where a row begins).
void widen(const PlaneLayer& layer, PlaneTile tile, RowSpan* rows);

}  // namespace vg::cpu

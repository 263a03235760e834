// Planes as samples: every group of output planes becomes a sample of a small volume, whose planes a table finds. The engines notice nothing.
#include "kernels/conv_planes.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "kernels/conv_cpu_winograd.h"

namespace vg::cpu {
namespace {

using std::int64_t;

// Group by group: the planes of the small volumes.
struct Tables {
  std::vector<const float*> in[3], out;
};

const float* plane(const float* const* planes, int64_t z, int64_t depth) { return z < 0 || z >= depth ? nullptr : planes[z]; }

std::vector<RowSpan> whole_rows(const PlaneLayer& l, int64_t groups) { return std::vector<RowSpan>(static_cast<std::size_t>(groups * l.extent[1]), RowSpan{0, l.extent[2]}); }

// Winograd's tile within the small volume.
WinogradTile winograd_tile(PlaneTile tile) { return tile.hw ? WinogradTile{{tile.d, tile.hw, tile.hw}} : WinogradTile{}; }

Gather gather_of(const PlaneLayer& l, PlaneTile tile, int64_t groups) {
  assert((l.kernel == 1 && tile == PlaneTile{}) || l.kernel == 3);
  Gather g{};
  g.samples = groups;
  g.activation = l.activation;
  const int64_t k = l.kernel, taps = k * k * k;
  g.weights = {l.weight, l.in_channels * taps, taps, {k, k, k}, l.bias};
  for (int a = 1; a < 3; ++a) g.axis[a] = forward_axis(l.extent[a], l.extent[a], k, 1, l.dilation[a], k / 2 * l.dilation[a]);
  const bool taps_as_inputs = tile.hw && tile.d == 1;
  g.axis[0] = taps_as_inputs ? forward_axis(1, 1, 1, 1, 1, 0) : forward_axis(tile.d, tile.d + k - 1, k, 1, 1, 0);
  for (int64_t i = 0; i < (taps_as_inputs ? 3 : 1); ++i) g.inputs.push_back({{}, l.in_channels, 0, i * k * k});
  g.outputs.push_back({{}, l.out_channels, 0, 0.0f});
  return g;
}

Tables tables_of(const PlaneLayer& l, PlaneTile tile, std::span<const int64_t> starts, float* const* out, const float* const* in) {
  Tables t;
  const int64_t depth = l.extent[0], d = l.dilation[0], window = tile.d + l.kernel - 1;
  const bool taps_as_inputs = tile.hw && tile.d == 1;
  for (const int64_t start : starts) {
    for (int64_t k = 0; k < window; ++k) t.in[taps_as_inputs ? k : 0].push_back(plane(in, start + (k - l.kernel / 2) * d, depth));
    for (int64_t j = 0; j < tile.d; ++j) t.out.push_back(plane(out, start + j * d, depth));
  }
  return t;
}

}  // namespace

// Fitted to volumes that no cache holds: transforms wait for memory, whatever the tile. A volume of 256^3, 30 channels: measured 1.6, 1.7 and 2.1 s
// for F(4,4,4), F(2,4,4) and F(4,4) by 3.
double plane_seconds(const PlaneLayer& l, PlaneTile tile) {
  constexpr double kClock = 3e9, kProducts = 2.2, kTransform = 47, kPack = 24;  // cycles a second; vector products a cycle; cycles a vector, a line
  const double lanes = tile_kernels().lanes, voxels = static_cast<double>(l.extent[0] * l.extent[1] * l.extent[2]);
  const double in = std::ceil(static_cast<double>(l.in_channels) / lanes), out = std::ceil(static_cast<double>(l.out_channels) / lanes);
  const int64_t groups = (l.extent[0] + tile.d - 1) / tile.d;
  if (!tile.hw) return static_cast<double>(groups) * conv_cycles(gather_of(l, tile, 1), {}) / kClock;
  const double planar = static_cast<double>((tile.hw + 2) * (tile.hw + 2)), taps = tile.d == 1 ? 3 : tile.d + 2;  // products a tile
  const double products = planar * taps / (tile.d * tile.hw * tile.hw), lines = static_cast<double>(l.in_channels) * out;
  return (voxels * (products * lines / kProducts + kTransform * (in + out)) + static_cast<double>(groups) * planar * taps * lines * kPack) / kClock;
}

std::vector<float> packed_planes(const PlaneLayer& l, PlaneTile tile) {
  Gather g = gather_of(l, tile, 1);
  const std::vector<RowSpan> everything = whole_rows(l, 1);
  g.wanted = everything.data();
  return tile.hw ? packed_for_winograd(g, winograd_tile(tile)) : packed_for_gather(g);
}

void conv_planes(const Exec& ex, const PlaneLayer& l, PlaneTile tile, const float* packed, std::span<const int64_t> starts,
                 float* const* out, const float* const* in, const RowSpan* wanted) {
  const auto groups = static_cast<int64_t>(starts.size());
  Gather g = gather_of(l, tile, groups);
  g.packed = packed;
  const Tables t = tables_of(l, tile, starts, out, in);
  for (std::size_t i = 0; i < g.inputs.size(); ++i) g.inputs[i].data = t.in[i].data();
  g.outputs[0].data = t.out.data();
  const std::vector<RowSpan> everything = whole_rows(l, wanted ? 0 : groups);
  g.wanted = wanted ? wanted : everything.data();
  if (tile.hw)
    run_winograd(ex, g, winograd_tile(tile));
  else
    run_gather(ex, g);
}

std::size_t conv_planes_scratch(const PlaneLayer& l, PlaneTile tile, int64_t groups) {
  Gather g = gather_of(l, tile, groups);
  const std::vector<RowSpan> everything = whole_rows(l, groups);
  g.wanted = everything.data();
  return tile.hw ? winograd_scratch(g, winograd_tile(tile)) : gather_scratch(g);
}

void widen(const PlaneLayer& l, PlaneTile tile, RowSpan* rows) {
  const int64_t H = l.extent[1], W = l.extent[2];
  if (!tile.hw) {
    if (l.kernel == 1) return;
    for (int64_t y = 0; y < H; ++y)
      if (!rows[y].empty()) rows[y] = {0, W};
    return;
  }
  const int64_t d = l.dilation[1], group = tile.hw * l.dilation[2];
  for (int64_t y = 0; y < H; ++y) {
    if (y / d % tile.hw) continue;  // not the first row of its tiles
    RowSpan all;
    for (int64_t j = 0; j < tile.hw && y + j * d < H; ++j) {
      const RowSpan& r = rows[y + j * d];
      if (r.empty()) continue;
      all = all.empty() ? r : RowSpan{std::min(all.begin, r.begin), std::max(all.end, r.end)};
    }
    if (!all.empty()) all = {all.begin / group * group, std::min(W, (all.end + group - 1) / group * group)};
    for (int64_t j = 0; j < tile.hw && y + j * d < H; ++j) rows[y + j * d] = all;
  }
}

}  // namespace vg::cpu

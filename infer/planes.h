// Whole volumes through a chain of convolutions (MeshNet) with little memory. A value is not a tensor but a table of planes; a layer makes a group of
// planes at a time, and a plane is given back as soon as the last group that reads it is done. In which order groups run decides what is alive:
//
//   whole layers   groups by residue mod dilation: as one plane leaves another comes, so that one layer's planes and a few more are alive
//   streaming      groups from the first plane to the last, the deepest layer that can go always first: 2 dilation + 1 planes a layer are alive
//
// Both are one rule (the deepest layer that can go goes) over two orders, so that one planner can try them without computing anything.
//
// What lies outside the reach of the data is not computed: the network's answer to a volume of one value is known from a small one, because it
// depends on the distance to the border alone, and that only as far as the network reaches (Background).
#pragma once
#include <map>
#include <optional>

#include "infer/predict.h"
#include "kernels/conv_planes.h"

namespace vg {

// The layers of a graph that is such a chain: every node a convolution of stride 1 that keeps the extents, one tap or three on every axis; else none.
struct ChainLayer {
  std::size_t node;
  cpu::PlaneLayer shape;  // without weights; extents as given
};
std::optional<std::vector<ChainLayer>> plane_chain(const Graph& graph, const Shape& image);

// Rows (z, y) of a volume, each with the part that is meant.
struct Region {
  std::int64_t depth = 0, height = 0;
  std::vector<cpu::RowSpan> rows;
  const cpu::RowSpan* plane(std::int64_t z) const { return rows.data() + z * height; }
  cpu::RowSpan* plane(std::int64_t z) { return rows.data() + z * height; }
  double share(std::int64_t width) const;  // of the volume's voxels
};
Region everything(std::int64_t depth, std::int64_t height, std::int64_t width);

// Extent of the small volume of one value that answers for the background of the first layers' output: all that they can tell from the border, and
// one voxel more. Plain sums round by their place in a row: with them alone rows are whole, and the answer has the full run's bits.
std::int64_t background_extent(const std::vector<ChainLayer>& chain, const std::vector<cpu::PlaneTile>& tiles, std::size_t layers, int axis);

// First planes of a layer's groups, in order.
std::vector<std::int64_t> group_starts(const cpu::PlaneLayer& layer, cpu::PlaneTile tile, bool streaming);

// Where a volume (D, H, W, C) differs from the value of its first voxel.
Region data_of(const float* image, const Shape& shape);

struct PlaneStep {
  int layer;
  std::int64_t start;  // first plane of the group
};

// Calls visit(z) for the planes of the volume that a group makes, and for those that it reads.
template <class Visit>
void for_outputs(const cpu::PlaneLayer& l, cpu::PlaneTile tile, std::int64_t start, Visit&& visit) {
  for (std::int64_t j = 0; j < tile.d; ++j)
    if (const std::int64_t z = start + j * l.dilation[0]; z < l.extent[0]) visit(z);
}
template <class Visit>
void for_inputs(const cpu::PlaneLayer& l, cpu::PlaneTile tile, std::int64_t start, Visit&& visit) {
  for (std::int64_t k = -(l.kernel / 2); k < tile.d + l.kernel / 2; ++k)
    if (const std::int64_t z = start + k * l.dilation[0]; z >= 0 && z < l.extent[0]) visit(z);
}

struct PlanePlan {
  std::vector<ChainLayer> layers;
  std::vector<cpu::PlaneTile> tiles;  // by layer
  std::vector<PlaneStep> steps;
  bool streaming = false;
  // If not empty, by layer: what is computed, and what the next layer reads (the labels read the last).
  std::vector<Region> computed, read;
  std::map<std::int64_t, std::int64_t> planes;  // by channels: how many are alive at most
  std::uint64_t bytes = 0;  // at the peak: planes, scratch, background; neither image nor labels
  double seconds = 0;       // of one core, by a cost model
};

// The fastest plan within `max_bytes` (0: no limit); if there is none, the smallest. data: where the image differs from its background; null: not
// looked at. head_only: labels are wanted where the data are.
PlanePlan plan_planes(const std::vector<ChainLayer>& chain, const ConvAlgorithm& algorithm, std::uint64_t max_bytes, const Region* data, bool head_only);

// Runs it on image (D, H, W, C). scores(z, plane): (H, W, classes) of plane z, to be used at once; of a plan for the head alone, only there. progress:
// 0..1, from the calling thread.
using PlaneScores = std::function<void(std::int64_t z, const float* scores)>;
void run_planes(Context& ctx, const Network& net, const PlanePlan& plan, const float* image, const PlaneScores& scores,
                const std::function<void(double)>& progress);

std::string to_table(const Graph& graph, const PlanePlan& plan);

}  // namespace vg

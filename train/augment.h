// Random variations of training patches: where a patch is read from (rotation, scaling, mirror, bending) and how bright it is. All draws come from the
// generator that is handed in and make a plan, which is a few numbers; kernels carry it out where training runs. Geometry and labels stay consistent, and
// a mirror image exchanges the labels of the two hemispheres.
#pragma once
#include <array>
#include <vector>

#include "kernels/intensity.h"
#include "kernels/resample.h"
#include "tensor/random.h"
#include "train/config.h"
#include "train/dataset.h"

namespace vg {

// Patch coordinates (d, h, w), measured from the patch's centre, to sample coordinates: x = centre + m * v.
struct PatchPlace {
  std::array<double, 3> centre{};
  double m[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  bool mirrored = false;      // labels swap sides
  bool whole_voxels = true;   // m is the identity but for a mirror, and centre - (patch - 1) / 2 is whole
};

// x = centre + m * (v + u(v)), u the cubic B-spline of kernels/resample.h.
struct PatchBend {
  Shape grid{1, 0, 0, 0, 3};  // of the control points, D, H, W, and their displacements; of no elements: u = 0
  std::vector<float> control;
  double spacing = 1;  // voxels of the patch
};

struct PatchPlan {
  PatchPlace place;
  PatchBend bend;
  IntensityParams intensity;
  bool plain() const { return place.whole_voxels && !place.mirrored; }  // geometry: nothing but copying
};

// Draws rotation, scaling and mirror for a patch centred on `centre`.
PatchPlace draw_place(Random& random, const AugmentConfig& c, const Dataset& data, const std::array<double, 3>& centre);
// Draws contrast, brightness and gamma, and how strong the noise is, each with its probability.
IntensityParams draw_intensity(Random& random, const AugmentConfig& c);
// Draws control points: displacements of at most c.elastic_magnitude along each axis. Flat data bend in their plane. Draws nothing at probability 0.
PatchBend draw_bend(Random& random, const AugmentConfig& c, const Dataset& data, const std::array<std::int64_t, 3>& patch);
// Along one axis: as many whole cells as cover the patch, and a cell is bent by four points.
std::int64_t control_points(std::int64_t extent, double spacing);
// All three, in this order.
PatchPlan draw_plan(Random& random, const AugmentConfig& c, const Dataset& data, const std::array<double, 3>& centre, const std::array<std::int64_t, 3>& patch);

// A box of a sample's voxels.
struct Box {
  std::array<std::int64_t, 3> start{}, extents{};
};
// All that the patch reads of a sample with these extents: inside it, at least one voxel along each axis. Plain plans: the patch, which may hang over.
Box reach(const PatchPlan& plan, const std::array<std::int64_t, 3>& patch, const Shape& sample);
// Copies rows of the box; zeros and background beyond the sample's border. image: extents x C floats, labels: extents bytes
void copy_box(const Sample& sample, const Box& box, float* image, std::uint8_t* labels);

// The table that exchanges the labels of pairs: (256) u8, cpu.
Tensor swap_table(const Dataset& data);
// What the kernel wants, with coordinates measured from `start`.
ResampleParams resample_params(const PatchPlan& plan, const std::array<std::int64_t, 3>& start);
// Carries the plan out on the cpu. image: (1, D, H, W, C) f32   labels: (1, D, H, W, 1) u8
void make_patch(const Sample& sample, const PatchPlan& plan, const Tensor& swap, Tensor& image, Tensor& labels);

}  // namespace vg

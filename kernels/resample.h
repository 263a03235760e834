// An image and its labels, read through a map from output voxels to input voxels: rotation, scaling, mirror, another voxel size, and an elastic part that
// bends all of that (free-form deformation by uniform cubic B-splines: Rueckert et al., IEEE TMI 18, 1999; for training: Simard et al., ICDAR 2003).
#pragma once
#include <cmath>

#include "kernels/kernel.h"

namespace vg {

struct ResampleParams {
  double matrix[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};  // rows and columns: D, H, W
  double centre[3] = {0, 0, 0};                             // the input's voxel that the middle of the output falls on
  double spacing[3] = {1, 1, 1};                            // of the control points, in output voxels
};

// With v = (z, y, x) - (extents - 1) / 2, measured from the output's middle:      at(v) = centre + matrix (v + u(v))
//   image[n, z, y, x, c] = from_image[n, at(v), c], interpolated linearly between voxels; beyond the border all voxels are 0
//   labels[n, z, y, x] = swap[from_labels[n, floor(at(v) + 1/2)]], 0 outside
//   u(v) = sum over i, j, k < 4 of B_i(t_d) B_j(t_h) B_k(t_w) control[cell + (i, j, k)], in output voxels; B: the cubic B-spline's four pieces. Along each
//   axis v / spacing + cells / 2, held to 0 .. cells, is cell + t: the grid's middle is the output's, its first point lies one spacing before the first
//   cell, and `cells` = points - 3. An axis of a single point has the same u everywhere.
// image: (N, D, H, W, C) f32   labels: (N, D, H, W, 1) u8   from_image, from_labels: (N, d, h, w, .)   control: (1, gd, gh, gw, 3) f32, each g = 1 or >= 4,
// gw at most 512   swap: (256) u8. Undefined: control: u = 0; swap: labels as they are; image or labels, with what it is read from: not wanted.
// Coordinates are floats measured from the middle, never from the corner: within 1e-3 of a voxel for outputs up to 256^3. A map onto whole voxels copies.
VG_KERNEL(resample, Tensor& image, Tensor& labels, const Tensor& from_image, const Tensor& from_labels, const Tensor& control, const Tensor& swap,
          const ResampleParams& p);

// What the implementations share: the map split so that floats carry it. at = base + (part + matrix (v + u)), and the bracket is small.
struct ResampleMap {
  float matrix[3][3], part[3];
  std::int32_t base[3];
  std::int32_t points[3], cells[3];
  float per_voxel[3];  // cells
};
inline ResampleMap resample_map(const ResampleParams& p, const Tensor& control) {
  ResampleMap m{};
  for (int a = 0; a < 3; ++a) {
    const double whole = std::floor(p.centre[a]);
    m.base[a] = static_cast<std::int32_t>(whole), m.part[a] = static_cast<float>(p.centre[a] - whole);
    for (int b = 0; b < 3; ++b) m.matrix[a][b] = static_cast<float>(p.matrix[a][b]);
    m.points[a] = control.defined() ? static_cast<std::int32_t>(control.shape()[a + 1]) : 1;
    assert((m.points[a] == 1 || m.points[a] >= 4) && p.spacing[a] > 0);
    m.cells[a] = std::max(m.points[a] - 3, 1), m.per_voxel[a] = static_cast<float>(1.0 / p.spacing[a]);
  }
  assert(m.points[2] <= 512);
  return m;
}

}  // namespace vg

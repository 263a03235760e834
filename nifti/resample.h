// Values of one grid at the voxels of another: linear or cubic for intensities, nearest for labels (a mean of two labels is a third, invented one).
#pragma once
#include "nifti/geometry.h"
#include "tensor/tensor.h"

namespace vg {

// `from`: (1, D, H, W, C) on the cpu, on the grid `source`. Result: (1, D', H', W', C) on `target`.
// A voxel is a box: places up to half a voxel beyond the outermost centres take the edge's value, everything further out takes `outside`.
Tensor resample_linear(const Tensor& from, const Grid& source, const Grid& target, float outside = 0);          // f32
// Cubic B-spline through the values, mirrored at the edges. Sharper than linear; overshoots beside steep edges, so never for labels.
Tensor resample_cubic(const Tensor& from, const Grid& source, const Grid& target, float outside = 0);  // f32
// What resample_cubic mixes: (1, D, H, W, C) -> the same shape.
Tensor spline_coefficients(const Tensor& values);
// The same box in voxels of `mm`: extents rounded, axes and centre kept. Throws invalid_argument unless mm > 0 and the grid stays below 2^31 voxels.
Grid grid_with_spacing(const Grid& grid, const Vec3& mm);
Tensor resample_nearest(const Tensor& from, const Grid& source, const Grid& target, std::int32_t outside = 0);  // i32

}  // namespace vg

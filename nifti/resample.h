// Values of one grid at the voxels of another: linear for intensities, nearest for labels (a mean of two labels is a third, invented one).
#pragma once
#include "nifti/geometry.h"
#include "tensor/tensor.h"

namespace vg {

// `from`: (1, D, H, W, C) on the cpu, on the grid `source`. Result: (1, D', H', W', C) on `target`.
// A voxel is a box: places up to half a voxel beyond the outermost centres take the edge's value, everything further out takes `outside`.
Tensor resample_linear(const Tensor& from, const Grid& source, const Grid& target, float outside = 0);          // f32
Tensor resample_nearest(const Tensor& from, const Grid& source, const Grid& target, std::int32_t outside = 0);  // i32

}  // namespace vg

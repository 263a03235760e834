// Cutting a box out of a volume, or padding it, with the record that brings results back onto the volume's own grid.
#pragma once
#include "nifti/geometry.h"
#include "nifti/volume.h"

namespace vg {

struct CropRecord {
  Grid input;      // the volume's own grid
  Placement place;
  std::string name;
  Size3 start{};   // voxel of the input that became voxel (0, 0, 0); negative where it was padded
  Size3 size{};    // of the result
};
struct Cropped {
  Volume volume;
  CropRecord record;
};

// `size` voxels from `start` on, which may lie outside: those take `outside`. Values and their places in the patient do not change. Throws
// invalid_argument for extents below 1.
Cropped crop(const Volume& volume, const Size3& start, const Size3& size, float outside = 0);
// A result (f32 or i32, any channels) on the crop's grid back on the input's: the same values where they came from, `outside` elsewhere, size and
// affine bit for bit those of the input.
Volume undo_crop(const Tensor& result, const CropRecord& record, float outside = 0);

struct Box {
  Size3 start{}, size{};
};
// The smallest box that holds all voxels (of any channel) above `threshold`, widened by `margin` voxels on each side within the volume. The whole
// volume where none is above.
Box content_box(const Volume& volume, float threshold = 0, std::int64_t margin = 0);

}  // namespace vg

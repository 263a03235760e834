// "Conform" as FreeSurfer means it, and as MeshNet and its kin were trained on: 256^3 voxels of 1 mm, axes LIA, grey values 0..255, the
// box centred on the scan's own centre. Together with the record that brings results back onto the scan's own grid.
#pragma once
#include "nifti/geometry.h"
#include "nifti/volume.h"

namespace vg {

inline constexpr std::int64_t kConformSize = 256;

struct ConformRecord {
  Grid input, conformed;
  Placement place;            // of the input: its affine, where that came from, its code
  std::string name;           // of the input
  bool identity = false;      // the input has the conformed grid already: nothing is resampled, there or back
  double low = 0, scale = 1;  // grey value = clamp(round((value - low) * scale), 0, 255)
};
struct Conformed {
  Volume volume;  // f32, (1, 256, 256, 256, 1), whole numbers 0..255
  ConformRecord record;
};

// The target: LIA, 1 mm, voxel (128, 128, 128) at the input's (size / 2), FreeSurfer's c_ras.
Grid conformed_grid(const Grid& input);
// 256^3, LIA and 1 mm within 1e-3.
bool has_conformed_grid(const Grid& grid);

// Grey values: uint8 files keep theirs; others are scaled so that FreeSurfer's robust range (histogram of 1000 bins, the brightest 0.1 %
// of the non-zero voxels cut) becomes 0..255, unless the grid is conformed and the values are whole numbers of 0..255 already. NaN and
// infinities count as 0. Takes one channel. Warning conform_crops: the scan reaches beyond the 256 mm box.
Conformed conform(const Volume& volume);

// A result on the conformed grid back on the input's grid: i32 by nearest neighbour, f32 linearly. Outside the conformed box: 0. Bit for
// bit the same values where the record is the identity.
Volume undo_conform(const Tensor& result, const ConformRecord& record);

// FreeSurfer's robust range for [0, 255]: {low, scale}.
struct GreyScale {
  double low = 0, scale = 1;
};
GreyScale robust_grey_scale(const Tensor& values);

}  // namespace vg

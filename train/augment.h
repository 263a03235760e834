// Random variations of training patches: where a patch is read from (rotation, scaling, mirror) and how bright it is. All draws come from the
// generator that is handed in; geometry and labels stay consistent, and a mirror image exchanges the labels of the two hemispheres.
#pragma once
#include <array>

#include "tensor/random.h"
#include "train/config.h"
#include "train/dataset.h"

namespace vg {

// Patch coordinates (d, h, w), measured from the patch's centre, to sample coordinates: x = centre + m * v.
struct PatchPlace {
  std::array<double, 3> centre{};
  double m[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  bool mirrored = false;      // labels swap sides
  bool whole_voxels = true;   // m is the identity and centre - (patch - 1) / 2 is whole: plain copying
};

// Draws rotation, scaling and mirror for a patch centred on `centre`.
PatchPlace draw_place(Random& random, const AugmentConfig& c, const Dataset& data, const std::array<double, 3>& centre);

// Reads image (trilinear) and labels (nearest) of the patch; zeros and background outside the sample.
void read_patch(const Sample& sample, const Dataset& data, const PatchPlace& place, const std::array<std::int64_t, 3>& patch, float* image,
                std::uint8_t* labels);

// Brightness, contrast, gamma and noise on a normalised patch of `voxels` x `channels` numbers, each with its probability.
void vary_intensity(Random& random, const AugmentConfig& c, float* image, std::int64_t voxels, std::int64_t channels);

}  // namespace vg

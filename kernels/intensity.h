// The brightness of a training patch, varied: gamma on the patch's own range, contrast, brightness, and noise that is a function of the voxel's number alone.
#pragma once
#include "kernels/kernel.h"

namespace vg {

struct IntensityParams {
  float gamma = 1.0f, contrast = 1.0f, brightness = 0.0f;
  float noise = 0.0f;     // standard deviation
  std::uint64_t key = 0;  // of the noise
  bool changes() const { return gamma != 1.0f || contrast != 1.0f || brightness != 0.0f || noise != 0.0f; }
};
// image[i] = (low + range ((image[i] - low) / range)^gamma) contrast + brightness + noise n_i
// low, high: of all numbers; range = high - low, at least 1e-6. gamma = 1 leaves the power out.
// n_i: standard normals. With (v0, v1, v2, v3) = philox(key, 0, i / 4) (tensor/random.h), r(v) = sqrt(-2 log(((v >> 8) + 1) 2^-24)) and
// a(v) = 2 pi (v >> 8) 2^-24, they are r(v0) cos a(v1), r(v0) sin a(v1), r(v2) cos a(v3), r(v2) sin a(v3) (Box, Muller, 1958).
// image: f32, any shape. In place.
VG_KERNEL(vary_intensity, Tensor& image, const IntensityParams& p);

}  // namespace vg

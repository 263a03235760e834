// Small data sets made by hand for the tests of training: every voxel tells where it came from.
#pragma once
#include "train/dataset.h"

namespace vg::test {

// A sample whose image holds 1 + its own voxel number in every channel (+ 1000 per channel), whose labels follow `label(d, h, w)`.
template <class Label>
Sample numbered_sample(const std::string& name, const Shape& extents, std::int64_t channels, Label&& label) {
  const std::int64_t D = extents[0], H = extents[1], W = extents[2];
  Sample s{.name = name,
           .image = Tensor({1, D, H, W, channels}, DType::f32, kCpu),
           .labels = Tensor({1, D, H, W, 1}, DType::u8, kCpu),
           .voxel_mm3 = 1.0};
  for (std::int64_t v = 0; v < D * H * W; ++v) {
    for (std::int64_t c = 0; c < channels; ++c) s.image.data<float>()[v * channels + c] = static_cast<float>(1 + v + 1000 * c);
    s.labels.data<std::uint8_t>()[v] = static_cast<std::uint8_t>(label(v / (H * W), v / W % H, v % W));
  }
  return s;
}

// Background, a middle structure, and the two sides of another: classes 2 and 3 are a pair.
inline Dataset empty_dataset(int spatial_dims, std::int64_t channels) {
  Dataset d;
  d.spatial_dims = spatial_dims;
  for (std::int64_t c = 0; c < channels; ++c) d.channels.push_back("c" + std::to_string(c));
  d.classes = {{.id = 0, .name = "Unknown", .rgb = {0, 0, 0}, .pair = -1, .merged = {}},
               {.id = 16, .name = "Brain-Stem", .rgb = {1, 2, 3}, .pair = -1, .merged = {}},
               {.id = 12, .name = "Left-Putamen", .rgb = {1, 2, 3}, .pair = 3, .merged = {}},
               {.id = 51, .name = "Right-Putamen", .rgb = {1, 2, 3}, .pair = 2, .merged = {}}};
  d.left_right_axis = 2;
  return d;
}

inline Dataset heads(int training, int validation, const Shape& grid, std::uint64_t seed) {
  return make_phantom_dataset(
      {.training = training, .validation = validation, .grid = grid, .spacing = 0, .orientation = {}, .seed = seed});
}

}  // namespace vg::test

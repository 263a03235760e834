// Which patches of which samples make up the batch of a step: a pure function of (seed, step), so that a resumed run, or a run with other threads, sees
// the same numbers without remembering anything.
#pragma once
#include <array>
#include <span>

#include "train/config.h"
#include "train/dataset.h"

namespace vg {

struct Batch {
  Tensor images;            // (N, D, H, W, C) f32, cpu
  Tensor labels;            // (N, D, H, W, 1) u8, cpu
  std::vector<int> samples;  // which training samples
};

class BatchSource {
 public:
  // `patch`: D, H, W. `order`: sample indices, `batch` for each step, instead of the seed's shuffling; runs must not be longer.
  BatchSource(const Dataset& data, const TrainConfig& config, std::array<std::int64_t, 3> patch, std::vector<std::int32_t> order = {});

  std::int64_t steps_per_epoch() const { return steps_per_epoch_; }
  Batch at(std::int64_t step) const;

 private:
  int sample_of(std::int64_t step, int item) const;
  void fill(std::int64_t step, int item, int sample, float* image, std::uint8_t* labels) const;

  const Dataset& data_;
  const TrainConfig& config_;
  std::array<std::int64_t, 3> patch_;
  std::vector<std::int32_t> order_;
  std::int64_t steps_per_epoch_ = 1;
  bool cuts_ = false;  // is any patch smaller than its image?
  std::vector<std::vector<std::vector<std::int64_t>>> places_;  // [sample][class]: some voxels of that class, to centre patches on
};

// A patch that suits the data: the largest extents for slices, at most 96 voxels along each axis of volumes; multiples of `divisor`.
std::array<std::int64_t, 3> default_patch(const Dataset& data, std::span<const int> divisor);

}  // namespace vg

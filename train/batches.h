// Which patches of which samples make up the batch of a step: a pure function of (seed, step), so that a resumed run, or a run with other threads, sees
// the same numbers without remembering anything.
#pragma once
#include <array>
#include <span>

#include "kernels/kernel.h"
#include "train/augment.h"

namespace vg {

struct Batch {
  Tensor images;            // (N, D, H, W, C) f32, cpu
  Tensor labels;            // (N, D, H, W, 1) u8, cpu
  std::vector<int> samples;  // which training samples
};

// A batch that a device is to make: what was drawn, and one piece of memory with all that its patches read.
struct CutBatch {
  struct Item {
    PatchPlan plan;
    Box box;  // of the sample; for a plain plan its image and labels are the patch itself
    std::int64_t image = 0, labels = 0, control = 0;  // where they begin in `memory`, bytes
  };
  std::vector<Item> items;
  std::vector<int> samples;
  Tensor memory;           // (bytes) u8, cpu
  std::int64_t bytes = 0;
  std::int64_t reads = 0;  // so many at its beginning are read on the device; plain patches lie behind
};

// The part of a batch's images or labels that is one patch.
Tensor patch_of(const Tensor& batch, std::size_t item);

class BatchSource {
 public:
  // `patch`: D, H, W. `order`: sample indices, `batch` for each step, instead of the seed's shuffling; runs must not be longer.
  BatchSource(const Dataset& data, const TrainConfig& config, std::array<std::int64_t, 3> patch, std::vector<std::int32_t> order = {});

  std::int64_t steps_per_epoch() const { return steps_per_epoch_; }
  Shape image_shape() const;  // of a batch
  Shape label_shape() const;
  // The batch of a step, made on the cpu.
  Batch at(std::int64_t step) const;
  // The same in two halves. `cut` draws, and copies rows. `make` runs the kernels for all patches that are not plain, with the batch's first `reads` bytes
  // on the device in `memory`, and varies the intensity of all; who calls it has copied the plain patches into images and labels. swap: swap_table there.
  CutBatch cut(std::int64_t step) const;
  bool varies_place() const { return config_.augment.flip || config_.augment.affine > 0.0 || config_.augment.elastic > 0.0; }  // else all patches are plain
  CutBatch drawn(std::int64_t step) const;  // `cut` without its memory: what it will hold
  void make(const Exec& ex, const CutBatch& batch, Tensor& memory, const Tensor& swap, Tensor& images, Tensor& labels) const;

  const Tensor& swap() const { return swap_; }  // swap_table of the data

 private:
  int sample_of(std::int64_t step, int item) const;
  PatchPlan plan_of(std::int64_t step, int item, int sample) const;

  const Dataset& data_;
  const TrainConfig& config_;
  std::array<std::int64_t, 3> patch_;
  std::vector<std::int32_t> order_;
  std::int64_t steps_per_epoch_ = 1;
  Tensor swap_;
  bool cuts_ = false;  // is any patch smaller than its image?
  std::vector<std::vector<std::vector<std::int64_t>>> places_;  // [sample][class]: some voxels of that class, to centre patches on
};

// A patch that suits the data: the largest extents for slices, at most 96 voxels along each axis of volumes; multiples of `divisor`.
std::array<std::int64_t, 3> default_patch(const Dataset& data, std::span<const int> divisor);

}  // namespace vg

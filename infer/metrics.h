// How well two label maps agree: voxel counts, Dice, volumes and confusion. Label ids are arbitrary 32-bit numbers (FreeSurfer's are
// sparse); all sums are integers, so results do not depend on the number of threads.
#pragma once
#include <cstdint>
#include <map>
#include <vector>

#include "tensor/tensor.h"

namespace vg {

// One label in a pair of maps, in voxels.
struct Overlap {
  std::int32_t label = 0;
  std::int64_t both = 0, reference = 0, predicted = 0;
  // 2 both / (reference + predicted); NaN where neither map has the label, 0 where one has not.
  double dice() const;
};

// How often each pair (reference label, predicted label) occurs, ascending; pairs that do not occur are absent.
struct Confusion {
  struct Cell {
    std::int32_t reference, predicted;
    std::int64_t voxels;
  };
  std::vector<Cell> cells;

  std::vector<Overlap> overlaps() const;  // every label of either map, ascending, 0 included
  std::int64_t voxels() const;
  double accuracy() const;  // share of voxels that agree
};

// Maps of equal element count on a host device, i32 or u8. Throws invalid_argument for other types or different shapes.
Confusion confusion(const Tensor& reference, const Tensor& predicted);
std::vector<Overlap> overlaps(const Tensor& reference, const Tensor& predicted);

// Voxels of each label, ascending, 0 included.
std::map<std::int32_t, std::int64_t> label_counts(const Tensor& labels);
// Mean of the Dice of all labels but 0, NaN left out; NaN when nothing is left.
double mean_foreground_dice(const std::vector<Overlap>& overlaps);

// Dice over many cases, in both ways that are in use: `pooled` sums the voxels of all cases first (stable for small structures and single
// slices), `case_mean` averages each case's Dice (nnU-Net's summary). Label 0 is background and never part of a mean.
class DiceAccumulator {
 public:
  struct Entry {
    Overlap sum;              // over all cases
    std::int64_t cases = 0;   // whose reference has the label
    std::int64_t scored = 0;  // where either map has it
    double dice_sum = 0;      // of those
    double pooled() const { return sum.dice(); }
    double case_mean() const;  // NaN when never scored
  };

  void add(const std::vector<Overlap>& overlaps);
  void add(const Tensor& reference, const Tensor& predicted) { add(overlaps(reference, predicted)); }

  std::int64_t cases() const { return cases_; }
  const std::map<std::int32_t, Entry>& entries() const { return entries_; }
  std::vector<std::int32_t> foreground() const;  // labels other than 0 that any map has, ascending
  // Foreground labels by how many references have them: in at least `cases`; in more than half; in at least three.
  std::vector<std::int32_t> seen_in(std::int64_t cases) const;
  std::vector<std::int32_t> common() const { return seen_in(cases_ / 2 + 1); }
  std::vector<std::int32_t> present() const { return seen_in(3); }
  // Unweighted means over labels, NaN left out; NaN when nothing is left. Labels that never occurred are left out.
  double mean_pooled(const std::vector<std::int32_t>& labels) const;
  double mean_case(const std::vector<std::int32_t>& labels) const;

 private:
  std::map<std::int32_t, Entry> entries_;
  std::int64_t cases_ = 0;
};

}  // namespace vg

// Scoring predictions against references: files or folders matched by name, geometry checked, results as a table for people and as JSON
// whose keys are those of nnU-Net's summary.json.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "infer/metrics.h"
#include "nifti/lut.h"

namespace vg {

struct EvaluateOptions {
  bool ignore_geometry = false;  // compare voxel by voxel even where the affines differ by more than 1e-3
  bool skip_missing = false;     // references without a prediction are left out instead of failed
};

struct ScoredCase {
  std::string name, reference, prediction;
  std::string error;        // why this case has no score; "" when it has
  double voxel_volume = 1;  // mm^3, of the reference
  double predicted_volume = 1;
  std::vector<Overlap> overlaps;
  std::vector<std::string> warnings;
};

struct Evaluation {
  std::vector<ScoredCase> cases;
  std::vector<std::string> missing;  // references without a prediction
  DiceAccumulator dice;

  double mean_foreground() const { return dice.mean_case(dice.foreground()); }  // NaN when nothing was scored
  int scored() const;
  int failed() const;
};

// The name under which files are matched: "sub-1_seg.nii.gz" -> "sub-1_seg".
std::string case_name(const std::string& path);
// Two files, or two folders (NIfTI and PNG, not recursive). In folders names match if they are equal, or else if exactly one prediction's
// name is the reference's with something added or left off after '_', '-' or '.' ("case_1" and "case_1_seg", "a-2d_axial-mask" and
// "a-2d_axial"). A case that cannot be scored is kept with its error. Throws io, invalid_argument when there is nothing to compare.
Evaluation evaluate(const std::string& reference, const std::string& predicted, const EvaluateOptions& options = {});

// Rows: label, name, Dice, volumes in mm^3 (means over cases), then "mean foreground Dice 0.9123 (32 labels, 5 cases)".
std::string to_table(const Evaluation& evaluation, const Lut& lut);
std::string to_json(const Evaluation& evaluation, const Lut& lut);

}  // namespace vg

// Quality control at a glance: one PNG with slices in three planes, the labels over the image in the table's colours, and a legend with
// volumes. Sides are stated and lettered. The pictures can show a face: treat them like the scan.
#pragma once
#include <string>

#include "infer/canvas.h"
#include "nifti/lut.h"
#include "nifti/volume.h"

namespace vg {

struct QcOptions {
  std::string title;                  // first line; give no patient's name
  bool radiological = true;           // the patient's left on the right of the picture; false: neurological, left on the left
  int columns = 6;                    // slices per plane, spread evenly over all but the outermost 3 % of the labels' voxels
  int tile = 244;                     // pixels of the longest side of a slice
  double opacity = 0.38;              // of the labels' colour; their outlines are drawn in full colour
  double margin = 12;                 // mm around the labels
  const Volume* reference = nullptr;  // other labels of the same grid: shown below, with Dice in the legend
};

// image: f32, one channel shown (the first). labels: i32. Both (1, D, H, W, C) with equal D, H, W. Volumes without an orientation in the
// file (PNG slices) are shown as stored, without letters; a grid that is one voxel thick gives that one plane: image, labels, reference,
// disagreement.
Canvas draw_qc_mosaic(const Volume& image, const Volume& labels, const Lut& lut, const QcOptions& options = {});
// The same into a PNG file. Throws invalid_argument, io.
void write_qc_mosaic(const std::string& path, const Volume& image, const Volume& labels, const Lut& lut, const QcOptions& options = {});

}  // namespace vg

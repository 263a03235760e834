// Synthetic heads: labelled T1-like volumes made on the spot, many subjects, for demonstrations, tests and as a data set without a licence
// question. A subject is a function of (seed, subject) alone: the same bits on every machine of one build, for any number of threads.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "nifti/lut.h"
#include "nifti/volume.h"
#include "tensor/shape.h"

namespace vg {

struct PhantomParams {
  Shape grid{96, 112, 96};  // D, H, W: extents along k, j, i. An extent of 1 gives a slice through the head's centre
  double spacing = 0;  // mm, the same along each axis; 0: the smallest multiple of 0.25 mm for which the whole head is in the field of view
  std::string orientation = "RAS";  // directions in which i, j, k grow, e.g. "LIA" as FreeSurfer's conformed volumes
  std::uint64_t seed = 0;
  int subject = 0;   // 0, 1, 2, ...: independent heads
  int site = -1;     // 0 .. kPhantomSites-1: scanner (intensity units, contrast, noise, bias); -1: drawn per subject
  double noise = 1;  // factors on the site's noise, on the bias field and on the elastic deformation; 0 switches them off
  double bias = 1;
  double deformation = 1;
};
inline constexpr int kPhantomSites = 3;

struct Phantom {
  Volume image;   // f32 (1, D, H, W, 1), whole numbers >= 0
  Volume labels;  // i32 (1, D, H, W, 1), FreeSurfer aseg ids; skull, scalp and air are 0
  int site = 0;
};

// Throws invalid_argument for extents outside 1..1024, spacings outside 0.25..16 mm, a bad orientation code or a site that does not exist.
Phantom make_phantom(const PhantomParams& params);

// What `spacing` = 0 means for a grid.
double phantom_spacing(const Shape& grid, const std::string& orientation);

// The labels of a phantom in ascending order, background first, with names and colours of FreeSurfer's table.
Lut phantom_labels();

// A folder of heads. nnU-Net's layout: imagesTr/case_000_0000.nii.gz, labelsTr/case_000.nii.gz, imagesTs/ and labelsTs/ (held-out cases go
// on counting), dataset.json with the sparse FreeSurfer ids. Flat: case_000.nii.gz and case_000_labels.nii.gz side by side. Both with
// lut.txt.
struct PhantomSet {
  std::string folder;
  bool flat = false;
  int training = 8, test = 0;
  PhantomParams params;  // `subject` is the first one
};
// Writes the files (i16 images, u8 labels) and returns how many; `wrote(path)` is called after each case. Throws as make_phantom, and io.
int write_phantoms(const PhantomSet& set, const std::function<void(const std::string& path)>& wrote = {});

}  // namespace vg

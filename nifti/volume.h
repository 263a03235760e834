// Volume: numbers for networks plus their place in the patient. Files become volumes here, whatever their format, and go back to files
// here.
#pragma once
#include <optional>
#include <string>

#include "nifti/geometry.h"
#include "nifti/image.h"
#include "tensor/tensor.h"

namespace vg {

// voxels: (1, D, H, W, C) on the cpu with (D, H, W) = (k, j, i), the file's own order; C = 4th extent, usually 1. f32 for images, i32 for
// label maps.
struct Volume {
  Tensor voxels;
  Placement place;              // affine: (i, j, k) -> RAS mm, and which transform it came from
  std::string name;             // the file, for messages
  Number stored = Number::f32;  // element type in the file
  bool scaled = false;          // did the file carry a slope or intercept?
  std::int64_t non_finite = 0;  // NaN and infinite voxels (kept)
  Warnings warnings;
  std::vector<Extension> extensions = {};  // of a NIfTI header: kept for writing the volume again

  Size3 size() const { return {voxels.shape().w(), voxels.shape().h(), voxels.shape().d()}; }  // along i, j, k
  Grid grid() const { return {size(), place.affine}; }
  Vec3 spacing() const { return spacing_of(place.affine); }  // mm along i, j, k
  std::int64_t channels() const { return voxels.shape().c(); }
};

struct ReadOptions {
  std::optional<std::int64_t> frame = {};  // one volume of a 4-D (or 5-D) file; default: all, as channels
  PixelOptions pixels = {};                // what to do with colour and complex voxels; default: refuse
  std::optional<int> series = {};          // of a DICOM folder or archive with several (dicom.h)
};

// A name may say which volume is meant: "bold.nii.gz,3" is volume 3 (from 0), "study.zip,series=1" series 1, "study.zip,series=1,3" both. Names of
// things that exist are never split.
struct Pick {
  std::string path;
  std::optional<std::int64_t> frame = {};
  std::optional<int> series = {};
};
Pick pick_of(const std::string& path);

// Stored numbers -> f32: slope * stored + inter in double, then rounded once. NaN and infinities stay and are counted (warning non_finite).
// Axes beyond the third become channels; more than one of them longer than 1 is unsupported without `frame`.
Volume to_volume(const Image& image, const ReadOptions& options = {});
// Stored numbers -> i32 labels. Values further than 1e-3 from a whole number, not finite or beyond 32 bits are refused (bad_file).
Volume to_labels(const Image& image, const ReadOptions& options = {});

// Every format of read_image, PNG, and folders of PNG slices (png.h); names as for pick_of, where options say nothing else. Throws as read_image and read_png do.
Volume read_volume(const std::string& path, const ReadOptions& options = {});
Volume read_labels(const std::string& path, const ReadOptions& options = {});

struct WriteOptions {
  std::optional<Number> type = {};  // default: f32 for f32 volumes; for i32 the smallest of uint8, int16, int32 that holds all values
  bool labels = false;              // sets intent LABEL (1002); always set for i32 volumes
  std::string description = {};     // at most 79 bytes
  int gzip_level = 1;               // 1 (fast, threaded) .. 12 (small), for names that end in .gz or .mgz
};
// Integer types take rounded values; a value outside the type's range (or NaN) is refused. Atomic. Throws invalid_argument, io.
// The name's ending chooses the format, as in write_image: .nii, .nii.gz, .hdr and .img (a pair), .mgh, .mgz.
void write_volume(const std::string& path, const Volume& volume, const WriteOptions& options = {});
// NIfTI alone: other endings are refused.
void write_nifti(const std::string& path, const Volume& volume, const WriteOptions& options = {});
// The same, up to the file: for other writers and for tests.
Image to_image(const Volume& volume, const WriteOptions& options = {});

// The volume with its axes permuted and flipped so that orientation_of(affine) == code. Values do not change.
Volume reorient(const Volume& volume, const std::string& code);

}  // namespace vg

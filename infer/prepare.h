// Data sets before training: which image belongs to which mask, slices for 2-D networks, a report of what does not fit, who validates. For
// segprep.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "nifti/volume.h"

namespace vg {

struct Pair {
  std::string name, image, mask;  // the subject; paths, "" where one is missing
};
// Sorted by name. `masks` "":  `images` holds FreeSurfer's subjects (SUBJECT/mri/T1.mgz or orig.mgz, SUBJECT/mri/aseg.mgz) or nnU-Net's folders
// (imagesTr, labelsTr). Otherwise two files, or two folders: NAME.* or NAME_0000.* beside NAME.* or NAME and one of _seg, _labels, _label, _aseg,
// _mask, -mask, _dseg. Incomplete pairs are returned too. Throws io, invalid_argument (nothing there, two files of one name).
std::vector<Pair> find_pairs(const std::string& images, const std::string& masks);

struct SliceOptions {
  std::string view = "coronal";  // "axial", "coronal", "sagittal"
  double at = 0.5;               // place along the axis, 0 .. 1: voxel floor(at x extent), at most the last
  bool conformed = false;        // cut from FreeSurfer's 256^3 of 1 mm, where all pictures have one size
  bool radiological = false;     // the patient's right on the left of the picture; default: left on the left
};
struct SlicePair {
  Volume image, mask;  // (1, 1, H, W, 1): f32 of whole numbers 0..255; i32 ids
};
// Upright pictures: axial with the face on top, coronal with the crown on top, sagittal with the face on the left. Grey values of uint8 files are
// kept, others scaled by FreeSurfer's robust range. Throws bad_file where image and mask do not lie on one grid (conformed: in one place).
SlicePair cut_slices(const Volume& image, const Volume& mask, const SliceOptions& options);

// DIR/VIEW/NAME-2d_VIEW.png and DIR/VIEW-mask/NAME-2d_VIEW-mask.png: what segtrain reads. Returns "NAME: reason" of those left out; throws where
// all are.
std::vector<std::string> write_slices(const std::vector<Pair>& pairs, const std::string& folder, const SliceOptions& options,
                                      const std::function<void(const std::string&)>& wrote = {});

// Shapes, spacings, orientations, ids with counts, and "problems" as a list of {subject, problem}: missing files, unreadable ones, image and mask
// apart, images with the same voxels, constant images, ids that only few masks have.
nlohmann::ordered_json check_dataset(const std::vector<Pair>& pairs);
std::string check_text(const nlohmann::ordered_json& report);

// {"training": [...], "validation": [...]}, or for folds > 1 nnU-Net's list of {"train", "val"}: what segtrain --split reads. Order by
// sha256("split " + name), with seed 0 as segtrain's own folds.
nlohmann::ordered_json make_split(std::vector<std::string> names, double validation, int folds, std::uint64_t seed);
// Names that segtrain gives the subjects of a folder of slices (of one view) or of nnU-Net's layout.
std::vector<std::string> dataset_names(const std::string& folder, const std::string& view);

}  // namespace vg

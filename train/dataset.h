// What a network is trained on: images and label maps in memory, class indices instead of the files' sparse ids, people split into training and
// validation, and the recipe that inference must follow to make the same images. Three sources: PNG slices, a folder in nnU-Net's layout, phantoms.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "infer/recipe.h"
#include "layers/model_file.h"

namespace vg {

struct Sample {
  std::string name;    // the subject
  Tensor image;        // (1, D, H, W, C) f32, normalised
  Tensor labels;       // (1, D, H, W, 1) u8: class index
  double voxel_mm3 = 0.0;
};

struct Dataset {
  int spatial_dims = 3;
  std::vector<std::string> channels;  // names of the input channels
  std::vector<LabelInfo> classes;     // index 0 is the background
  std::vector<Sample> training, validation;
  int left_right_axis = -1;           // 0, 1, 2 = D, H, W: the axis that a mirror image swaps hemispheres along; -1: none in the picture
  std::vector<std::string> skipped;   // "subject: reason", of pairs that were left out
  Recipe recipe;
  Json provenance = Json::object();   // source, view, counts: goes into the model file
};

// Who validates. `file`: JSON {"training": [names], "validation": [names]} or nnU-Net's splits_final.json (a list of {"train", "val"}, of which
// `fold` picks one); who is in neither list takes no part, unless there is no list of those who train. Otherwise fold `fold` of `folds` by the order of sha256("split " + name).
struct SplitOptions {
  std::string file;
  int fold = 0, folds = 5;
};

struct SlicesOptions {
  std::string view = "axial";  // DIR/VIEW/NAME-2d_VIEW.png and DIR/VIEW-mask/NAME-2d_VIEW-mask.png
  std::string lut;             // a FreeSurfer colour table; default: DIR/lut/FreeSurferColorLUT.txt, else the built-in one
  SplitOptions split;
};
// Slices and masks as PNG; each slice z-scored by itself: (x - mean) / sd. Classes: 0 and the ids that occur. Pairs that are incomplete,
// broken, of two sizes, constant, or with ids that the table does not know are skipped and listed. Throws bad_file where nothing is left.
Dataset load_slices(const std::string& folder, const SlicesOptions& options);

struct FolderOptions {
  SplitOptions split;
  std::string orientation = "RAS";  // that all volumes are turned to
};
// nnU-Net's raw layout: dataset.json, imagesTr/NAME_0000.nii.gz (one file a channel), labelsTr/NAME.nii.gz. Volumes are brought to one orientation
// and z-scored per channel. Ids may be sparse. Cases that are incomplete, whose images and labels differ in grid, or with ids that dataset.json does not
// list are skipped and listed.
Dataset load_folder(const std::string& folder, const FolderOptions& options);

struct PhantomDatasetOptions {
  int training = 24, validation = 4;
  Shape grid{1, 128, 144};  // D, H, W; an extent of 1 first: slices through the head's centre
  double spacing = 1.25;    // mm; 0: the whole head in the field of view
  // Of i, j, k; "" chooses: RAS for volumes, LIP for slices, which are then coronal pictures, upright, the patient's right on the picture's left.
  std::string orientation;
  std::uint64_t seed = 0;
};
Dataset make_phantom_dataset(const PhantomDatasetOptions& options);

}  // namespace vg

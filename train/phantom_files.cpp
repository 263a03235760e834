// Folders of synthetic heads in the layouts that segmentation tools read.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tensor/error.h"
#include "tensor/os.h"
#include "train/phantom.h"

namespace vg {
namespace {

namespace fs = std::filesystem;

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail(ErrorCode::io, "{}: {}", path.string(), error.message());
}

}  // namespace

int write_phantoms(const PhantomSet& set, const std::function<void(const std::string&)>& wrote) {
  require(set.training >= 0 && set.test >= 0 && set.training + set.test > 0,
          "phantoms: {} training and {} test cases (wanted at least one in all)", set.training, set.test);
  const fs::path root = set.folder;
  make_folder(root);
  if (!set.flat) {
    for (const char* part : {"imagesTr", "labelsTr"}) make_folder(root / part);
    if (set.test)
      for (const char* part : {"imagesTs", "labelsTs"}) make_folder(root / part);
  }
  const Lut lut = phantom_labels();
  WriteOptions as_image, as_labels;
  as_image.type = Number::i16;
  as_labels.type = Number::u8;
  as_image.description = as_labels.description = "voxgrad synthetic head";

  const int cases = set.training + set.test;
  for (int i = 0; i < cases; ++i) {
    PhantomParams params = set.params;
    params.subject += i;
    const Phantom phantom = make_phantom(params);
    const std::string name = fmt::format("case_{:03}", i), part = i < set.training ? "Tr" : "Ts";
    const fs::path image = set.flat ? root / (name + ".nii.gz") : root / ("images" + part) / (name + "_0000.nii.gz");
    const fs::path labels = set.flat ? root / (name + "_labels.nii.gz") : root / ("labels" + part) / (name + ".nii.gz");
    write_nifti(labels.string(), phantom.labels, as_labels);
    write_nifti(image.string(), phantom.image, as_image);
    if (wrote) wrote(image.string());
  }
  write_lut((root / "lut.txt").string(), lut);
  if (set.flat) return cases;

  nlohmann::ordered_json labels = nlohmann::ordered_json::object();
  for (const auto& [id, entry] : lut.entries) labels[id ? entry.name : "background"] = id;
  const nlohmann::ordered_json dataset = {{"name", "voxgrad-phantom"},
                                          {"description", fmt::format("synthetic heads, seed {}, subjects {} to {}", set.params.seed,
                                                                      set.params.subject, set.params.subject + cases - 1)},
                                          {"channel_names", {{"0", "T1"}}},
                                          {"labels", labels},
                                          {"numTraining", set.training},
                                          {"numTest", set.test},
                                          {"file_ending", ".nii.gz"}};
  os::write_file_atomic((root / "dataset.json").string(), dataset.dump(2) + "\n");
  return cases;
}

}  // namespace vg

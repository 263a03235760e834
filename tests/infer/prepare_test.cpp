// Slices land upright and in the right mirror image whatever the volume's axes are; pairs, reports and splits.
#include "infer/prepare.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "nifti/png.h"
#include "tensor/error.h"
#include "tensor/tensor.h"

namespace vg {
namespace {

namespace fs = std::filesystem;

struct Folder {
  Folder() : path(fs::temp_directory_path() / ("vg_prepare_" + std::to_string(::getpid()))) { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const std::string& name) const { return (path / name).string(); }
  fs::path path;
};

// 5 x 7 x 9 voxels RAS around the origin; 100 + a bright voxel in the mid-planes' corner: left, anterior, superior. The mask marks it with 2.
std::pair<Volume, Volume> head(float shift = 0) {
  Volume image, mask;
  image.voxels = Tensor({1, 9, 7, 5, 1}, DType::f32, kCpu), mask.voxels = Tensor({1, 9, 7, 5, 1}, DType::i32, kCpu);
  for (std::int64_t n = 0; n < 315; ++n) image.voxels.data<float>()[n] = 100, mask.voxels.data<std::int32_t>()[n] = 0;
  const auto at = [](std::int64_t i, std::int64_t j, std::int64_t k) { return (k * 7 + j) * 5 + i; };
  for (const std::int64_t n : {at(0, 6, 4), at(0, 3, 8), at(2, 6, 8)}) image.voxels.data<float>()[n] = 200, mask.voxels.data<std::int32_t>()[n] = 2;
  image.place.affine.m[0][3] = mask.place.affine.m[0][3] = -2 + shift;
  image.place.source = mask.place.source = TransformSource::sform, image.place.code = mask.place.code = 1;
  image.stored = mask.stored = Number::u8;
  image.name = "image", mask.name = "mask";
  return {image, mask};
}

TEST(Prepare, SlicesAreUprightWhateverTheAxes) {
  struct Case {
    const char* view;
    bool radiological;
    std::int64_t width, height, column, row;  // of the bright voxel
  };
  const Case cases[] = {{"axial", false, 5, 7, 0, 0},   {"axial", true, 5, 7, 4, 0},    {"coronal", false, 5, 9, 0, 0},
                        {"coronal", true, 5, 9, 4, 0}, {"sagittal", false, 7, 9, 0, 0}, {"sagittal", true, 7, 9, 0, 0}};
  for (const Case& c : cases)
    for (const char* axes : {"RAS", "LIA", "PSL", "SAR", "IRP"}) {
      SCOPED_TRACE(std::string(c.view) + " of " + axes);
      const auto [image, mask] = head();
      SliceOptions o;
      o.view = c.view, o.radiological = c.radiological;
      const SlicePair s = cut_slices(reorient(image, axes), reorient(mask, axes), o);
      ASSERT_EQ(s.image.voxels.shape(), (Shape{1, 1, c.height, c.width, 1}));
      ASSERT_EQ(s.mask.voxels.shape(), s.image.voxels.shape());
      for (std::int64_t n = 0; n < c.width * c.height; ++n) {
        const bool bright = n == c.row * c.width + c.column;
        EXPECT_EQ(s.image.voxels.data<float>()[n], bright ? 200 : 100) << n;
        EXPECT_EQ(s.mask.voxels.data<std::int32_t>()[n], bright ? 2 : 0) << n;
      }
    }
}

TEST(Prepare, ThePlaceOfTheSliceAndOtherGrids) {
  auto [image, mask] = head();
  SliceOptions o;
  o.view = "axial";
  for (const double at : {0.0, 0.99, 1.0}) {
    o.at = at;
    const SlicePair s = cut_slices(image, mask, o);
    std::int64_t marked = 0;
    for (std::int64_t n = 0; n < 35; ++n) marked += s.mask.voxels.data<std::int32_t>()[n] == 2;
    EXPECT_EQ(marked, at == 0.0 ? 0 : 2) << at;  // the top plane holds two
  }
  EXPECT_THROW(cut_slices(image, head(0.3f).second, o), Error) << "image and mask apart";
  o.at = 2;
  EXPECT_THROW(cut_slices(image, mask, o), Error);
  o.at = 0.5, o.view = "oblique";
  EXPECT_THROW(cut_slices(image, mask, o), Error);
  o.view = "coronal", o.conformed = true;
  const SlicePair s = cut_slices(image, head(0.3f).second, o);
  EXPECT_EQ(s.image.voxels.shape(), (Shape{1, 1, 256, 256, 1}));
  EXPECT_EQ(s.mask.voxels.shape(), s.image.voxels.shape());
}

TEST(Prepare, SlicesOfAFolder) {
  Folder folder;
  fs::create_directories(folder.path / "imagesTr"), fs::create_directories(folder.path / "labelsTr");
  for (const char* name : {"anna", "bert", "carl"}) {
    auto [image, mask] = head();
    image.voxels.data<float>()[0] = static_cast<float>(name[0]);
    write_volume(folder / ("imagesTr/" + std::string(name) + "_0000.nii.gz"), image, {.type = Number::u8, .labels = false, .description = "", .gzip_level = 1});
    write_volume(folder / ("labelsTr/" + std::string(name) + ".nii.gz"), mask);
  }
  write_volume(folder / "labelsTr/dora.nii.gz", head().second);
  const std::vector<Pair> pairs = find_pairs(folder.path.string(), "");
  ASSERT_EQ(pairs.size(), 4u);
  EXPECT_EQ(pairs[1].name, "bert");
  SliceOptions o;
  const std::vector<std::string> left_out = write_slices(pairs, folder / "slices", o);
  ASSERT_EQ(left_out.size(), 1u);
  EXPECT_EQ(left_out[0], "dora: no image");
  EXPECT_EQ(dataset_names(folder / "slices", "coronal"), (std::vector<std::string>{"anna", "bert", "carl"}));
  EXPECT_EQ(dataset_names(folder.path.string(), "coronal").size(), 4u);
  const PngPicture picture = read_png(folder / "slices/coronal-mask/anna-2d_coronal-mask.png");
  EXPECT_EQ(picture.width, 5);
  EXPECT_EQ(picture.height, 9);
  EXPECT_EQ(png_to_labels(picture).voxels.data<std::int32_t>()[0], 2);
}

TEST(Prepare, TheReportNamesWhatDoesNotFit) {
  Folder folder;
  fs::create_directories(folder.path / "i"), fs::create_directories(folder.path / "m");
  const auto put = [&](const std::string& name, const Volume& image, const Volume& mask) {
    write_volume(folder / ("i/" + name + ".nii.gz"), image);
    write_volume(folder / ("m/" + name + "_labels.nii.gz"), mask);
  };
  const auto [image, mask] = head();
  put("a", image, mask), put("b", image, mask), put("c", image, head(3).second);
  Volume flat = image;
  flat.voxels = Tensor(image.voxels.shape(), DType::f32, kCpu);
  std::fill_n(flat.voxels.data<float>(), 315, 7.0f);
  put("d", flat, mask);
  write_volume(folder / "i/e.nii", image);
  std::ofstream(folder / "i/f.nii") << "no image";
  write_volume(folder / "m/f.nii", mask);
  const nlohmann::ordered_json r = check_dataset(find_pairs(folder / "i", folder / "m"));
  std::multiset<std::string> found;
  for (const auto& p : r["problems"]) found.insert(p["subject"].get<std::string>() + " " + p["problem"].get<std::string>().substr(0, 9));
  EXPECT_EQ(found, (std::multiset<std::string>{"b the same ", "c the same ", "c image and", "d the image", "e an image ", "f " + (folder / "i/f.nii").substr(0, 9)}));
  EXPECT_EQ(r["sound"], 3);
  EXPECT_EQ(r["shapes"]["5 x 7 x 9"], 4);
  EXPECT_EQ(r["labels"][1]["id"], 2);
  EXPECT_EQ(r["labels"][1]["voxels"], 12);
  EXPECT_NE(check_text(r).find("image and mask lie up to 3.00 mm apart"), std::string::npos);
}

TEST(Prepare, Splits) {
  std::vector<std::string> names;
  for (int n = 0; n < 23; ++n) names.push_back("s" + std::to_string(n));
  const auto one = make_split(names, 0.2, 1, 0);
  EXPECT_EQ(one["validation"].size(), 5u);
  EXPECT_EQ(one["training"].size(), 18u);
  EXPECT_EQ(make_split({names.rbegin(), names.rend()}, 0.2, 1, 0), one) << "the order of the names does not matter";
  EXPECT_NE(make_split(names, 0.2, 1, 1), one);
  const auto folds = make_split(names, 0, 5, 0);
  std::multiset<std::string> held;
  for (const auto& f : folds) {
    for (const auto& name : f["val"]) held.insert(name.get<std::string>());
    EXPECT_EQ(f["val"].size() + f["train"].size(), 23u);
  }
  EXPECT_EQ(folds.size(), 5u);
  EXPECT_EQ(held, std::multiset<std::string>(names.begin(), names.end()));
  EXPECT_THROW(make_split({"a", "a"}, 0.5, 1, 0), Error);
  EXPECT_THROW(make_split({"a"}, 0.5, 1, 0), Error);
  EXPECT_THROW(make_split(names, 1.0, 1, 0), Error);
  EXPECT_THROW(make_split(names, 0.2, 24, 0), Error);
}

TEST(Prepare, PairsByName) {
  Folder folder;
  fs::create_directories(folder.path / "x/s1/mri"), fs::create_directories(folder.path / "x/s2/mri"), fs::create_directories(folder.path / "x/log");
  for (const char* file : {"x/s1/mri/orig.mgz", "x/s1/mri/T1.mgz", "x/s1/mri/aseg.mgz", "x/s2/mri/orig.mgz"}) std::ofstream(folder / file) << "-";
  const std::vector<Pair> pairs = find_pairs(folder / "x", "");
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].image, folder / "x/s1/mri/T1.mgz");
  EXPECT_EQ(pairs[0].mask, folder / "x/s1/mri/aseg.mgz");
  EXPECT_EQ(pairs[1].mask, "");
  EXPECT_THROW(find_pairs(folder / "x/log", ""), Error);
  EXPECT_THROW(find_pairs(folder / "absent", ""), Error);
}

}  // namespace
}  // namespace vg

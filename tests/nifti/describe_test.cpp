// The report that seginfo prints: facts, quantiles against a sort, the guess whether a file holds labels, header alone.
#include "nifti/describe.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "nifti/png.h"
#include "tensor/error.h"
#include "tensor/random.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::TemporaryFolder;

Volume labels_of(std::vector<std::int32_t> values) {
  Volume v;
  const auto n = static_cast<std::int64_t>(values.size());
  v.voxels = from_host(values, {1, 1, 1, n, 1});
  for (int a = 0; a < 3; ++a) v.place.affine.m[a][a] = 2;
  return v;
}

TEST(Describe, LabelMapsAreCountedByName) {
  TemporaryFolder folder;
  write_nifti(folder / "l.nii.gz", labels_of({0, 0, 17, 17, 17, 53, 2035}));
  const Lut lut = builtin_freesurfer();
  const FileReport r = inspect(folder / "l.nii.gz", lut);
  ASSERT_EQ(r.labels.size(), 4u);
  EXPECT_EQ(r.labels[1].id, 17);
  EXPECT_EQ(r.labels[1].voxels, 3);
  EXPECT_EQ(r.labels[3].id, 2035);
  const nlohmann::json j = to_json(r, lut);
  EXPECT_EQ(j["labels"][1]["name"], "Left-Hippocampus");
  EXPECT_DOUBLE_EQ(j["labels"][1]["ml"], 3 * 8 / 1000.0);
  EXPECT_EQ(j["labels"][3]["name"], "label-2035");
  EXPECT_EQ(j["orientation"], "RAS");
  EXPECT_EQ(j["type"], "int16");
  EXPECT_NE(to_text(r, lut).find("Left-Hippocampus"), std::string::npos);
  EXPECT_TRUE(inspect(folder / "l.nii.gz", lut, {.labels = LabelGuess::no}).labels.empty());

  const FileReport header = inspect(folder / "l.nii.gz", lut, {.header_only = true});
  EXPECT_EQ(header.dim, r.dim);
  EXPECT_FALSE(header.values.has_value());
}

TEST(Describe, ImagesAreNotTakenForLabels) {
  TemporaryFolder folder;
  const Lut lut = builtin_freesurfer();
  Random random(4);
  Volume v;
  v.voxels = Tensor({1, 7, 11, 13, 1}, DType::f32, kCpu);
  std::vector<float> sorted;
  for (std::int64_t n = 0; n < 1001; ++n) {
    v.voxels.data<float>()[n] = static_cast<float>(random.below(200));
    if (n == 3 || n == 900)
      v.voxels.data<float>()[n] = NAN;
    else
      sorted.push_back(v.voxels.data<float>()[n]);
  }
  std::sort(sorted.begin(), sorted.end());
  write_nifti(folder / "f.nii", v);
  const FileReport r = inspect(folder / "f.nii", lut);
  EXPECT_TRUE(r.labels.empty()) << "floats";
  EXPECT_EQ(r.values->non_finite, 2);
  EXPECT_TRUE(has_warning(r.warnings, "non_finite"));
  EXPECT_EQ(r.values->low, sorted.front());
  EXPECT_EQ(r.values->high, sorted.back());
  EXPECT_EQ(r.values->median, sorted[499]);
  EXPECT_EQ(r.values->quantile_02, sorted[19]);
  EXPECT_EQ(r.values->quantile_98, sorted[978]);
  for (std::int64_t n : {3, 900}) v.voxels.data<float>()[n] = sorted[0];
  write_nifti(folder / "u.nii", v, {.type = Number::u8});
  EXPECT_TRUE(inspect(folder / "u.nii", lut).labels.empty()) << "many values, most without a name";
  const std::size_t kinds = std::set<float>(sorted.begin(), sorted.end()).size();
  EXPECT_GT(kinds, 150u);
  EXPECT_EQ(inspect(folder / "u.nii", lut, {.labels = LabelGuess::yes}).labels.size(), kinds);
  Lut all;
  for (int id = 0; id < 200; ++id) all.entries[id] = {"n", {}, 0};
  EXPECT_EQ(inspect(folder / "u.nii", all).labels.size(), kinds) << "every value has a name";

  for (std::int64_t n = 0; n < 1001; ++n) v.voxels.data<float>()[n] = NAN;
  write_nifti(folder / "n.nii", v);
  EXPECT_EQ(inspect(folder / "n.nii", lut).values->finite, 0);
  EXPECT_THROW(inspect(folder / "absent.nii", lut), Error);
}

TEST(Describe, PicturesToo) {
  TemporaryFolder folder;
  const Lut lut = builtin_freesurfer();
  std::vector<std::int32_t> ids(300, 17);
  ids[0] = 0, ids[7] = 41;
  write_png_labels(folder / "l.png", ids.data(), 20, 15, lut);
  const FileReport r = inspect(folder / "l.png", lut);
  ASSERT_EQ(r.labels.size(), 3u);
  EXPECT_EQ(r.labels[1].voxels, 298);
  EXPECT_EQ(r.format, "PNG, 8 bit palette");
  EXPECT_EQ(r.dim, (std::vector<std::int64_t>{20, 15}));
}

}  // namespace
}  // namespace vg

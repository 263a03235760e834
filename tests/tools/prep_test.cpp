// segprep and seginfo from outside: a data set of synthetic heads becomes slices and a split; files change format; reports and exit codes.
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "layers/model_file.h"
#include "nifti/volume.h"
#include "tests/tools/process.h"

namespace vg::test {
namespace {

namespace fs = std::filesystem;

class Prep : public testing::Test {
 protected:
  Prep() : root_(fs::temp_directory_path() / ("vg_prep_" + std::to_string(::getpid()))) {
    fs::create_directories(root_);
    EXPECT_EQ(run("segphantom", {"-o", file("set"), "-n", "3", "--size", "20x24x16", "--spacing", "0", "-q"}).code, 0);
  }
  ~Prep() override { fs::remove_all(root_); }
  std::string file(const std::string& name) const { return (root_ / name).string(); }
  fs::path root_;
};

TEST_F(Prep, SlicesAndSplit) {
  const Result r = run("segprep", {"slices", file("set"), "-o", file("slices"), "--view", "axial"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 3);
  EXPECT_TRUE(fs::exists(file("slices/axial/case_001-2d_axial.png")));
  EXPECT_TRUE(fs::exists(file("slices/axial-mask/case_001-2d_axial-mask.png")));
  EXPECT_EQ(run("segprep", {"split", file("slices"), "--view", "axial", "-o", file("split.json"), "--validation", "0.34"}).code, 0);
  const nlohmann::json split = nlohmann::json::parse(std::ifstream(file("split.json")));
  EXPECT_EQ(split["training"].size(), 2u);
  EXPECT_EQ(split["validation"].size(), 1u);
  EXPECT_EQ(run("segprep", {"slices", file("set"), "-o", file("slices"), "--view", "oblique"}).code, 2);
  EXPECT_EQ(run("segprep", {"slices", file("absent"), "-o", file("slices")}).code, 1);
  EXPECT_EQ(run("segprep", {}).code, 2);
}

TEST_F(Prep, CheckFindsWhatIsMissing) {
  EXPECT_EQ(run("segprep", {"check", file("set")}).code, 0);
  fs::remove(file("set/labelsTr/case_002.nii.gz"));
  const Result r = run("segprep", {"check", file("set"), "--json"});
  EXPECT_EQ(r.code, 1);
  const nlohmann::json report = nlohmann::json::parse(r.out);
  EXPECT_EQ(report["sound"], 2);
  ASSERT_EQ(report["problems"].size(), 1u);
  EXPECT_EQ(report["problems"][0]["subject"], "case_002");
}

TEST_F(Prep, ConvertAndConform) {
  const std::string labels = file("set/labelsTr/case_000.nii.gz"), image = file("set/imagesTr/case_000_0000.nii.gz");
  EXPECT_EQ(run("segprep", {"convert", "--labels", labels, file("l.mgz")}).code, 0);
  EXPECT_EQ(run("segprep", {"convert", image, file("i.mgz")}).code, 0);
  EXPECT_EQ(run("segprep", {"convert", file("i.mgz"), file("back.nii")}).code, 0);
  const Image before = read_image(image), after = read_image(file("back.nii"));
  EXPECT_EQ(after.type, before.type);
  EXPECT_EQ(std::memcmp(before.voxels(), after.voxels(), before.bytes()), 0);
  EXPECT_LT(corner_distance(before.size(), before.place.affine, after.place.affine), 1e-4);
  EXPECT_EQ(run("segprep", {"convert", "--orientation", "LIA", image, file("lia.nii.gz")}).code, 0);
  EXPECT_EQ(orientation_of(read_image_header(file("lia.nii.gz")).place.affine), "LIA");
  EXPECT_EQ(run("segprep", {"convert", image, file("volume.png")}).code, 1) << "a volume is no picture";
  EXPECT_EQ(run("segprep", {"convert", "--volume", "1", image, file("x.nii")}).code, 1) << "there is one volume";
  EXPECT_EQ(run("segprep", {"conform", "--labels", labels, file("c.mgz")}).code, 0);
  const Image conformed = read_image(file("c.mgz"));
  EXPECT_EQ(conformed.size(), (Size3{256, 256, 256}));
  EXPECT_EQ(orientation_of(conformed.place.affine), "LIA");
}

TEST_F(Prep, SeginfoTellsOfPlainSafetensors) {
  Safetensors s;
  s.tensors = {{"conv.weight", Tensor({2, 3}, DType::f32, kCpu)}};
  std::fill_n(s.tensors[0].second.data<float>(), 6, 0.5f);
  write_safetensors(file("w.safetensors"), s);
  const Result text = run("seginfo", {file("w.safetensors")});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_TRUE(contains(text.out, "conv.weight")) << text.out;
  const Result json = run("seginfo", {"--json", file("w.safetensors")});
  EXPECT_EQ(nlohmann::json::parse(json.out)["tensors"][0]["name"], "conv.weight");
}

}  // namespace
}  // namespace vg::test

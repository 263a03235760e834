// The programs from outside: exit codes 0, 1 and 2, messages for people on stderr, results on stdout, nothing at all with -q.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "layers/json.h"
#include "nifti/png.h"
#include "nifti/volume.h"
#include "tensor/device.h"
#include "tests/infer/networks.h"
#include "tests/layers/files.h"
#include "tests/tools/process.h"
#include "train/phantom.h"

namespace vg {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::Result;
using test::run;
using test::Words;

const Words kTools = {"segeval", "segimport", "seginfer", "seginfo", "segphantom", "segtrain"};

// A model that classifies T1-like intensities of the phantoms, normalised to 0..1.
void write_threshold_model(const std::string& path, int spatial_dims = 3) {
  Recipe r;
  r.orientation = spatial_dims == 3 ? "RAS" : "", r.slices = spatial_dims == 3 ? "" : "image";
  r.intensity.kind = "minmax";
  Model m = test::threshold_model(spatial_dims, {0.3, 0.6}, r);
  m.labels = {{.id = 0, .name = "Unknown", .rgb = {0, 0, 0}, .pair = -1, .merged = {}},
              {.id = 3, .name = "Dark", .rgb = {205, 62, 78}, .pair = -1, .merged = {}},
              {.id = 2, .name = "Bright", .rgb = {245, 245, 245}, .pair = -1, .merged = {}}};
  write_model(path, m);
}

class Programs : public testing::Test {
 protected:
  // Two scans and their labels, side by side in "in" and "truth".
  void phantoms() const {
    for (int i = 0; i < 2; ++i) {
      PhantomParams p;
      p.grid = {20, 24, 18}, p.subject = i, p.orientation = "LIA";
      const Phantom head = make_phantom(p);
      fs::create_directories(folder_ / "in"), fs::create_directories(folder_ / "truth");
      write_nifti(folder_ / fmt::format("in/head{}.nii.gz", i), head.image,
                  {.type = Number::i16, .labels = false, .description = {}, .gzip_level = 1});
      write_nifti(folder_ / fmt::format("truth/head{}.nii.gz", i), head.labels);
    }
    write_threshold_model(folder_ / "m.safetensors");
  }
  std::string at(const std::string& name) const { return folder_ / name; }
  test::Folder folder_;
};

TEST_F(Programs, HelpAndVersionAreResults) {
  for (const std::string& tool : kTools) {
    const Result help = run(tool, {"--help"}), version = run(tool, {"--version"});
    EXPECT_EQ(help.code, 0) << tool;
    EXPECT_TRUE(contains(help.out, "-h,--help")) << tool;
    EXPECT_EQ(help.err, "") << tool;
    EXPECT_EQ(version.code, 0) << tool;
    EXPECT_TRUE(contains(version.out, VG_VERSION)) << tool;
  }
}

TEST_F(Programs, UsageErrorsExitWithTwo) {
  const std::pair<std::string, Words> cases[] = {
      {"segeval", {}},
      {"segeval", {"--ref", "a"}},
      {"segeval", {"--ref", "a", "--pred", "b", "--min-dice", "2"}},
      {"segimport", {}},
      {"segimport", {"w.safetensors", "-o", "m"}},
      {"segimport", {"w", "--config", "c", "-o", "m", "--gelu", "exact"}},
      {"seginfer", {}},
      {"seginfer", {"-i", "a.nii", "-o", "b.nii"}},
      {"seginfer", {"-m", "m", "-i", "a.nii"}},
      {"seginfer", {"-m", "m", "-o", "a.nii"}},
      {"seginfer", {"-m", "m", "-i", "a.nii", "-o", "b.nii", "--max-mem", "4Q"}},
      {"seginfer", {"-m", "m", "-i", "a.nii", "-o", "b.nii", "-t", "-1"}},
      {"seginfo", {}},
      {"seginfo", {"a.nii", "--labels", "--no-labels"}},
      {"segphantom", {}},
      {"segphantom", {"-o", "x", "-n", "-1"}},
      {"segphantom", {"-o", "x", "--format", "dicom"}},
      {"segtrain", {}},
      {"segtrain", {"--phantom", "--fold", "x"}},
      {"segtrain", {"--phantom", "--fold", "5/5"}},
      {"segtrain", {"--phantom", "--grid", "32"}},
      {"segtrain", {"--phantom", "--steps", "many"}},
      {"segtrain", {"--phantom", "--batch", "0"}},
      {"segtrain", {"--phantom", "--progress", "xml"}},
  };
  for (const auto& [tool, arguments] : cases) {
    std::string line = tool;
    for (const std::string& a : arguments) line += " " + a;
    const Result r = run(tool, arguments);
    EXPECT_EQ(r.code, 2) << line << "\n" << r.err;
    EXPECT_EQ(r.out, "") << line;
    EXPECT_NE(r.err, "") << line;
  }
  for (const std::string& tool : kTools) {
    const Result r = run(tool, {"--no-such-option"});
    EXPECT_EQ(r.code, 2) << tool;
    EXPECT_EQ(r.out, "") << tool;
  }
}

TEST_F(Programs, FilesThatAreNotThereAreNamed) {
  write_threshold_model(at("m.safetensors"));
  test::put_bytes(at("there.nii"), "not a scan at all");
  const std::string absent = at("absent");
  const std::pair<std::string, Words> cases[] = {
      {"segeval", {"--ref", absent, "--pred", absent}},
      {"segimport", {absent, "--config", absent, "-o", at("m")}},
      {"seginfer", {"-m", absent, "-i", at("there.nii"), "-o", at("out.nii")}},
      {"seginfer", {"-m", at("m.safetensors"), "-i", absent, "-o", at("out.nii")}},
      {"seginfo", {absent}},
      {"segtrain", {absent}},
      {"segtrain", {"--phantom", "--config", absent}},
      {"segtrain", {"--phantom", "--phantoms", "2", "--grid", "16", "16", "-o", at("run"), "--init", absent}},
  };
  for (const auto& [tool, arguments] : cases) {
    const Result r = run(tool, arguments);
    EXPECT_EQ(r.code, 1) << tool << "\n" << r.err;
    EXPECT_EQ(r.out, "") << tool;
    EXPECT_TRUE(contains(r.err, tool + ": " + absent) || contains(r.err, absent)) << tool << ": " << r.err;
    EXPECT_TRUE(contains(r.err, "No such file")) << tool << ": " << r.err;
  }
  const Result r = run("seginfer", {"-m", at("m.safetensors"), "-i", at("there.nii"), "-o", at("out.nii")});
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "there.nii")) << r.err;
  EXPECT_FALSE(fs::exists(at("out.nii")));
}

TEST_F(Programs, ADeviceThatIsNotThereIsSaidClearly) {
  try {
    parse_device("cuda");
    GTEST_SKIP() << "this machine has a GPU";
  } catch (const Error&) {
  }
  phantoms();
  const Words infer = {"-m", at("m.safetensors"), "-i", at("in/head0.nii.gz"), "-o", at("out.nii.gz")};
  for (const char* device : {"cuda", "cuda:0"}) {
    Words a = infer;
    a.insert(a.end(), {"--device", device});
    for (const Result& r : {run("seginfer", a), run("segtrain", {"--phantom", "--phantoms", "1", "-o", at("run"), "--device", device})}) {
      EXPECT_EQ(r.code, 1);
      EXPECT_TRUE(contains(r.err, "no CUDA device")) << r.err;
      EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
    }
  }
  Words a = infer;
  a.insert(a.end(), {"--device", "auto"});
  const Result r = run("seginfer", a);
  EXPECT_EQ(r.code, 0);
  EXPECT_TRUE(contains(r.err, "device: cpu (")) << r.err;
  a.back() = "tpu";
  EXPECT_EQ(run("seginfer", a).code, 1);
}

TEST_F(Programs, NoCudaLibraryIsLinked) {
  for (const std::string& tool : kTools) {
    const Result r = run("/usr/bin/ldd", {std::string(VG_BIN_DIR) + "/" + tool});
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(contains(r.out, "libstdc++")) << tool;
    for (const char* name : {"cuda", "cudnn", "cublas", "nvidia", "nccl", "libtorch"})
      EXPECT_FALSE(contains(r.out, name)) << tool << "\n" << r.out;
  }
}

// ------------------------------------------------------------------------------------------------------------------- seginfer

TEST_F(Programs, SeginferWritesEverythingAndSaysNothingWhenQuiet) {
  phantoms();
  const Result r = run("seginfer", {"-q", "-m", at("m.safetensors"), "-i", at("in"), "-o", at("out"), "--vol", at("new/v.csv"), "--report",
                                    at("new/r.json"), "--conf", at("conf"), "--qc", at("qc"), "--top-labels", at("top"), "--top-conf", at("top")});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out + r.err, "");
  for (const char* file :
       {"out/head0_seg.nii.gz", "out/head1_seg.nii.gz", "conf/head0_conf.nii.gz", "top/head1_top.nii.gz", "top/head1_topconf.nii.gz", "qc/head1_qc.png", "new/v.csv", "new/r.json"})
    EXPECT_TRUE(fs::exists(at(file))) << file;
  const Volume labels = read_labels(at("out/head0_seg.nii.gz")), scan = read_volume(at("in/head0.nii.gz"));
  EXPECT_TRUE(labels.place.affine == scan.place.affine);
  const auto [low, high] = std::minmax_element(scan.voxels.data<float>(), scan.voxels.data<float>() + scan.voxels.elements());
  std::map<std::int32_t, std::int64_t> counts;
  for (std::int64_t i = 0; i < scan.voxels.elements(); ++i) {
    const float x = (scan.voxels.data<float>()[i] - *low) / (*high - *low);
    const std::int32_t id = labels.voxels.data<std::int32_t>()[i];
    ++counts[id];
    const bool close = std::abs(x - 0.3f) < 1e-5f || std::abs(x - 0.6f) < 1e-5f;
    ASSERT_TRUE(close || id == (x > 0.6f ? 2 : x > 0.3f ? 3 : 0)) << x << " " << id;
  }
  EXPECT_EQ(counts.size(), 3u);
  // All three labels of each voxel in some order, the likeliest first.
  const Volume top = read_volume(at("top/head0_top.nii.gz")), chances = read_volume(at("top/head0_topconf.nii.gz")), sure = read_volume(at("conf/head0_conf.nii.gz"));
  ASSERT_EQ(top.channels(), 3);
  ASSERT_EQ(chances.channels(), 3);
  EXPECT_TRUE(top.place.affine == scan.place.affine);
  for (std::int64_t i = 0; i < scan.voxels.elements(); ++i) {
    const float *id = top.voxels.data<float>() + 3 * i, *p = chances.voxels.data<float>() + 3 * i;
    ASSERT_EQ(id[0], static_cast<float>(labels.voxels.data<std::int32_t>()[i]));
    ASSERT_EQ(id[0] + id[1] + id[2], 5.0f);
    ASSERT_TRUE(p[0] >= p[1] && p[1] >= p[2]);
    ASSERT_NEAR(p[0] + p[1] + p[2], 1.0f, 1e-5f);
    ASSERT_EQ(p[0], sure.voxels.data<float>()[i]);
  }
  const std::string csv = os::read_text(at("new/v.csv"));
  EXPECT_TRUE(contains(csv, "case,Bright,Dark\nhead0,")) << csv;
  EXPECT_TRUE(contains(csv, "not a medical device"));
  const Json report = parse_json(os::read_text(at("new/r.json")), "report");
  EXPECT_EQ(report["cases"].size(), 2u);
  const Vec3 mm = scan.spacing();
  EXPECT_NEAR(report["cases"][0]["volumes"]["Bright"]["mm3"].get<double>(), static_cast<double>(counts[2]) * mm[0] * mm[1] * mm[2], 1e-3);
}

TEST_F(Programs, OneBadScanNeverStopsTheRest) {
  phantoms();
  test::put_bytes(at("in/aaa_broken.nii.gz"), "no");
  const Result r = run("seginfer", {"-m", at("m.safetensors"), "-i", at("in"), "-o", at("out"), "--report", at("r.json"), "--cpu"});
  EXPECT_EQ(r.code, 1);
  EXPECT_EQ(r.out, "");
  EXPECT_TRUE(contains(r.err, "aaa_broken.nii.gz")) << r.err;
  EXPECT_TRUE(contains(r.err, "2 of 3 done")) << r.err;
  EXPECT_TRUE(fs::exists(at("out/head1_seg.nii.gz")));
  EXPECT_FALSE(fs::exists(at("out/aaa_broken_seg.nii.gz")));
  const Json report = parse_json(os::read_text(at("r.json")), "report");
  EXPECT_TRUE(report["cases"][0].contains("error"));
  EXPECT_FALSE(report["cases"][1].contains("error"));
  // Also with -q the error is said.
  EXPECT_TRUE(contains(run("seginfer", {"-q", "-m", at("m.safetensors"), "-i", at("in"), "-o", at("out")}).err, "aaa_broken"));
}

TEST_F(Programs, SeginferSaysWhatItWouldDoAndRefusesWhatIsTooLarge) {
  phantoms();
  const Words base = {"-m", at("m.safetensors"), "-i", at("in/head0.nii.gz"), "-o", at("out.nii.gz")};
  Words a = base;
  a.insert(a.end(), {"--dry-run", "-q"});
  Result r = run("seginfer", a);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.out, "head0.nii.gz") && contains(r.out, "GiB")) << r.out;
  a[a.size() - 2] = "--plan";
  r = run("seginfer", a);
  EXPECT_TRUE(contains(r.out, "conv") && contains(r.out, "parameters")) << r.out;
  EXPECT_FALSE(fs::exists(at("out.nii.gz")));
  a = base;
  a.insert(a.end(), {"--max-mem", "0.01M"});
  r = run("seginfer", a);
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "limit")) << r.err;
  EXPECT_FALSE(fs::exists(at("out.nii.gz")));
  a.back() = "1.5G";
  EXPECT_EQ(run("seginfer", a).code, 0);
  // The scan itself is never overwritten.
  const std::string before = test::bytes_of(at("in/head0.nii.gz"));
  EXPECT_EQ(run("seginfer", {"-m", at("m.safetensors"), "-i", at("in/head0.nii.gz"), "-o", at("in/head0.nii.gz")}).code, 1);
  EXPECT_EQ(test::bytes_of(at("in/head0.nii.gz")), before);
}

TEST_F(Programs, PicturesInPicturesOutOnThreeSides) {
  std::vector<std::uint8_t> grey(40 * 30);
  for (std::size_t i = 0; i < grey.size(); ++i) grey[i] = static_cast<std::uint8_t>(i % 256);
  fs::create_directories(at("in"));
  write_png(at("in/slice.png"), grey.data(), 30, 40);
  write_threshold_model(at("m.safetensors"), 2);
  for (const char* device : {"cpu", "sim"}) {
    const std::string out = at(std::string("out_") + device + ".png");
    EXPECT_EQ(run("seginfer", {"-q", "-m", at("m.safetensors"), "-i", at("in/slice.png"), "-o", out, "-d", device}).code, 0);
    EXPECT_EQ(read_labels(out).voxels.shape(), (Shape{1, 1, 40, 30, 1}));
  }
  EXPECT_EQ(test::bytes_of(at("out_cpu.png")), test::bytes_of(at("out_sim.png")));
}

// ------------------------------------------------------------------------------------------------------------- the other programs

TEST_F(Programs, SegevalScoresAndJudges) {
  phantoms();
  Result r = run("segeval", {"--ref", at("truth"), "--pred", at("truth"), "-o", at("s.json"), "--min-dice", "1"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.out, "mean foreground Dice 1.0000")) << r.out;
  EXPECT_TRUE(parse_json(os::read_text(at("s.json")), "s").is_object());
  Volume worse = read_labels(at("truth/head0.nii.gz"));
  std::fill_n(worse.voxels.data<std::int32_t>(), worse.voxels.elements() / 2, 0);
  fs::create_directories(at("pred"));
  write_nifti(at("pred/head0.nii.gz"), worse);
  r = run("segeval", {"--ref", at("truth/head0.nii.gz"), "--pred", at("pred/head0.nii.gz"), "--min-dice", "0.99"});
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "below")) << r.err;
  r = run("segeval", {"--ref", at("truth"), "--pred", at("pred")});
  EXPECT_EQ(r.code, 1) << "a missing prediction is a failure";
  EXPECT_EQ(run("segeval", {"--ref", at("truth"), "--pred", at("pred"), "--skip-missing"}).code, 0);
}

TEST_F(Programs, SeginfoDescribesScansAndModels) {
  phantoms();
  Result r = run("seginfo", {at("in/head0.nii.gz"), at("m.safetensors")});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.out, "head0.nii.gz")) << r.out;
  EXPECT_TRUE(contains(r.out, "Bright")) << r.out;
  r = run("seginfo", {at("in/head0.nii.gz"), "--json"});
  EXPECT_TRUE(parse_json(r.out, "seginfo").is_object());
  r = run("seginfo", {at("in/head0.nii.gz"), at("absent.nii"), "--json"});
  EXPECT_EQ(r.code, 1);
  const Json list = parse_json(r.out, "seginfo");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_TRUE(list[1].contains("error"));
  EXPECT_TRUE(contains(r.err, "absent.nii"));
}

TEST_F(Programs, SegphantomWritesAFolder) {
  Result r = run("segphantom", {"-o", at("set"), "-n", "1", "--test", "1", "--size", "12x14x10", "-q"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out + r.err, "");
  for (const char* file : {"set/dataset.json", "set/imagesTr/case_000_0000.nii.gz", "set/labelsTs/case_001.nii.gz", "set/lut.txt"})
    EXPECT_TRUE(fs::exists(at(file))) << file;
  EXPECT_TRUE(contains(run("segphantom", {"-o", at("set"), "-n", "1", "--size", "12x14x10"}).out, "1 heads"));
  EXPECT_EQ(run("segphantom", {"-o", at("set"), "--size", "12x14"}).code, 1);
  test::put_bytes(at("file"), "");
  r = run("segphantom", {"-o", at("file/set"), "-n", "1", "--size", "12"});
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "file/set")) << r.err;
}

TEST_F(Programs, SegimportWritesAModelThatTestsItself) {
  const std::string weights = test::shared_data("models/mindgrab.safetensors"), config = test::shared_data("models/mindgrab.json");
  if (weights.empty()) GTEST_SKIP() << "no data/models (VG_TEST_DATA)";
  Result r = run("segimport", {weights, "--config", config, "-o", at("m.safetensors"), "-q"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out + r.err, "");
  r = run("seginfer", {"-m", at("m.safetensors"), "--selftest", "-q", "--cpu"});
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_TRUE(contains(r.out, "largest difference")) << r.out;
  test::put_bytes(at("c.json"), "{}");
  r = run("segimport", {weights, "--config", at("c.json"), "-o", at("n.safetensors")});
  EXPECT_EQ(r.code, 1);
  EXPECT_TRUE(contains(r.err, "c.json")) << r.err;
  EXPECT_FALSE(fs::exists(at("n.safetensors")));
}

}  // namespace
}  // namespace vg

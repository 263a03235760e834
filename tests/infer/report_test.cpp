// Volumes and reports: the numbers, and texts that survive odd names.
#include "infer/report.h"

#include <gtest/gtest.h>

#include "layers/json.h"
#include "tests/infer/networks.h"
#include "tests/layers/files.h"

namespace vg {
namespace {

TEST(Report, VolumesAreVoxelsTimesTheDeterminant) {
  Volume v;
  v.voxels = from_host(std::vector<std::int32_t>{0, 0, 17, 17, 53, 17, 0, 0}, {1, 2, 2, 2, 1});
  v.place.affine.m[0][0] = 0, v.place.affine.m[0][1] = -2, v.place.affine.m[1][0] = 1.5, v.place.affine.m[1][1] = 0.5,
  v.place.affine.m[2][2] = -3;
  EXPECT_EQ(label_volumes(v), (std::map<std::int32_t, double>{{17, 27.0}, {53, 9.0}}));  // |det| = 9
  v.place.affine.m[1][1] = 0;
  EXPECT_EQ(v.place.affine.m[1][0], 1.5);
}

Lut table() {
  Lut lut;
  lut.entries[0] = {"Unknown", {}, 0};
  lut.entries[17] = {"Left-Hippocampus", {}, 0};
  lut.entries[53] = {"a \"b\", c", {}, 0};
  return lut;
}

std::vector<CaseReport> cases() {
  CaseReport good{.name = "sub-01",
                  .input = "in/sub-01.nii.gz",
                  .output = "out/a.nii.gz",
                  .error = {},
                  .volumes = {{17, 12.345}, {99, 1.0}},
                  .warnings = {"w"}};
  good.network_seconds = 1.5, good.total_seconds = 2.5;
  CaseReport bad{.name = "sub-02", .input = "in/sub-02.nii.gz", .output = "", .error = "broken", .volumes = {}, .warnings = {}};
  CaseReport odd{.name = "odd, \"name\"\n\xff", .input = "x", .output = "y", .error = {}, .volumes = {{53, 1e6}}, .warnings = {}};
  return {good, bad, odd};
}

TEST(Report, CsvHasAColumnPerLabelAndARowPerScan) {
  EXPECT_EQ(volumes_csv(cases(), table()),
            "# volumes in mm^3; research use, not a medical device\n"
            "case,Left-Hippocampus,\"a \"\"b\"\", c\"\n"
            "sub-01,12.3,0.0\n"
            "\"odd, \"\"name\"\"\n\xff\",0.0,1000000.0\n");
}

TEST(Report, JsonHasEveryCaseWhateverItIsCalled) {
  test::Folder folder;
  Model m = test::threshold_model(3, {1.0, 2.0}, Recipe{});
  m.labels = {{.id = 0, .name = "Unknown", .rgb = {0, 0, 0}, .pair = -1, .merged = {}},
              {.id = 17, .name = "Left-Hippocampus", .rgb = {1, 2, 3}, .pair = -1, .merged = {}},
              {.id = 53, .name = "Left-Hippocampus", .rgb = {4, 5, 6}, .pair = -1, .merged = {}}};
  write_model(folder / "m.safetensors", m);
  const Segmenter segmenter(folder / "m.safetensors", kCpu);
  std::vector<CaseReport> list = cases();
  list[0].volumes[53] = 4.0;
  const Json j = parse_json(report_json(list, segmenter, "cpu"), "report");
  EXPECT_EQ(j["device"], "cpu");
  EXPECT_EQ(j["model"], folder / "m.safetensors");
  EXPECT_NE(j["note"].get<std::string>().find("not a medical device"), std::string::npos);
  ASSERT_EQ(j["cases"].size(), 3u);
  EXPECT_EQ(j["cases"][0]["volumes"]["Left-Hippocampus"]["id"], 17);
  EXPECT_EQ(j["cases"][0]["volumes"]["Left-Hippocampus"]["mm3"], 12.345);
  EXPECT_EQ(j["cases"][0]["volumes"]["Left-Hippocampus (53)"]["mm3"], 4.0);  // two structures of one name
  EXPECT_EQ(j["cases"][0]["volumes"]["label-99"]["id"], 99);
  EXPECT_EQ(j["cases"][0]["warnings"], Json::array({"w"}));
  EXPECT_EQ(j["cases"][0]["network_seconds"], 1.5);
  EXPECT_FALSE(j["cases"][0].contains("error"));
  EXPECT_EQ(j["cases"][1]["error"], "broken");
  EXPECT_FALSE(j["cases"][1].contains("volumes"));
  EXPECT_NE(j["cases"][2]["case"].get<std::string>().find("odd"), std::string::npos);
}

}  // namespace
}  // namespace vg

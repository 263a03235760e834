// Dice, volumes and confusion against cases worked by hand and against a naive count; the evaluation of files and folders against made
// files.
#include "infer/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "infer/evaluate.h"
#include "nifti/png.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel.h"
#include "tensor/random.h"

namespace vg {
namespace {

namespace fs = std::filesystem;

Tensor labels_of(const std::vector<std::int32_t>& ids) { return from_host(ids, Shape{1, 1, 1, static_cast<std::int64_t>(ids.size()), 1}); }
const Overlap& of(const std::vector<Overlap>& list, std::int32_t label) {
  for (const Overlap& o : list)
    if (o.label == label) return o;
  throw std::out_of_range("label");
}

TEST(Metrics, DiceByHand) {
  //                              label 2: 3 and 2 voxels, 2 in both; 41: 1 and 2, 0 in both; 7 only in the reference, 9 only in the prediction
  const Tensor reference = labels_of({0, 0, 2, 2, 2, 41, 7, 0}), predicted = labels_of({0, 41, 2, 2, 41, 0, 0, 9});
  const std::vector<Overlap> list = overlaps(reference, predicted);
  ASSERT_EQ(list.size(), 5u);
  EXPECT_DOUBLE_EQ(of(list, 2).dice(), 2.0 * 2 / (3 + 2));
  EXPECT_DOUBLE_EQ(of(list, 41).dice(), 0);
  EXPECT_DOUBLE_EQ(of(list, 7).dice(), 0);
  EXPECT_DOUBLE_EQ(of(list, 9).dice(), 0);
  EXPECT_EQ(of(list, 0).both, 1);
  EXPECT_TRUE(std::isnan(Overlap{}.dice()));
  EXPECT_DOUBLE_EQ(mean_foreground_dice(list), 0.8 / 4);
  EXPECT_TRUE(std::isnan(mean_foreground_dice(overlaps(labels_of({0, 0}), labels_of({0, 0})))));
  EXPECT_EQ(label_counts(reference), (std::map<std::int32_t, std::int64_t>{{0, 3}, {2, 3}, {7, 1}, {41, 1}}));
}

TEST(Metrics, ConfusionAgainstANaiveCount) {
  const int before = threads();
  for (const std::int64_t n : {1, 7, 17, 33, 65535, 65536, 65537, 200001}) {
    Random random(3, static_cast<std::uint64_t>(n));
    const std::int32_t ids[] = {0, 2, 3, 255, 2035, -5, 2147483647};
    std::vector<std::int32_t> r, p;
    while (static_cast<std::int64_t>(r.size()) < n) {  // runs, as label maps have
      const std::int32_t a = ids[random.below(7)], b = random.below(3) ? a : ids[random.below(7)];
      for (std::uint32_t run = random.below(9) + 1; run && static_cast<std::int64_t>(r.size()) < n; --run) {
        r.push_back(a);
        p.push_back(b);
      }
    }
    std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> naive;
    for (std::size_t i = 0; i < r.size(); ++i) ++naive[{r[i], p[i]}];
    for (const int t : {1, 2, 3}) {
      set_threads(t);
      const Confusion c = confusion(labels_of(r), labels_of(p));
      ASSERT_EQ(c.cells.size(), naive.size());
      auto expected = naive.begin();
      std::int64_t same = 0;
      for (const Confusion::Cell& cell : c.cells) {
        EXPECT_EQ(std::pair(cell.reference, cell.predicted), expected->first);
        EXPECT_EQ(cell.voxels, expected->second);
        same += cell.reference == cell.predicted ? cell.voxels : 0;
        ++expected;
      }
      EXPECT_EQ(c.voxels(), n);
      EXPECT_DOUBLE_EQ(c.accuracy(), double(same) / double(n));
    }
  }
  set_threads(before);
}

TEST(Metrics, ByteAndIntegerMapsCompare) {
  const std::vector<std::int32_t> r = {0, 1, 1, 3};
  Tensor bytes(Shape{1, 1, 1, 4, 1}, DType::u8, kCpu);
  const std::uint8_t p[] = {0, 1, 3, 3};
  std::copy(p, p + 4, bytes.data<std::uint8_t>());
  EXPECT_DOUBLE_EQ(of(overlaps(labels_of(r), bytes), 1).dice(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(of(overlaps(bytes, labels_of(r)), 3).dice(), 2.0 / 3);
  EXPECT_THROW(overlaps(labels_of(r), labels_of({0, 1, 1})), Error);
  EXPECT_THROW(overlaps(labels_of(r), zeros(Shape{1, 1, 1, 4, 1}, DType::f32, kCpu)), Error);
}

TEST(Metrics, AccumulatesPooledAndPerCase) {
  DiceAccumulator dice;
  dice.add(labels_of({1, 1, 1, 1, 2, 0}), labels_of({1, 1, 0, 0, 2, 0}));  // 1: 2*2/6, 2: 1
  dice.add(labels_of({1, 0, 0, 0, 0, 0}), labels_of({1, 0, 0, 0, 0, 5}));  // 1: 1, 5: 0 (never in a reference)
  dice.add(labels_of({1, 1, 0, 0, 3, 3}), labels_of({0, 0, 1, 1, 3, 3}));  // 1: 0, 3: 1
  dice.add(labels_of({1, 2, 0, 0, 0, 0}), labels_of({1, 2, 0, 0, 0, 0}));  // 1: 1, 2: 1
  EXPECT_EQ(dice.cases(), 4);
  EXPECT_EQ(dice.foreground(), (std::vector<std::int32_t>{1, 2, 3, 5}));
  EXPECT_EQ(dice.common(), (std::vector<std::int32_t>{1}));  // 2 is in half of the cases, which is not more than half
  EXPECT_EQ(dice.present(), (std::vector<std::int32_t>{1}));
  EXPECT_EQ(dice.seen_in(2), (std::vector<std::int32_t>{1, 2}));
  const auto& one = dice.entries().at(1);
  EXPECT_DOUBLE_EQ(one.pooled(), 2.0 * 4 / (8 + 6));
  EXPECT_DOUBLE_EQ(one.case_mean(), (2.0 / 3 + 1 + 0 + 1) / 4);
  EXPECT_EQ(one.cases, 4);
  EXPECT_DOUBLE_EQ(dice.entries().at(2).case_mean(), 1);  // of the two cases that have it
  EXPECT_DOUBLE_EQ(dice.mean_pooled({1, 2}), (8.0 / 14 + 1) / 2);
  EXPECT_DOUBLE_EQ(dice.mean_case({2, 5, 99}), 0.5);  // 99 never occurred
  EXPECT_TRUE(std::isnan(dice.mean_case({99})));
}

class EvaluateTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(testing::TempDir()) / fmt::format("vg_evaluate_{}", os::wall_seconds());
    fs::create_directories(root_ / "ref");
    fs::create_directories(root_ / "pred");
  }
  void TearDown() override { fs::remove_all(root_); }
  std::string at(const std::string& name) const { return (root_ / name).string(); }
  // 2 x 3 x 4 voxels (W, H, D) of 1 x 2 x 1.5 mm: a plane of label 17 at k = `plane`, label 53 elsewhere but for k = 0
  Volume volume(int plane, double shift = 0) const {
    Volume v;
    v.voxels = Tensor(Shape{1, 4, 3, 2, 1}, DType::i32, kCpu);
    for (int i = 0; i < 24; ++i) v.voxels.data<std::int32_t>()[i] = i / 6 == 0 ? 0 : i / 6 == plane ? 17 : 53;
    v.place.affine.m[1][1] = 2;
    v.place.affine.m[2][2] = 1.5;
    v.place.affine.m[0][3] = shift;
    v.place.source = TransformSource::sform;
    v.place.code = 1;
    return v;
  }
  void write(const std::string& name, int plane, double shift = 0) const { write_nifti(at(name), volume(plane, shift)); }

  fs::path root_;
};

TEST_F(EvaluateTest, TwoFiles) {
  write("a.nii.gz", 1);
  write("b.nii", 2);
  const Evaluation e = evaluate(at("a.nii.gz"), at("b.nii"));
  ASSERT_EQ(e.scored(), 1);
  EXPECT_DOUBLE_EQ(e.mean_foreground(), (0.0 + 0.5) / 2);  // 17: nothing in common; 53: 6 of 12 and 12
  const std::string table = to_table(e, builtin_freesurfer());
  EXPECT_NE(table.find("    17  Left-Hippocampus   0.0000          18.0          18.0\n"), std::string::npos) << table;
  EXPECT_NE(table.find("    53  Right-Hippocampus  0.5000          36.0          36.0\n"), std::string::npos) << table;
  EXPECT_NE(table.find("\nmean foreground Dice 0.2500 (2 labels, 1 case)\n"), std::string::npos) << table;
  const auto json = nlohmann::json::parse(to_json(e, builtin_freesurfer()));
  EXPECT_DOUBLE_EQ(json["foreground_mean"]["Dice"], 0.25);
  EXPECT_EQ(json["metric_per_case"][0]["metrics"]["53"]["TP"], 6);
  EXPECT_EQ(json["metric_per_case"][0]["metrics"]["53"]["FN"], 6);
  EXPECT_EQ(json["metric_per_case"][0]["metrics"]["17"]["TN"], 12);
  EXPECT_EQ(json["mean"]["17"]["name"], "Left-Hippocampus");
}

TEST_F(EvaluateTest, FoldersMatchByName) {
  write("ref/case_1.nii.gz", 1);
  write("ref/case_10.nii.gz", 1);
  write("ref/case_2.nii.gz", 2);
  write("pred/case_1.nii.gz", 1);
  write("pred/case_10_seg.nii", 3);
  write("pred/case_2_seg.nii.gz", 2);
  write("pred/other.nii.gz", 2);
  const Evaluation e = evaluate(at("ref"), at("pred"));
  ASSERT_EQ(e.cases.size(), 3u);
  EXPECT_EQ(e.scored(), 3);
  EXPECT_DOUBLE_EQ(mean_foreground_dice(e.cases[0].overlaps), 1);     // case_1, not case_10
  EXPECT_DOUBLE_EQ(mean_foreground_dice(e.cases[1].overlaps), 0.25);  // case_10
  EXPECT_DOUBLE_EQ(e.dice.entries().at(17).case_mean(), 2.0 / 3);
  EXPECT_NE(to_table(e, builtin_freesurfer()).find("(2 labels, 3 cases)"), std::string::npos);
}

TEST_F(EvaluateTest, OneBadCaseDoesNotStopTheRest) {
  write("ref/a.nii.gz", 1);
  write("ref/b.nii.gz", 1);
  write("ref/c.nii.gz", 1);
  write("pred/a.nii.gz", 1);
  write("pred/b.nii.gz", 1, 0.01);
  Evaluation e = evaluate(at("ref"), at("pred"));
  EXPECT_EQ(e.scored(), 1);
  EXPECT_EQ(e.failed(), 2);
  EXPECT_NE(e.cases[1].error.find("affine"), std::string::npos) << e.cases[1].error;
  EXPECT_NE(e.cases[1].error.find("0.01 mm"), std::string::npos) << e.cases[1].error;
  EXPECT_NE(e.cases[2].error.find("no prediction"), std::string::npos) << e.cases[2].error;
  EXPECT_DOUBLE_EQ(e.mean_foreground(), 1);
  EvaluateOptions options;
  options.ignore_geometry = options.skip_missing = true;
  e = evaluate(at("ref"), at("pred"), options);
  EXPECT_EQ(e.scored(), 2);
  EXPECT_EQ(e.failed(), 0);
  EXPECT_EQ(e.missing.size(), 1u);
}

TEST_F(EvaluateTest, RefusesWhatDoesNotBelongTogether) {
  write("a.nii", 1);
  Volume small = volume(1);
  small.voxels = small.voxels.range(0, Shape{1, 3, 3, 2, 1});
  write_nifti(at("small.nii"), small);
  const Evaluation e = evaluate(at("a.nii"), at("small.nii"));
  EXPECT_NE(e.cases[0].error.find("2 x 3 x 3 voxels"), std::string::npos) << e.cases[0].error;
  EXPECT_THROW(evaluate(at("a.nii"), at("pred")), Error);
  EXPECT_THROW(evaluate(at("a.nii"), at("none.nii")), Error);
  EXPECT_THROW(evaluate(at("ref"), at("pred")), Error);
  write("ref/x.nii", 1);
  write("pred/x_1.nii", 1);
  write("pred/x_2.nii", 1);
  EXPECT_NE(evaluate(at("ref"), at("pred")).cases[0].error.find("both match"), std::string::npos);
}

TEST_F(EvaluateTest, PngMasks) {
  const std::vector<std::int32_t> r = {0, 2, 2, 41, 41, 41}, p = {0, 2, 41, 41, 41, 0};
  write_png_labels(at("ref/s-2d_axial-mask.png"), r.data(), 3, 2, builtin_freesurfer());
  write_png_labels(at("pred/s-2d_axial.png"), p.data(), 3, 2, builtin_freesurfer());
  const Evaluation e = evaluate(at("ref"), at("pred"));
  ASSERT_EQ(e.scored(), 1);
  EXPECT_DOUBLE_EQ(e.dice.entries().at(2).case_mean(), 2.0 / 3);
  EXPECT_DOUBLE_EQ(e.dice.entries().at(41).case_mean(), 4.0 / 6);
}

}  // namespace
}  // namespace vg

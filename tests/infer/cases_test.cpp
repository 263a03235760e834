// Which scans a command means and where results go: files, folders, lists, BIDS; and what must not happen to somebody's data.
#include "infer/cases.h"

#include <gtest/gtest.h>

#include "tests/layers/files.h"

namespace vg {
namespace {

namespace fs = std::filesystem;
using test::message_of;

class Cases : public testing::Test {
 protected:
  std::string file(const std::string& name) const {
    const std::string path = folder_ / name;
    fs::create_directories(fs::path(path).parent_path());
    test::put_bytes(path, "");
    return path;
  }
  // "name: input -> output", relative to the folder.
  std::vector<std::string> find(const std::string& input, const std::string& output) const {
    std::vector<std::string> lines;
    for (const Case& c : find_cases(folder_ / input, folder_ / output))
      lines.push_back(c.name + ": " + fs::relative(c.input, folder_ / "").string() + " -> " +
                      fs::relative(c.output, folder_ / "").string());
    return lines;
  }
  using Lines = std::vector<std::string>;
  test::Folder folder_;
};

TEST_F(Cases, AFileGoesToAFileOrAFolder) {
  file("a.nii.gz"), file("b.nii"), file("c.PNG");
  EXPECT_EQ(find("a.nii.gz", "x.nii"), Lines{"a: a.nii.gz -> x.nii"});
  EXPECT_EQ(find("a.nii.gz", "out"), Lines{"a: a.nii.gz -> out/a_seg.nii.gz"});
  EXPECT_EQ(find("b.nii", "out/"), Lines{"b: b.nii -> out/b_seg.nii.gz"});
  EXPECT_EQ(find("c.PNG", "out"), Lines{"c: c.PNG -> out/c_seg.png"});
  EXPECT_EQ(find("c.PNG", "labels.png"), Lines{"c: c.PNG -> labels.png"});
  file("d.mgz"), file("e.nrrd");
  EXPECT_EQ(find("d.mgz", "labels.mgz"), Lines{"d: d.mgz -> labels.mgz"});
  EXPECT_EQ(find("d.mgz", "out"), Lines{"d: d.mgz -> out/d_seg.nii.gz"});
  EXPECT_EQ(find("e.nrrd", "out"), Lines{"e: e.nrrd -> out/e_seg.nii.gz"});
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { find("d.mgz", "labels.nrrd"); }).find("labels are written as"), std::string::npos);
}

TEST_F(Cases, AFolderMeansItsScans) {
  file("in/b.nii.gz"), file("in/a.nii"), file("in/c.png"), file("in/notes.md"), file("in/.hidden.nii"), file("in/sub/d.nii");
  EXPECT_EQ(find("in", "out"),
            (Lines{"a: in/a.nii -> out/a_seg.nii.gz", "b: in/b.nii.gz -> out/b_seg.nii.gz", "c: in/c.png -> out/c_seg.png"}));
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { find("in", "one.nii.gz"); }).find("3 scans"), std::string::npos);
  file("in/a.nii.gz");
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { find("in", "out"); }).find("a_seg.nii.gz"), std::string::npos);
}

// One scan that was named by its folder may go to a file like any single scan.
TEST_F(Cases, AFolderOfOneScanMayGoToAFile) {
  file("in/a.nii");
  EXPECT_EQ(find("in", "x.nii.gz"), Lines{"a: in/a.nii -> x.nii.gz"});
  EXPECT_EQ(find("in", "x"), Lines{"a: in/a.nii -> x/a_seg.nii.gz"});
}

TEST_F(Cases, AListNamesPathsRelativeToItself) {
  file("lists/a.nii"), file("data/b.nii.gz");
  test::put_bytes(folder_ / "lists/l.txt", "# scans\n\na.nii\r\n  ../data/b.nii.gz  \n   # another remark\n" + file("abs/c.nii") + "\n");
  EXPECT_EQ(find("lists/l.txt", "out"),
            (Lines{"a: lists/a.nii -> out/a_seg.nii.gz", "b: data/b.nii.gz -> out/b_seg.nii.gz", "c: abs/c.nii -> out/c_seg.nii.gz"}));
  test::put_bytes(folder_ / "empty.txt", "# nothing\n");
  EXPECT_EQ(message_of(ErrorCode::io, [&] { find("empty.txt", "out"); }).find(folder_ / "empty.txt"), 0u);
  test::put_bytes(folder_ / "twice.txt", "data/b.nii.gz\nlists/b.nii\n");
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { find("twice.txt", "out"); }).find("both"), std::string::npos);
}

TEST_F(Cases, ABidsDataSetKeepsItsFolders) {
  file("bids/dataset_description.json"), file("bids/sub-01/anat/sub-01_T1w.nii.gz"), file("bids/sub-01/anat/sub-01_T2w.nii.gz");
  file("bids/sub-02/ses-1/anat/sub-02_ses-1_run-1_T1w.nii"), file("bids/sub-02/ses-1/func/sub-02_ses-1_bold.nii.gz");
  file("bids/derivatives/x/sub-01/anat/sub-01_T1w.nii.gz"), file("bids/sub-01/anat/sub-01_T1w.json");
  EXPECT_EQ(find("bids", "out"), (Lines{"sub-01_T1w: bids/sub-01/anat/sub-01_T1w.nii.gz -> out/sub-01/anat/sub-01_desc-voxgrad_dseg.nii.gz",
                                        "sub-02_ses-1_run-1_T1w: bids/sub-02/ses-1/anat/sub-02_ses-1_run-1_T1w.nii -> "
                                        "out/sub-02/ses-1/anat/sub-02_ses-1_run-1_desc-voxgrad_dseg.nii.gz"}));
  EXPECT_EQ(find("bids", "bids/derivatives/voxgrad").size(), 2u);
  EXPECT_THROW(find("bids", "one.nii.gz"), Error);
  fs::remove_all(folder_ / "bids/sub-01"), fs::remove_all(folder_ / "bids/sub-02");
  EXPECT_NE(message_of(ErrorCode::io, [&] { find("bids", "out"); }).find("BIDS"), std::string::npos);
}

TEST_F(Cases, NothingThereIsAnError) {
  EXPECT_EQ(message_of(ErrorCode::io, [&] { find("absent.nii", "out"); }).find(folder_ / "absent.nii"), 0u);
  fs::create_directories(folder_ / "empty");
  EXPECT_NE(message_of(ErrorCode::io, [&] { find("empty", "out"); }).find("no scans"), std::string::npos);
}

TEST_F(Cases, AScanIsNeverReplacedByItsLabels) {
  file("in/a.nii.gz");
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { find("in/a.nii.gz", "in/a.nii.gz"); }).find("replace"), std::string::npos);
  EXPECT_THROW(find("in/a.nii.gz", "in/../in/a.nii.gz"), Error);
  fs::create_symlink(folder_ / "in/a.nii.gz", folder_ / "link.nii.gz");
  EXPECT_THROW(find("in/a.nii.gz", "link.nii.gz"), Error);
  EXPECT_THROW(find("in", "in/a.nii.gz"), Error);
  EXPECT_NO_THROW(find("in", "in"));
}

}  // namespace
}  // namespace vg

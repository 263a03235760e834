// What segprep slices writes is what the trainer reads: layout, names, ids, and the split file.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "infer/prepare.h"
#include "train/dataset.h"
#include "train/phantom.h"

namespace vg {
namespace {

namespace fs = std::filesystem;

TEST(PreparedSlices, AreReadByTheTrainer) {
  const fs::path root = fs::temp_directory_path() / ("vg_prepared_" + std::to_string(::getpid()));
  PhantomSet set;
  set.folder = (root / "volumes").string(), set.training = 4, set.test = 0;
  set.params.grid = {24, 28, 20}, set.params.spacing = 0;
  write_phantoms(set, {});
  for (const char* view : {"axial", "coronal", "sagittal"}) {
    SliceOptions o;
    o.view = view;
    EXPECT_TRUE(write_slices(find_pairs(set.folder, ""), (root / "slices").string(), o).empty());
    std::ofstream(root / "split.json") << make_split(dataset_names((root / "slices").string(), view), 0.3, 1, 0).dump();
    SlicesOptions read;
    read.view = view, read.split.file = (root / "split.json").string();
    const Dataset data = load_slices((root / "slices").string(), read);
    EXPECT_TRUE(data.skipped.empty()) << data.skipped[0];
    EXPECT_EQ(data.training.size(), 3u);
    ASSERT_EQ(data.validation.size(), 1u);
    EXPECT_EQ(data.validation[0].name.substr(0, 5), "case_");
    EXPECT_GT(data.classes.size(), 4u) << "a slice through the middle of the head";
  }
  fs::remove_all(root);
}

}  // namespace
}  // namespace vg

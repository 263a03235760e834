// Data sets with the dirt that real ones have: what cannot be used is left out and named, the rest arrives aligned, normalised and split.
#include "train/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "nifti/png.h"
#include "nifti/volume.h"
#include "tests/layers/files.h"
#include "tests/train/data_sets.h"
#include "train/phantom.h"

namespace vg {
namespace {

namespace fs = std::filesystem;
using test::bytes_of;
using test::message_of;
using test::put_bytes;

// The reason for which `name` was skipped; "" if it was not.
std::string reason(const Dataset& d, const std::string& name) {
  for (const std::string& s : d.skipped)
    if (s.rfind(name + ": ", 0) == 0) return s.substr(name.size() + 2);
  return "";
}

std::set<std::string> names(const std::vector<Sample>& samples) {
  std::set<std::string> set;
  for (const Sample& s : samples) set.insert(s.name);
  return set;
}

SplitOptions fold(int k, int of) { return {.file = "", .fold = k, .folds = of}; }
FolderOptions everybody() { return {.split = fold(0, 1), .orientation = "RAS"}; }
FolderOptions turned(const char* code) { return {.split = {}, .orientation = code}; }

// ------------------------------------------------------------------------------------------------------------------------ slices

class Slices : public testing::Test {
 protected:
  Slices() { fs::create_directories(folder_ / "axial"), fs::create_directories(folder_ / "axial-mask"); }
  std::string image(const std::string& name) const { return folder_ / ("axial/" + name + "-2d_axial.png"); }
  std::string mask(const std::string& name) const { return folder_ / ("axial-mask/" + name + "-2d_axial-mask.png"); }
  void write_image(const std::string& name, std::int64_t h = 12, std::int64_t w = 10, bool flat = false) const {
    std::vector<std::uint8_t> v(static_cast<std::size_t>(h * w), 7);
    for (std::size_t i = 0; !flat && i < v.size(); ++i) v[i] = static_cast<std::uint8_t>(i * 3 + name.back());
    write_png(image(name), v.data(), w, h);
  }
  void write_mask(const std::string& name, std::vector<std::int32_t> ids, std::int64_t h = 12, std::int64_t w = 10) const {
    std::vector<std::int32_t> v(static_cast<std::size_t>(h * w), 0);
    for (std::size_t i = 0; i < ids.size(); ++i) v[i + 1] = ids[i];
    write_png_labels(mask(name), v.data(), w, h, builtin_freesurfer());
  }
  void pair(const std::string& name, std::vector<std::int32_t> ids = {2, 41, 10}) const {
    write_image(name), write_mask(name, std::move(ids));
  }
  Dataset load(SplitOptions split = {}) const { return load_slices(folder_ / "", {.view = "axial", .lut = "", .split = std::move(split)}); }
  test::Folder folder_;
};

TEST_F(Slices, DirtIsLeftOutWithItsReason) {
  for (int i = 0; i < 6; ++i) pair("good" + std::to_string(i));
  write_image("no_mask");
  write_mask("orphan", {2});
  write_image("small_mask"), write_mask("small_mask", {2}, 12, 9);
  pair("truncated"), put_bytes(image("truncated"), bytes_of(image("truncated")).substr(0, 60));
  pair("broken_mask"), put_bytes(mask("broken_mask"), "not a picture");
  write_image("constant", 12, 10, true), write_mask("constant", {2});
  pair("strange_id", {2, 20000});
  put_bytes(folder_ / "axial/README.txt", "no scan");

  const Dataset d = load();
  EXPECT_EQ(d.skipped.size(), 7u);
  EXPECT_NE(reason(d, "no_mask").find("no mask"), std::string::npos);
  EXPECT_NE(reason(d, "orphan").find("without an image"), std::string::npos);
  EXPECT_NE(reason(d, "small_mask").find("differ in size"), std::string::npos);
  EXPECT_NE(reason(d, "truncated").find("truncated-2d_axial.png"), std::string::npos);
  EXPECT_NE(reason(d, "broken_mask").find("broken_mask-2d_axial-mask.png"), std::string::npos);
  EXPECT_NE(reason(d, "constant").find("constant"), std::string::npos);
  EXPECT_NE(reason(d, "strange_id").find("20000"), std::string::npos);
  EXPECT_EQ(d.training.size() + d.validation.size(), 6u);
  EXPECT_EQ(d.validation.size(), 1u);  // fold 0 of 5
  EXPECT_EQ(d.provenance["skipped"], 7);

  EXPECT_EQ(d.spatial_dims, 2);
  EXPECT_EQ(d.left_right_axis, 2);
  ASSERT_EQ(d.classes.size(), 4u);
  EXPECT_EQ(d.classes[0].id, 0);
  EXPECT_EQ(d.classes[1].id, 2);
  EXPECT_EQ(d.classes[2].id, 10);
  EXPECT_EQ(d.classes[3].id, 41);
  EXPECT_EQ(d.classes[1].name, "Left-Cerebral-White-Matter");
  EXPECT_EQ(d.classes[1].pair, 3);
  EXPECT_EQ(d.classes[3].pair, 1);
  EXPECT_EQ(d.classes[2].pair, -1);  // the right thalamus does not occur
  const Sample& s = d.training[0];
  EXPECT_EQ(s.image.shape(), (Shape{1, 1, 12, 10, 1}));
  const std::vector<std::uint8_t> k = to_host<std::uint8_t>(s.labels);
  EXPECT_EQ((std::vector<int>{k[0], k[1], k[2], k[3], k[4]}), (std::vector<int>{0, 1, 3, 2, 0}));
}

TEST_F(Slices, EachSliceHasMeanZeroAndDeviationOne) {
  pair("a"), pair("b");
  const Dataset d = load(fold(0, 1));
  ASSERT_EQ(d.training.size(), 2u);
  EXPECT_TRUE(d.validation.empty());
  for (const Sample& s : d.training) {
    double sum = 0, square = 0;
    for (float v : to_host<float>(s.image)) sum += v, square += static_cast<double>(v) * v;
    EXPECT_NEAR(sum / 120, 0, 1e-6);
    EXPECT_NEAR(square / 120, 1, 1e-5);
  }
  EXPECT_TRUE(d.recipe.per_slice);
  EXPECT_EQ(d.recipe.slices, "image");
}

TEST_F(Slices, ASideViewHasNoLeftAndRight) {
  fs::create_directories(folder_ / "sagittal"), fs::create_directories(folder_ / "sagittal-mask");
  pair("a");
  fs::copy(image("a"), folder_ / "sagittal/a-2d_sagittal.png");
  fs::copy(mask("a"), folder_ / "sagittal-mask/a-2d_sagittal-mask.png");
  EXPECT_EQ(load_slices(folder_ / "", {.view = "sagittal", .lut = "", .split = fold(0, 1)}).left_right_axis, -1);
}

TEST_F(Slices, ATableOfOnesOwnDecidesWhatIsKnown) {
  pair("a", {2, 77}), pair("b", {2, 41});
  put_bytes(folder_ / "own.txt", "0 Unknown 0 0 0 0\n2 Left-Thing 1 2 3 0\n41 Right-Thing 4 5 6 0\n");
  const Dataset d = load_slices(folder_ / "", {.view = "axial", .lut = folder_ / "own.txt", .split = fold(0, 1)});
  EXPECT_NE(reason(d, "a").find("77"), std::string::npos);
  ASSERT_EQ(d.classes.size(), 3u);
  EXPECT_EQ(d.classes[2].name, "Right-Thing");
  EXPECT_EQ(d.classes[2].rgb[1], 5);
}

TEST_F(Slices, FoldsAreAPartition) {
  std::set<std::string> all;
  for (int i = 0; i < 11; ++i) pair("p" + std::to_string(i)), all.insert("p" + std::to_string(i));
  std::set<std::string> validated;
  for (int k = 0; k < 3; ++k) {
    const Dataset d = load(fold(k, 3));
    EXPECT_TRUE(d.validation.size() == 3 || d.validation.size() == 4);
    for (const std::string& n : names(d.validation)) EXPECT_TRUE(validated.insert(n).second) << n;
    std::set<std::string> both = names(d.training);
    both.merge(names(d.validation));
    EXPECT_EQ(both, all);
    EXPECT_EQ(names(d.validation), names(load(fold(k, 3)).validation));
  }
  EXPECT_EQ(validated, all);
  EXPECT_THROW(load(fold(3, 3)), Error);
  EXPECT_THROW(load(fold(-1, 3)), Error);
  EXPECT_THROW(load(fold(0, 0)), Error);
}

// Who is in neither list of a split file takes no part: a held-out person must not slip into training.
TEST_F(Slices, ASplitFileSaysWhoTrainsAndWhoValidates) {
  for (const char* n : {"a", "b", "c", "d", "held_out"}) pair(n);
  put_bytes(folder_ / "split.json", R"({"rule": "by hand", "training": ["a", "b"], "validation": ["c", "d", "not here"]})");
  Dataset d = load({.file = folder_ / "split.json"});
  EXPECT_EQ(names(d.training), (std::set<std::string>{"a", "b"}));
  EXPECT_EQ(names(d.validation), (std::set<std::string>{"c", "d"}));
  EXPECT_NE(reason(d, "held_out").find("split"), std::string::npos);

  put_bytes(folder_ / "splits_final.json", R"([{"train": ["a"], "val": ["b"]}, {"train": ["b", "c"], "val": ["a"]}])");
  d = load({.file = folder_ / "splits_final.json", .fold = 1});
  EXPECT_EQ(names(d.training), (std::set<std::string>{"b", "c"}));
  EXPECT_EQ(names(d.validation), (std::set<std::string>{"a"}));

  // Without a list of those who train, everybody else does.
  put_bytes(folder_ / "only.json", R"({"validation": ["a"]})");
  EXPECT_EQ(load({.file = folder_ / "only.json"}).training.size(), 4u);

  const auto refused = [&](const char* text) {
    put_bytes(folder_ / "bad.json", text);
    EXPECT_THROW(load({.file = folder_ / "bad.json"}), Error) << text;
  };
  refused("{");
  refused(R"({"training": ["a"]})");
  refused(R"({"training": ["b"], "validation": ["nobody", "else"]})");
  refused(R"({"training": ["a", "b"], "validation": ["b"]})");
  refused(R"([{"train": [], "val": []}])");
  EXPECT_THROW(load({.file = folder_ / "splits_final.json", .fold = 2}), Error);
  EXPECT_THROW(load({.file = folder_ / "absent.json"}), Error);
}

TEST_F(Slices, NothingLeftIsAnError) {
  EXPECT_THROW(load(), Error);  // no files
  write_image("a");
  const std::string message = message_of(ErrorCode::bad_file, [&] { load(); });
  EXPECT_NE(message.find("1 skipped"), std::string::npos) << message;
  EXPECT_THROW(load_slices(folder_ / "nowhere", {}), Error);
}

// ---------------------------------------------------------------------------------------------------------- nnU-Net's folder layout

class Folders : public testing::Test {
 protected:
  // Five phantoms of one channel, as segphantom writes them.
  Folders() {
    PhantomSet set;
    set.folder = folder_ / "set", set.training = 5;
    set.params.grid = {12, 14, 10}, set.params.orientation = "LIA";
    write_phantoms(set);
  }
  std::string image(int i, int channel = 0) const { return folder_ / fmt::format("set/imagesTr/case_{:03d}_{:04d}.nii.gz", i, channel); }
  std::string labels(int i) const { return folder_ / fmt::format("set/labelsTr/case_{:03d}.nii.gz", i); }
  Dataset load(const FolderOptions& o = FolderOptions()) const { return load_folder(folder_ / "set", o); }
  // Rewrites dataset.json after `change`.
  template <class Change>
  void change_json(Change change) const {
    Json j = Json::parse(os::read_text(folder_ / "set/dataset.json"));
    change(j);
    put_bytes(folder_ / "set/dataset.json", j.dump());
  }
  void second_channel() const {
    change_json([](Json& j) { j["channel_names"]["1"] = "T2"; });
    for (int i = 0; i < 5; ++i) {
      Volume v = read_volume(image(i));
      for (std::int64_t k = 0; k < v.voxels.elements(); ++k) v.voxels.data<float>()[k] = 500.0f - 3.0f * v.voxels.data<float>()[k];
      write_nifti(image(i, 1), v);
    }
  }
  test::Folder folder_;
};

TEST_F(Folders, PhantomsArriveTurnedAndWithSparseIds) {
  const Dataset d = load();
  EXPECT_TRUE(d.skipped.empty());
  EXPECT_EQ(d.spatial_dims, 3);
  EXPECT_EQ(d.training.size(), 4u);
  EXPECT_EQ(d.validation.size(), 1u);
  const Lut lut = phantom_labels();
  ASSERT_EQ(d.classes.size(), lut.entries.size());
  std::size_t at = 0;
  for (const auto& [id, entry] : lut.entries) {
    EXPECT_EQ(d.classes[at].id, id);
    EXPECT_EQ(d.classes[at].name, id == 0 ? "background" : entry.name);
    ++at;
  }
  // LIA in the file: i to the left, j inferior, k anterior; here (D, H, W) = (S, A, R).
  const Volume file = reorient(read_labels(labels(0)), "RAS");
  for (const std::vector<Sample>* list : {&d.training, &d.validation})
    for (const Sample& s : *list) {
      EXPECT_EQ(s.image.shape(), (Shape{1, 14, 12, 10, 1}));
      if (s.name != "case_000") continue;
      for (std::int64_t v = 0; v < s.labels.elements(); ++v)
        ASSERT_EQ(d.classes[s.labels.data<std::uint8_t>()[v]].id, file.voxels.data<std::int32_t>()[v]);
      const Vec3 mm = file.spacing();
      EXPECT_NEAR(s.voxel_mm3, mm[0] * mm[1] * mm[2], 1e-9);
    }
  EXPECT_EQ(d.recipe.orientation, "RAS");
  EXPECT_EQ(d.left_right_axis, 2);
  EXPECT_EQ(load(turned("SRA")).left_right_axis, 1);
  EXPECT_THROW(load(turned("XYZ")), Error);
}

TEST_F(Folders, SeveralChannelsEachOfTheirOwnScale) {
  second_channel();
  const Dataset d = load();
  EXPECT_TRUE(d.skipped.empty());
  EXPECT_EQ(d.channels, (std::vector<std::string>{"T1", "T2"}));
  const Sample& s = d.training[0];
  ASSERT_EQ(s.image.shape().c(), 2);
  for (std::int64_t v = 0; v < s.labels.elements(); ++v) {
    const float* p = s.image.data<float>() + 2 * v;
    ASSERT_NEAR(p[0], -p[1], 1e-4);  // an affine map of the other: the z-score reverses its sign
  }
}

TEST_F(Folders, DirtIsLeftOutWithItsReason) {
  second_channel();
  fs::remove(image(0, 1));  // a channel is missing
  Volume v = read_volume(image(1, 1));
  v.place.affine.m[0][3] += 5;  // lies elsewhere
  write_nifti(image(1, 1), v);
  Volume l = read_labels(labels(2));
  l.voxels.data<std::int32_t>()[3] = 1234;  // nobody knows
  write_nifti(labels(2), l);
  v = read_volume(image(3));
  std::fill_n(v.voxels.data<float>(), v.voxels.elements(), 5.0f);
  write_nifti(image(3, 0), v), write_nifti(image(3, 1), v);
  Dataset d = load(everybody());
  EXPECT_EQ(names(d.training), std::set<std::string>{"case_004"});
  EXPECT_NE(reason(d, "case_000").find("case_000_0001"), std::string::npos);
  EXPECT_NE(reason(d, "case_001").find("5.00 mm apart"), std::string::npos) << reason(d, "case_001");
  EXPECT_NE(reason(d, "case_002").find("1234"), std::string::npos);
  EXPECT_NE(reason(d, "case_003").find("constant"), std::string::npos);

  put_bytes(image(4), bytes_of(image(4)).substr(0, 300));
  EXPECT_THROW(load(everybody()), Error);  // nobody is left
}

TEST_F(Folders, ImagesOfAnotherSizeAreLeftOut) {
  PhantomParams p;
  p.grid = {12, 14, 11}, p.orientation = "LIA";
  write_nifti(image(2), make_phantom(p).image);
  const Dataset d = load(everybody());
  EXPECT_NE(reason(d, "case_002").find("shape"), std::string::npos);
  EXPECT_EQ(d.training.size(), 4u);
}

TEST_F(Folders, OlderDescriptionsNameLabelsTheOtherWayRound) {
  const Dataset now = load();
  change_json([](Json& j) {
    Json old = Json::object();
    for (const auto& item : j["labels"].items()) old[std::to_string(item.value().get<int>())] = item.key();
    j["labels"] = old, j["modality"] = j["channel_names"], j.erase("channel_names");
  });
  const Dataset then = load();
  ASSERT_EQ(then.classes.size(), now.classes.size());
  for (std::size_t k = 0; k < now.classes.size(); ++k) {
    EXPECT_EQ(then.classes[k].id, now.classes[k].id);
    EXPECT_EQ(then.classes[k].name, now.classes[k].name);
    EXPECT_EQ(then.classes[k].pair, now.classes[k].pair);
  }
}

TEST_F(Folders, BadDescriptionsAreRefused) {
  const std::string good = os::read_text(folder_ / "set/dataset.json");
  const auto refused = [&](auto change) {
    put_bytes(folder_ / "set/dataset.json", good);
    change_json(change);
    EXPECT_THROW(load(), Error) << os::read_text(folder_ / "set/dataset.json");
  };
  refused([](Json& j) { j.erase("labels"); });
  refused([](Json& j) { j["labels"]["whole"] = {1, 2}; });
  refused([](Json& j) { j["labels"]["negative"] = -3; });
  refused([](Json& j) { j["labels"] = 5; });
  refused([](Json& j) { j.erase("channel_names"); });
  refused([](Json& j) { j["channel_names"] = {{"1", "T1"}}; });
  refused([](Json& j) { j["channel_names"] = {{"0", 5}}; });
  refused([](Json& j) { j["file_ending"] = ".nrrd"; });
  put_bytes(folder_ / "set/dataset.json", "{");
  EXPECT_THROW(load(), Error);
}

// --------------------------------------------------------------------------------------------------------------------- phantoms

TEST(PhantomData, IsAFunctionOfItsOptions) {
  const Dataset a = test::heads(3, 2, {1, 32, 24}, 4), b = test::heads(3, 2, {1, 32, 24}, 4);
  ASSERT_EQ(a.training.size(), 3u);
  ASSERT_EQ(a.validation.size(), 2u);
  EXPECT_EQ(a.spatial_dims, 2);
  EXPECT_EQ(a.classes.size(), phantom_labels().entries.size());
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(to_host<float>(a.training[i].image), to_host<float>(b.training[i].image));
    EXPECT_EQ(to_host<std::uint8_t>(a.training[i].labels), to_host<std::uint8_t>(b.training[i].labels));
    EXPECT_NE(to_host<float>(a.training[i].image), to_host<float>(a.validation[0].image));
  }
  EXPECT_THROW(test::heads(0, 1, {1, 32, 24}, 4), Error);
  EXPECT_THROW(test::heads(3, 2, {32, 1, 32}, 4), Error);
}

}  // namespace
}  // namespace vg

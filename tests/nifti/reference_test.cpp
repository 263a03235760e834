// Real files of others, against what nibabel made of them (expected.json beside the data): shape, affine, sums and extremes of all
// voxels, verdicts.
#include <algorithm>
#include <cmath>
#include <fstream>

#include <nlohmann/json.hpp>

#include "layers/sha256.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using nlohmann::json;

struct Tally {
  int equal = 0, refused_too = 0, of_our_own = 0, dicom = 0;
};

// Where our verdict is another one on purpose.
enum class Ours { reads, no_volume, other_affine };
struct Difference {
  const char* path;
  Ours ours;
  const char* why;
};
constexpr Difference kDifferences[] = {
    {"nifti-rs/minimal2.hdr", Ours::reads, "a plain .hdr with its .img.gz: nibabel looks for the same kind of both"},
    {"nibabel/row_major.dconn.nii", Ours::no_volume, "CIFTI-2: a matrix over surface points in a NIfTI-2 shell, no volume"},
    {"freesurferformats/tiny.mgh", Ours::other_affine,
     "goodRASFlag -1 means no orientation to FreeSurfer; nibabel takes its zeros for directions"},
};

// Sum, minimum and maximum of the scaled voxels in double, straight from the stored numbers.
struct Moments {
  long double sum = 0;
  double low = INFINITY, high = -INFINITY;
  std::int64_t nan = 0;
};
Moments moments_of(const Image& image) {
  Moments m;
  with_number(image.type, [&]<class T>() {
    const T* v = reinterpret_cast<const T*>(image.voxels());
    for (std::int64_t n = 0; n < image.elements(); ++n) {
      const double x = image.slope * static_cast<double>(v[n]) + image.inter;
      if (std::isnan(x)) {
        ++m.nan;
        continue;
      }
      m.sum += x, m.low = std::min(m.low, x), m.high = std::max(m.high, x);
    }
  });
  return m;
}

bool is_real(const json& e) { return e.contains("sum"); }

// Colour and complex numbers: refused unless asked for; then what nibabel says of the parts must fit.
void compare_parts(const std::string& path, const json& e) {
  try {
    read_image(path);
    ADD_FAILURE() << "read without being asked";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::unsupported) << error.what();
    EXPECT_NE(std::string(error.what()).find("the option to take"), std::string::npos) << error.what();
  }
  const Image image = read_image(path, {.luminance = true, .magnitude = true});
  EXPECT_EQ(json(image.dim), e["shape"]);
  const Moments m = moments_of(image);
  if (e.contains("channels")) {
    const json& c = e["channels"];
    const double sum = 0.299 * c["R"]["sum"].get<double>() + 0.587 * c["G"]["sum"].get<double>() + 0.114 * c["B"]["sum"].get<double>();
    EXPECT_NEAR(static_cast<double>(m.sum), sum, 1e-6 * sum);
  } else {
    const double re = e["real"]["max"], im = e["imag"]["max"];
    EXPECT_GE(m.high, std::max(re, im) * (1 - 1e-6));
    const double sum = std::hypot(e["real"]["sum"].get<double>(), e["imag"]["sum"].get<double>());
    EXPECT_GE(static_cast<double>(m.sum), sum * (1 - 1e-6)) << "the length of a sum is at most the sum of the lengths";
    EXPECT_GE(m.low, 0);
  }
}

void compare(const std::string& folder, const std::string& name, const json& e, Tally& tally) {
  SCOPED_TRACE(name);
  const std::string path = folder + "/" + name;
  const auto* different =
      std::find_if(std::begin(kDifferences), std::end(kDifferences), [&](const Difference& d) { return d.path == name; });
  const bool other = different != std::end(kDifferences);
  if (other && different->ours == Ours::no_volume) {
    ++tally.of_our_own;
    EXPECT_THROW(read_volume(path), Error) << different->why;
    return;
  }
  if (e["verdict"] == "refused" && !other) {
    ++tally.refused_too;
    try {
      read_image(path);
      ADD_FAILURE() << "nibabel refuses this file: " << e.value("error", "");
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(name.substr(0, name.find_last_of('.'))), std::string::npos) << error.what();
    }
    return;
  }
  ++(other ? tally.of_our_own : tally.equal);
  Image image;
  try {
    image = read_image(path, {.luminance = true, .magnitude = true});
  } catch (const Error& error) {
    FAIL() << "nibabel reads this file; ours: " << error.what();
  }
  EXPECT_EQ(json(image.dim), e["shape"]);
  if (other && different->ours == Ours::other_affine) {
    EXPECT_TRUE(has_warning(image.warnings, "no_orientation"));
  } else {
    for (int r = 0; r < 4; ++r)
      for (int c = 0; c < 4; ++c) EXPECT_NEAR(image.place.affine.m[r][c], e["affine"][r][c].get<double>(), 1e-6) << r << c;
    EXPECT_EQ(orientation_of(image.place.affine), e["orientation"]);
  }
  if (e.contains("affine_from")) {
    EXPECT_TRUE(e["affine_from"].get<std::string>().starts_with(image.place.source == TransformSource::none ? "neither"
                                                                                                            : name_of(image.place.source)));
  }
  EXPECT_EQ(image.extensions.size(), e.value("extensions", std::size_t{0}));
  EXPECT_EQ(image.intent_code, e.value("intent_code", 0));
  const Image header = read_image_header(path, {.luminance = true, .magnitude = true});
  EXPECT_EQ(header.dim, image.dim) << "the header alone";
  EXPECT_EQ(header.place.affine, image.place.affine);
  if (!is_real(e)) {
    if (e["verdict"] == "loads") compare_parts(path, e);
    return;
  }
  EXPECT_EQ(name_of(image.type), e["dtype"].get<std::string>());
  EXPECT_EQ(sha256_hex({image.voxels(), image.bytes()}), e["raw_sha256"].get<std::string>()) << "all voxels, as stored";
  const Moments m = moments_of(image);
  const double scale = std::max({1.0, std::abs(m.low), std::abs(m.high)}) * static_cast<double>(image.elements());
  EXPECT_NEAR(static_cast<double>(m.sum), e["sum"].get<double>(), 1e-13 * scale);
  EXPECT_EQ(m.low, e["min"].get<double>());
  EXPECT_EQ(m.high, e["max"].get<double>());
  EXPECT_EQ(m.nan, e["nan"].get<std::int64_t>());
  if (image.elements() > (std::int64_t{1} << 24)) return;  // one file of 33 million zeros: its conversion shows nothing new
  const Volume v = to_volume(image);
  float low = INFINITY, high = -INFINITY;
  for (std::int64_t n = 0; n < v.voxels.elements(); ++n) {
    const float x = v.voxels.data<float>()[n];
    if (!std::isnan(x)) low = std::min(low, x), high = std::max(high, x);
  }
  EXPECT_EQ(low, static_cast<float>(m.low));
  EXPECT_EQ(high, static_cast<float>(m.high));
  EXPECT_EQ(v.non_finite, m.nan);
}

Tally compare_all(const std::string& folder) {
  Tally tally;
  const json expected = json::parse(std::ifstream(folder + "/expected.json"));
  for (const auto& [name, e] : expected["files"].items()) {
    if (e["kind"] == "dicom")
      ++tally.dicom;
    else
      compare(folder, name, e, tally);
  }
  std::printf("%s: %d equal, %d refused by both, %d different on purpose, %d DICOM files (FilesHoldWhatPydicomReads)\n", folder.c_str(), tally.equal,
              tally.refused_too, tally.of_our_own, tally.dicom);
  return tally;
}

TEST(Reference, OddFilesOfPublicTestSuites) {
  VG_NEED_DATA(data);
  const Tally t = compare_all(data + "/formats");
  EXPECT_GE(t.equal, 100);
  EXPECT_GE(t.refused_too, 8);
  EXPECT_EQ(t.of_our_own, static_cast<int>(std::size(kDifferences)));
}

TEST(Reference, T1Volumes) {
  VG_NEED_DATA(data);
  EXPECT_GE(compare_all(data + "/t1").equal, 9);
}

TEST(Reference, TheSameVoxelsInTwoFormats) {
  VG_NEED_DATA(data);
  const json expected = json::parse(std::ifstream(data + "/formats/expected.json"));
  int compared = 0;
  for (const json& group : expected["same_raw_voxels"]) {
    if (expected["files"][group[0].get<std::string>()]["kind"] == "dicom") continue;
    const Image first = read_image(data + "/formats/" + group[0].get<std::string>());
    for (const json& other : group) {
      if (expected["files"][other.get<std::string>()]["kind"] == "dicom") continue;
      const Image image = read_image(data + "/formats/" + other.get<std::string>());
      ASSERT_EQ(image.bytes(), first.bytes()) << other;
      EXPECT_EQ(std::memcmp(image.voxels(), first.voxels(), image.bytes()), 0) << other;
      ++compared;
    }
  }
  EXPECT_GE(compared, 8);
}

TEST(Reference, OneBrainInManyOrientationsIsOneBrain) {  // letters L and R are drawn into the image: a flip would show
  VG_NEED_DATA(data);
  Volume first;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data + "/formats/niivue/nifti_space")) {
    const std::string path = entry.path().string();
    if (!path.ends_with(".nii.gz")) continue;
    const Volume v = read_volume(path);
    EXPECT_EQ(orientation_of(v.place.affine), entry.path().stem().stem().string()) << "the file's name is its axis code";
    const Volume ras = reorient(v, "RAS");
    if (++files == 1) {
      first = ras;
      continue;
    }
    ASSERT_EQ(ras.size(), first.size()) << path;
    EXPECT_LT(corner_distance(ras.size(), ras.place.affine, first.place.affine), 2e-3) << path;
    EXPECT_EQ(std::memcmp(ras.voxels.raw(), first.voxels.raw(), first.voxels.bytes()), 0) << path;
  }
  EXPECT_GE(files, 30);
}

TEST(Reference, SameVoxelsPlainAndGzipPlainNameOrNot) {
  VG_NEED_DATA(data);
  const Image a = read_image(data + "/formats/nifti-rs/minimal.nii"), b = read_image(data + "/formats/nifti-rs/minimal.nii.gz");
  ASSERT_EQ(a.bytes(), b.bytes());
  EXPECT_EQ(std::memcmp(a.voxels(), b.voxels(), a.bytes()), 0);
}

}  // namespace
}  // namespace vg

// Real files of others, against what nibabel made of them (expected.json beside the data): shape, affine, sums and extremes of all
// voxels, verdicts.
#include <cmath>
#include <fstream>

#include <nlohmann/json.hpp>

#include "nifti/volume.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using nlohmann::json;

struct Tally {
  int equal = 0, refused_too = 0, unsupported = 0;
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

void compare(const std::string& path, const json& e, Tally& tally) {
  SCOPED_TRACE(path);
  Image image;
  try {
    image = read_image(path);
  } catch (const Error& error) {
    const std::string type = e.value("dtype", "");
    const bool ours = error.code() == ErrorCode::unsupported;  // colour, complex, .hdr/.img pairs: refused with a reason for now
    if (e["verdict"] == "refused") {
      ++tally.refused_too;
    } else {
      EXPECT_TRUE(ours && (type.starts_with("struct") || type.starts_with("complex") || path.find(".hdr") != std::string::npos))
          << error.what();
      ++tally.unsupported;
    }
    return;
  }
  if (e["class"] == "Cifti2Image") {  // a matrix over surface points in a NIfTI-2 shell: nibabel shows its own axes, ours is no volume
    EXPECT_THROW(to_volume(image), Error);
    ++tally.unsupported;
    return;
  }
  ASSERT_EQ(e["verdict"], "loads") << "nibabel refuses this file: " << e.value("error", "");
  EXPECT_EQ(json(image.dim), e["shape"]);
  EXPECT_EQ(name_of(image.type), e["dtype"].get<std::string>());
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 4; ++c) EXPECT_NEAR(image.place.affine.m[r][c], e["affine"][r][c].get<double>(), 1e-6) << r << c;
  EXPECT_EQ(orientation_of(image.place.affine), e["orientation"]);
  EXPECT_TRUE(e["affine_from"].get<std::string>().starts_with(image.place.source == TransformSource::none ? "neither"
                                                                                                          : name_of(image.place.source)));
  EXPECT_EQ(image.extensions.size(), e["extensions"].get<std::size_t>());
  EXPECT_EQ(image.intent_code, e["intent_code"].get<int>());
  const Moments m = moments_of(image);
  const double scale = std::max({1.0, std::abs(m.low), std::abs(m.high)}) * static_cast<double>(image.elements());
  EXPECT_NEAR(static_cast<double>(m.sum), e["sum"].get<double>(), 1e-13 * scale);
  EXPECT_EQ(m.low, e["min"].get<double>());
  EXPECT_EQ(m.high, e["max"].get<double>());
  EXPECT_EQ(m.nan, e["nan"].get<std::int64_t>());
  ++tally.equal;
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
  const Image header = read_image_header(path);
  EXPECT_EQ(header.dim, image.dim) << "the header alone";
  EXPECT_EQ(header.place.affine, image.place.affine);
}

Tally compare_all(const std::string& folder) {
  Tally tally;
  const json expected = json::parse(std::ifstream(folder + "/expected.json"));
  for (const auto& [name, e] : expected["files"].items()) {
    const bool nifti = name.ends_with(".nii") || name.ends_with(".nii.gz") || name.ends_with(".hdr") || name.ends_with(".hdr.gz");
    if (nifti) compare(folder + "/" + name, e, tally);
  }
  std::printf("%s: %d equal, %d refused by both, %d of kinds not read yet\n", folder.c_str(), tally.equal, tally.refused_too,
              tally.unsupported);
  return tally;
}

TEST(Reference, OddFilesOfPublicTestSuites) {
  VG_NEED_DATA(data);
  EXPECT_GE(compare_all(data + "/formats").equal, 70);
}

TEST(Reference, T1Volumes) {
  VG_NEED_DATA(data);
  EXPECT_GE(compare_all(data + "/t1").equal, 8);
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

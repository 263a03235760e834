// Real DICOM files of others, against what pydicom made of them: every series of dicom_golden.inc in place, order and sums, and every file of
// expected.json in its voxels, or refused for the reason that is listed here.
#include <cmath>
#include <fstream>

#include <nlohmann/json.hpp>

#include "nifti/dicom.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using nlohmann::json;

struct Golden {
  const char* path;
  std::int64_t dim[4];
  double affine[12], sum, weighted, low, high;
};
const Golden kGolden[] = {
#include "tests/nifti/dicom_golden.inc"
};

// Sums in double of slope x stored + inter.
struct Sums {
  double sum = 0, weighted = 0, low = INFINITY, high = -INFINITY;  // weighted: by the slice's index
};
Sums sums_of(const Image& image, bool scaled) {
  Sums s;
  const std::int64_t plane = image.size()[0] * image.size()[1], depth = image.size()[2];
  with_number(image.type, [&]<class T>() {
    const T* v = reinterpret_cast<const T*>(image.voxels());
    for (std::int64_t n = 0; n < image.elements(); ++n) {
      const double x = scaled ? image.slope * static_cast<double>(v[n]) + image.inter : static_cast<double>(v[n]);
      s.sum += x, s.weighted += x * static_cast<double>(n / plane % depth);
      s.low = std::min(s.low, x), s.high = std::max(s.high, x);
    }
  });
  return s;
}

TEST(DicomReference, SeriesLieWherePydicomPutsThem) {
  VG_NEED_DATA(folder);
  if (!dicom_missing().empty()) GTEST_SKIP() << dicom_missing();
  for (const Golden& g : kGolden) {
    SCOPED_TRACE(g.path);
    const Image image = read_dicom(folder + "/formats/" + g.path);
    for (std::size_t a = 0; a < 4; ++a) EXPECT_EQ(a < image.dim.size() ? image.dim[a] : 1, g.dim[a]);
    for (int n = 0; n < 12; ++n) EXPECT_NEAR(image.place.affine.m[n / 4][n % 4], g.affine[n], 1e-6);
    const Sums s = sums_of(image, true);
    const double slack = image.type == Number::f32 ? 1e-7 : 1e-12;  // one rounding to float where slices are scaled differently
    EXPECT_NEAR(s.sum, g.sum, slack * std::abs(g.sum) + 1e-9);
    EXPECT_NEAR(s.weighted, g.weighted, slack * std::abs(g.weighted) + 1e-9);
    EXPECT_NEAR(s.low, g.low, slack * std::abs(g.low));
    EXPECT_NEAR(s.high, g.high, slack * std::abs(g.high));
  }
}

// Why we read what pydicom alone does not: GDCM has the decoder. Twins hold the same pixels uncompressed.
struct Extra {
  const char *path, *twin;
};
constexpr Extra kExtra[] = {{"pydicom/MR_small_jp2klossless.dcm", "pydicom/MR_small.dcm"}, {"pydicom/MR_small_jpeg_ls_lossless.dcm", "pydicom/MR_small.dcm"},
                            {"nibabel/nicom/slicethickness_empty_string.dcm", ""},          {"pydicom-data/explicit_VR-UN.dcm", ""},
                            {"pydicom/693_J2KI.dcm", ""}};

// The words by which we refuse what pydicom gives pixels for; "" where we should not.
std::string wanted_refusal(const std::string& path, const json& e) {
  if (e["photometric"] != "MONOCHROME2" && e["photometric"] != "MONOCHROME1") return "(0028,0004)";
  if (e.value("bits_allocated", 0) == 1) return "(0028,0100)";
  if (path.starts_with("dcm_qa_nih/In/20180918Si") || path.starts_with("nibabel/nicom/0.") || path.starts_with("nibabel/nicom/1.") ||
      path.starts_with("nibabel/nicom/siemens_dwi"))
    return "MOSAIC";
  if (path == "pydicom/rtdose_rle_1frame.dcm") return "decoder";  // GDCM has no run lengths for 32 bits
  const bool frames = e["pixel_shape"].size() > 2 || path == "pydicom-data/parametric_map_float.dcm";  // its one frame has a place of its own
  if (!e.contains("image_position") && (!frames || path.starts_with("pydicom-data/emri"))) return "(0020,0032)";
  return "";
}

TEST(DicomReference, FilesHoldWhatPydicomReads) {
  VG_NEED_DATA(folder);
  if (!dicom_missing().empty()) GTEST_SKIP() << dicom_missing();
  std::ifstream in(folder + "/formats/expected.json");
  const json expected = json::parse(in);
  int equal = 0, refused = 0, extra = 0;
  for (const auto& [path, e] : expected["files"].items()) {
    if (e["kind"] != "dicom") continue;
    if (path.find("/mr_0004/") != std::string::npos && path.find("00001") == std::string::npos) continue;  // one of 150 alike; the series is above
    SCOPED_TRACE(path);
    const Extra* ours = std::find_if(std::begin(kExtra), std::end(kExtra), [&](const Extra& x) { return x.path == path; });
    const bool pixels = e["verdict"] == "loads" && e.contains("sum");
    const std::string why = pixels ? wanted_refusal(path, e) : "";
    try {
      const Image image = read_dicom(folder + "/formats/" + path);
      if (ours != std::end(kExtra)) {
        ++extra;
        if (*ours->twin) {
          EXPECT_EQ(sums_of(image, false).sum, expected["files"][ours->twin]["sum"].get<double>());
        }
        continue;
      }
      EXPECT_TRUE(pixels && why.empty()) << "was read; wanted a refusal: " << why;
      if (!pixels) continue;
      ++equal;
      EXPECT_EQ(image.elements(), e["count"]);
      EXPECT_EQ(image.dim[0], e["columns"]);
      EXPECT_EQ(image.dim[1], e["rows"]);
      if (path == "nitest-balls1/DICOM/fieldmap.dcm") continue;  // frames scaled differently: values, above
      const Sums s = sums_of(image, false);
      EXPECT_DOUBLE_EQ(s.sum, e["sum"].get<double>());
      EXPECT_EQ(s.low, e["min"].get<double>());
      EXPECT_EQ(s.high, e["max"].get<double>());
      if (e.contains("sum_rescaled")) {
        const double sum = e["sum_rescaled"];
        EXPECT_NEAR(sums_of(image, true).sum, sum, 1e-9 * std::abs(sum));
      }
    } catch (const Error& error) {
      ++refused;
      EXPECT_TRUE(error.code() == ErrorCode::bad_file || error.code() == ErrorCode::unsupported) << error.what();
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
      EXPECT_FALSE(pixels && why.empty()) << "pydicom reads this file; ours: " << error.what();
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what() << "\nwanted: " << why;
    }
  }
  EXPECT_GT(equal, 80);
  EXPECT_EQ(extra, 5);
  EXPECT_GT(refused, 60);
}

}  // namespace
}  // namespace vg

// The catalogue of bad inputs as one table: every row that concerns the formats of this folder, our verdict, and the test that holds us to it. A row
// without a test, or a test that was renamed away, fails here. Rows that no other test had are tested below the table.
#include <fstream>
#include <map>
#include <set>

#include "nifti/image.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

// Verdicts: A accepted, W accepted with a named warning, R refused with a typed error; several where the row has several cases. `first` to `last`
// share file and test; their ids stand in the test's rows.
struct Rows {
  const char* letter;
  int first, last;
  const char *verdict, *file, *test;
};
constexpr Rows kRows[] = {
    {"N", 1, 1, "A", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 2, 2, "AR", "nifti/catalogue_test.cpp", "Catalogue, N2TheNumberOfAxesTellsTheByteOrder"},
    {"N", 3, 3, "W", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 4, 7, "R", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 8, 8, "A", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 9, 10, "R", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 11, 12, "A", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 13, 13, "R", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 14, 14, "W", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 15, 15, "R", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 16, 16, "R", "nifti/pair_test.cpp", "Pair, WhatIsMissingOrBrokenIsNamed"},
    {"N", 17, 19, "R", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 20, 20, "A", "nifti/bad_inputs_test.cpp", "BadInputs, IdentityEndianDims"},
    {"N", 21, 21, "AR", "nifti/bad_inputs_test.cpp", "BadInputs, N21OtherNumbersOfAxes"},
    {"N", 22, 22, "R", "nifti/bad_inputs_test.cpp", "BadInputs, TypeBitpixScaling"},
    {"N", 23, 23, "W", "nifti/bad_inputs_test.cpp", "BadInputs, TypeBitpixScaling"},
    {"N", 24, 24, "A", "nifti/bad_inputs_test.cpp", "BadInputs, TypeBitpixScaling"},
    {"N", 25, 25, "AW", "nifti/bad_inputs_test.cpp", "BadInputs, N25N33ValuesThatFloatsOrLabelsCannotTake"},
    {"N", 26, 28, "R", "nifti/bad_inputs_test.cpp", "BadInputs, TypeBitpixScaling"},
    {"N", 29, 30, "AW", "nifti/bad_inputs_test.cpp", "BadInputs, TypeBitpixScaling"},
    {"N", 31, 31, "R", "nifti/bad_inputs_test.cpp", "BadInputs, TypeBitpixScaling"},
    {"N", 32, 32, "A", "nifti/bad_inputs_test.cpp", "BadInputs, TypeBitpixScaling"},
    {"N", 33, 33, "W", "nifti/bad_inputs_test.cpp", "BadInputs, N25N33ValuesThatFloatsOrLabelsCannotTake"},
    {"N", 34, 34, "A", "nifti/bad_inputs_test.cpp", "BadInputs, TypeBitpixScaling"},
    {"N", 35, 48, "AWR", "nifti/bad_inputs_test.cpp", "BadInputs, OffsetAndExtensions"},
    {"N", 49, 58, "AWR", "nifti/bad_inputs_test.cpp", "BadInputs, Geometry"},
    {"N", 59, 62, "AWR", "nifti/bad_inputs_test.cpp", "BadInputs, Nifti2"},
    {"N", 63, 72, "AWR", "nifti/bad_inputs_test.cpp", "BadInputs, Gzip"},
    {"N", 73, 73, "R", "nifti/bad_inputs_test.cpp", "BadInputs, N73BrokenDeflate"},
    {"N", 74, 74, "A", "nifti/catalogue_test.cpp", "Catalogue, N74PairsMayStartTheirVoxelsLater"},
    {"N", 75, 76, "AR", "nifti/pair_test.cpp", "Pair, WhatIsMissingOrBrokenIsNamed"},
    {"N", 77, 78, "AR", "nifti/bad_inputs_test.cpp", "BadInputs, Nifti2"},
    {"N", 79, 79, "AWR", "nifti/bad_inputs_test.cpp", "BadInputs, N79PrefixesAndFlippedBytes"},
    {"M", 1, 5, "R", "nifti/mgh_test.cpp", "Mgh, DamagedHeaders"},
    {"M", 6, 6, "A", "nifti/catalogue_test.cpp", "Catalogue, M6FramesAreAFourthAxis"},
    {"M", 7, 15, "AWR", "nifti/mgh_test.cpp", "Mgh, DamagedHeaders"},
    {"S", 1, 18, "AR", "layers/safetensors_test.cpp", "Safetensors, RefusesBadFiles"},
    {"D", 1, 3, "AR", "nifti/dicom_test.cpp", "Dicom, BrokenFilesAreRefusedWhateverTheyDoToTheDecoder"},
    {"D", 4, 4, "AR", "nifti/dicom_reference_test.cpp", "DicomReference, FilesHoldWhatPydicomReads"},  // GDCM decodes them: accepted, not refused
    {"D", 5, 6, "R", "nifti/dicom_test.cpp", "Dicom, BrokenFilesAreRefusedWhateverTheyDoToTheDecoder"},
    {"D", 7, 7, "AR", "nifti/dicom_test.cpp", "Dicom, FormsOfPixels"},
    {"D", 8, 8, "R", "nifti/dicom_reference_test.cpp", "DicomReference, FilesHoldWhatPydicomReads"},
    {"D", 9, 9, "A", "nifti/dicom_test.cpp", "Dicom, FormsOfPixels"},
    {"D", 10, 10, "AR", "nifti/dicom_test.cpp", "Dicom, RescalingIsPerSlice"},
    {"D", 11, 11, "AR", "nifti/dicom_test.cpp", "Dicom, GapsDuplicatesAndScoutsAreNamed"},
    {"D", 12, 12, "AR", "nifti/dicom_test.cpp", "Dicom, UnevenAndLeaningStacks"},
    {"D", 13, 13, "AR", "nifti/dicom_test.cpp", "Dicom, EnhancedMultiFrame"},
    {"D", 14, 14, "A", "nifti/dicom_test.cpp", "Dicom, BrokenFilesAreRefusedWhateverTheyDoToTheDecoder"},
    {"D", 15, 15, "WR", "nifti/dicom_test.cpp", "Dicom, FormsOfPixels"},
    {"D", 16, 16, "W", "nifti/dicom_test.cpp", "Dicom, UnevenAndLeaningStacks"},
    {"P", 1, 2, "R", "nifti/png_test.cpp", "Png, DamageIsRefusedWithTheFilesName"},
    {"P", 3, 3, "A", "nifti/png_test.cpp", "Png, OneColumnInterlaced"},
    {"P", 4, 4, "W", "nifti/png_test.cpp", "Png, OddButReadable"},
    {"P", 5, 5, "R", "nifti/png_test.cpp", "Png, DamageIsRefusedWithTheFilesName"},
    {"P", 6, 6, "AR", "nifti/png_test.cpp", "Png, OddButReadable"},
    {"P", 7, 7, "WR", "nifti/png_test.cpp", "Png, DamageIsRefusedWithTheFilesName"},
    {"P", 8, 8, "A", "nifti/png_test.cpp", "Png, SixteenBitsStaySixteen"},
    {"P", 9, 9, "R", "nifti/png_test.cpp", "Png, AFolderOfSlicesIsAVolume"},
    {"P", 10, 10, "A", "nifti/png_test.cpp", "Png, OddButReadable"},
};

TEST(Catalogue, EveryRowHasAVerdictAndATest) {
  std::map<std::string, std::string> files;
  std::map<std::string, std::set<int>> seen;
  for (const Rows& rows : kRows) {
    SCOPED_TRACE(std::string(rows.letter) + std::to_string(rows.first));
    std::string& text = files[rows.file];
    if (text.empty()) {
      std::ifstream in(std::string(VG_SOURCE_DIR) + "/tests/" + rows.file);
      text.assign(std::istreambuf_iterator<char>(in), {});
      ASSERT_FALSE(text.empty()) << rows.file;
    }
    EXPECT_TRUE(text.find(std::string("TEST(") + rows.test) != std::string::npos || text.find(std::string("TEST_F(") + rows.test) != std::string::npos) << rows.test;
    EXPECT_EQ(std::string(rows.verdict).find_first_not_of("AWR"), std::string::npos);
    for (int n = rows.first; n <= rows.last; ++n) EXPECT_TRUE(seen[rows.letter].insert(n).second) << "twice: " << n;
  }
  const std::map<std::string, int> last = {{"N", 79}, {"M", 15}, {"S", 18}, {"D", 16}, {"P", 10}};
  for (const auto& [letter, count] : last) {
    EXPECT_EQ(static_cast<int>(seen[letter].size()), count) << letter;
    EXPECT_EQ(*seen[letter].rbegin(), count) << letter;
  }
}

using test::RawNifti;

TEST(Catalogue, N2TheNumberOfAxesTellsTheByteOrder) {
  for (const bool big : {false, true}) {
    EXPECT_EQ(parse_image(RawNifti(big).bytes(), "x.nii").dim, (std::vector<std::int64_t>{2, 3, 4}));
    // Neither order gives 1..7 axes: refused, whatever sizeof_hdr says.
    for (const std::int16_t axes : {std::int16_t{0}, std::int16_t{0x0808}, std::int16_t{0x1234}})
      EXPECT_THROW(parse_image(RawNifti(big).set<std::int16_t>(40, axes).bytes(), "x.nii"), Error) << axes;
    // The axes win over a sizeof_hdr in the other order: only the size is repaired, and said so.
    EXPECT_TRUE(has_warning(parse_image(RawNifti(big).set<std::int32_t>(0, 0x5c010000).bytes(), "x.nii").warnings, "bad_header_size"));
  }
}

TEST(Catalogue, N74PairsMayStartTheirVoxelsLater) {
  const test::TemporaryFolder folder;
  RawNifti raw;
  const test::Bytes voxels(raw.bytes().begin() + 352, raw.bytes().end());
  const test::Bytes head = raw.set<float>(108, 16).text(344, "ni1").resize(352).bytes();
  const auto put = [&](const char* name, const test::Bytes& bytes) {
    std::ofstream(folder / name, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  };
  put("x.hdr", head), put("x.img", test::join(test::Bytes(16), voxels));
  const Image image = read_image(folder / "x.hdr");
  EXPECT_TRUE(image.warnings.empty());
  EXPECT_EQ(std::memcmp(image.voxels(), voxels.data(), voxels.size()), 0);
}

TEST(Catalogue, M6FramesAreAFourthAxis) {
  const test::TemporaryFolder folder;
  Image image = parse_image(RawNifti().set<std::int16_t>(40, 4).set<std::int16_t>(46, 2).set<std::int16_t>(48, 2).bytes(), "x.nii");
  write_image(folder / "x.mgh", image);
  const Image back = read_image(folder / "x.mgh");
  EXPECT_EQ(back.dim, (std::vector<std::int64_t>{2, 3, 2, 2}));
  EXPECT_EQ(std::memcmp(back.voxels(), image.voxels(), image.bytes()), 0);
}

}  // namespace
}  // namespace vg

// DICOM made byte by byte, one thing wrong at a time: what is read, what is refused and by which words; that nothing of the patient gets out; that
// a decoder's death is a sentence. Rows D1 to D16 of the table of bad inputs.
#include "nifti/dicom.h"

#include <libdeflate.h>

#include <filesystem>
#include <functional>

#include "nifti/describe.h"
#include "nifti/volume.h"
#include "nifti/zip.h"
#include "tensor/error.h"
#include "tests/nifti/dicom_file.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::DicomFile;
using test::DicomSlice;
namespace fs = std::filesystem;

class Dicom : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = dicom_missing(); !why.empty()) GTEST_SKIP() << why;
    fs::create_directories(folder_ / "in");
  }
  std::string in() const { return folder_ / "in"; }
  void put(const std::string& name, const DicomSlice& s) const { s.make().write(folder_ / ("in/" + name)); }
  // Four slices 5 mm apart, in an order of names and numbers that is not that of their places.
  void series(const std::function<void(DicomSlice&, int)>& change = [](DicomSlice&, int) {}) const {
    for (int n = 0; n < 4; ++n) {
      DicomSlice s;
      s.z = 5.0 * n, s.first = 100 * n, s.instance = 9 - n;
      change(s, n);
      put("slice" + std::to_string(3 - n) + ".dcm", s);
    }
  }
  // Refused, with all of these words; and never with what belongs to the patient.
  void refused(ErrorCode code, const std::vector<std::string>& words, const std::string& path = "") const {
    try {
      read_volume(path.empty() ? in() : path);
      ADD_FAILURE() << "was read; wanted: " << words[0];
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      for (const std::string& w : words) EXPECT_NE(std::string(e.what()).find(w), std::string::npos) << e.what() << "\nwanted: " << w;
      EXPECT_EQ(std::string(e.what()).find("SECRET"), std::string::npos) << e.what();
    }
  }
  test::TemporaryFolder folder_;
};

float at(const Volume& v, int i, int j, int k) { return v.voxels.data<float>()[(k * v.size()[1] + j) * v.size()[0] + i]; }

TEST_F(Dicom, PositionsDecideTheOrder) {
  series();
  const Volume v = read_volume(in());
  EXPECT_EQ(v.size(), (Size3{4, 3, 4}));
  EXPECT_EQ(at(v, 0, 0, 0), 0);
  EXPECT_EQ(at(v, 0, 0, 3), 300);
  EXPECT_EQ(at(v, 3, 2, 2), 211);
  const double wanted[3][4] = {{-2, 0, 0, 10}, {0, -3, 0, -20}, {0, 0, 5, 0}};  // LPS to RAS: two signs
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 4; ++c) EXPECT_DOUBLE_EQ(v.place.affine.m[r][c], wanted[r][c]) << r << c;
  EXPECT_EQ(v.stored, Number::u16);
  EXPECT_TRUE(v.warnings.empty());
  const Image header = read_dicom_header(in());
  EXPECT_EQ(header.dim, (std::vector<std::int64_t>{4, 3, 4}));
  EXPECT_EQ(header.place.affine, v.place.affine);
}

TEST_F(Dicom, OneFileIsOneSlice) {
  series();
  const Volume v = read_volume(in() + "/slice2.dcm");
  EXPECT_EQ(v.size(), (Size3{4, 3, 1}));
  EXPECT_DOUBLE_EQ(v.place.affine.m[2][2], 5);
  EXPECT_DOUBLE_EQ(v.place.affine.m[2][3], 5);
  DicomSlice thin;
  thin.thickness = "";
  put("thin.dcm", thin);
  EXPECT_TRUE(has_warning(read_volume(in() + "/thin.dcm").warnings, "no_thickness"));
  fs::rename(in() + "/thin.dcm", in() + "/noending");  // told by its content
  EXPECT_EQ(read_volume(in() + "/noending").size(), (Size3{4, 3, 1}));
}

TEST_F(Dicom, RescalingIsPerSlice) {
  series([](DicomSlice& s, int) { s.slope = "2", s.inter = "-10"; });
  Image image = read_dicom(in());
  EXPECT_EQ(image.type, Number::u16);
  EXPECT_EQ(image.slope, 2);
  EXPECT_EQ(image.inter, -10);
  EXPECT_EQ(at(read_volume(in()), 1, 0, 1), 2 * 101 - 10);
  series([](DicomSlice& s, int n) { s.slope = std::to_string(n + 1), s.inter = "0.5"; });
  image = read_dicom(in());
  EXPECT_EQ(image.type, Number::f32);
  EXPECT_EQ(at(read_volume(in()), 1, 0, 1), 2 * 101 + 0.5f);
  EXPECT_EQ(at(read_volume(in()), 1, 0, 3), 4 * 301 + 0.5f);
  series([](DicomSlice& s, int) { s.slope = "", s.inter = " "; });  // empty: none
  EXPECT_EQ(at(read_volume(in()), 1, 0, 1), 101);
  for (const char* bad : {"nan", "inf", "1,5", "1e999", "0"}) {
    series([&](DicomSlice& s, int n) { s.slope = n == 2 ? bad : "1"; });
    refused(ErrorCode::bad_file, {"slice1.dcm", "(0028,1053) RescaleSlope", bad});
  }
}

TEST_F(Dicom, GapsDuplicatesAndScoutsAreNamed) {
  series();
  fs::remove(in() + "/slice2.dcm");
  refused(ErrorCode::bad_file, {"slice1.dcm", "(0020,0032) ImagePositionPatient", "10 mm behind", "others", "a gap"});
  series();
  DicomSlice twice;
  twice.z = 5, twice.instance = 77;
  put("again.dcm", twice);
  refused(ErrorCode::bad_file, {"(0020,0032)", "there twice"});
  series();
  fs::remove(in() + "/again.dcm");
  fs::copy_file(in() + "/slice0.dcm", in() + "/copy.dcm");
  refused(ErrorCode::bad_file, {"slice0.dcm", "copy.dcm", "(0008,0018) SOPInstanceUID", "duplicate"});
  fs::remove(in() + "/copy.dcm");
  DicomSlice scout;
  scout.instance = 1, scout.z = 2, scout.orientation = "0\\1\\0\\0\\0\\-1";
  put("scout.dcm", scout);
  refused(ErrorCode::bad_file, {"slice0.dcm", "(0020,0037) ImageOrientationPatient", "scout"});  // files are taken by name: the scout came first
  fs::remove(in() + "/scout.dcm");
  EXPECT_NO_THROW(read_volume(in()));
}

TEST_F(Dicom, UnevenAndLeaningStacks) {
  series([](DicomSlice& s, int n) { s.z += n == 2 ? 0.04 : 0; });  // 0.8 %
  EXPECT_NO_THROW(read_volume(in()));
  series([](DicomSlice& s, int n) { s.z += n == 2 ? 0.2 : 0; });
  refused(ErrorCode::bad_file, {"(0020,0032)", "a gap"});
  series([](DicomSlice& s, int n) { s.position = "-10\\" + std::to_string(20 + n) + "\\" + std::to_string(5 * n); });
  refused(ErrorCode::bad_file, {"(0020,0032)", "gantry tilt"});
  series([](DicomSlice& s, int n) { s.position = "-10\\" + std::to_string(n == 1 ? 22 : 20) + "\\" + std::to_string(5 * n); });
  refused(ErrorCode::bad_file, {"slice2.dcm", "(0020,0032)", "2 mm aside"});
  series([](DicomSlice& s, int) { s.between = "2"; });
  const Volume v = read_volume(in());
  EXPECT_TRUE(has_warning(v.warnings, "slice_distance"));
  EXPECT_DOUBLE_EQ(v.spacing()[2], 5);
  series([](DicomSlice& s, int n) { s.z = -5.0 * n, s.instance = n; });  // numbered against the normal
  EXPECT_EQ(at(read_volume(in()), 0, 0, 0), 300);
}

TEST_F(Dicom, GeometryMustBeThereAndMakeSense) {
  series([](DicomSlice& s, int n) { s.geometry = n != 1; });
  refused(ErrorCode::bad_file, {"slice2.dcm", "(0020,0032) ImagePositionPatient is missing"});
  const struct {
    std::string DicomSlice::*field;
    const char *value, *tag;
  } rows[] = {{&DicomSlice::position, "1\\2", "(0020,0032)"},         {&DicomSlice::position, "1\\2\\x", "(0020,0032)"},
              {&DicomSlice::position, "nan\\2\\3", "(0020,0032)"},     {&DicomSlice::position, "1e30\\2\\3", "(0020,0032)"},
              {&DicomSlice::orientation, "1\\0\\0\\0\\1", "(0020,0037)"}, {&DicomSlice::orientation, "1\\0\\0\\1\\0\\0", "(0020,0037)"},
              {&DicomSlice::orientation, "2\\0\\0\\0\\1\\0", "(0020,0037)"}, {&DicomSlice::spacing, "0\\1", "(0028,0030)"},
              {&DicomSlice::spacing, "-1\\1", "(0028,0030)"},           {&DicomSlice::spacing, "1", "(0028,0030)"},
              {&DicomSlice::spacing, "", "(0028,0030)"}};
  for (const auto& row : rows) {
    SCOPED_TRACE(row.value);
    series([&](DicomSlice& s, int n) {
      if (n == 3) s.*row.field = row.value;
    });
    refused(ErrorCode::bad_file, {"slice0.dcm", row.tag});
  }
  series([](DicomSlice& s, int n) { s.spacing = n == 2 ? "3\\2.1" : "3\\2"; });
  refused(ErrorCode::bad_file, {"(0028,0030) PixelSpacing", "one spacing"});
}

TEST_F(Dicom, FormsOfPixels) {
  series([](DicomSlice& s, int) { s.stored = 12, s.is_signed = 1, s.pixels = DicomSlice::counted(12, 0xf800); });  // bits 12..15 are not the pixel's
  EXPECT_EQ(at(read_volume(in()), 0, 0, 0), -2048);
  series([](DicomSlice& s, int) { s.stored = 12, s.pixels = DicomSlice::counted(12, 0xf800); });
  EXPECT_EQ(at(read_volume(in()), 1, 0, 0), 0x801);
  series([](DicomSlice& s, int) { s.stored = 12, s.high = 15, s.pixels = DicomSlice::counted(12, 0x100); });  // the upper twelve
  EXPECT_EQ(at(read_volume(in()), 0, 0, 0), 0x10);
  series([](DicomSlice& s, int) { s.allocated = 8, s.stored = 8, s.pixels = std::string("\0\1\2\3\4\5\6\7\x8\x9\xa\xff", 12); });
  EXPECT_EQ(at(read_volume(in()), 3, 2, 0), 255);
  series([](DicomSlice& s, int) { s.photometric = "MONOCHROME1"; });
  const Volume v = read_volume(in());
  EXPECT_TRUE(has_warning(v.warnings, "monochrome1"));
  EXPECT_EQ(at(v, 1, 0, 0), 1);
  series([](DicomSlice& s, int n) { s.pixels = DicomSlice::counted(n == 1 ? 20 : 12, 7); });  // padding behind the pixels
  EXPECT_EQ(at(read_volume(in()), 3, 2, 1), 18);
  series([](DicomSlice& s, int n) { s.pixels = DicomSlice::counted(n == 1 ? 11 : 12, 7); });
  refused(ErrorCode::bad_file, {"slice2.dcm", "(7FE0,0010) PixelData", "22 bytes", "wanted 24"});
  series([](DicomSlice& s, int n) {
    if (n == 1) s.photometric = "RGB", s.samples = 3, s.allocated = s.stored = 8, s.pixels = std::string(36, 'x');
  });
  refused(ErrorCode::unsupported, {"slice2.dcm", "(0028,0004) PhotometricInterpretation = \"RGB\""});
  series([](DicomSlice& s, int) { s.image_type = "ORIGINAL\\PRIMARY\\M\\ND\\MOSAIC"; });
  refused(ErrorCode::unsupported, {"(0008,0008) ImageType", "MOSAIC"});
  series([](DicomSlice& s, int n) {
    if (n == 0) s.rows = 2;
  });
  refused(ErrorCode::bad_file, {"(0028,0010) Rows", "as in the other files"});
  series([](DicomSlice& s, int) { s.allocated = 1, s.stored = 1; });
  refused(ErrorCode::unsupported, {"(0028,0100) BitsAllocated"});
}

TEST_F(Dicom, TimesBecomeTheFourthAxis) {
  for (int t = 0; t < 3; ++t)
    for (int n = 0; n < 4; ++n) {
      DicomSlice s;
      s.z = 5.0 * n, s.first = 1000 * t + 100 * n, s.instance = 12 - (4 * t + n), s.temporal = std::to_string(t + 1);
      put(std::to_string(t) + std::to_string(n), s);
    }
  const Image image = read_dicom(in());
  EXPECT_EQ(image.dim, (std::vector<std::int64_t>{4, 3, 4, 3}));
  EXPECT_EQ(at(read_volume(in(), {.frame = 2}), 0, 0, 1), 2100);
  EXPECT_EQ(at(read_volume(in() + ",1"), 1, 0, 3), 1301);
  fs::remove(in() + "/12");
  refused(ErrorCode::bad_file, {"(0020,0032)", "3 slices at every place, here 2", "missing"});
}

TEST_F(Dicom, EnhancedMultiFrame) {
  DicomFile f;
  f.put(8, 8, "CS", "ORIGINAL\\PRIMARY").put(0x20, 0xe, "UI", "1.2").put(0x28, 4, "CS", "MONOCHROME2").put(0x28, 8, "IS", "3");
  f.us(0x28, 0x10, 3).us(0x28, 0x11, 4).us(0x28, 0x100, 16).us(0x28, 0x101, 16).us(0x28, 0x102, 15).us(0x28, 0x103, 1);
  DicomFile shared, frames[3];
  shared.sequence(0x20, 0x9116, {DicomFile().put(0x20, 0x37, "DS", "0\\1\\0\\0\\0\\-1")});
  shared.sequence(0x28, 0x9110, {DicomFile().put(0x28, 0x30, "DS", "2\\3").put(0x18, 0x50, "DS", "9")});
  for (int n = 0; n < 3; ++n) {
    frames[n].sequence(0x20, 0x9113, {DicomFile().put(0x20, 0x32, "DS", std::to_string(8 - 4 * n) + "\\5\\6")});
    frames[n].sequence(0x28, 0x9145, {DicomFile().put(0x28, 0x1052, "DS", "0").put(0x28, 0x1053, "DS", n == 0 ? "10" : "1")});
  }
  DicomFile two = f;  // says three frames
  DicomFile placed = shared;
  placed.sequence(0x20, 0x9113, {DicomFile().put(0x20, 0x32, "DS", "0\\0\\0")});
  two.sequence(0x5200, 0x9229, {placed}).sequence(0x5200, 0x9230, {frames[0], frames[2]}).put(0x7fe0, 0x10, "OW", DicomSlice::counted(36, 0));
  two.write(in() + "/two.dcm");
  refused(ErrorCode::bad_file, {"two.dcm", "(0028,0008) NumberOfFrames = \"3\" (wanted the 2 that (5200,9230) describes)"}, in() + "/two.dcm");
  f.sequence(0x5200, 0x9229, {shared}).sequence(0x5200, 0x9230, {frames[0], frames[1], frames[2]});
  DicomFile whole = f;
  whole.put(0x7fe0, 0x10, "OW", DicomSlice::counted(36, 0));
  whole.write(in() + "/e.dcm");
  const Volume v = read_volume(in() + "/e.dcm");
  EXPECT_EQ(v.size(), (Size3{4, 3, 3}));
  // row x column = (0, 1, 0) x (0, 0, -1) = (-1, 0, 0): the frame at x = 8 comes first
  EXPECT_EQ(at(v, 1, 0, 0), 10);
  EXPECT_EQ(at(v, 0, 0, 1), 12);
  EXPECT_EQ(at(v, 3, 2, 2), 35);
  const double wanted[3][4] = {{0, 0, 4, -8}, {-3, 0, 0, -5}, {0, -2, 0, 6}};
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 4; ++c) EXPECT_NEAR(v.place.affine.m[r][c], wanted[r][c], 1e-12) << r << c;
  DicomFile bare;
  bare.put(8, 8, "CS", "ORIGINAL\\PRIMARY").put(0x20, 0x32, "DS", "0\\0\\0").put(0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0").put(0x28, 4, "CS", "MONOCHROME2");
  bare.put(0x28, 8, "IS", "3").us(0x28, 0x10, 3).us(0x28, 0x11, 4).put(0x28, 0x30, "DS", "1\\1").us(0x28, 0x100, 16).us(0x28, 0x101, 16);
  bare.us(0x28, 0x102, 15).us(0x28, 0x103, 0).put(0x7fe0, 0x10, "OW", DicomSlice::counted(36, 0));
  bare.write(in() + "/b.dcm");
  refused(ErrorCode::bad_file, {"b.dcm", "(0028,0008) NumberOfFrames = \"3\"", "(5200,9230)"}, in() + "/b.dcm");
}

TEST_F(Dicom, SeriesAreListedAndChosen) {
  series();
  for (int n = 0; n < 2; ++n) {
    DicomSlice s;
    s.series = 3, s.series_uid = "1.2.3.3", s.z = n, s.instance = n, s.first = 5000;
    put("other" + std::to_string(n), s);
  }
  std::ofstream(in() + "/notes.txt") << "no image";
  const std::vector<DicomSeries> list = list_dicom(in());
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].number, 3);
  EXPECT_EQ(list[0].size, (Size3{4, 3, 2}));
  EXPECT_EQ(list[1].number, 7);
  EXPECT_EQ(list[1].files, 4u);
  EXPECT_EQ(list[1].modality, "MR");
  refused(ErrorCode::unsupported, {"2 series", "--series", "series 7, MR, 4 files, 4 x 3 x 4"});
  EXPECT_EQ(read_volume(in() + ",series=1").size(), (Size3{4, 3, 4}));
  EXPECT_EQ(at(read_volume(in(), {.series = 0}), 0, 0, 1), 5000);
  EXPECT_THROW(read_volume(in(), {.series = 2}), Error);
  fs::remove(in() + "/other1");  // a single picture beside the scan
  const Volume v = read_volume(in());
  EXPECT_EQ(v.size(), (Size3{4, 3, 4}));
  EXPECT_TRUE(has_warning(v.warnings, "other_series"));
}

std::string zip_of(const std::vector<std::pair<std::string, std::string>>& files, bool packed) {
  const auto le = [](std::size_t v, int n) { return DicomFile::le(static_cast<std::uint32_t>(v), n); };
  std::string all, directory;
  for (const auto& [name, plain] : files) {
    std::string data = plain;
    if (packed) {
      libdeflate_compressor* c = libdeflate_alloc_compressor(6);
      data.resize(libdeflate_deflate_compress_bound(c, plain.size()));
      data.resize(libdeflate_deflate_compress(c, plain.data(), plain.size(), data.data(), data.size()));
      libdeflate_free_compressor(c);
    }
    const std::string facts = le(0, 2) + le(packed ? 8 : 0, 2) + le(0, 4) + le(libdeflate_crc32(0, plain.data(), plain.size()), 4) + le(data.size(), 4) +
                              le(plain.size(), 4) + le(name.size(), 2) + le(0, 2);
    directory += "PK\1\2" + le(20, 2) + le(20, 2) + facts + le(0, 2) + le(0, 2) + le(0, 2) + le(0, 4) + le(all.size(), 4) + name;
    all += "PK\3\4" + le(20, 2) + facts + name + data;
  }
  return all + directory + "PK\5\6" + le(0, 4) + le(files.size(), 2) + le(files.size(), 2) + le(directory.size(), 4) + le(all.size(), 4) + le(0, 2);
}

TEST_F(Dicom, ArchivesAndGzip) {
  std::vector<std::pair<std::string, std::string>> files = {{"study/readme.txt", "no image"}, {"study/", ""}};
  for (int n = 0; n < 4; ++n) {
    DicomSlice s;
    s.z = 5.0 * n, s.first = 100 * n, s.instance = n;
    files.push_back({"study/" + std::to_string(7 * n % 4), s.make().file()});
  }
  for (const bool packed : {false, true}) {
    const std::string path = folder_ / (packed ? "a.zip" : "b.zip"), zip = zip_of(files, packed);
    std::ofstream(path, std::ios::binary) << zip;
    const Volume v = read_volume(path);
    EXPECT_EQ(v.size(), (Size3{4, 3, 4}));
    EXPECT_EQ(at(v, 0, 0, 3), 300);
    std::string damaged = zip;
    damaged[damaged.find("DICM") == std::string::npos ? 150 : damaged.find("DICM") + 300] ^= 1;
    std::ofstream(path, std::ios::binary) << damaged;
    refused(ErrorCode::bad_file, {path + "/study/", "damaged"}, path);
    std::ofstream(path, std::ios::binary) << zip.substr(0, zip.size() - 30);
    refused(ErrorCode::bad_file, {"without its end"}, path);
  }
  const test::Bytes packed = test::gz(test::bytes_of(files[2].second));
  std::ofstream(folder_ / "s.dcm.gz", std::ios::binary).write(reinterpret_cast<const char*>(packed.data()), static_cast<std::streamsize>(packed.size()));
  EXPECT_EQ(read_volume(folder_ / "s.dcm.gz").size(), (Size3{4, 3, 1}));
}

TEST(Zip, NumbersInZip64Records) {
  constexpr const char* kHex =
#include "tests/nifti/zip64_golden.inc"
      ;
  test::Bytes zip;
  for (const char* c = kHex; *c; c += 2) zip.push_back(static_cast<std::byte>(std::stoi(std::string(c, 2), nullptr, 16)));
  const std::vector<ZipEntry> entries = zip_entries(zip, "a.zip");
  ASSERT_EQ(entries.size(), 2u);
  for (const ZipEntry& e : entries) {
    const Buffer bytes = zip_read(zip, e, "a.zip");
    ASSERT_EQ(bytes.size(), 140u) << e.name;
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), 14), "voxels voxels ") << e.name;
  }
  EXPECT_EQ(entries[1].name, "packed.txt");
  EXPECT_EQ(entries[1].method, 8);
  // Whatever is cut or changed: refused, or the two files as they are.
  for (std::size_t at = 0; at < zip.size(); ++at) {
    test::Bytes changed = zip;
    changed[at] ^= std::byte{0xff};
    for (const test::Bytes& bytes : {changed, test::Bytes(zip.begin(), zip.begin() + static_cast<std::ptrdiff_t>(at))}) try {
        for (const ZipEntry& e : zip_entries(bytes, "a.zip")) EXPECT_EQ(zip_read(bytes, e, "a.zip").size(), 140u) << at;
      } catch (const Error& e) {
        EXPECT_TRUE(e.code() == ErrorCode::bad_file || e.code() == ErrorCode::unsupported) << at << ": " << e.what();
      }
  }
}

TEST_F(Dicom, NothingOfThePatientGetsOut) {
  series();
  const Image image = read_dicom(in());
  const std::string out = folder_ / "out.nii";
  write_volume(out, read_volume(in()));
  std::ifstream file(out, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  bytes += image.description + image.intent_name + image.auxiliary_file + image.format + to_text(list_dicom(in()));
  bytes += to_json(inspect(in(), builtin_freesurfer()), builtin_freesurfer()).dump() + to_text(inspect(in(), builtin_freesurfer()), builtin_freesurfer());
  for (const char* secret : {"SECRET", "19700101", "20010203"}) EXPECT_EQ(bytes.find(secret), std::string::npos) << secret;
}

// What GDCM may meet: whatever becomes of it over there, here it is a refusal that names the file.
TEST_F(Dicom, BrokenFilesAreRefusedWhateverTheyDoToTheDecoder) {
  DicomSlice s;
  const std::string good = s.make().file();
  const auto check = [&](const std::string& what, const std::string& bytes, bool may_be_read = false) {
    SCOPED_TRACE(what);
    const std::string path = folder_ / "f.dcm";
    std::ofstream(path, std::ios::binary) << bytes;
    try {
      const Volume v = read_volume(path);
      EXPECT_TRUE(may_be_read);
      EXPECT_EQ(v.size(), (Size3{4, 3, 1}));
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == ErrorCode::bad_file || e.code() == ErrorCode::unsupported) << e.what();
      EXPECT_NE(std::string(e.what()).find(path), std::string::npos) << e.what();
      EXPECT_EQ(std::string(e.what()).find("SECRET"), std::string::npos) << e.what();
    }
  };
  check("empty", "");
  check("no preamble", good.substr(132), true);
  std::string executable = good;
  executable.replace(0, 4, "\x7f" "ELF");
  check("an executable's mark in the preamble", executable, true);
  for (std::size_t n = 0; n < good.size(); n += 37) check("cut after " + std::to_string(n), good.substr(0, n));
  check("one byte short", good.substr(0, good.size() - 1));
  DicomFile open_ended;
  open_ended.raw(std::string("\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff", 12)).raw(s.make().file().substr(160));
  check("a sequence without end", open_ended.file());
  std::string nest;
  for (int n = 0; n < 300; ++n) nest += std::string("\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff", 20);
  check("300 sequences in each other", DicomFile().raw(nest).file());
  check("a length beyond the file", DicomFile().raw(std::string("\x28\x00\x10\x00OB\0\0\xfe\xff\xff\xff", 12)).file());
  check("compressed by a method that nobody knows", DicomFile("1.2.3.4.5").raw(good.substr(200)).file());
  DicomFile icon;  // PixelData of an icon before the picture's own
  icon.put(0x20, 0xe, "UI", "1.2").put(0x20, 0x32, "DS", "0\\0\\0").put(0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0").put(0x28, 4, "CS", "MONOCHROME2");
  icon.us(0x28, 0x10, 3).us(0x28, 0x11, 4).put(0x28, 0x30, "DS", "1\\1").us(0x28, 0x100, 16).us(0x28, 0x101, 16).us(0x28, 0x102, 15).us(0x28, 0x103, 0);
  icon.sequence(0x88, 0x200, {DicomFile().us(0x28, 0x10, 1).us(0x28, 0x11, 2).put(0x7fe0, 0x10, "OB", "xy")});
  icon.put(0x7fe0, 0x10, "OW", DicomSlice::counted(12, 40)).write(folder_ / "icon.dcm");
  EXPECT_EQ(at(read_volume(folder_ / "icon.dcm"), 3, 2, 0), 51);
}

}  // namespace
}  // namespace vg

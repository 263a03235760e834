// The table of hostile and odd NIfTI files: what is accepted (A), accepted with a named warning (W) or refused with a typed error (R).
// Row numbers N1..N79 are those of the catalogue that compares nibabel 5.4.2 and nifti_clib; where our verdict differs from theirs the
// row says why.
#include <cmath>
#include <functional>
#include <limits>

#include "nifti/gzip.h"
#include "nifti/image.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::Bytes;
using test::gz;
using test::join;
using test::RawNifti;

struct Outcome {
  std::string verdict;  // "A", "W", "R"
  std::string error;
  Warnings warnings;
  Image image;
};
Outcome judge(const Bytes& bytes, const std::string& name) {
  Outcome o;
  try {
    o.image = parse_image(std::span<const std::byte>(bytes), name);
    o.warnings = o.image.warnings;
    o.verdict = o.warnings.empty() ? "A" : "W";
  } catch (const Error& e) {
    o.verdict = "R";
    o.error = e.what();
    EXPECT_NE(o.error.find(name), std::string::npos) << "an error must name the file: " << o.error;
    EXPECT_TRUE(e.code() == ErrorCode::bad_file || e.code() == ErrorCode::unsupported) << o.error;
  }
  return o;
}

struct Row {
  const char* id;
  Bytes bytes;
  const char* verdict;
  const char* says = "";  // R: part of the message; W: name of the warning
  const char* name = "x.nii";
};
void check(const Row& row) {
  SCOPED_TRACE(row.id);
  const Outcome o = judge(row.bytes, row.name);
  EXPECT_EQ(o.verdict, row.verdict) << o.error << (o.warnings.empty() ? "" : o.warnings[0].name + ": " + o.warnings[0].text);
  if (o.verdict == "R") {
    EXPECT_NE(o.error.find(row.says), std::string::npos) << o.error;
  }
  if (o.verdict == "W") {
    EXPECT_TRUE(has_warning(o.warnings, row.says)) << o.warnings[0].name;
  }
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
Bytes with(const std::function<void(RawNifti&)>& change, bool big = false) {
  RawNifti r(big);
  change(r);
  return r.bytes();
}
void dims(RawNifti& r, std::initializer_list<int> d) {
  std::size_t at = 40;
  for (int v : d) r.set<std::int16_t>(at, static_cast<std::int16_t>(v)), at += 2;
}
void put(RawNifti& r, std::size_t at, float v) { r.set<float>(at, v); }

TEST(BadInputs, IdentityEndianDims) {
  const Bytes base = RawNifti().bytes();
  const std::vector<Row> rows = {
      {"base", base, "A"},
      {"N1", RawNifti(true).bytes(), "A"},
      {"N3 0", with([](auto& r) { r.template set<std::int32_t>(0, 0); }), "W", "bad_header_size"},
      {"N3 1234", with([](auto& r) { r.template set<std::int32_t>(0, 1234); }), "W", "bad_header_size"},
      {"N4", with([](auto& r) { dims(r, {0}); }), "R", "dim[0] = 0"},
      {"N5 8", with([](auto& r) { dims(r, {8}); }), "R", "dim[0] = 8"},
      {"N5 100", with([](auto& r) { dims(r, {100}); }), "R", "dim[0] = 100"},
      {"N5 -1", with([](auto& r) { dims(r, {-1}); }), "R", "dim[0] = -1"},
      {"N6", with([](auto& r) {
         dims(r, {3, 2, -3});
       }),
       "R", "dim[2] = -3"},
      {"N7", with([](auto& r) {
         dims(r, {3, 2, 0});
       }),
       "R", "dim[2] = 0"},
      {"N8", with([](auto& r) {
         dims(r, {3, 2, 3, 4, 0, -5, 0, 0});
       }),
       "A"},
      {"N9", with([](auto& r) {
         dims(r, {7, 32767, 32767, 32767, 32767, 32767, 32767, 32767});
       }),
       "R", "multiply to more than"},
      {"N10", with([](auto& r) {
         dims(r, {3, 32767, 32767, 32767});
       }),
       "R", "truncated: the header asks for"},
      {"N11", with([](auto& r) {
         dims(r, {3, -1, 1, 1}), r.template set<std::int32_t>(144, 24);
       }),
       "A"},
      {"N11 none", with([](auto& r) {
         dims(r, {3, -1, 1, 1});
       }),
       "R", "dim[1] = -1"},
      {"N12", with([](auto& r) {
         dims(r, {3, 27307, 1, 6}), r.resize(352 + 2 * 163842);
       }),
       "A"},
      {"N13 garbage", with([](auto& r) { r.text(344, "abc"); }), "R", "no magic"},
      {"N13 empty", with([](auto& r) { r.text(344, std::string(4, '\0')); }), "R", "ANALYZE 7.5"},
      {"N14", with([](auto& r) { r.text(344, "ni1"); }), "W", "pair_magic"},
      {"N15 n+2", with([](auto& r) { r.text(344, "n+2"); }), "R", "no magic"},
      {"N15 n+9", with([](auto& r) { r.text(344, "n+9"); }), "R", "no magic"},
      {"N16", with([](auto& r) { r.text(344, std::string(4, '\0')); }), "R", "ANALYZE 7.5", "x.hdr"},
      {"N17 text", test::bytes_of(std::string(600, 'a') + "\n"), "R", "not a NIfTI file"},
      {"N17 200 bytes", Bytes(base.begin(), base.begin() + 200), "R", "shorter than a header"},
      {"N17 empty", {}, "R", "empty file"},
      {"N18", Bytes(base.begin(), base.begin() + 348), "R", "truncated"},
      {"N19", test::bytes_of("<nifti_image\n" + std::string(500, ' ') + "/>"), "R", "not a NIfTI file"},
      {"N20 NII", base, "A", "", "X.NII"},
      {"N20 GZ", gz(base), "A", "", "X.NII.GZ"},
  };
  for (const Row& row : rows) check(row);
  EXPECT_EQ(judge(rows[13].bytes, "x.nii").image.dim[0], 24) << rows[13].id;
  EXPECT_EQ(judge(rows[15].bytes, "x.nii").image.dim, (std::vector<std::int64_t>{163842, 1, 1}));
}

TEST(BadInputs, N21OtherNumbersOfAxes) {
  auto shape = [](std::initializer_list<int> d, const ReadOptions& options = {}) {
    const Bytes b = with([&](RawNifti& r) { dims(r, d); });
    return to_string(to_volume(parse_image(std::span<const std::byte>(b), "x.nii"), options).voxels.shape());
  };
  EXPECT_EQ(shape({1, 24}), "(1, 1, 1, 24, 1)");
  EXPECT_EQ(shape({2, 4, 6}), "(1, 1, 6, 4, 1)");
  EXPECT_EQ(shape({4, 2, 3, 2, 2}), "(1, 2, 3, 2, 2)");
  EXPECT_EQ(shape({4, 2, 3, 2, 2}, {.frame = 1}), "(1, 2, 3, 2, 1)");
  EXPECT_EQ(shape({5, 2, 3, 2, 1, 2}), "(1, 2, 3, 2, 2)") << "vectors are channels";
  EXPECT_EQ(shape({5, 2, 3, 1, 2, 2}, {.frame = 3}), "(1, 1, 3, 2, 1)");
  EXPECT_THROW(shape({5, 2, 3, 1, 2, 2}), Error) << "two long axes: a frame must be chosen";
  EXPECT_THROW(shape({4, 2, 3, 2, 2}, {.frame = 2}), Error);
  EXPECT_THROW(shape({4, 2, 3, 2, 2}, {.frame = -1}), Error);
}

TEST(BadInputs, TypeBitpixScaling) {
  auto type = [](int code, int bits) {
    return with([&](RawNifti& r) {
      r.set<std::int16_t>(70, static_cast<std::int16_t>(code)).set<std::int16_t>(72, static_cast<std::int16_t>(bits)).resize(352 + 24 * 32);
    });
  };
  std::vector<Row> rows = {
      {"N23 32", type(4, 32), "W", "bad_bitpix"},
      {"N23 0", type(4, 0), "W", "bad_bitpix"},
      {"N26 RGB", type(128, 24), "R", "RGB24"},
      {"N26 RGBA", type(2304, 32), "R", "RGBA32"},
      {"N27 64", type(32, 64), "R", "complex64"},
      {"N27 128", type(1792, 128), "R", "complex128"},
      {"N28 float128", type(1536, 128), "R", "float128"},
      {"N28 complex256", type(2048, 256), "R", "complex256"},
      {"N29", with([](auto& r) { put(r, 112, 0), put(r, 116, 5); }), "A"},
      {"N30 NaN", with([](auto& r) { put(r, 112, kNan); }), "W", "bad_slope"},
      {"N30 Inf", with([](auto& r) { put(r, 112, kInf); }), "W", "bad_slope"},
      {"N31 NaN", with([](auto& r) { put(r, 112, 2), put(r, 116, kNan); }), "R", "scl_inter"},
      {"N31 Inf", with([](auto& r) { put(r, 112, 2), put(r, 116, kInf); }), "R", "scl_inter"},
      {"N32", with([](auto& r) { put(r, 112, -2), put(r, 116, 1); }), "A"},
      {"N34", with([](auto& r) { r.template set<std::int16_t>(68, 12345), r.text(123, "\xff"); }), "A"},
  };
  for (int code : {0, 1, 255}) rows.push_back({"N22 not for voxels", type(code, 8), "R", "real number each"});
  for (int code : {3, 9999, -1}) rows.push_back({"N22 unknown", type(code, 8), "R", "is no NIfTI type"});
  const std::pair<int, int> good[] = {{2, 8}, {4, 16}, {8, 32}, {16, 32}, {64, 64}, {256, 8}, {512, 16}, {768, 32}, {1024, 64}, {1280, 64}};
  for (auto [code, bits] : good) rows.push_back({"N24", type(code, bits), "A"});
  for (const Row& row : rows) check(row);

  auto first = [](const Bytes& b) { return to_volume(parse_image(std::span<const std::byte>(b), "x.nii")).voxels.data<float>()[1]; };
  EXPECT_EQ(first(rows[8].bytes), 2.0f) << "slope 0 means no scaling";
  EXPECT_EQ(first(rows[9].bytes), 2.0f);
  EXPECT_EQ(first(rows[13].bytes), -3.0f);
  const Bytes tiny = with([](auto& r) { put(r, 112, 1e-40f); });
  EXPECT_EQ(first(tiny), static_cast<float>(2.0 * static_cast<double>(1e-40f))) << "applied in double";
}

TEST(BadInputs, N25N33ValuesThatFloatsOrLabelsCannotTake) {
  const Bytes wide = with([](RawNifti& r) {
    r.set<std::int16_t>(70, 1024).set<std::int16_t>(72, 64).resize(352 + 24 * 8);
    for (int n = 0; n < 24; ++n)
      r.set<std::int64_t>(352 + 8 * n, n == 5 ? (std::int64_t{1} << 53) + 1 : n == 6 ? -(std::int64_t{1} << 53) : n);
  });
  const Volume v = to_volume(parse_image(std::span<const std::byte>(wide), "x.nii"));
  ASSERT_TRUE(has_warning(v.warnings, "inexact_integers"));
  EXPECT_EQ(v.warnings[0].text.substr(0, 2), "1 ") << "2^53 itself is exact";
  EXPECT_EQ(v.voxels.data<float>()[5], 0x1p53f);

  const Bytes real = with([](RawNifti& r) {
    r.set<std::int16_t>(70, 16).set<std::int16_t>(72, 32).resize(352 + 24 * 4);
    for (int n = 0; n < 24; ++n) r.set<float>(352 + 4 * n, n == 3 ? kNan : n == 9 ? -kInf : static_cast<float>(n));
  });
  const Image image = parse_image(std::span<const std::byte>(real), "x.nii");
  const Volume f = to_volume(image);
  EXPECT_TRUE(has_warning(f.warnings, "non_finite"));
  EXPECT_EQ(f.non_finite, 2);
  EXPECT_TRUE(std::isnan(f.voxels.data<float>()[3]) && std::isinf(f.voxels.data<float>()[9])) << "kept, not zeroed";
  EXPECT_THROW(to_labels(image), Error);
  auto labels_with = [&](float value) {
    Bytes b = real;
    for (int n : {3, 9}) std::memcpy(b.data() + 352 + 4 * n, &value, 4);
    return to_labels(parse_image(std::span<const std::byte>(b), "x.nii")).voxels.data<std::int32_t>()[3];
  };
  EXPECT_EQ(labels_with(41.0004f), 41) << "float rounding of a label is forgiven";
  EXPECT_EQ(labels_with(-7.0f), -7);
  EXPECT_THROW(labels_with(41.01f), Error);
  EXPECT_THROW(labels_with(3e9f), Error);
}

TEST(BadInputs, OffsetAndExtensions) {
  auto offset = [](float v) { return with([&](RawNifti& r) { put(r, 108, v), r.resize(1000); }); };
  auto extension = [](std::int32_t size, std::int32_t code, std::size_t room, bool big = false) {
    return with([&](RawNifti& r) { r.insert(room).text(348, "\1").set<std::int32_t>(352, size).set<std::int32_t>(356, code); }, big);
  };
  const Bytes chain = with([](RawNifti& r) {
    r.insert(16 * 20000).text(348, "\1");
    for (int n = 0; n < 20000; ++n) r.set<std::int32_t>(352 + 16 * n, 16).set<std::int32_t>(356 + 16 * n, 6);
  });
  const std::vector<Row> rows = {
      {"N35", offset(0), "W", "bad_offset"},
      {"N36 10", offset(10), "R", "vox_offset = 10"},
      {"N36 348", offset(348), "R", "vox_offset = 348"},
      {"N36 -100", offset(-100), "R", "vox_offset = -100"},
      {"N37 353", offset(353), "A"},
      {"N37 356", offset(356), "A"},
      {"N38", offset(352.5f), "W", "bad_offset"},
      {"N39 1e9", offset(1e9f), "R", "truncated"},
      {"N39 3e38", offset(3e38f), "R", "vox_offset"},
      {"N39 1e9 gz", gz(offset(1e9f)), "R", "cannot hold", "x.nii.gz"},
      {"N40 NaN", offset(kNan), "R", "vox_offset"},
      {"N40 Inf", offset(kInf), "R", "vox_offset"},
      {"N42", extension(32, 6, 32), "A"},
      {"N42 unknown code", extension(32, 9998, 32), "A"},
      {"N42 big endian", extension(32, 6, 32, true), "A"},
      {"N43 0", extension(0, 6, 32), "W", "bad_extension"},
      {"N43 8", extension(8, 6, 32), "W", "bad_extension"},
      {"N43 -16", extension(-16, 6, 32), "W", "bad_extension"},
      {"N44", extension(0x7ffffff0, 6, 32), "W", "bad_extension"},
      {"N45", extension(17, 6, 32), "W", "bad_extension"},
      {"N46", extension(64, 6, 32), "W", "bad_extension"},
      {"N47", with([](auto& r) { r.text(348, "\1"); }), "A"},
      {"N48", chain, "W", "bad_extension"},
  };
  for (const Row& row : rows) check(row);
  for (const Row& row : rows)  // whatever the extensions: the voxels are right
    if (row.id[1] == '4' && row.id[2] >= '2') {
      const Image image = judge(row.bytes, row.name).image;
      EXPECT_EQ(reinterpret_cast<const std::int16_t*>(image.voxels())[23], 24) << row.id;
    }
  EXPECT_EQ(judge(rows[4].bytes, "x.nii").image.bytes(), 48u);
  const Outcome ok = judge(rows[13].bytes, "x.nii");
  ASSERT_EQ(ok.image.extensions.size(), 1u);
  EXPECT_EQ(ok.image.extensions[0].code, 9998);
  EXPECT_EQ(ok.image.extensions[0].bytes.size(), 24u);
  EXPECT_EQ(judge(chain, "x.nii").image.extensions.size(), 10000u);
}

TEST(BadInputs, Geometry) {
  auto code = [](std::int16_t s, std::int16_t q) {
    return with([&](RawNifti& r) { r.set<std::int16_t>(254, s).set<std::int16_t>(252, q); });
  };
  auto no_transform = [](int axis, float mm) { return with([&](RawNifti& r) { r.set<std::int16_t>(254, 0), put(r, 76 + 4 * axis, mm); }); };
  const std::vector<Row> rows = {
      {"N49 equal", with([](RawNifti& r) { r.qform(0, 0, 0).set<std::int16_t>(254, 1), put(r, 268, -10); }), "A"},
      {"N49 differ", with([](RawNifti& r) { r.qform(0, 0, 0).set<std::int16_t>(254, 1), put(r, 268, -12); }), "W", "sform_qform_differ"},
      {"N50", with([](RawNifti& r) { r.qform(0, 1, 0), put(r, 76, -1); }), "A"},
      {"N51", code(0, 0), "W", "no_orientation"},
      {"N52 99", code(99, 0), "W", "bad_transform_code"},
      {"N52 -7", code(-7, 0), "W", "bad_transform_code"},
      {"N53", with([](RawNifti& r) { r.qform(1, 1, 1); }), "R", "longer than 1"},
      {"N53 with sform", with([](RawNifti& r) { r.qform(1, 1, 1).set<std::int16_t>(254, 1); }), "W", "bad_qform"},
      {"N54 quaternion", with([](RawNifti& r) { r.qform(kNan, 0, 0); }), "R", "NaN"},
      {"N54 srow", with([](RawNifti& r) { put(r, 284, kNan); }), "R", "NaN"},
      {"N54 srow with qform", with([](RawNifti& r) { r.qform(0, 0, 0).set<std::int16_t>(254, 1), put(r, 284, kNan); }), "W", "bad_sform"},
      {"N55 0", with([](RawNifti& r) { r.qform(0, 0, 0), put(r, 76, 0); }), "W", "bad_qfac"},
      {"N55 5", with([](RawNifti& r) { r.qform(0, 0, 0), put(r, 76, 5); }), "W", "bad_qfac"},
      {"N56 0", no_transform(2, 0), "W", "bad_spacing"},
      {"N56 -1", no_transform(2, -1), "W", "bad_spacing"},
      {"N56 NaN", no_transform(2, kNan), "R", "pixdim"},
      {"N56 NaN beside sform", with([](RawNifti& r) { put(r, 84, kNan); }), "W", "bad_spacing"},
      {"N57 zero", with([](RawNifti& r) { r.text(280, std::string(48, '\0')); }), "R", "singular"},
      {"N57 singular", with([](RawNifti& r) { put(r, 320, 0); }), "R", "singular"},
      {"N57 with qform", with([](RawNifti& r) { r.qform(0, 0, 0).set<std::int16_t>(254, 1), put(r, 320, 0); }), "W", "bad_sform"},
      {"N58 1e-4", with([](RawNifti& r) { put(r, 284, 1e-4f); }), "A"},
      {"N58 0.02", with([](RawNifti& r) { put(r, 284, 0.02f); }), "W", "sheared"},
      {"units", with([](RawNifti& r) { r.text(123, "\3"); }), "W", "units_not_mm"},
  };
  for (const Row& row : rows) check(row);
  EXPECT_EQ(judge(rows[1].bytes, "x.nii").image.place.source, TransformSource::sform);
  EXPECT_EQ(judge(rows[10].bytes, "x.nii").image.place.source, TransformSource::qform);
  const Placement none = judge(rows[3].bytes, "x.nii").image.place;  // nibabel: zooms on the diagonal, x flipped, centre of the box at 0
  EXPECT_EQ(none.source, TransformSource::none);
  const double wanted[3][4] = {{-1, 0, 0, 0.5}, {0, 2, 0, -2}, {0, 0, 3, -4.5}};
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 4; ++c) EXPECT_EQ(none.affine.m[r][c], wanted[r][c]) << r << c;
}

TEST(BadInputs, Nifti2) {
  auto with2 = [](const std::function<void(RawNifti&)>& change) {
    RawNifti r = test::raw_nifti2();
    change(r);
    return r.bytes();
  };
  auto dims2 = [](RawNifti& r, std::initializer_list<std::int64_t> d) {
    std::size_t at = 16;
    for (std::int64_t v : d) r.set<std::int64_t>(at, v), at += 8;
  };
  const std::vector<Row> rows = {
      {"N59 little", test::raw_nifti2(false).bytes(), "A"},
      {"N59 big", test::raw_nifti2(true).bytes(), "A"},
      // Found by fuzzing: a double so small that its square vanishes made an affine without an inverse.
      {"N56 vanishing", test::raw_nifti2().set<std::int32_t>(348, 0).set<double>(112, 1e-302).bytes(), "R", "1e-302"},
      {"N59 gz", gz(test::raw_nifti2(true).bytes()), "A", "", "x.nii.gz"},
      {"N60 zero", with2([](RawNifti& r) { r.text(8, std::string(4, '\0')); }), "W", "bad_magic"},
      {"N60 wrong", with2([](RawNifti& r) { r.text(8, "\n\n\x1a\n"); }), "R", "text conversion"},
      {"N61 200", with2([&](RawNifti& r) { dims2(r, {200}); }), "R", "dim[0] = 200"},
      {"N61 -3", with2([&](RawNifti& r) { dims2(r, {-3}); }), "R", "dim[0] = -3"},
      {"N62 2^31", with2([&](RawNifti& r) {
         dims2(r, {3, 1ll << 31, 1ll << 31, 1ll << 31});
       }),
       "R", "multiply to more than"},
      {"N62 2^32", with2([&](RawNifti& r) {
         dims2(r, {3, 1ll << 32, 1ll << 32, 2});
       }),
       "R", "multiply to more than"},
      {"N41 -5", with2([](RawNifti& r) { r.set<std::int64_t>(168, -5); }), "R", "vox_offset = -5"},
      {"N41 2^62", with2([](RawNifti& r) { r.set<std::int64_t>(168, 1ll << 62); }), "R", "vox_offset"},
      {"magic", with2([](RawNifti& r) { r.text(4, "n+1"); }), "R", "no magic"},
      {"short", with2([](RawNifti& r) { r.resize(500); }), "R", "shorter than a NIfTI-2 header"},
      {"N77", with2([](RawNifti& r) { r.resize(544 + 38); }), "R", "truncated"},
  };
  for (const Row& row : rows) check(row);
}

TEST(BadInputs, Gzip) {
  const Bytes base = RawNifti().bytes(), packed = gz(base);
  auto flipped = [&](std::size_t at) {
    Bytes b = packed;
    b[at] ^= std::byte{0x10};
    return b;
  };
  auto cut = [](Bytes b, std::size_t tail) { return b.resize(b.size() - tail), b; };
  auto header = [&](int flags, const std::string& more) {  // the packed file with another gzip header
    Bytes b = packed;
    b[3] = static_cast<std::byte>(flags);
    const Bytes extra = test::bytes_of(more);
    b.insert(b.begin() + 10, extra.begin(), extra.end());
    return b;
  };
  auto header_crc = [&](int change) {
    Bytes b = header(2, "xx");
    const unsigned crc = static_cast<unsigned>(crc32(0, reinterpret_cast<const Bytef*>(b.data()), 10)) & 0xffff;
    b[10] = static_cast<std::byte>((crc ^ change) & 255), b[11] = static_cast<std::byte>(crc >> 8);
    return b;
  };
  const std::string extra = "\xff\xff" + std::string(65535, 'e');
  Bytes long_base = base;
  long_base.resize(base.size() + 1000);
  const Bytes half1(base.begin(), base.begin() + 200), half2(base.begin() + 200, base.end());
  Bytes huge = base;
  huge.resize(80u << 20);
  const std::vector<Row> rows = {
      {"N63", cut(packed, 30), "R", "truncated", "x.nii.gz"},
      {"N64 CRC", flipped(packed.size() - 8), "R", "CRC", "x.nii.gz"},
      {"N64 ISIZE", flipped(packed.size() - 4), "R", "length", "x.nii.gz"},
      {"N65", flipped(30), "R", "gzip", "x.nii.gz"},
      {"N66", cut(packed, 8), "R", "trailer", "x.nii.gz"},
      {"N67", join(gz(half1), gz(half2)), "A", "", "x.nii.gz"},
      {"N68 zeros", join(packed, Bytes(100)), "A", "", "x.nii.gz"},
      {"N68 junk", join(packed, test::bytes_of("junk")), "W", "trailing_junk", "x.nii.gz"},
      {"N69 plain .gz", base, "W", "misleading_name", "x.nii.gz"},
      {"N69 gzip .nii", packed, "W", "misleading_name", "x.nii"},
      {"N70", gz(huge, 1), "W", "gzip_tail", "x.nii.gz"},
      {"N71 plain", with([](auto& r) {
         dims(r, {3, 20000, 20000, 1});
       }),
       "R", "truncated", "x.nii"},
      {"N71 gz", gz(with([](auto& r) {
         dims(r, {3, 20000, 20000, 1});
       })),
       "R", "cannot hold", "x.nii.gz"},
      {"N72 FEXTRA", header(4, extra), "A", "", "x.nii.gz"},
      {"N72 FNAME", header(8, std::string(60000, 'n') + '\0'), "A", "", "x.nii.gz"},
      {"N72 FNAME open", cut(header(8, std::string(60000, 'n')), packed.size() - 10), "R", "no end", "x.nii.gz"},
      {"N72 FHCRC right", header_crc(0), "A", "", "x.nii.gz"},
      {"N72 FHCRC wrong", header_crc(1), "R", "header checksum", "x.nii.gz"},
      {"N72 reserved", header(0x20, ""), "R", "reserved", "x.nii.gz"},
      {"N72 method",
       [&] {
         Bytes b = packed;
         b[2] = std::byte{9};
         return b;
       }(),
       "R", "method 9", "x.nii.gz"},
      {"N77", gz(Bytes(base.begin(), base.end() - 10)), "R", "truncated", "x.nii.gz"},
      {"N78", gz(long_base), "A", "", "x.nii.gz"},
      {"N78 plain", long_base, "A", "", "x.nii"},
      {"two bytes", Bytes(packed.begin(), packed.begin() + 2), "R", "gzip header", "x.nii.gz"},
  };
  for (const Row& row : rows) check(row);
}

// N73: raw deflate streams that break one rule each, inside a right gzip frame. The bytes are written bit by bit below.
TEST(BadInputs, N73BrokenDeflate) {
  struct Bits {
    Bytes out;
    int used = 0;
    Bits& put(unsigned value, int count) {
      for (int n = 0; n < count; ++n) {
        if (used % 8 == 0) out.push_back(std::byte{0});
        if (value >> n & 1) out.back() |= static_cast<std::byte>(1 << used % 8);
        ++used;
      }
      return *this;
    }
    Bits& code(unsigned value, int count) {  // Huffman codes go most significant bit first
      for (int n = count - 1; n >= 0; --n) put(value >> n & 1, 1);
      return *this;
    }
  };
  auto lengths = [](Bits& b, std::initializer_list<int> of_18) {  // code length code lengths, in the standard's order
    for (int v : of_18) b.put(static_cast<unsigned>(v), 3);
  };
  auto dynamic = [](int literals, int distances, int codes) {
    Bits b;
    b.put(1, 1)
        .put(2, 2)
        .put(static_cast<unsigned>(literals - 257), 5)
        .put(static_cast<unsigned>(distances - 1), 5)
        .put(static_cast<unsigned>(codes - 4), 4);
    return b;
  };
  std::vector<std::pair<const char*, Bytes>> streams;
  streams.emplace_back("block type 3", Bits().put(1, 1).put(3, 2).out);
  streams.emplace_back("stored length", Bits().put(1, 1).put(0, 2).put(0, 5).put(4, 16).put(4, 16).put(0, 32).out);
  streams.emplace_back("distance before the start",
                       Bits().put(1, 1).put(1, 2).code(0x30 + 'a', 8).code(1, 7).code(4, 5).put(0, 1).code(0, 7).out);
  streams.emplace_back("distance code 30", Bits().put(1, 1).put(1, 2).code(0x30 + 'a', 8).code(1, 7).code(30, 5).code(0, 7).out);
  streams.emplace_back("length symbol 286", Bits().put(1, 1).put(1, 2).code(0x30 + 'a', 8).code(0xc6, 8).code(0, 7).out);
  {
    Bits b = dynamic(286, 1, 18);
    lengths(b, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
    streams.emplace_back("over-subscribed code length code", b.out);
  }
  {
    Bits b = dynamic(286, 1, 18);
    lengths(b, {0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7});
    streams.emplace_back("incomplete code length code", b.out);
  }
  {
    Bits b = dynamic(257, 1, 4);
    lengths(b, {0, 0, 0, 0});
    streams.emplace_back("code length code without codes", b.out);
  }
  {
    Bits b = dynamic(257, 1, 18);  // codes: 0 -> length 0, 10 -> length 1, 11 -> repeat previous
    lengths(b, {2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2});
    streams.emplace_back("repeat at the start", b.code(3, 2).put(0, 2).out);
  }
  streams.emplace_back("288 literal codes", [&] {
    Bits b;
    b.put(1, 1).put(2, 2).put(31, 5).put(0, 5).put(0, 4);
    return b.out;
  }());
  streams.emplace_back("no block at all", Bytes{});
  for (const auto& [what, stream] : streams) {
    Bytes file = join(join(test::bytes_of(std::string("\x1f\x8b\x08\0\0\0\0\0\0\xff", 10)), stream), Bytes(40));
    const Outcome o = judge(file, "x.nii.gz");
    EXPECT_EQ(o.verdict, "R") << what;
    // Behind a good beginning, too: then the header is read and the damage meets the voxels.
    RawNifti good;
    const Bytes first = gz(Bytes(good.bytes().begin(), good.bytes().begin() + 360));
    const Outcome later = judge(join(first, file), "x.nii.gz");
    EXPECT_EQ(later.verdict, "R") << what;
    EXPECT_NE(later.error.find("gzip"), std::string::npos) << later.error;
  }
}

// N79: whatever is cut off or changed, the answer is A, W or R and never a crash; and a prefix of the file is never accepted.
TEST(BadInputs, N79PrefixesAndFlippedBytes) {
  for (bool big : {false, true}) {
    const Bytes base = RawNifti(big).bytes(), packed = gz(base);
    for (const Bytes* file : {&base, &packed})
      for (std::size_t n = 0; n < file->size(); ++n) {
        const Outcome o = judge(Bytes(file->begin(), file->begin() + static_cast<std::ptrdiff_t>(n)), file == &base ? "x.nii" : "x.nii.gz");
        ASSERT_EQ(o.verdict, "R") << n;
      }
    const Outcome whole = judge(packed, "x.nii.gz");
    const Bytes unpacked(whole.image.storage->data(), whole.image.storage->data() + whole.image.storage->size());
    int accepted = 0, refused = 0;
    for (std::size_t at = 0; at < 352; ++at)
      for (int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
        Bytes b = base;
        b[at] = static_cast<std::byte>(value);
        (judge(b, "x.nii").verdict == "R" ? refused : accepted)++;
      }
    for (std::size_t at = 0; at < packed.size(); ++at) {
      Bytes b = packed;
      b[at] ^= std::byte{0x04};
      const Outcome o = judge(b, "x.nii.gz");
      // A few bits do not matter (gzip's time and system; a copy from another place in a run of zeros): then the result is the same.
      if (o.verdict != "R") {
        EXPECT_EQ(Bytes(o.image.storage->data(), o.image.storage->data() + o.image.storage->size()), unpacked) << "byte " << at;
      }
    }
    EXPECT_GT(accepted, 1000);
    EXPECT_GT(refused, 50);
  }
}

}  // namespace
}  // namespace vg

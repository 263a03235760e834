// MGH and MGZ: nibabel's files read and written byte for byte, and the table of damaged headers (rows M1..M15).
#include <functional>

#include "nifti/gzip.h"
#include "nifti/image.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::Bytes;
using test::TemporaryFolder;

struct Golden {
  Number type;
  std::vector<std::int64_t> dim;
  double repetition_ms;
  double affine[12];
  const char* hex;
};
const Golden kGolden[] = {
#include "tests/nifti/mgh_golden.inc"
};

Bytes from_hex(const std::string& text) {
  Bytes out;
  for (std::size_t n = 0; n < text.size(); n += 2) out.push_back(static_cast<std::byte>(std::stoi(text.substr(n, 2), nullptr, 16)));
  return out;
}
Image parse(const Bytes& b, const std::string& name = "x.mgh") { return parse_image(std::span<const std::byte>(b), name); }

TEST(Mgh, ReadsAndWritesWhatNibabelWrites) {
  for (const Golden& g : kGolden) {
    SCOPED_TRACE(name_of(g.type));
    const Bytes file = from_hex(g.hex);
    const Image image = parse(file);
    EXPECT_EQ(image.type, g.type);
    EXPECT_EQ(image.dim, g.dim);
    EXPECT_EQ(image.pixdim[4], g.repetition_ms);
    EXPECT_EQ(image.format, "MGH");
    EXPECT_EQ(image.place.source, TransformSource::directions);
    EXPECT_TRUE(image.warnings.empty());
    for (int n = 0; n < 12; ++n) EXPECT_NEAR(image.place.affine.m[n / 4][n % 4], g.affine[n], 1e-6) << n;
    const Bytes packed = test::gz(file);
    const Image unpacked = parse(packed, "x.mgz");
    EXPECT_EQ(unpacked.format, "MGZ");
    EXPECT_EQ(std::memcmp(unpacked.voxels(), image.voxels(), image.bytes()), 0);

    // Back: spacing, cosines and centre pass through float32, so a header byte may differ in its last place; the voxels may not.
    const Buffer written = encode_mgh(image, 0);
    ASSERT_GE(written.size(), file.size());
    EXPECT_EQ(std::memcmp(written.data(), file.data(), 30), 0);
    EXPECT_EQ(std::memcmp(written.data() + 90, file.data() + 90, 284 + image.bytes() + 4 - 90), 0) << "voxels and TR";
    const Image back = parse(Bytes(written.data(), written.data() + written.size()));
    EXPECT_LT(corner_distance(image.size(), back.place.affine, image.place.affine), 1e-5);
  }
}

TEST(Mgh, VolumesGoThroughFilesOfEitherFormat) {
  TemporaryFolder folder;
  Volume v;
  std::vector<float> values(3 * 4 * 5 * 2);
  for (std::size_t n = 0; n < values.size(); ++n) values[n] = 0.5f * static_cast<float>(n);
  v.voxels = from_host(values, {1, 3, 4, 5, 2});
  v.place.affine = {{{-1, 0, 0, 2.5}, {0, 0, 1, -2}, {0, -1, 0, 1.5}, {0, 0, 0, 1}}};
  v.place.source = TransformSource::sform, v.place.code = 1;
  for (const char* name : {"v.mgh", "v.mgz", "V.MGZ", "v.nii", "v.nii.gz"}) {
    write_volume(folder / name, v);
    const Volume back = read_volume(folder / name);
    EXPECT_EQ(back.voxels.shape(), v.voxels.shape()) << name;
    EXPECT_EQ(to_host<float>(back.voxels), values) << name;
    EXPECT_EQ(back.place.affine, v.place.affine) << name;
    EXPECT_TRUE(back.warnings.empty()) << name;
    EXPECT_EQ(read_image_header(folder / name).dim, read_image(folder / name).dim);
  }
  Volume labels = v;
  for (const std::int32_t most : {255, 256, 70000}) {
    std::vector<std::int32_t> ids(60, 3);
    ids[7] = most;
    labels.voxels = from_host(ids, {1, 3, 4, 5, 1});
    write_volume(folder / "l.mgz", labels);
    const Volume back = read_labels(folder / "l.mgz");
    EXPECT_EQ(to_host<std::int32_t>(back.voxels), ids);
    EXPECT_EQ(back.stored, most == 255 ? Number::u8 : most == 256 ? Number::i16 : Number::i32);
  }
  EXPECT_THROW(write_volume(folder / "v.mgz", v, {.type = Number::f64}), Error);
  EXPECT_THROW(write_volume(folder / "v.mgz", v, {.gzip_level = 0}), Error);
  EXPECT_THROW(write_volume(folder / "v.txt", v), Error);
  Image scaled = to_image(v);
  scaled.slope = 2;
  EXPECT_THROW(write_image(folder / "s.mgz", scaled), Error);
}

TEST(Mgh, NoOrientationStaysNoOrientation) {
  TemporaryFolder folder;
  Bytes file = from_hex(kGolden[0].hex);
  file[28] = file[29] = std::byte{0};
  const Image image = parse(file);
  ASSERT_TRUE(has_warning(image.warnings, "no_orientation"));
  EXPECT_EQ(orientation_of(image.place.affine), "LIA");
  EXPECT_EQ(image.place.affine.m[0][3], 1.5) << "centred: c_ras = 0";
  EXPECT_EQ(image.place.affine.m[1][3], -1.0);
  EXPECT_EQ(image.place.affine.m[2][3], 2.0);
  write_image(folder / "n.mgz", image);
  EXPECT_TRUE(has_warning(read_image(folder / "n.mgz").warnings, "no_orientation"));
  Image nifti = image;  // a guess of another kind must not turn into this one
  nifti.place.affine.m[0][3] = 3;
  write_image(folder / "n.mgz", nifti);
  EXPECT_EQ(read_image(folder / "n.mgz").place.affine, nifti.place.affine);
}

struct Row {
  const char* id;
  std::function<void(Bytes&)> change;
  const char* verdict;
  const char* says = "";
  const char* name = "x.mgh";
};
void put(Bytes& b, std::size_t at, std::uint32_t v) {
  for (std::size_t n = 0; n < 4; ++n) b[at + n] = static_cast<std::byte>(v >> (24 - 8 * n));
}

TEST(Mgh, DamagedHeaders) {
  const Bytes base = from_hex(kGolden[0].hex);  // 3 x 4 x 2 uint8: voxels end at byte 308
  constexpr std::uint32_t kNan = 0x7fc00000, kMinusOne = 0xbf800000;
  const Row rows[] = {
      {"as it is", [](Bytes&) {}, "A"},
      {"M1 0", [](Bytes& b) { put(b, 0, 0); }, "R", "version = 0"},
      {"M1 2", [](Bytes& b) { put(b, 0, 2); }, "R", "version = 2"},
      {"M1 swapped", [](Bytes& b) { put(b, 0, 0x01000000); }, "R", "version = 16777216"},
      {"M2 2", [](Bytes& b) { put(b, 20, 2); }, "R", "type = 2"},
      {"M2 5", [](Bytes& b) { put(b, 20, 5); }, "R", "type = 5"},
      {"M2 99", [](Bytes& b) { put(b, 20, 99); }, "R", "type = 99"},
      {"M3", [](Bytes& b) { put(b, 8, 0xfffffffd); }, "R", "height = -3"},
      {"M4", [](Bytes& b) { put(b, 12, 0); }, "R", "depth = 0"},
      {"M4 frames", [](Bytes& b) { put(b, 16, 0); }, "R", "nframes = 0"},
      {"M5",
       [](Bytes& b) {
         for (std::size_t at : {4, 8, 12, 16}) put(b, at, 0x7fffffff);
       },
       "R", "2^60"},
      {"M5 less", [](Bytes& b) { put(b, 4, 0x7fffffff); }, "R", "truncated"},
      {"M7 0", [](Bytes& b) { b[29] = std::byte{0}; }, "W", "no_orientation"},
      {"M7 -1", [](Bytes& b) { b[28] = b[29] = std::byte{255}; }, "W", "no_orientation"},
      {"M8 2", [](Bytes& b) { b[29] = std::byte{2}; }, "A"},
      {"M9 zero", [](Bytes& b) { put(b, 42, 0); }, "R", "singular"},
      {"M9 NaN", [](Bytes& b) { put(b, 42, kNan); }, "R", "NaN"},
      {"M9 c_ras", [](Bytes& b) { put(b, 78, kNan); }, "R", "NaN"},
      {"M10", [](Bytes& b) { put(b, 34, kMinusOne); }, "W", "bad_spacing"},
      {"M11", [](Bytes& b) { b.resize(60); }, "R", "shorter than a header"},
      {"M12 header alone", [](Bytes& b) { b.resize(284); }, "R", "truncated"},
      {"M12 short", [](Bytes& b) { b.resize(303); }, "R", "truncated"},
      {"M13 none", [](Bytes& b) { b.resize(308); }, "A"},
      {"M13 partial", [](Bytes& b) { b.resize(310); }, "A"},
      {"M13 NaN TR", [](Bytes& b) { put(b, 308, kNan); }, "A"},
      {"M14 truncated", [](Bytes& b) { b = test::gz(b), b.resize(b.size() - 20); }, "R", "truncated", "x.mgz"},
      {"M14 not gzip", [](Bytes&) {}, "W", "misleading_name", "x.mgz"},
      {"M14 gzip", [](Bytes& b) { b = test::gz(b); }, "W", "misleading_name", "x.mgh"},
      {"M15", [](Bytes& b) { b.resize(5000, std::byte{7}); }, "A"},
      {"no name", [](Bytes&) {}, "A", "", "blob"},
      {"empty", [](Bytes& b) { b.clear(); }, "R", "shorter than a header"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.id);
    Bytes b = base;
    row.change(b);
    try {
      const Image image = parse(b, row.name);
      EXPECT_EQ(image.warnings.empty() ? "A" : "W", std::string(row.verdict));
      if (!image.warnings.empty()) {
        EXPECT_EQ(image.warnings[0].name, row.says);
      }
    } catch (const Error& e) {
      EXPECT_EQ(std::string(row.verdict), "R") << e.what();
      EXPECT_NE(std::string(e.what()).find(row.says), std::string::npos) << e.what();
      EXPECT_EQ(std::string(e.what()).find(row.name), 0u) << "the file comes first: " << e.what();
    }
  }
  EXPECT_EQ(spacing_of(parse([&] {
                         Bytes b = base;
                         put(b, 34, kMinusOne);
                         return b;
                       }())
                           .place.affine)[1],
            1.0);
  EXPECT_EQ(parse(test::RawNifti().bytes(), "x.mgz").format, "NIfTI-1, little endian") << "content counts";
}

TEST(Mgh, PrefixesAndFlippedBytes) {
  const Bytes base = from_hex(kGolden[0].hex), packed = test::gz(base);
  for (std::size_t n = 0; n < 308; ++n) EXPECT_THROW(parse(Bytes(base.begin(), base.begin() + static_cast<std::ptrdiff_t>(n))), Error) << n;
  for (std::size_t n = 0; n < packed.size(); ++n)
    EXPECT_THROW(parse(Bytes(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(n)), "x.mgz"), Error) << n;
  int accepted = 0;
  for (std::size_t at = 0; at < 284; ++at)
    for (int v : {0, 1, 127, 128, 255}) {
      Bytes b = base;
      b[at] = static_cast<std::byte>(v);
      try {
        EXPECT_LE(parse(b).bytes(), 1u << 10);
        ++accepted;
      } catch (const Error& e) {
        EXPECT_EQ(std::string(e.what()).find("x.mgh: "), 0u) << e.what();
      }
    }
  EXPECT_GT(accepted, 900);
}

}  // namespace
}  // namespace vg

// Pairs of .hdr and .img in every mix, header extensions in them, colour and complex numbers, and how little of a file the header takes.
#include <cmath>
#include <complex>
#include <cstring>
#include <fstream>

#include "nifti/files.h"
#include "nifti/image.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::Bytes;
using test::gz;
using test::RawNifti;
using test::TemporaryFolder;

void save(const std::string& path, const Bytes& b) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(b.data()), static_cast<std::streamsize>(b.size()));
}

// The fixture's volume in two parts; the voxels start at `offset` of the .img.
struct Pair {
  Bytes header, voxels;
};
Pair pair(bool big, float offset, std::size_t extension = 0) {
  RawNifti r(big);
  const Bytes whole = r.bytes();
  r.text(344, "ni1").set<float>(108, offset).resize(348 + (extension ? 4 + extension : 0));
  if (extension)
    r.text(348, "\1").set<std::int32_t>(352, static_cast<std::int32_t>(extension)).set<std::int32_t>(356, 6).text(360, "hello");
  Pair p{r.bytes(), Bytes(static_cast<std::size_t>(offset))};
  p.voxels.insert(p.voxels.end(), whole.begin() + 352, whole.end());
  return p;
}
std::string refusal(const std::string& path, const PixelOptions& options = {}) {
  try {
    read_image(path, options);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Pair, EveryMixOfGzipByteOrderAndName) {
  int read = 0;
  for (const bool big : {false, true})
    for (const float offset : {0.0f, 16.0f})
      for (const char* header : {".hdr", ".hdr.gz"})
        for (const char* voxels : {".img", ".img.gz"}) {
          TemporaryFolder folder;
          const Pair p = pair(big, offset, 32);
          save(folder / std::string("x.y") + header, std::string(header) == ".hdr" ? p.header : gz(p.header));
          save(folder / std::string("x.y") + voxels, std::string(voxels) == ".img" ? p.voxels : gz(p.voxels));
          for (const char* opened : {header, voxels}) {
            const Image image = read_image(folder / std::string("x.y") + opened);
            EXPECT_EQ(image.dim, (std::vector<std::int64_t>{2, 3, 4}));
            EXPECT_EQ(reinterpret_cast<const std::int16_t*>(image.voxels())[23], 24) << header << voxels << opened;
            EXPECT_TRUE(image.warnings.empty());
            EXPECT_TRUE(image.format.starts_with("NIfTI-1 pair")) << image.format;
            ASSERT_EQ(image.extensions.size(), 1u);
            EXPECT_EQ(image.extensions[0].code, 6);
            EXPECT_EQ(static_cast<char>(image.extensions[0].bytes[0]), 'h');
            EXPECT_EQ(read_image_header(folder / std::string("x.y") + opened).dim, image.dim);
            ++read;
          }
        }
  EXPECT_EQ(read, 32);
  TemporaryFolder folder;
  const Pair p = pair(false, 0);
  save(folder / "A.HDR", p.header), save(folder / "A.IMG", p.voxels);
  EXPECT_EQ(read_volume(folder / "A.HDR").voxels.data<float>()[23], 24.0f);
}

TEST(Pair, LongExtensionsOfAPackedHeader) {
  TemporaryFolder folder;
  constexpr std::size_t kLong = 16 * 20'000;
  Pair p = pair(false, 0, kLong);
  for (std::size_t n = 364; n + 8 < p.header.size(); ++n) p.header[n] = static_cast<std::byte>(n * n % 251);
  save(folder / "x.hdr.gz", gz(p.header)), save(folder / "x.img", p.voxels);
  const Image image = read_image(folder / "x.img");
  ASSERT_EQ(image.extensions.size(), 1u);
  ASSERT_EQ(image.extensions[0].bytes.size(), kLong - 8);
  EXPECT_EQ(std::memcmp(image.extensions[0].bytes.data(), &p.header[360], kLong - 8), 0);
}

TEST(Pair, Nifti2) {
  TemporaryFolder folder;
  RawNifti r = test::raw_nifti2();
  const Bytes whole = r.bytes();
  save(folder / "x.img.gz", gz(Bytes(whole.begin() + 544, whole.end())));
  r.text(4, std::string("ni2\0\r\n\x1a\n", 8)).set<std::int64_t>(168, 0).resize(540);
  save(folder / "x.hdr", r.bytes());
  const Image image = read_image(folder / "x.img.gz");
  EXPECT_EQ(image.format, "NIfTI-2 pair, little endian, gzip");
  EXPECT_EQ(reinterpret_cast<const std::int16_t*>(image.voxels())[0], 1);
}

TEST(Pair, WhatIsMissingOrBrokenIsNamed) {  // N16, N75, N76
  TemporaryFolder folder;
  const Pair p = pair(false, 0);
  save(folder / "a.hdr", p.header);
  EXPECT_NE(refusal(folder / "a.hdr").find("neither"), std::string::npos) << refusal(folder / "a.hdr");
  save(folder / "a.img", Bytes(p.voxels.begin(), p.voxels.begin() + 20));
  EXPECT_NE(refusal(folder / "a.hdr").find("a.img: truncated"), std::string::npos) << refusal(folder / "a.hdr");
  save(folder / "b.img", p.voxels);
  EXPECT_NE(refusal(folder / "b.img").find("voxels without a header"), std::string::npos);
  std::filesystem::create_directory(folder / "c.hdr");
  EXPECT_NE(refusal(folder / "c.hdr").find("c.hdr"), std::string::npos);
  RawNifti analyze;
  analyze.text(344, std::string(4, '\0')).resize(348);
  save(folder / "d.hdr", analyze.bytes()), save(folder / "d.img", p.voxels);
  EXPECT_NE(refusal(folder / "d.img").find("ANALYZE 7.5"), std::string::npos);
  save(folder / "e.hdr", RawNifti().bytes());  // a single file under the name of a pair
  EXPECT_EQ(read_volume(folder / "e.hdr").voxels.data<float>()[0], 1.0f);
  save(folder / "f.hdr", gz(p.header)), save(folder / "f.img", p.voxels);  // names say nothing about gzip
  EXPECT_EQ(read_volume(folder / "f.hdr").voxels.data<float>()[0], 1.0f);
  EXPECT_THROW(parse_image(std::span<const std::byte>(p.header), "x.hdr"), Error) << "from memory: half a pair";
}

// ---- colour and complex numbers

template <class T>
Bytes with_pixels(int code, int bits, const std::vector<T>& components, bool big = false) {
  RawNifti r(big);
  r.set<std::int16_t>(70, static_cast<std::int16_t>(code)).set<std::int16_t>(72, static_cast<std::int16_t>(bits)).resize(352);
  for (std::size_t n = 0; n < components.size(); ++n) r.set<T>(352 + n * sizeof(T), components[n]);
  return r.bytes();
}
Image parse(const Bytes& b, const PixelOptions& options) { return parse_image(std::span<const std::byte>(b), "x.nii", options); }

TEST(Pixels, ColourBecomesLuminanceWhenAsked) {
  for (const int parts : {3, 4}) {
    std::vector<std::uint8_t> c(static_cast<std::size_t>(24 * parts));
    for (std::size_t n = 0; n < c.size(); ++n) c[n] = static_cast<std::uint8_t>(37 * n + 11);
    const Bytes b = with_pixels(parts == 3 ? 128 : 2304, 8 * parts, c);
    EXPECT_THROW(parse(b, {.magnitude = true}), Error);
    const Image image = parse(b, {.luminance = true});
    EXPECT_TRUE(image.warnings.empty());
    EXPECT_EQ(image.type, Number::f32);
    for (std::size_t n = 0; n < 24; ++n) {
      const std::uint8_t* v = &c[n * static_cast<std::size_t>(parts)];
      EXPECT_FLOAT_EQ(reinterpret_cast<const float*>(image.voxels())[n], static_cast<float>(0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2]));
    }
    Bytes scaled = b;
    const float slope = 2;
    std::memcpy(scaled.data() + 112, &slope, 4);
    EXPECT_EQ(std::memcmp(parse(scaled, {.luminance = true}).voxels(), image.voxels(), image.bytes()), 0) << "scaling is not for colour";
    Bytes cut = b;
    cut.pop_back();
    EXPECT_THROW(parse(cut, {.luminance = true}), Error) << "all components must be there";
  }
}

TEST(Pixels, ComplexBecomesItsMagnitudeWhenAsked) {
  for (const bool big : {false, true}) {
    std::vector<float> c(48);
    for (std::size_t n = 0; n < 48; ++n) c[n] = static_cast<float>(n) * 0.25f - 3.0f;
    Bytes b = with_pixels(32, 64, c, big);
    EXPECT_THROW(parse(b, {.luminance = true}), Error);
    const Image image = parse(b, {.magnitude = true});
    EXPECT_EQ(image.type, Number::f32);
    for (std::size_t n = 0; n < 24; ++n)
      EXPECT_FLOAT_EQ(reinterpret_cast<const float*>(image.voxels())[n], std::abs(std::complex<float>(c[2 * n], c[2 * n + 1])));
    if (big) continue;
    const float scaling[2] = {-2, 5};
    std::memcpy(b.data() + 112, scaling, 8);
    EXPECT_FLOAT_EQ(to_volume(parse(b, {.magnitude = true})).voxels.data<float>()[1],
                    std::abs(-2.0f * std::complex<float>(c[2], c[3]) + 5.0f));
  }
  std::vector<double> d(48, 3.0);
  d[0] = 1e200, d[1] = 1e200;
  const Image image = parse(with_pixels(1792, 128, d), {.magnitude = true});
  EXPECT_EQ(image.type, Number::f64);
  EXPECT_DOUBLE_EQ(reinterpret_cast<const double*>(image.voxels())[0], std::sqrt(2.0) * 1e200) << "without overflow on the way";
}

TEST(Pixels, ReadOptionsReachThem) {
  TemporaryFolder folder;
  save(folder / "c.nii", with_pixels(128, 24, std::vector<std::uint8_t>(72, 100)));
  EXPECT_THROW(read_volume(folder / "c.nii"), Error);
  EXPECT_NE(refusal(folder / "c.nii").find("RGB24"), std::string::npos);
  EXPECT_FLOAT_EQ(read_volume(folder / "c.nii", {.pixels = {.luminance = true}}).voxels.data<float>()[23], 100.0f);
  const Image header = read_image_header(folder / "c.nii", {.luminance = true}), whole = read_image(folder / "c.nii", {.luminance = true});
  EXPECT_EQ(header.type, whole.type);
  EXPECT_EQ(header.format, "NIfTI-1, little endian, luminance of colour");
  EXPECT_EQ(header.format, whole.format);
}

// ---- the header alone

TEST(HeaderAlone, TakesTheFirstBytesOnly) {
  TemporaryFolder folder;
  const Bytes one = RawNifti().bytes();
  save(folder / "n1.nii", Bytes(one.begin(), one.begin() + 348));  // no voxels needed
  EXPECT_EQ(read_image_header(folder / "n1.nii").dim.size(), 3u);
  const Bytes two = test::raw_nifti2().bytes();
  save(folder / "n2.nii", Bytes(two.begin(), two.begin() + 540));
  EXPECT_EQ(read_image_header(folder / "n2.nii").dim.size(), 3u);
  Bytes packed = gz(RawNifti().resize(1 << 20).bytes());
  std::fill(packed.begin() + 1024, packed.end(), std::byte{0xff});  // damage behind the first KiB is not seen
  save(folder / "n1.nii.gz", packed);
  EXPECT_EQ(read_image_header(folder / "n1.nii.gz").dim.size(), 3u);
  EXPECT_THROW(read_image(folder / "n1.nii.gz"), Error);
  EXPECT_EQ(files::load_start(folder / "n2.nii", 100).bytes.size(), 100u);
  save(folder / "short.nii.gz", Bytes(packed.begin(), packed.begin() + 12));
  EXPECT_THROW(read_image_header(folder / "short.nii.gz"), Error);
}

}  // namespace
}  // namespace vg

// PNG: every colour type, depth, filter and interlacing that the standard allows, damage of each kind, and what we write.
#include "nifti/png.h"

#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>

#include "nifti/lut.h"
#include "tensor/error.h"
#include "tensor/os.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::Bytes;
using test::TemporaryFolder;

struct Golden {
  int width, height, depth, colour, interlaced, filter;
  const char* hex;
};
const Golden kGolden[] = {
#include "tests/nifti/png_golden.inc"
};

Bytes from_hex(const std::string& hex) {
  Bytes b;
  for (std::size_t n = 0; n + 1 < hex.size(); n += 2) b.push_back(static_cast<std::byte>(std::stoi(hex.substr(n, 2), nullptr, 16)));
  return b;
}
PngPicture parse(const Bytes& b) { return parse_png(b.data(), b.size(), "x.png"); }

// The formula of png_golden.py.
int sample(int x, int y, int c, int depth) {
  const int v = (x * 7 + y * 13 + c * 5 + x * y) % (1 << depth);
  return depth == 16 ? v * 257 % 65536 : v;
}

TEST(Png, EveryKindIsReadAsStored) {
  for (const Golden& g : kGolden) {
    SCOPED_TRACE(testing::Message() << "colour " << g.colour << " depth " << g.depth << " interlaced " << g.interlaced);
    const PngPicture p = parse(from_hex(g.hex));
    EXPECT_TRUE(p.warnings.empty()) << p.warnings[0].text;
    EXPECT_EQ(p.width, g.width);
    EXPECT_EQ(p.height, g.height);
    EXPECT_EQ(p.depth, g.depth);
    const bool colour = g.colour == 2 || g.colour == 6;
    ASSERT_EQ(p.channels, colour ? 3 : 1) << "alpha is dropped";
    for (int y = 0; y < g.height; ++y)
      for (int x = 0; x < g.width; ++x)
        for (int c = 0; c < p.channels; ++c)
          ASSERT_EQ(p.samples[static_cast<std::size_t>((y * g.width + x) * p.channels + c)], sample(x, y, c, g.depth))
              << x << " " << y << " " << c;

    const Volume v = png_to_volume(p);
    EXPECT_EQ(v.voxels.shape(), (Shape{1, 1, g.height, g.width, 1}));
    auto expected = [&](int x, int y) -> double {
      auto luminance = [](int r, int gr, int b) { return (299.0 * r + 587.0 * gr + 114.0 * b) / 1000; };
      const int s = sample(x, y, 0, g.depth);
      if (g.colour == 3) return luminance(s * 3 % 256, (s * 3 + 50) % 256, (s * 3 + 100) % 256);
      if (colour) return luminance(s, sample(x, y, 1, g.depth), sample(x, y, 2, g.depth));
      return g.depth < 8 ? s * 255 / ((1 << g.depth) - 1) : s;
    };
    for (int y = 0; y < g.height; ++y)
      for (int x = 0; x < g.width; ++x)
        ASSERT_EQ(v.voxels.data<float>()[y * g.width + x], static_cast<float>(expected(x, y))) << x << " " << y;

    if (colour) {
      EXPECT_THROW(png_to_labels(p), Error) << "colours are no ids";
    } else {
      const Volume l = png_to_labels(p);
      for (int y = 0; y < g.height; ++y)
        for (int x = 0; x < g.width; ++x)
          ASSERT_EQ(l.voxels.data<std::int32_t>()[y * g.width + x], sample(x, y, 0, g.depth)) << "an id is never scaled";
    }
  }
}

// ---- damage
// --------------------------------------------------------------------------------------------------------------------------------

Bytes chunk(const std::string& kind, const Bytes& data) {
  auto big = [](std::uint32_t v) {
    Bytes b(4);
    for (int n = 0; n < 4; ++n) b[n] = static_cast<std::byte>(v >> (24 - 8 * n));
    return b;
  };
  const Bytes body = test::join(test::bytes_of(kind), data);
  const auto crc = static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size())));
  return test::join(test::join(big(static_cast<std::uint32_t>(data.size())), body), big(crc));
}
Bytes deflated(const Bytes& plain) {
  Bytes out(compressBound(plain.size()));
  uLongf n = out.size();
  EXPECT_EQ(compress(reinterpret_cast<Bytef*>(out.data()), &n, reinterpret_cast<const Bytef*>(plain.data()), plain.size()), Z_OK);
  out.resize(n);
  return out;
}
struct Parts {  // a 4 x 2 picture of 8-bit grey
  std::uint32_t width = 4, height = 2;
  int depth = 8, colour = 0, interlaced = 0;
  Bytes rows = Bytes(10);
  Bytes before_data, after_data;
  bool end = true;
  Bytes file() const {
    Bytes header;
    for (std::uint32_t v : {width, height})
      for (int n = 0; n < 4; ++n) header.push_back(static_cast<std::byte>(v >> (24 - 8 * n)));
    for (int v : {depth, colour, 0, 0, interlaced}) header.push_back(static_cast<std::byte>(v));
    Bytes b = test::join(test::bytes_of("\x89PNG\r\n\x1a\n"), chunk("IHDR", header));
    b = test::join(test::join(b, before_data), chunk("IDAT", deflated(rows)));
    b = test::join(b, after_data);
    return end ? test::join(b, chunk("IEND", {})) : b;
  }
};

void refused(const char* id, const Bytes& b, const char* says) {
  try {
    parse(b);
    ADD_FAILURE() << id << " was accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("x.png"), std::string::npos) << id << ": " << e.what();
    EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << id << ": " << e.what();
  }
}
Parts with(const std::function<void(Parts&)>& change) {
  Parts p;
  change(p);
  return p;
}

TEST(Png, DamageIsRefusedWithTheFilesName) {
  ASSERT_NO_THROW(parse(Parts{}.file()));
  for (std::uint32_t n : {0u, 0x7fffffffu}) {
    refused("P1 width", with([&](Parts& p) { p.width = n; }).file(), "IHDR");
    refused("P1 height", with([&](Parts& p) { p.height = n; }).file(), "IHDR");
  }
  const std::pair<int, int> illegal[] = {{3, 0}, {16, 3}, {4, 2}, {1, 4}, {2, 6}, {8, 1}, {8, 5}, {8, 7}, {32, 0}, {0, 0}};
  for (auto [depth, colour] : illegal) refused("P2", with([d = depth, c = colour](Parts& p) { p.depth = d, p.colour = c; }).file(), "IHDR");
  refused("P5", with([](Parts& p) { p.rows[5] = std::byte{5}; }).file(), "filter");
  refused("P6 no palette", with([](Parts& p) { p.colour = 3; }).file(), "PLTE");
  refused("too few rows", with([](Parts& p) { p.rows.resize(7); }).file(), "Not enough");
  Bytes crc = Parts{}.file();
  crc[crc.size() - 14] ^= std::byte{1};  // the checksum of IDAT
  refused("P7 CRC", crc, "CRC");
  Bytes length = Parts{}.file();
  length[33] = std::byte{0xff};  // length of the chunk after IHDR
  refused("P7 length", length, "damaged PNG");
  refused("P7 no IEND", with([](Parts& p) { p.end = false; }).file(), "ends in the middle");
  refused("not a PNG", test::bytes_of("GIF89a, and then some"), "not a PNG");
  refused("empty", {}, "empty");
  refused("many pixels", with([](Parts& p) { p.width = p.height = 900000; }).file(), "too many");
  const Bytes base = from_hex(kGolden[10].hex);
  for (std::size_t n = 0; n < base.size(); ++n)
    EXPECT_THROW(parse(Bytes(base.begin(), base.begin() + static_cast<std::ptrdiff_t>(n))), Error) << n;
  int accepted = 0;
  for (std::size_t at = 0; at < base.size(); ++at)
    for (int flip : {1, 0x80}) {
      Bytes b = base;
      b[at] ^= static_cast<std::byte>(flip);
      try {
        parse(b);
        ++accepted;
      } catch (const Error&) {
      }
    }
  EXPECT_LT(accepted, 50) << "only changes to chunks that do not matter pass";
}

TEST(Png, OneColumnInterlaced) {  // P3: of Adam7's seven passes four have rows: 0; 4; 2, 6; 1, 3, 5, 7
  const PngPicture p = parse(with([](Parts& q) {
                               q.width = 1, q.height = 8, q.interlaced = 1, q.rows.clear();
                               for (int y : {0, 4, 2, 6, 1, 3, 5, 7}) q.rows.push_back(std::byte{0}), q.rows.push_back(static_cast<std::byte>(10 * y));
                             }).file());
  ASSERT_EQ(p.samples.size(), 8u);
  for (std::size_t y = 0; y < 8; ++y) EXPECT_EQ(p.samples[y], 10 * y);
}

TEST(Png, SixteenBitsStaySixteen) {  // P8
  const PngPicture p = parse(with([](Parts& q) {
                               q.width = 2, q.height = 1, q.depth = 16, q.rows.clear();
                               for (int v : {0, 0xab, 0xcd, 0x12, 0x34}) q.rows.push_back(static_cast<std::byte>(v));
                             }).file());
  EXPECT_EQ(p.samples, (std::vector<std::uint16_t>{0xabcd, 0x1234}));
  EXPECT_EQ(png_to_labels(p).voxels.data<std::int32_t>()[0], 0xabcd);
}

TEST(Png, OddButReadable) {
  const PngPicture extra = parse(with([](Parts& p) { p.rows.resize(5000); }).file());  // P4
  EXPECT_TRUE(has_warning(extra.warnings, "png"));
  EXPECT_EQ(extra.samples.size(), 8u);
  EXPECT_TRUE(has_warning(parse(test::join(Parts{}.file(), test::bytes_of("more"))).warnings, "trailing_junk"));
  EXPECT_NO_THROW(parse(with([](Parts& p) {  // P10
                          for (int n = 0; n < 2000; ++n) p.before_data = test::join(std::move(p.before_data), chunk("IDAT", {}));
                        })
                            .file()));
  // P6: an index beyond the palette is a label, but no colour; transparency for more entries than the palette has is ignored.
  const PngPicture p = parse(with([](Parts& q) {
                               q.colour = 3;
                               q.before_data = test::join(chunk("PLTE", Bytes(6)), chunk("tRNS", Bytes(5)));
                               q.rows[3] = std::byte{200};
                             }).file());
  EXPECT_EQ(png_to_labels(p).voxels.data<std::int32_t>()[2], 200);
  EXPECT_THROW(png_to_volume(p), Error);
}

TEST(Png, WhatWeWriteReadsBack) {
  TemporaryFolder folder;
  const std::vector<std::uint8_t> grey{0, 1, 127, 254, 255, 3};
  write_png(folder / "g.png", grey.data(), 3, 2);
  EXPECT_EQ(read_png(folder / "g.png").samples, std::vector<std::uint16_t>(grey.begin(), grey.end()));
  const std::vector<std::uint16_t> wide{0, 1, 256, 65535, 4660, 3};
  write_png(folder / "w.png", wide.data(), 2, 3);
  EXPECT_EQ(read_png(folder / "w.png").samples, wide);
  EXPECT_EQ(read_volume(folder / "w.png").voxels.data<float>()[4], 4660.0f);
  const std::vector<std::uint8_t> rgb{255, 0, 0, 9, 9, 9};
  write_png_rgb(folder / "c.png", rgb.data(), 2, 1);
  EXPECT_EQ(read_png(folder / "c.png").samples, std::vector<std::uint16_t>(rgb.begin(), rgb.end()));
  EXPECT_THROW(read_labels(folder / "c.png"), Error);
  EXPECT_THROW(write_png(folder / "no/such.png", grey.data(), 3, 2), Error);
  EXPECT_THROW(write_png(folder / "n.png", grey.data(), 0, 2), Error);
}

TEST(Png, LabelsCarryTheTablesColours) {
  TemporaryFolder folder;
  const Lut lut = builtin_freesurfer();
  const std::vector<std::int32_t> ids{0, 2, 41, 17, 53, 137};
  write_png_labels(folder / "l.png", ids.data(), 3, 2, lut, true);
  const PngPicture p = read_png(folder / "l.png");
  ASSERT_EQ(p.palette.size(), 138u);
  for (std::int32_t id : ids) EXPECT_EQ(p.palette[static_cast<std::size_t>(id)], lut.colour(id)) << id;
  EXPECT_EQ(to_host<std::int32_t>(read_labels(folder / "l.png").voxels), ids);
  const std::vector<std::int32_t> many{0, 1002, 2035, 65535};
  write_png_labels(folder / "m.png", many.data(), 2, 2, lut);
  EXPECT_EQ(read_png(folder / "m.png").depth, 16);
  EXPECT_EQ(to_host<std::int32_t>(read_labels(folder / "m.png").voxels), many);
  for (std::int32_t bad : {-1, 65536}) EXPECT_THROW(write_png_labels(folder / "b.png", &bad, 1, 1, lut), Error);
}

TEST(Png, AFolderOfSlicesIsAVolume) {
  TemporaryFolder folder;
  const std::string stack = folder / "stack";
  std::filesystem::create_directory(stack);
  for (int z = 0; z < 12; ++z) {
    std::uint8_t grey[6];
    for (int n = 0; n < 6; ++n) grey[n] = static_cast<std::uint8_t>(10 * z + n);
    write_png(stack + "/s" + std::to_string(z) + ".png", grey, 3, 2);
  }
  std::ofstream(stack + "/.hidden") << "not a slice";
  const Volume v = read_volume(stack), l = read_labels(stack);
  ASSERT_EQ(v.voxels.shape(), (Shape{1, 12, 2, 3, 1}));
  for (int z = 0; z < 12; ++z)
    for (int n = 0; n < 6; ++n) {
      EXPECT_EQ(v.voxels.data<float>()[6 * z + n], static_cast<float>(10 * z + n)) << "s10 comes after s9";
      EXPECT_EQ(l.voxels.data<std::int32_t>()[6 * z + n], 10 * z + n);
    }
  EXPECT_TRUE(has_warning(v.warnings, "no_orientation"));
  const std::uint16_t other[8] = {};
  write_png(stack + "/s7.png", other, 4, 2);
  try {
    read_volume(stack);
    FAIL() << "slices of unequal size";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::bad_file);
    for (const char* word : {"s7.png: 4 x 2", "s0.png has 3 x 2"}) EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
  }
  std::ofstream(stack + "/notes.txt") << "no stack any more";
  EXPECT_FALSE(is_png_stack(stack));
}

TEST(Png, SlicesOfOnePersonShareALine) {  // both views come from one volume: column 127 of one equals column 127 of the other
  VG_NEED_DATA(data);
  const std::string folder = data + "/ixi-slices/";
  int people = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "axial")) {
    if (people == 40) break;
    std::string name = entry.path().filename().string();
    auto other = [&](const char* from, const char* to, std::string s) { return s.replace(s.find(from), std::string(from).size(), to); };
    const std::string side = other("axial", "sagittal", name);
    auto mask = [&](const std::string& s) { return other(".png", "-mask.png", s); };
    const Volume a = read_volume(folder + "axial/" + name), b = read_volume(folder + "sagittal/" + side);
    const Volume la = read_labels(folder + "axial-mask/" + mask(name)), lb = read_labels(folder + "sagittal-mask/" + mask(side));
    ASSERT_EQ(a.voxels.shape(), (Shape{1, 1, 256, 256, 1}));
    bool any = false;
    for (int y = 0; y < 256; ++y) {
      ASSERT_EQ(a.voxels.data<float>()[y * 256 + 127], b.voxels.data<float>()[y * 256 + 127]) << name;
      ASSERT_EQ(la.voxels.data<std::int32_t>()[y * 256 + 127], lb.voxels.data<std::int32_t>()[y * 256 + 127]) << name;
      any |= a.voxels.data<float>()[y * 256 + 127] != a.voxels.data<float>()[y * 256 + 126];
    }
    EXPECT_TRUE(any) << "a constant picture proves nothing";
    ++people;
  }
  EXPECT_EQ(people, 40);
}

}  // namespace
}  // namespace vg

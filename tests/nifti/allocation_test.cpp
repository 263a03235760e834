// The law of allocation: no reader holds more than 64 MiB + 4 x the bytes of the file before the data are proved present. Whatever a header
// declares, what malloc hands out is counted.
#include "tests/nifti/counted_malloc.h"

#include "nifti/files.h"
#include "nifti/gzip.h"
#include "nifti/image.h"
#include "nifti/lut.h"
#include "nifti/png.h"
#include "tensor/error.h"
#include "tests/nifti/fixture.h"

#if VG_COUNTS_MALLOC
namespace vg {
namespace {

using test::Bytes;
using test::RawNifti;

// The peak of reading what must be refused.
std::size_t peak_of(const Bytes& bytes, const char* name) {
  bool refused = false;
  const std::size_t peak = test::peak_of([&] {
    try {
      if (std::string(name) == "x.png")
        parse_png(bytes.data(), bytes.size(), name);
      else
        parse_image(std::span<const std::byte>(bytes), name);
    } catch (const Error&) {
      refused = true;
    }
  });
  EXPECT_TRUE(refused) << name;
  return peak;
}

TEST(AllocationLaw, TheCounterCounts) {
  EXPECT_GE(test::peak_of([] { std::vector<char>(1 << 20).clear(); }), 1u << 20);
  EXPECT_GE(test::peak_of([] { Buffer b(3 << 20); }), 3u << 20);
  EXPECT_LT(test::peak_of([] { for (int n = 0; n < 9; ++n) Buffer b(1 << 20); }), 2u << 20) << "what is given back is no longer held";
}

TEST(AllocationLaw, Nifti) {
  RawNifti big;
  for (int a = 1; a <= 3; ++a) big.set<std::int16_t>(40 + 2 * static_cast<std::size_t>(a), 800);  // 1 GB declared
  EXPECT_LT(peak_of(big.bytes(), "x.nii"), 1u << 20);
  EXPECT_LT(peak_of(test::gz(big.bytes()), "x.nii.gz"), 1u << 20) << "the ratio alone refuses it";
  Bytes zeros = big.bytes();
  zeros.resize(100u << 20);  // 100 of the 1000 MB are there, as 100 KB of gzip, which is stuffed so that it could hold them all
  Bytes packed = test::join(test::gz(zeros, 1), Bytes(1u << 20));
  EXPECT_LT(peak_of(packed, "x.nii.gz"), 3 * zeros.size()) << "grows with what was unpacked";
  zeros.resize(20u << 20);
  packed = test::join(test::gz(zeros, 1), Bytes(1u << 20));
  EXPECT_LT(peak_of(packed, "x.nii.gz"), allocation_limit(packed.size()));
}

TEST(AllocationLaw, ManyExtensions) {
  RawNifti many;
  constexpr std::size_t kCount = 20'000;
  many.insert(16 * kCount).text(348, "\1");
  for (std::size_t n = 0; n < kCount; ++n) many.set<std::int32_t>(352 + 16 * n, 16);
  many.resize(many.bytes().size() - 1);  // one byte of the voxels is missing
  EXPECT_LT(peak_of(many.bytes(), "x.nii"), allocation_limit(many.bytes().size()));
}

TEST(AllocationLaw, Pairs) {
  const auto peak = [](const Bytes& head, const Bytes& voxels) {
    return test::peak_of([&] {
      const auto buffer = [](const Bytes& b) {
        auto shared = std::make_shared<Buffer>(b.size());
        std::copy(b.begin(), b.end(), shared->data());
        return shared;
      };
      try {
        files::parse_pair(buffer(head), [&] { return std::pair{buffer(voxels), std::string("x.img")}; }, "x.hdr", "x.hdr", {});
        ADD_FAILURE() << "accepted";
      } catch (const Error&) {
      }
    });
  };
  RawNifti big;
  big.text(344, "ni1").set<float>(108, 0.0f).resize(348);
  for (int a = 1; a <= 3; ++a) big.set<std::int16_t>(40 + 2 * static_cast<std::size_t>(a), 800);  // 1 GB declared
  EXPECT_LT(peak(big.bytes(), Bytes(100)), 1u << 20);
  EXPECT_LT(peak(test::gz(big.bytes()), test::gz(Bytes(100))), 1u << 20);
  const Bytes packed = test::join(test::gz(Bytes(20u << 20), 1), Bytes(1u << 20));
  EXPECT_LT(peak(big.bytes(), packed), allocation_limit(packed.size()));
  Bytes bloated = big.bytes();
  bloated.resize(200u << 20);  // a header file that unpacks to what no extension fills
  const Bytes bomb = test::gz(bloated, 1);
  EXPECT_LT(peak(bomb, Bytes(100)), allocation_limit(bomb.size()));
}

TEST(AllocationLaw, MghAndNrrd) {
  Bytes mgh(300);  // 1 x 1290 x 1000 x 1000 float: 5 GB declared
  const std::uint32_t fields[] = {1, 1, 1290, 1000, 1000, 3};
  for (std::size_t n = 0; n < 6; ++n)
    for (std::size_t b = 0; b < 4; ++b) mgh[4 * n + b] = static_cast<std::byte>(fields[n] >> (24 - 8 * b));
  EXPECT_LT(peak_of(mgh, "x.mgh"), 1u << 20);
  EXPECT_LT(peak_of(test::gz(mgh), "x.mgz"), 1u << 20);
  const std::string nrrd = "NRRD0004\ntype: float\ndimension: 3\nsizes: 1000 1000 1000\nendian: little\nencoding: ";
  EXPECT_LT(peak_of(test::bytes_of(nrrd + "raw\n\n..."), "x.nrrd"), 1u << 20);
  EXPECT_LT(peak_of(test::join(test::bytes_of(nrrd + "gzip\n\n"), test::gz(Bytes(1000))), "x.nrrd"), 1u << 20);
  const Bytes stuffed = test::join(test::gz(Bytes(20u << 20), 1), Bytes(4u << 20));
  EXPECT_LT(peak_of(test::join(test::bytes_of(nrrd + "gzip\n\n"), stuffed), "x.nrrd"), allocation_limit(stuffed.size()));
}

// A PNG whose IHDR promises a picture of 16-bit RGBA, with checksums that fit, and no rows.
Bytes empty_png(std::uint32_t width, std::uint32_t height, bool interlaced) {
  Bytes file = test::bytes_of("\x89PNG\r\n\x1a\n");
  const auto big = [&](std::uint32_t v) {
    for (int b = 24; b >= 0; b -= 8) file.push_back(static_cast<std::byte>(v >> b));
  };
  const auto chunk = [&](const std::string& type, const Bytes& data) {
    big(static_cast<std::uint32_t>(data.size()));
    const std::size_t from = file.size();
    file = test::join(test::join(file, test::bytes_of(type)), data);
    big(static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(&file[from]), static_cast<uInt>(file.size() - from))));
  };
  Bytes head;
  for (const std::uint32_t v : {width, height})
    for (int b = 24; b >= 0; b -= 8) head.push_back(static_cast<std::byte>(v >> b));
  for (const int v : {16, 6, 0, 0, interlaced ? 1 : 0}) head.push_back(static_cast<std::byte>(v));
  chunk("IHDR", head);
  const Bytes member = test::gz(Bytes(100));
  chunk("IDAT", Bytes(member.begin() + 10, member.end() - 8));
  chunk("IEND", {});
  return file;
}

TEST(AllocationLaw, Png) {
  for (const bool interlaced : {false, true}) {
    const Bytes huge = empty_png(1 << 20, 1 << 20, interlaced), wide = empty_png(0x7fffffff, 1, interlaced),
                large = empty_png(2800, 2900, interlaced);  // within the law as it is stored
    EXPECT_LT(peak_of(huge, "x.png"), allocation_limit(huge.size())) << "libpng has a row or two of its own";
    EXPECT_LT(peak_of(wide, "x.png"), 1u << 20);
    EXPECT_LT(peak_of(large, "x.png"), allocation_limit(large.size()));
  }
}

TEST(AllocationLaw, TablesOfLabels) {
  const auto peak = [](const std::string& text) {
    return test::peak_of([&] {
      try {
        parse_lut(text, "x");
      } catch (const Error&) {
      }
    });
  };
  const std::string nested(1 << 20, '[');
  EXPECT_LT(peak("{\"R\": " + nested), allocation_limit(1 << 20)) << "a niivue table of open brackets";
  std::string pairs = "{\"R\": [1";
  while (pairs.size() < 1 << 20) pairs += ",[]";
  EXPECT_LT(peak(pairs + "]}"), allocation_limit(pairs.size()));
  std::string numbers = "{\"R\": [1";
  while (numbers.size() < (2 << 20) - 8) numbers += ",1";
  EXPECT_LT(peak(numbers), allocation_limit(numbers.size()));
  std::string lines;
  for (int n = 0; n < 50'000; ++n) lines += std::to_string(n) + " a 1 2 3 0\n";
  EXPECT_LT(peak(lines), allocation_limit(lines.size()));
}

}  // namespace
}  // namespace vg
#endif

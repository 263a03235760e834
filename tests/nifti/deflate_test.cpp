// The fast deflate, judged by zlib and libdeflate: every kind of data, sizes around the pieces, codes that need their lengths cut, threads.
#include <libdeflate.h>

#include <algorithm>

#include "nifti/deflate.h"
#include "nifti/gzip.h"
#include "nifti/volume.h"
#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel.h"
#include "tensor/random.h"
#include "tests/nifti/fixture.h"

namespace vg {
namespace {

using test::Bytes;

constexpr std::size_t kPiece = 256 << 10;

Bytes packed(const Bytes& plain) {
  const Buffer b = gzip(plain, 1);
  return {b.data(), b.data() + b.size()};
}
// One member, read to its end by zlib, which checks CRC and length.
Bytes by_zlib(const Bytes& file, std::size_t room) {
  z_stream z{};
  EXPECT_EQ(inflateInit2(&z, 15 + 16), Z_OK);
  Bytes out(room + 1);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(file.data()));
  z.avail_in = static_cast<uInt>(file.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(inflate(&z, Z_FINISH), Z_STREAM_END) << (z.msg ? z.msg : "");
  EXPECT_EQ(z.avail_in, 0u);
  out.resize(z.total_out);
  inflateEnd(&z);
  return out;
}
Bytes by_libdeflate(const Bytes& file, std::size_t room) {
  libdeflate_decompressor* d = libdeflate_alloc_decompressor();
  Bytes out(room + 1);
  std::size_t made = 0;
  EXPECT_EQ(libdeflate_gzip_decompress(d, file.data(), file.size(), out.data(), out.size(), &made), LIBDEFLATE_SUCCESS);
  out.resize(made);
  libdeflate_free_decompressor(d);
  return out;
}
void check(const Bytes& plain, const std::string& what) {
  SCOPED_TRACE(what + ", " + std::to_string(plain.size()) + " bytes");
  const Bytes file = packed(plain);
  EXPECT_TRUE(by_zlib(file, plain.size()) == plain);
  EXPECT_TRUE(by_libdeflate(file, plain.size()) == plain);
  EXPECT_LE(file.size(), plain.size() + 18 + 5 + plain.size() / 10000) << "never much larger than the data";
}

// Data of a kind: every kind takes another way through the packer.
Bytes make(const std::string& kind, std::size_t size, Random& random) {
  Bytes b(size);
  std::size_t at = 0;
  if (kind == "zeros") return b;
  if (kind == "noise")
    for (auto& x : b) x = static_cast<std::byte>(random.bits());
  if (kind == "two values")
    for (auto& x : b) x = static_cast<std::byte>(random.below(2) * 200);
  if (kind == "period 7")
    for (auto& x : b) x = static_cast<std::byte>(at++ % 7);
  if (kind == "rows")  // a row, repeated with a change here and there, as in a label map
    for (; at < size; ++at) b[at] = at < 256 || random.below(60) == 0 ? static_cast<std::byte>(random.below(20)) : b[at - 256];
  if (kind == "runs")
    while (at < size) {
      const std::byte value = static_cast<std::byte>(random.below(50));
      for (std::size_t n = random.below(3) ? random.below(9) : random.below(2000); n > 0 && at < size; --n) b[at++] = value;
    }
  if (kind == "far")  // repeats at the window's edge and beyond
    for (; at < size; ++at) b[at] = at >= 32769 ? b[at - 32766 - at / 5000 % 5] : static_cast<std::byte>(random.bits());
  if (kind == "skewed")  // counts like Fibonacci numbers: a Huffman tree deeper than 15
    while (at < size) {
      unsigned symbol = 0;
      while (symbol < 30 && random.below(1000) < 618) ++symbol;
      b[at++] = static_cast<std::byte>(symbol * 7);
    }
  if (kind == "floats")
    for (; at + 4 <= size; at += 4) {
      const float v = static_cast<float>(random.below(100)) / 8;
      std::memcpy(&b[at], &v, 4);
    }
  if (kind == "mixed")
    for (; at < size; ++at) b[at] = at / 50000 % 2 ? static_cast<std::byte>(random.bits()) : std::byte{1};
  return b;
}
constexpr const char* kKinds[] = {"zeros", "noise", "two values", "period 7", "rows", "runs", "far", "skewed", "floats", "mixed"};

TEST(DeflateFast, EveryKindAndSizeIsReadBackByZlibAndLibdeflate) {
  Random random(3);
  for (const char* kind : kKinds)
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{63}, std::size_t{64}, std::size_t{65}, std::size_t{300},
          std::size_t{4097}, std::size_t{65536}, kPiece - 1, kPiece, kPiece + 1, kPiece + 70, 2 * kPiece + 12345})
      check(make(kind, size, random), kind);
}

TEST(DeflateFast, RandomSmallInputs) {
  Random random(4);
  for (int n = 0; n < 2000; ++n) check(make(kKinds[random.below(10)], random.below(700), random), "small");
}

TEST(DeflateFast, RunsOfEveryLengthAroundTheLongestMatch) {
  for (std::size_t run = 1; run < 800; ++run) {
    Bytes b(100, std::byte{1});
    b.insert(b.end(), run, std::byte{2});
    b.insert(b.end(), 100, std::byte{3});
    ASSERT_TRUE(by_libdeflate(packed(b), b.size()) == b) << run;
  }
}

TEST(DeflateFast, RunsPackWell) {
  Random random(5);
  const Bytes zeros(16 << 20), rows = make("rows", 1 << 20, random);
  EXPECT_LT(packed(zeros).size(), zeros.size() / 500);
  EXPECT_LT(packed(rows).size(), test::gz(rows, 1).size() * 11 / 10);
}

TEST(DeflateFast, TheSameBytesForAnyNumberOfThreads) {
  Random random(6);
  const Bytes plain = make("rows", 3 * kPiece + 5, random);
  const int before = threads();
  set_threads(1);
  const Bytes one = packed(plain);
  set_threads(3);
  EXPECT_TRUE(packed(plain) == one);
  set_threads(before);
}

TEST(DeflateFast, BytesMadeOnTheWayGiveTheSameStream) {
  Random random(8);
  for (const std::size_t size : {std::size_t{0}, std::size_t{100}, kPiece, 2 * kPiece + 999}) {
    const Bytes plain = make("runs", size, random);
    const Deflated made = deflate_fast(size, [&](std::size_t begin, std::size_t end, std::byte* to) {
      std::copy(plain.begin() + static_cast<std::ptrdiff_t>(begin), plain.begin() + static_cast<std::ptrdiff_t>(end), to);
      return true;
    });
    Bytes file;
    put_member(made, size, [&file](std::span<const std::byte> b) { file.insert(file.end(), b.begin(), b.end()); });
    EXPECT_TRUE(file == packed(plain)) << size;
  }
  EXPECT_FALSE(deflate_fast(3 * kPiece, [&](std::size_t begin, std::size_t, std::byte*) { return begin < kPiece; }).complete);
}

TEST(DeflateFast, VolumesAreWrittenTheSameWithOrWithoutAnImageBetween) {
  test::TemporaryFolder folder;
  Random random(9);
  const std::int64_t d = 20, h = 130, w = 131;  // more than one piece
  for (const std::int64_t channels : {1, 3})
    for (const std::int32_t most : {200, 3000, 100000}) {
      std::vector<std::int32_t> ids(static_cast<std::size_t>(d * h * w * channels));
      for (auto& v : ids) v = random.below(10) ? 7 : static_cast<std::int32_t>(random.below(200));
      ids[ids.size() - 5] = most;  // found late: earlier pieces were packed as a smaller type
      Volume v;
      v.voxels = from_host(ids, {1, d, h, w, channels});
      write_nifti(folder / "a.nii.gz", v);
      write_image(folder / "b.nii.gz", to_image(v));
      EXPECT_EQ(os::read_text(folder / "a.nii.gz"), os::read_text(folder / "b.nii.gz"));
      const Volume back = read_labels(folder / "a.nii.gz");
      EXPECT_EQ(to_host<std::int32_t>(back.voxels), ids);
      EXPECT_EQ(back.stored, most == 200 ? Number::u8 : most == 3000 ? Number::i16 : Number::i32);
      EXPECT_EQ(v.voxels.shape(), back.voxels.shape());
      try {
        write_nifti(folder / "c.nii.gz", v, {.type = Number::u8});
        EXPECT_EQ(most, 200);
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("which uint8 cannot hold"), std::string::npos) << e.what();
      }
    }
}

TEST(DeflateFast, OurReaderTakesItWholeAndInSteps) {
  Random random(7);
  Bytes plain = make("runs", 2 * kPiece, random);
  for (const std::size_t zeros : {std::size_t{0}, std::size_t{80} << 20}) {  // beyond the law of allocation: in steps
    plain.resize(plain.size() + zeros);
    const Bytes file = packed(plain);
    Warnings warnings;
    const Buffer back = gunzip(file, plain.size(), "x.gz", warnings);
    EXPECT_TRUE(warnings.empty());
    ASSERT_EQ(back.size(), plain.size());
    EXPECT_EQ(std::memcmp(back.data(), plain.data(), plain.size()), 0);
  }
}

}  // namespace
}  // namespace vg

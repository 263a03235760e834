// NIfTI files made byte by byte for the tests, from the offsets of the standard and not from the reader's structs; gzip by zlib.
#pragma once
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include <unistd.h>

#include <gtest/gtest.h>

namespace vg::test {

using Bytes = std::vector<std::byte>;

// 2 x 3 x 4 int16, little endian, voxels 1..24 from byte 352, sform code 1 with 1, 2, 3 mm, no qform.
class RawNifti {
 public:
  explicit RawNifti(bool big = false) : bytes_(352 + 48), big_(big) {
    set<std::int32_t>(0, 348);
    const std::int16_t dim[8] = {3, 2, 3, 4, 1, 1, 1, 1};
    for (int a = 0; a < 8; ++a) set<std::int16_t>(40 + 2 * a, dim[a]);
    set<std::int16_t>(70, 4);
    set<std::int16_t>(72, 16);
    const float pixdim[8] = {1, 1, 2, 3, 1, 1, 1, 1};
    for (int a = 0; a < 8; ++a) set<float>(76 + 4 * a, pixdim[a]);
    set<float>(108, 352);
    set<std::int16_t>(254, 1);
    for (int r = 0; r < 3; ++r) set<float>(280 + 16 * r + 4 * r, static_cast<float>(r + 1));
    set<float>(292, -10);
    std::memcpy(bytes_.data() + 344, "n+1", 4);
    for (int n = 0; n < 24; ++n) set<std::int16_t>(352 + 2 * n, static_cast<std::int16_t>(n + 1));
  }
  // Bytes in the file's order.
  template <class T>
  RawNifti& set(std::size_t at, T value) {
    auto* p = reinterpret_cast<std::byte*>(&value);
    if (big_) std::reverse(p, p + sizeof(T));
    if (at + sizeof(T) > bytes_.size()) bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, p, sizeof(T));
    return *this;
  }
  RawNifti& text(std::size_t at, const std::string& s) {
    if (at + s.size() > bytes_.size()) bytes_.resize(at + s.size());
    std::transform(s.begin(), s.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(at), [](char c) { return static_cast<std::byte>(c); });
    return *this;
  }
  RawNifti& resize(std::size_t n) { return bytes_.resize(n), *this; }
  // Room of `n` bytes before the voxels, which move.
  RawNifti& insert(std::size_t n) {
    bytes_.insert(bytes_.begin() + 352, n, std::byte{0});
    return set<float>(108, 352.0f + static_cast<float>(n));
  }
  RawNifti& qform(float b, float c, float d) {
    set<std::int16_t>(252, 1), set<std::int16_t>(254, 0);
    return set<float>(256, b), set<float>(260, c), set<float>(264, d), *this;
  }
  const Bytes& bytes() const { return bytes_; }
  bool big() const { return big_; }

 private:
  Bytes bytes_;
  bool big_;
};

// The same volume as NIfTI-2: voxels from byte 544.
inline RawNifti raw_nifti2(bool big = false) {
  RawNifti r(big);
  Bytes voxels(r.bytes().begin() + 352, r.bytes().end());
  r.resize(0).resize(544);
  r.set<std::int32_t>(0, 540).text(4, std::string("n+2\0\r\n\x1a\n", 8)).set<std::int16_t>(12, 4).set<std::int16_t>(14, 16);
  const std::int64_t dim[8] = {3, 2, 3, 4, 1, 1, 1, 1};
  const double pixdim[8] = {1, 1, 2, 3, 1, 1, 1, 1};
  for (int a = 0; a < 8; ++a) r.set<std::int64_t>(16 + 8 * a, dim[a]).set<double>(104 + 8 * a, pixdim[a]);
  r.set<std::int64_t>(168, 544).set<std::int32_t>(348, 1);
  for (int k = 0; k < 3; ++k) r.set<double>(400 + 32 * k + 8 * k, k + 1);
  r.set<double>(424, -10);
  return r.text(544, std::string(reinterpret_cast<const char*>(voxels.data()), voxels.size()));
}

// One gzip member (zlib's deflate, our own frame).
inline Bytes gz(const Bytes& plain, int level = 6) {
  z_stream z{};
  EXPECT_EQ(deflateInit2(&z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  Bytes out(deflateBound(&z, plain.size()) + 64);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data()));
  z.avail_in = static_cast<uInt>(plain.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

inline Bytes join(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Bytes bytes_of(const std::string& s) {
  Bytes b(s.size());
  std::transform(s.begin(), s.end(), b.begin(), [](char c) { return static_cast<std::byte>(c); });
  return b;
}

// Test data of others: VG_TEST_DATA, else ../shared/data beside the repository. "" if absent.
inline std::string test_data() {
  const char* given = std::getenv("VG_TEST_DATA");
  const std::string folder = given ? given : std::string(VG_SOURCE_DIR) + "/../shared/data";
  return std::filesystem::is_directory(folder) ? folder : "";
}
#define VG_NEED_DATA(folder)                        \
  const std::string folder = vg::test::test_data(); \
  if (folder.empty()) GTEST_SKIP() << "no test data: set VG_TEST_DATA (default: ../shared/data)"

// A folder that disappears with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() / ("vg_nifti_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace vg::test

// SHA-256 (FIPS 180-4), which the model file carries over its own content: a flipped bit in a weight still gives plausible labels, so it must be
// refused when the file is read.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace vg {

class Sha256 {
 public:
  void update(const void* data, std::size_t bytes);
  void update(std::string_view text) { update(text.data(), text.size()); }
  // A length or extent: 8 bytes, little endian.
  void update_u64(std::uint64_t value);
  std::string hex();  // 64 lower-case digits; the object is spent

 private:
  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> block_ = {};
  std::size_t filled_ = 0;
  std::uint64_t bytes_ = 0;
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace vg

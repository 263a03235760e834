// A fast deflate for volumes: pieces are packed by threads and joined to one stream that every inflate reads. Made for label maps and scans
// (long runs, repeated rows); several times faster than zlib's level 1 and no larger on those.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "nifti/image.h"

namespace vg {

struct Deflated {
  std::vector<std::span<const std::byte>> pieces;  // in order; they point into `storage`
  Buffer storage;
  std::uint32_t crc = 0;  // CRC-32 of the plain bytes

  std::size_t size() const {
    std::size_t n = 0;
    for (const auto& p : pieces) n += p.size();
    return n;
  }
};
// The same bytes for the same input, whatever the number of threads.
Deflated deflate_fast(std::span<const std::byte> plain);

}  // namespace vg

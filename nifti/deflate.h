// A fast deflate for volumes: pieces are packed by threads and joined to one stream that every inflate reads. Made for label maps and scans
// (long runs, repeated rows); several times faster than zlib's level 1 and no larger on those.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "nifti/image.h"

namespace vg {

struct Deflated {
  std::vector<std::span<const std::byte>> pieces;  // in order; they point into `storage`
  Buffer storage;
  std::uint32_t crc = 0;  // CRC-32 of the plain bytes
  bool complete = true;   // false: the source gave up

  std::size_t size() const {
    std::size_t n = 0;
    for (const auto& p : pieces) n += p.size();
    return n;
  }
};
// The same bytes for the same input, whatever the number of threads.
Deflated deflate_fast(std::span<const std::byte> plain);

// Bytes that are made while they are packed, in the processor's cache: puts [begin, end) at `to`, or returns false to stop it all. Called
// by several threads at once; `begin` is a multiple of 4096.
using ByteSource = std::function<bool(std::size_t begin, std::size_t end, std::byte* to)>;
Deflated deflate_fast(std::size_t bytes, const ByteSource& source);  // the same result as for the whole at once

}  // namespace vg

// gzip for image files: whole members through libdeflate where the result is small enough to ask for at once, zlib in steps otherwise.
// Either way lengths and checksums are verified, and memory grows only with bytes that have been seen.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "nifti/deflate.h"
#include "nifti/image.h"
#include "nifti/warning.h"

namespace vg {

// How much a reader may allocate before the data are proved present: 64 MiB + 4 x the bytes of the file.
constexpr std::uint64_t allocation_limit(std::uint64_t bytes_present) { return (std::uint64_t{64} << 20) + 4 * bytes_present; }

bool is_gzip(std::span<const std::byte> bytes);  // starts with 1f 8b

// The first `count` unpacked bytes; fewer where the stream ends or breaks before (damage is reported by gunzip).
std::vector<std::byte> gunzip_prefix(std::span<const std::byte> packed, std::size_t count, const std::string& name);

// At least the first `needed` unpacked bytes, of one or more members; every member is checked to its end (CRC-32 and length). Beyond
// `needed`, at most 64 MiB are unpacked for the checksum, and dropped; a longer tail gives the warning gzip_tail. Zeros after the last
// member are padding; anything else gives trailing_junk. Throws bad_file: damaged, truncated or shorter than `needed`.
Buffer gunzip(std::span<const std::byte> packed, std::uint64_t needed, const std::string& name, Warnings& warnings);

// One member, whatever the level; 1 (fast: deflate.h, threaded), 2 .. 12 (small: libdeflate). Same bytes for same input: no time, no name.
Buffer gzip(std::span<const std::byte> plain, int level);
// The member around what deflate_fast made of `bytes` bytes, piece by piece.
void put_member(const Deflated& d, std::size_t bytes, const std::function<void(std::span<const std::byte>)>& put);

}  // namespace vg

// Just enough of zip to read scans that arrive as an archive: the list of entries, and one entry's bytes (stored or deflated), checked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nifti/image.h"

namespace vg {

struct ZipEntry {
  std::string name;
  int method = 0;  // 0 stored, 8 deflated
  std::uint32_t crc = 0;
  std::uint64_t packed = 0, plain = 0, offset = 0;  // sizes; where its local header is
};
bool is_zip(std::span<const std::byte> start);
// Files in the order of the central directory; folders are left out. Throws bad_file (damaged, more than 1,000,000 entries) or unsupported
// (encrypted, several disks); zip64 is read.
std::vector<ZipEntry> zip_entries(std::span<const std::byte> zip, const std::string& name);
// Throws bad_file where sizes or checksum do not fit; refuses entries that claim to shrink below 1 : 1032 before memory is asked for.
Buffer zip_read(std::span<const std::byte> zip, const ZipEntry& entry, const std::string& name);

}  // namespace vg

// The committed corpus of one target as one file: for each input 'A' or 'R', its length (u32, little endian) and its bytes.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tensor/os.h"
#include "tests/fuzz/target.h"

namespace vg::fuzz {

struct Entry {
  char verdict;
  Bytes bytes;
};

inline std::vector<Entry> read_corpus(const std::string& path) {
  const std::vector<std::byte> file = os::read_file(path);
  std::vector<Entry> entries;
  for (std::size_t at = 0; at < file.size();) {
    std::uint32_t length = 0;
    if (file.size() - at >= 5) std::memcpy(&length, &file[at + 1], 4);
    if (file.size() - at < 5 || file.size() - at - 5 < length) fail(ErrorCode::bad_file, "{}: ends inside an entry", path);
    const auto from = file.begin() + static_cast<std::ptrdiff_t>(at) + 5;
    entries.push_back({static_cast<char>(file[at]), {from, from + length}});
    at += 5 + length;
  }
  return entries;
}

inline void write_corpus(const std::string& path, const std::vector<Entry>& entries) {
  std::string file;
  for (const Entry& e : entries) {
    const auto length = static_cast<std::uint32_t>(e.bytes.size());
    file += e.verdict;
    file.append(reinterpret_cast<const char*>(&length), 4);
    file.append(reinterpret_cast<const char*>(e.bytes.data()), e.bytes.size());
  }
  os::write_file_atomic(path, file);
}

}  // namespace vg::fuzz

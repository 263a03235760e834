// The central directory at the end of the archive is believed, local headers only for their own length; unpacking is libdeflate's.
#include "nifti/zip.h"

#include <libdeflate.h>

#include <cstring>
#include <memory>

#include "tensor/error.h"

namespace vg {
namespace {

constexpr std::uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator64 = 0x07064b50;
constexpr std::size_t kEndBytes = 22, kCentralBytes = 46, kLocalBytes = 30, kMostComment = 65535, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr std::uint32_t kIn64 = 0xffffffff;  // the number is in the zip64 field
constexpr std::size_t kMostEntries = 1'000'000;
constexpr std::uint64_t kBestRatio = 1032;  // deflate cannot do better

std::uint32_t u16(std::span<const std::byte> b, std::size_t at) { return static_cast<std::uint32_t>(b[at]) | static_cast<std::uint32_t>(b[at + 1]) << 8; }
std::uint32_t u32(std::span<const std::byte> b, std::size_t at) { return u16(b, at) | u16(b, at + 2) << 16; }
std::uint64_t u64(std::span<const std::byte> b, std::size_t at) { return u32(b, at) | static_cast<std::uint64_t>(u32(b, at + 4)) << 32; }

struct Directory {
  std::uint64_t count, at, end;  // entries; where the first begins and the last must have ended
};
// `end`: of the record that closes the archive. Numbers too large for it stand in a longer one before it (APPNOTE.TXT 4.3.14, 4.3.15).
Directory directory_of(std::span<const std::byte> zip, std::size_t end, const std::string& name) {
  Directory d{u16(zip, end + 10), u32(zip, end + 16), end};
  if (d.count != 0xffff && d.at != kIn64) return d;
  if (end < kLocator64Bytes || u32(zip, end - kLocator64Bytes) != kLocator64) return d;  // they may be meant as they stand
  const std::uint64_t longer = u64(zip, end - kLocator64Bytes + 8);
  if (longer > end - kLocator64Bytes || end - kLocator64Bytes - longer < kEnd64Bytes || u32(zip, longer) != kEnd64)
    fail(ErrorCode::bad_file, "{}: the zip64 end of the archive is not where it should be", name);
  return {u64(zip, longer + 32), u64(zip, longer + 48), longer};
}

// The extra field of an entry: those of plain, packed and offset that did not fit, in this order.
void take_zip64(std::span<const std::byte> extra, ZipEntry& e) {
  while (extra.size() >= 4) {
    const std::size_t size = u16(extra, 2);
    if (extra.size() - 4 < size) return;
    if (u16(extra, 0) == 1) {
      std::size_t at = 4;
      for (std::uint64_t* v : {&e.plain, &e.packed, &e.offset})
        if (*v == kIn64 && at + 8 <= 4 + size) *v = u64(extra, at), at += 8;
      return;
    }
    extra = extra.subspan(4 + size);
  }
}

}  // namespace

bool is_zip(std::span<const std::byte> start) { return start.size() >= 4 && (u32(start, 0) == kLocal || u32(start, 0) == kEnd); }

std::vector<ZipEntry> zip_entries(std::span<const std::byte> zip, const std::string& name) {
  if (zip.size() < kEndBytes) fail(ErrorCode::bad_file, "{}: {} bytes are no zip archive", name, zip.size());
  std::size_t end = zip.size() - kEndBytes;
  const std::size_t least = end > kMostComment ? end - kMostComment : 0;
  while (end > least && u32(zip, end) != kEnd) --end;
  if (u32(zip, end) != kEnd) fail(ErrorCode::bad_file, "{}: a zip archive without its end: truncated?", name);
  if (u16(zip, end + 4) != 0 || u16(zip, end + 6) != 0) fail(ErrorCode::unsupported, "{}: a zip archive in several parts", name);
  const Directory directory = directory_of(zip, end, name);
  if (directory.count > kMostEntries) fail(ErrorCode::bad_file, "{}: {} entries (wanted at most {})", name, directory.count, kMostEntries);
  end = directory.end;
  std::vector<ZipEntry> entries;
  std::uint64_t at = directory.at;
  for (std::size_t n = 0; n < directory.count; ++n) {
    if (at > end || end - at < kCentralBytes || u32(zip, at) != kCentral) fail(ErrorCode::bad_file, "{}: entry {} of the zip directory is damaged", name, n);
    const std::size_t length = u16(zip, at + 28), tail = u16(zip, at + 30) + u16(zip, at + 32);
    if (end - at - kCentralBytes < length + tail) fail(ErrorCode::bad_file, "{}: entry {} of the zip directory is truncated", name, n);
    ZipEntry e;
    e.name.assign(reinterpret_cast<const char*>(zip.data()) + at + kCentralBytes, length);
    for (char& c : e.name)
      if (static_cast<unsigned char>(c) < ' ') c = '?';
    e.method = static_cast<int>(u16(zip, at + 10));
    e.crc = u32(zip, at + 16), e.packed = u32(zip, at + 20), e.plain = u32(zip, at + 24), e.offset = u32(zip, at + 42);
    take_zip64(zip.subspan(at + kCentralBytes + length, u16(zip, at + 30)), e);
    const bool encrypted = u16(zip, at + 8) & 1;
    at += kCentralBytes + length + tail;
    if (e.name.ends_with('/')) continue;
    if (encrypted) fail(ErrorCode::unsupported, "{}/{}: encrypted", name, e.name);
    entries.push_back(std::move(e));
  }
  return entries;
}

Buffer zip_read(std::span<const std::byte> zip, const ZipEntry& e, const std::string& name) {
  const auto refuse = [&](const char* why) { fail(ErrorCode::bad_file, "{}/{}: {}", name, e.name, why); };
  if (e.offset > zip.size() || zip.size() - e.offset < kLocalBytes || u32(zip, e.offset) != kLocal) refuse("no local header where the directory says");
  const std::uint64_t start = e.offset + kLocalBytes + u16(zip, e.offset + 26) + u16(zip, e.offset + 28);
  if (start > zip.size() || zip.size() - start < e.packed) refuse("truncated");
  const std::span<const std::byte> packed = zip.subspan(start, e.packed);
  if (e.method != 0 && e.method != 8) fail(ErrorCode::unsupported, "{}/{}: packed by method {} (wanted 0 or 8)", name, e.name, e.method);
  if (e.method == 0 ? e.plain != e.packed : e.plain / kBestRatio > e.packed + 1) refuse("sizes that cannot be");
  Buffer out(e.plain);
  if (e.method == 0) {
    if (e.plain > 0) std::memcpy(out.data(), packed.data(), e.plain);
  } else {
    const std::unique_ptr<libdeflate_decompressor, void (*)(libdeflate_decompressor*)> inflate(libdeflate_alloc_decompressor(), libdeflate_free_decompressor);
    if (!inflate) fail(ErrorCode::out_of_memory, "{}: no memory to unpack", name);
    std::size_t got = 0;
    const auto result = libdeflate_deflate_decompress(inflate.get(), packed.data(), packed.size(), out.data(), out.size(), &got);
    if (result != LIBDEFLATE_SUCCESS || got != e.plain) refuse("damaged");
  }
  if (libdeflate_crc32(0, out.data(), out.size()) != e.crc) refuse("its checksum differs: damaged");
  return out;
}

}  // namespace vg

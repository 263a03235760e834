// RFC 1952 members by hand around libdeflate (fast path: it only ever accepts) and zlib (the authority on everything else, and the one
// that explains).
#include "nifti/gzip.h"

#include <libdeflate.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "tensor/error.h"

namespace vg {
namespace {

using Bytes = std::span<const std::byte>;
constexpr std::uint64_t kTail = std::uint64_t{64} << 20;  // unpacked beyond `needed` to reach a checksum
constexpr std::uint64_t kMostRatio = 1032;                // deflate's best: 258 bytes from 2 bits

struct InflateEnd {
  void operator()(z_stream* z) const {
    inflateEnd(z);
    delete z;
  }
};
using Inflater = std::unique_ptr<z_stream, InflateEnd>;
Inflater raw_inflater() {
  auto* z = new z_stream{};
  if (inflateInit2(z, -15) != Z_OK) {
    delete z;
    fail(ErrorCode::out_of_memory, "zlib cannot start");
  }
  return Inflater(z);
}

std::uint32_t little32(Bytes b, std::size_t at) {
  std::uint32_t v;
  std::memcpy(&v, b.data() + at, 4);
  return v;
}
const Bytef* zbytes(Bytes b, std::size_t at) { return reinterpret_cast<const Bytef*>(b.data()) + at; }

// Length of the member header at `at`. Throws unless it is complete and right.
std::size_t member_header(Bytes b, std::size_t at, const std::string& name) {
  const std::size_t start = at;
  auto need = [&](std::size_t n, const char* what) {
    if (b.size() - at < n) fail(ErrorCode::bad_file, "{}: gzip header ends inside its {}", name, what);
  };
  need(10, "first ten bytes");
  const unsigned method = static_cast<unsigned>(b[at + 2]), flags = static_cast<unsigned>(b[at + 3]);
  if (method != 8) fail(ErrorCode::bad_file, "{}: gzip method {} (wanted 8, deflate)", name, method);
  if (flags & 0xe0) fail(ErrorCode::bad_file, "{}: gzip flags {:#04x} use reserved bits", name, flags);
  at += 10;
  if (flags & 4) {  // FEXTRA
    need(2, "extra field");
    const std::size_t length = static_cast<std::size_t>(b[at]) | static_cast<std::size_t>(b[at + 1]) << 8;
    at += 2;
    need(length, "extra field");
    at += length;
  }
  for (unsigned flag : {8u, 16u})  // FNAME, FCOMMENT
    if (flags & flag) {
      const auto end = std::find(b.begin() + static_cast<std::ptrdiff_t>(at), b.end(), std::byte{0});
      if (end == b.end()) fail(ErrorCode::bad_file, "{}: gzip header: its {} has no end", name, flag == 8 ? "name" : "comment");
      at = static_cast<std::size_t>(end - b.begin()) + 1;
    }
  if (flags & 2) {  // FHCRC
    need(2, "checksum");
    const unsigned stored = static_cast<unsigned>(b[at]) | static_cast<unsigned>(b[at + 1]) << 8;
    const unsigned found = static_cast<unsigned>(crc32(0, zbytes(b, start), static_cast<uInt>(at - start))) & 0xffff;
    if (stored != found)
      fail(ErrorCode::bad_file, "{}: gzip header checksum is {:#06x}, the header's bytes give {:#06x}", name, stored, found);
    at += 2;
  }
  return at - start;
}

bool all_zero(Bytes b) {
  return std::all_of(b.begin(), b.end(), [](std::byte x) { return x == std::byte{0}; });
}
void check_rest(Bytes rest, Warnings& warnings) {
  if (!all_zero(rest)) warnings.push_back({"trailing_junk", fmt::format("{} bytes after the gzip data are no gzip: ignored", rest.size())});
}

struct FreeDecompressor {
  void operator()(libdeflate_decompressor* d) const { libdeflate_free_decompressor(d); }
};

// Everything at once. nullopt: anything unusual, for the slow path to judge.
std::optional<Buffer> unpack_whole(Bytes packed, std::uint64_t needed, const std::string& name, Warnings& warnings) {
  if (packed.size() < 18) return std::nullopt;
  const std::uint64_t told = little32(packed, packed.size() - 4);  // length mod 2^32, if there is one member and nothing after it
  const std::uint64_t room = told >= needed && told - needed <= (1u << 20) ? told : needed;
  if (room > allocation_limit(packed.size()) - packed.size()) return std::nullopt;
  const std::unique_ptr<libdeflate_decompressor, FreeDecompressor> d(libdeflate_alloc_decompressor());
  if (!d) return std::nullopt;
  Buffer out(room);
  std::size_t at = 0, done = 0;
  while (is_gzip(packed.subspan(at))) {
    at += member_header(packed, at, name);
    std::size_t used = 0, made = 0;
    if (libdeflate_deflate_decompress_ex(d.get(), packed.data() + at, packed.size() - at, out.data() + done, room - done, &used, &made) !=
        LIBDEFLATE_SUCCESS)
      return std::nullopt;
    at += used;
    if (packed.size() - at < 8) return std::nullopt;
    if (libdeflate_crc32(0, out.data() + done, made) != little32(packed, at) ||
        static_cast<std::uint32_t>(made) != little32(packed, at + 4))
      return std::nullopt;
    at += 8, done += made;
    if (at == packed.size()) break;
  }
  if (done < needed) return std::nullopt;
  check_rest(packed.subspan(at), warnings);
  out.shrink_view(done);
  return out;
}

// Calls sink(bytes) with pieces in order until it returns false or the file ends; checks each member. Returns the packed position reached.
// `scratch` is where pieces appear.
template <class Sink>
std::size_t unpack_stream(Bytes packed, std::span<std::byte> scratch, const std::string& name, Sink&& sink) {
  std::size_t at = 0;
  while (is_gzip(packed.subspan(at))) {
    at += member_header(packed, at, name);
    const Inflater z = raw_inflater();
    std::uint32_t crc = 0;
    std::uint64_t made = 0;
    for (int status = Z_OK; status != Z_STREAM_END;) {
      const std::size_t offered = std::min<std::size_t>(packed.size() - at, 1u << 30);
      z->next_in = const_cast<Bytef*>(zbytes(packed, at));
      z->avail_in = static_cast<uInt>(offered);
      z->next_out = reinterpret_cast<Bytef*>(scratch.data());
      z->avail_out = static_cast<uInt>(scratch.size());
      status = inflate(z.get(), Z_NO_FLUSH);
      at += offered - z->avail_in;
      const std::size_t got = scratch.size() - z->avail_out;
      crc = libdeflate_crc32(crc, scratch.data(), got);
      made += got;
      if (got > 0 && !sink(Bytes(scratch.first(got)))) return at;
      if (status == Z_DATA_ERROR || status == Z_NEED_DICT)
        fail(ErrorCode::bad_file, "{}: damaged gzip data near byte {}: {}", name, at, z->msg ? z->msg : "preset dictionary");
      if (status == Z_MEM_ERROR) fail(ErrorCode::out_of_memory, "{}: zlib has no memory", name);
      if (status != Z_STREAM_END && at == packed.size() && z->avail_out > 0)
        fail(ErrorCode::bad_file, "{}: truncated: the gzip data end in the middle after {} unpacked bytes", name, made);
    }
    if (packed.size() - at < 8) fail(ErrorCode::bad_file, "{}: truncated: the gzip trailer (CRC and length) is missing", name);
    if (little32(packed, at) != crc)
      fail(ErrorCode::bad_file, "{}: gzip CRC is {:#010x}, the data give {:#010x}: damaged", name, little32(packed, at), crc);
    if (little32(packed, at + 4) != static_cast<std::uint32_t>(made))
      fail(ErrorCode::bad_file, "{}: gzip length is {}, unpacked were {} bytes: damaged", name, little32(packed, at + 4), made);
    at += 8;
    if (at == packed.size()) break;
  }
  return at;
}

}  // namespace

bool is_gzip(Bytes bytes) { return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b}; }

std::vector<std::byte> gunzip_prefix(Bytes packed, std::size_t count, const std::string& name) {
  std::vector<std::byte> out, scratch(std::min<std::size_t>(std::max<std::size_t>(count, 1), 1u << 16));
  try {
    unpack_stream(packed, scratch, name, [&](Bytes piece) {
      const std::size_t take = std::min(piece.size(), count - out.size());
      out.insert(out.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(take));
      return out.size() < count;
    });
  } catch (const Error&) {
    if (out.empty()) throw;
  }
  return out;
}

Buffer gunzip(Bytes packed, std::uint64_t needed, const std::string& name, Warnings& warnings) {
  if (needed / kMostRatio > packed.size())
    fail(ErrorCode::bad_file, "{}: the header asks for {} bytes, {} bytes of gzip cannot hold more than {}", name, needed, packed.size(),
         packed.size() * kMostRatio);
  Warnings found;
  if (auto whole = unpack_whole(packed, needed, name, found)) {
    warnings.insert(warnings.end(), found.begin(), found.end());
    return std::move(*whole);
  }
  constexpr std::size_t kFirst = std::size_t{4} << 20;
  Buffer out(static_cast<std::size_t>(std::min<std::uint64_t>(needed, kFirst)));
  std::vector<std::byte> scratch(1u << 18);
  std::uint64_t done = 0, beyond = 0;
  bool endless = false;
  const std::size_t at = unpack_stream(packed, scratch, name, [&](Bytes piece) {
    const std::size_t take = static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), needed - done));
    if (done + take > out.size())
      out.grow(static_cast<std::size_t>(std::min<std::uint64_t>(needed, std::max<std::uint64_t>(2 * out.size(), done + take))));
    std::memcpy(out.data() + done, piece.data(), take);
    done += take, beyond += piece.size() - take;
    endless = beyond > kTail;
    return !endless;
  });
  if (done < needed) fail(ErrorCode::bad_file, "{}: truncated: the header asks for {} bytes, the gzip data hold {}", name, needed, done);
  if (endless)
    warnings.push_back(
        {"gzip_tail", fmt::format("more than {} MiB follow the voxels: not read, and the gzip checksum not reached", kTail >> 20)});
  else
    check_rest(packed.subspan(at), warnings);
  return out;
}

void put_member(const Deflated& d, std::size_t bytes, const std::function<void(Bytes)>& put) {
  constexpr unsigned char kFront[10] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255};  // no time, no name, "fastest", system unknown
  put(std::as_bytes(std::span(kFront)));
  for (const Bytes& piece : d.pieces) put(piece);
  const std::uint32_t trailer[2] = {d.crc, static_cast<std::uint32_t>(bytes)};
  put(std::as_bytes(std::span(trailer)));
}

Buffer gzip(Bytes plain, int level) {
  require(level >= 1 && level <= 12, "gzip level {} (wanted 1..12)", level);
  if (level == 1) {
    const Deflated d = deflate_fast(plain);
    Buffer out(d.size() + 18);
    std::byte* to = out.data();
    put_member(d, plain.size(), [&to](Bytes b) { to = std::copy(b.begin(), b.end(), to); });
    return out;
  }
  struct Free {
    void operator()(libdeflate_compressor* c) const { libdeflate_free_compressor(c); }
  };
  const std::unique_ptr<libdeflate_compressor, Free> c(libdeflate_alloc_compressor(level));
  if (!c) fail(ErrorCode::out_of_memory, "libdeflate has no memory");
  Buffer out(libdeflate_gzip_compress_bound(c.get(), plain.size()));
  const std::size_t made = libdeflate_gzip_compress(c.get(), plain.data(), plain.size(), out.data(), out.size());
  if (made == 0) fail(ErrorCode::out_of_memory, "gzip: {} bytes do not fit the bound of libdeflate", plain.size());
  out.shrink_view(made);
  return out;
}

}  // namespace vg

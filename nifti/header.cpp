// Parsing and writing of NIfTI headers. The two structs below are the file formats themselves: every field sits at its natural alignment,
// so plain structs have the right layout (checked by static_assert).
#include "nifti/header.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "tensor/error.h"

namespace vg {
namespace {

static_assert(std::endian::native == std::endian::little, "voxgrad runs on little-endian hosts");

struct Raw1 {
  std::int32_t sizeof_hdr;  // 348
  char unused_a[35];        // ANALYZE leftovers
  char dim_info;
  std::int16_t dim[8];
  float intent_p[3];
  std::int16_t intent_code, datatype, bitpix, slice_start;
  float pixdim[8];
  float vox_offset, scl_slope, scl_inter;
  std::int16_t slice_end;
  char slice_code, xyzt_units;
  float cal_max, cal_min, slice_duration, toffset;
  std::int32_t glmax, glmin;
  char descrip[80], aux_file[24];
  std::int16_t qform_code, sform_code;
  float quatern[3], qoffset[3], srow[3][4];
  char intent_name[16], magic[4];
};
static_assert(sizeof(Raw1) == kNifti1Bytes && offsetof(Raw1, dim) == 40 && offsetof(Raw1, pixdim) == 76 &&
              offsetof(Raw1, vox_offset) == 108 && offsetof(Raw1, descrip) == 148 && offsetof(Raw1, qform_code) == 252 &&
              offsetof(Raw1, srow) == 280 && offsetof(Raw1, magic) == 344);

struct Raw2 {
  std::int32_t sizeof_hdr;  // 540
  char magic[8];
  std::int16_t datatype, bitpix;
  std::int64_t dim[8];
  double intent_p[3];
  double pixdim[8];
  std::int64_t vox_offset;
  double scl_slope, scl_inter, cal_max, cal_min, slice_duration, toffset;
  std::int64_t slice_start, slice_end;
  char descrip[80], aux_file[24];
  std::int32_t qform_code, sform_code;
  double quatern[3], qoffset[3], srow[3][4];
  std::int32_t slice_code, xyzt_units, intent_code;
  char intent_name[16], dim_info, unused[15];
};
static_assert(offsetof(Raw2, dim) == 16 && offsetof(Raw2, vox_offset) == 168 && offsetof(Raw2, descrip) == 240 &&
              offsetof(Raw2, qform_code) == 344 && offsetof(Raw2, srow) == 400 && offsetof(Raw2, intent_code) == 504 &&
              offsetof(Raw2, unused) == 525);

template <class T>
void swap_one(T& v) {
  auto* b = reinterpret_cast<unsigned char*>(&v);
  std::reverse(b, b + sizeof(T));
}
template <class T, std::size_t n>
void swap_one(T (&v)[n]) {
  for (T& x : v) swap_one(x);
}
template <class... Fields>
void swap_all(Fields&... f) {
  (swap_one(f), ...);
}
void swap_bytes(Raw1& h) {
  swap_all(h.sizeof_hdr, h.dim, h.intent_p, h.intent_code, h.datatype, h.bitpix, h.slice_start, h.pixdim, h.vox_offset, h.scl_slope,
           h.scl_inter, h.slice_end, h.cal_max, h.cal_min, h.slice_duration, h.toffset, h.glmax, h.glmin, h.qform_code, h.sform_code,
           h.quatern, h.qoffset, h.srow);
}
void swap_bytes(Raw2& h) {
  swap_all(h.sizeof_hdr, h.datatype, h.bitpix, h.dim, h.intent_p, h.pixdim, h.vox_offset, h.scl_slope, h.scl_inter, h.cal_max, h.cal_min,
           h.slice_duration, h.toffset, h.slice_start, h.slice_end, h.qform_code, h.sform_code, h.quatern, h.qoffset, h.srow, h.slice_code,
           h.xyzt_units, h.intent_code);
}

template <std::size_t n>
std::string text_of(const char (&field)[n]) {  // up to the first NUL; bytes that would disturb a terminal become '?'
  std::string s(field, std::find(field, field + n, '\0'));
  for (char& c : s)
    if (static_cast<unsigned char>(c) < 32 || c == 127) c = '?';
  return s;
}
template <std::size_t n>
void put_text(char (&field)[n], const std::string& s) {
  std::memset(field, 0, n);
  std::memcpy(field, s.data(), std::min(s.size(), n - 1));
}

constexpr struct {
  int code;
  Number type;
} kTypes[] = {{2, Number::u8},   {4, Number::i16},   {8, Number::i32},   {16, Number::f32},   {64, Number::f64},
              {256, Number::i8}, {512, Number::u16}, {768, Number::u32}, {1024, Number::i64}, {1280, Number::u64}};

void take_type(int code, NiftiHeader& out, const std::string& name) {
  auto take = [&](Number type, Pixel pixel) { out.type = type, out.pixel = pixel; };
  for (const auto& t : kTypes)
    if (t.code == code) return take(t.type, Pixel::real);
  const char* what = nullptr;
  switch (code) {
    case 32: return take(Number::f32, Pixel::complex);
    case 128: return take(Number::u8, Pixel::rgb);
    case 1792: return take(Number::f64, Pixel::complex);
    case 2304: return take(Number::u8, Pixel::rgba);
    case 0: what = "unknown type"; break;
    case 1: what = "1-bit binary"; break;
    case 255: what = "\"all\" (no type of one voxel)"; break;
    case 1536: what = "float128"; break;
    case 2048: what = "complex256"; break;
    default:
      fail(ErrorCode::bad_file, "{}: datatype = {} is no NIfTI type (wanted 2, 4, 8, 16, 64, 256, 512, 768, 1024 or 1280)", name, code);
  }
  fail(ErrorCode::unsupported, "{}: datatype = {}, {}: voxels of one real number each are wanted", name, code, what);
}

// Which byte order: the nifti_clib rule. dim[0] in 1..7 as it stands: native; else swapped, and then it must be in 1..7. Returns: was it
// swapped?
template <class Raw>
bool fix_byte_order(Raw& h, const std::string& name) {
  auto plausible = [](std::int64_t n) { return n >= 1 && n <= 7; };
  const std::int64_t native = h.dim[0];
  if (plausible(native)) return false;
  swap_bytes(h);
  if (plausible(h.dim[0])) return true;
  const bool swapped = h.sizeof_hdr == 348 || h.sizeof_hdr == 540;
  fail(ErrorCode::bad_file, "{}: dim[0] = {} axes (wanted 1..7)", name, swapped ? std::int64_t{h.dim[0]} : native);
}

// Extents, the FreeSurfer exceptions, and a product that fits.
template <class Raw>
void take_extents(const Raw& h, NiftiHeader& out, const std::string& name) {
  out.dim.assign(h.dim + 1, h.dim + 1 + h.dim[0]);
  if constexpr (std::is_same_v<Raw, Raw1>) {
    auto starts_with = [&](std::int64_t i, std::int64_t j, std::int64_t k) {
      return out.dim.size() >= 3 && out.dim[0] == i && out.dim[1] == j && out.dim[2] == k;
    };
    if (h.glmin > 0 && starts_with(-1, 1, 1)) {
      out.dim[0] = h.glmin;  // FreeSurfer: surface vectors longer than 32767 keep their length in glmin
    } else if (starts_with(27307, 1, 6)) {
      out.dim[0] = 163842, out.dim[2] = 1;  // FreeSurfer: icosahedron of order 7
    }
  }
  std::int64_t total = static_cast<std::int64_t>(size_of(out.type)) * components_of(out.pixel);
  for (std::size_t a = 0; a < out.dim.size(); ++a) {
    if (out.dim[a] < 1) fail(ErrorCode::bad_file, "{}: dim[{}] = {} (wanted at least 1)", name, a + 1, out.dim[a]);
    if (__builtin_mul_overflow(total, out.dim[a], &total) || total > (std::int64_t{1} << 60))
      fail(ErrorCode::bad_file, "{}: dim[1..{}] multiply to more than 2^60 bytes", name, out.dim.size());
  }
}

// scl_slope and scl_inter as applied.
void take_scaling(double slope, double inter, NiftiHeader& out, const std::string& name, Warnings& warnings) {
  if (slope == 0) return;  // the standard's way to say: none
  if (!std::isfinite(slope)) {
    warnings.push_back({"bad_slope", fmt::format("scl_slope = {}: no scaling is applied", slope)});
    return;
  }
  if (!std::isfinite(inter))
    fail(ErrorCode::bad_file, "{}: scl_inter = {} with scl_slope = {} (wanted a finite number)", name, inter, slope);
  out.slope = slope, out.inter = inter;
}

// What both versions store under the same names.
template <class Raw>
void take_common(const Raw& h, NiftiHeader& out, const std::string& name, Warnings& warnings) {
  out.datatype = h.datatype, out.bitpix = h.bitpix;
  take_type(h.datatype, out, name);
  const std::size_t bits = 8 * size_of(out.type) * static_cast<std::size_t>(components_of(out.pixel));
  if (static_cast<std::size_t>(h.bitpix) != bits)
    warnings.push_back(
        {"bad_bitpix", fmt::format("bitpix = {} but datatype {} has {} bits: the type counts", h.bitpix, h.datatype, bits)});
  for (int a = 0; a < 8; ++a) out.pixdim[a] = h.pixdim[a];
  take_scaling(h.scl_slope, h.scl_inter, out, name, warnings);
  out.sform_code = h.sform_code, out.qform_code = h.qform_code;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 4; ++c) out.srow[r][c] = h.srow[r][c];
    out.bcd[r] = h.quatern[r], out.qoffset[r] = h.qoffset[r], out.intent_p[r] = h.intent_p[r];
  }
  out.intent_code = h.intent_code, out.units = static_cast<int>(h.xyzt_units) & 255, out.dim_info = h.dim_info & 255,
  out.slice_code = h.slice_code;
  out.display_min = h.cal_min, out.display_max = h.cal_max, out.slice_duration = h.slice_duration, out.time_offset = h.toffset;
  out.slice_start = h.slice_start, out.slice_end = h.slice_end;
  out.intent_name = text_of(h.intent_name), out.description = text_of(h.descrip), out.auxiliary_file = text_of(h.aux_file);
  const int length_unit = out.units & 7;
  if (length_unit == 1 || length_unit == 3)
    warnings.push_back({"units_not_mm", fmt::format("xyzt_units says {}: numbers are taken as mm all the same",
                                                    length_unit == 1 ? "metres" : "micrometres")});
}

// vox_offset of a single file; `least` is 352 or 544.
void take_offset(double stored, std::uint64_t least, NiftiHeader& out, const std::string& name, Warnings& warnings) {
  if (!std::isfinite(stored) || stored > 0x1p60)
    fail(ErrorCode::bad_file, "{}: vox_offset = {} (wanted {} or more, within the file)", name, stored, least);
  if (stored == 0) {
    warnings.push_back({"bad_offset", fmt::format("vox_offset = 0 in a single file: {} is used", least)});
    out.data_offset = least;
    return;
  }
  if (stored < static_cast<double>(least)) fail(ErrorCode::bad_file, "{}: vox_offset = {} (wanted {} or more)", name, stored, least);
  out.data_offset = static_cast<std::uint64_t>(stored);
  if (stored != std::floor(stored))
    warnings.push_back({"bad_offset", fmt::format("vox_offset = {} is no whole number: {} is used", stored, out.data_offset)});
}

NiftiHeader parse1(Raw1 h, const std::string& name, Warnings& warnings) {
  NiftiHeader out;
  if (std::memcmp(h.magic, "ni1", 4) == 0) {
    out.detached = true;
  } else if (std::memcmp(h.magic, "n+1", 4) != 0) {
    const bool analyze = h.sizeof_hdr == 348 || h.sizeof_hdr == 0x5c010000;
    if (analyze && std::all_of(h.magic, h.magic + 4, [](char c) { return c == 0; }))
      fail(ErrorCode::unsupported, "{}: an ANALYZE 7.5 header (348 bytes, no NIfTI magic): it does not say which side is left", name);
    fail(ErrorCode::bad_file, "{}: not a NIfTI file: no magic \"n+1\" at byte 344", name);
  }
  out.big_endian = fix_byte_order(h, name);
  if (h.sizeof_hdr != 348)
    warnings.push_back(
        {"bad_header_size", fmt::format("sizeof_hdr = {} (wanted 348): magic and dim are sane, so it is ignored", h.sizeof_hdr)});
  take_common(h, out, name, warnings);
  take_extents(h, out, name);
  if (out.detached) {
    if (!(h.vox_offset >= 0 && h.vox_offset < 0x1p60f))
      fail(ErrorCode::bad_file, "{}: vox_offset = {} (wanted 0 or more)", name, h.vox_offset);
    out.data_offset = static_cast<std::uint64_t>(h.vox_offset);
  } else {
    take_offset(h.vox_offset, 352, out, name, warnings);
  }
  return out;
}

NiftiHeader parse2(Raw2 h, const std::string& name, Warnings& warnings) {
  NiftiHeader out;
  out.version = 2;
  out.detached = std::memcmp(h.magic, "ni2", 4) == 0;
  if (!out.detached && std::memcmp(h.magic, "n+2", 4) != 0)
    fail(ErrorCode::bad_file, "{}: not a NIfTI-2 file: no magic \"n+2\" at byte 4", name);
  constexpr char kLineEnds[] = {'\r', '\n', '\x1a', '\n'};
  if (std::memcmp(h.magic + 4, kLineEnds, 4) != 0) {
    if (std::any_of(h.magic + 4, h.magic + 8, [](char c) { return c != 0; }))
      fail(ErrorCode::bad_file, "{}: the NIfTI-2 magic's line ends were changed: the file went through a text conversion and is damaged",
           name);
    warnings.push_back({"bad_magic", "the NIfTI-2 magic lacks its four line-end bytes"});
  }
  out.big_endian = fix_byte_order(h, name);
  take_common(h, out, name, warnings);
  take_extents(h, out, name);
  if (h.vox_offset < 0 || h.vox_offset > (std::int64_t{1} << 60))
    fail(ErrorCode::bad_file, "{}: vox_offset = {} (wanted 544 or more, within the file)", name, h.vox_offset);
  if (out.detached) {
    out.data_offset = static_cast<std::uint64_t>(h.vox_offset);
  } else {
    take_offset(static_cast<double>(h.vox_offset), 544, out, name, warnings);
  }
  return out;
}

}  // namespace

int nifti_code(Number t) {
  for (const auto& k : kTypes)
    if (k.type == t) return k.code;
  return 0;
}

std::uint64_t NiftiHeader::voxel_bytes() const {
  std::uint64_t total = size_of(type) * static_cast<std::size_t>(components_of(pixel));
  for (std::int64_t e : dim) total *= static_cast<std::uint64_t>(e);
  return total;
}

Size3 NiftiHeader::size() const {
  Size3 s{1, 1, 1};
  for (std::size_t a = 0; a < 3 && a < dim.size(); ++a) s[a] = dim[a];
  return s;
}

NiftiHeader parse_header(std::span<const std::byte> bytes, const std::string& name, Warnings& warnings) {
  if (bytes.empty()) fail(ErrorCode::bad_file, "{}: empty file", name);
  std::int32_t first = 0;
  if (bytes.size() >= 4) std::memcpy(&first, bytes.data(), 4);
  constexpr std::int32_t kSize2 = 540, kSize2Swapped = 0x1c020000;
  if (first == kSize2 || first == kSize2Swapped) {
    if (bytes.size() < kNifti2Bytes) fail(ErrorCode::bad_file, "{}: {} bytes, shorter than a NIfTI-2 header (540)", name, bytes.size());
    Raw2 raw;
    std::memcpy(&raw, bytes.data(), kNifti2Bytes);
    return parse2(raw, name, warnings);
  }
  if (bytes.size() < kNifti1Bytes)
    fail(ErrorCode::bad_file, "{}: not a NIfTI file: {} bytes, shorter than a header (348)", name, bytes.size());
  Raw1 raw;
  std::memcpy(&raw, bytes.data(), kNifti1Bytes);
  return parse1(raw, name, warnings);
}

std::vector<std::byte> encode_header(const NiftiHeader& h) {
  auto fill = [&](auto& raw) {
    using Raw = std::remove_reference_t<decltype(raw)>;
    using Extent = std::remove_reference_t<decltype(raw.dim[0])>;
    using Real = std::remove_reference_t<decltype(raw.pixdim[0])>;
    raw.dim[0] = static_cast<Extent>(h.dim.size());
    for (std::size_t a = 1; a < 8; ++a) raw.dim[a] = a <= h.dim.size() ? static_cast<Extent>(h.dim[a - 1]) : Extent{1};
    raw.datatype = static_cast<std::int16_t>(nifti_code(h.type));
    raw.bitpix = static_cast<std::int16_t>(8 * size_of(h.type));
    for (int a = 0; a < 8; ++a) raw.pixdim[a] = static_cast<Real>(h.pixdim[a]);
    raw.vox_offset = static_cast<decltype(raw.vox_offset)>(h.data_offset);
    raw.scl_slope = static_cast<Real>(h.slope), raw.scl_inter = static_cast<Real>(h.inter);
    raw.sform_code = static_cast<decltype(raw.sform_code)>(h.sform_code),
    raw.qform_code = static_cast<decltype(raw.qform_code)>(h.qform_code);
    for (int r = 0; r < 3; ++r) {
      for (int c = 0; c < 4; ++c) raw.srow[r][c] = static_cast<Real>(h.srow[r][c]);
      raw.quatern[r] = static_cast<Real>(h.bcd[r]), raw.qoffset[r] = static_cast<Real>(h.qoffset[r]),
      raw.intent_p[r] = static_cast<Real>(h.intent_p[r]);
    }
    raw.intent_code = static_cast<decltype(raw.intent_code)>(h.intent_code);
    raw.xyzt_units = static_cast<decltype(raw.xyzt_units)>(h.units);
    raw.dim_info = static_cast<char>(h.dim_info), raw.slice_code = static_cast<decltype(raw.slice_code)>(h.slice_code);
    raw.cal_min = static_cast<Real>(h.display_min), raw.cal_max = static_cast<Real>(h.display_max);
    raw.slice_duration = static_cast<Real>(h.slice_duration), raw.toffset = static_cast<Real>(h.time_offset);
    raw.slice_start = static_cast<decltype(raw.slice_start)>(h.slice_start),
    raw.slice_end = static_cast<decltype(raw.slice_end)>(h.slice_end);
    put_text(raw.intent_name, h.intent_name);
    put_text(raw.descrip, h.description);
    put_text(raw.aux_file, h.auxiliary_file);
    std::vector<std::byte> bytes(h.header_bytes());
    static_assert(sizeof(Raw) >= kNifti1Bytes);
    std::memcpy(bytes.data(), &raw, bytes.size());
    return bytes;
  };
  if (h.version == 2) {
    Raw2 raw{};
    raw.sizeof_hdr = 540;
    std::memcpy(raw.magic, h.detached ? "ni2\0\r\n\x1a\n" : "n+2\0\r\n\x1a\n", 8);
    return fill(raw);
  }
  Raw1 raw{};
  raw.sizeof_hdr = 348;
  std::memcpy(raw.magic, h.detached ? "ni1" : "n+1", 4);
  return fill(raw);
}

std::vector<Extension> parse_extensions(std::span<const std::byte> bytes, const NiftiHeader& h, Warnings& warnings) {
  constexpr std::size_t kMost = 10'000;
  std::vector<Extension> out;
  std::size_t at = h.header_bytes();
  const std::size_t end = h.detached ? bytes.size() : std::min<std::uint64_t>(bytes.size(), h.data_offset);
  if (at + 4 > end || bytes[at] == std::byte{0}) return out;  // no extender, or it says: none
  auto stop = [&](std::string why) {
    warnings.push_back({"bad_extension", fmt::format("header extension {} {}: the rest is ignored", out.size() + 1, why)});
  };
  for (at += 4; at + 8 <= end;) {
    std::int32_t size = 0, code = 0;
    std::memcpy(&size, &bytes[at], 4);
    std::memcpy(&code, &bytes[at + 4], 4);
    if (h.big_endian) swap_one(size), swap_one(code);
    if (size < 16) return stop(fmt::format("claims {} bytes (wanted 16 or more)", size)), out;
    if (static_cast<std::size_t>(size) > end - at)
      return stop(fmt::format("claims {} bytes, {} are left before the voxels", size, end - at)), out;
    if (out.size() == kMost) return stop(fmt::format("is one of more than {}", kMost)), out;
    if (size % 16 != 0)
      warnings.push_back({"bad_extension", fmt::format("header extension {} has {} bytes, no multiple of 16", out.size() + 1, size)});
    out.push_back({code, {bytes.begin() + static_cast<std::ptrdiff_t>(at) + 8, bytes.begin() + static_cast<std::ptrdiff_t>(at) + size}});
    at += static_cast<std::size_t>(size);
  }
  return out;
}

}  // namespace vg

// MGH and MGZ, FreeSurfer's own volume format: 284 bytes of header, voxels, a few numbers of the scan behind them, everything big endian;
// MGZ is the same through gzip. Layout: FreeSurfer's mriio.c (mghRead, mghWrite) as described in its file format pages.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "nifti/files.h"
#include "nifti/gzip.h"
#include "tensor/error.h"

namespace vg {
namespace {

// At byte 0: seven int32 {version, width, height, depth, frames, type, dof}; at 28 an int16, goodRASFlag; at 30 fifteen float32: spacing,
// direction cosines of i, j, k (three each), c_ras. The rest up to 284 is unused. Behind the voxels float32 {TR ms, flip angle, TE, TI}.
constexpr std::size_t kFlagAt = 28, kFloatsAt = 30;
constexpr std::size_t kFooterBytes = 20;

template <class T>
T big(std::span<const std::byte> b, std::size_t at) {
  T v;
  std::memcpy(&v, b.data() + at, sizeof v);
  auto* p = reinterpret_cast<unsigned char*>(&v);
  std::reverse(p, p + sizeof v);
  return v;
}
template <class T>
void put_big(std::byte* to, T v) {
  auto* p = reinterpret_cast<unsigned char*>(&v);
  std::reverse(p, p + sizeof v);
  std::memcpy(to, &v, sizeof v);
}

constexpr struct {
  int code;
  Number type;
} kTypes[] = {{0, Number::u8}, {1, Number::i32}, {3, Number::f32}, {4, Number::i16}, {10, Number::u16}};

// The transform as stored. The values here are what goodRASFlag = 0 stands for: FreeSurfer's coronal slices.
struct Directions {
  double spacing[3] = {1, 1, 1}, cosines[3][3] = {{-1, 0, 0}, {0, 0, -1}, {0, 1, 0}}, centre[3] = {};

  // Columns: direction cosines times spacing. Origin: `centre` (c_ras) is the place of voxel (size / 2).
  Affine affine(const Size3& size) const {
    Affine out;
    for (int r = 0; r < 3; ++r) {
      out.m[r][3] = centre[r];
      for (int a = 0; a < 3; ++a) {
        out.m[r][a] = static_cast<double>(static_cast<float>(cosines[a][r] * spacing[a]));  // FreeSurfer's own precision
        out.m[r][3] -= out.m[r][a] * static_cast<double>(size[a]) / 2.0;
      }
    }
    return out;
  }
};

Placement place_of(std::span<const std::byte> b, const Size3& size, const std::string& name, Warnings& warnings) {
  Directions d;
  if (const auto flag = big<std::int16_t>(b, kFlagAt); flag <= 0) {  // FreeSurfer's rule; nibabel takes negative ones for good
    warnings.push_back(
        {"no_orientation",
         fmt::format("goodRASFlag = {}: left and right are a guess (FreeSurfer's default directions, LIA, are taken)", flag)});
    return {d.affine(size), TransformSource::none, 0};
  }
  for (std::size_t a = 0; a < 3; ++a) {
    d.spacing[a] = static_cast<double>(big<float>(b, kFloatsAt + 4 * a));
    for (std::size_t r = 0; r < 3; ++r) d.cosines[a][r] = static_cast<double>(big<float>(b, kFloatsAt + 12 + 12 * a + 4 * r));
    d.centre[a] = static_cast<double>(big<float>(b, kFloatsAt + 48 + 4 * a));
    if (d.spacing[a] < 0) {
      warnings.push_back({"bad_spacing", fmt::format("spacing {} = {} mm: taken as {}", a + 1, d.spacing[a], -d.spacing[a])});
      d.spacing[a] = -d.spacing[a];
    }
  }
  return place_by_directions(d.affine(size), name, warnings);
}

// All facts of the 284 bytes.
Image describe(std::span<const std::byte> b, bool packed, const std::string& name, Warnings& warnings) {
  if (b.size() < files::kMghHeaderBytes)
    fail(ErrorCode::bad_file, "{}: not an MGH file: {} bytes, shorter than a header ({})", name, b.size(), files::kMghHeaderBytes);
  if (const auto version = big<std::int32_t>(b, 0); version != 1)
    fail(ErrorCode::bad_file, "{}: MGH version = {} (wanted 1)", name, version);
  Image image;
  image.name = name;
  image.format = packed ? "MGZ" : "MGH";
  const auto code = big<std::int32_t>(b, 20);
  const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.code == code; });
  if (known == std::end(kTypes))
    fail(ErrorCode::unsupported, "{}: MGH type = {} (wanted 0 uchar, 1 int, 3 float, 4 short or 10 ushort)", name, code);
  image.type = known->type;
  std::int64_t total = static_cast<std::int64_t>(size_of(image.type));
  constexpr const char* kNames[] = {"width", "height", "depth", "nframes"};
  for (std::size_t a = 0; a < 4; ++a) {
    const std::int64_t extent = big<std::int32_t>(b, 4 + 4 * a);
    if (extent < 1) fail(ErrorCode::bad_file, "{}: {} = {} (wanted at least 1)", name, kNames[a], extent);
    if (__builtin_mul_overflow(total, extent, &total) || total > (std::int64_t{1} << 60))
      fail(ErrorCode::bad_file, "{}: width x height x depth x nframes are more than 2^60 bytes", name);
    if (a < 3 || extent > 1) image.dim.push_back(extent);
  }
  image.place = place_of(b, image.size(), name, warnings);
  image.pixdim[0] = 1;
  const Vec3 mm = spacing_of(image.place.affine);
  std::copy(mm.begin(), mm.end(), image.pixdim.begin() + 1);
  constexpr int kMillimetres = 2;
  image.units = kMillimetres;
  return image;
}

}  // namespace

namespace files {

bool is_mgh(std::span<const std::byte> start, const std::string& name) {
  auto text_at = [&](std::size_t at, const char* text) { return start.size() >= at + 3 && std::memcmp(start.data() + at, text, 3) == 0; };
  if (text_at(344, "n+1") || text_at(344, "ni1") || text_at(4, "n+2") || text_at(4, "ni2") || is_nrrd(start)) return false;
  if (ends_with(name, ".mgh") || ends_with(name, ".mgz") || ends_with(name, ".mgh.gz")) return true;
  if (start.size() < kMghHeaderBytes || big<std::int32_t>(start, 0) != 1) return false;
  const auto code = big<std::int32_t>(start, 20);
  return code >= 0 && code <= 10;
}

Image parse_mgh_header(std::span<const std::byte> start, bool packed, const std::string& name) {
  Warnings warnings;
  Image image = describe(start, packed, name, warnings);
  image.warnings = std::move(warnings);
  return image;
}

Image parse_mgh(Shared bytes, std::span<const std::byte> start, bool packed, const std::string& name) {
  Warnings warnings;
  check_name(name, packed, ".mgh", ".mgz", warnings);
  Image image = describe(start, packed, name, warnings);
  bytes = prove_present(std::move(bytes), kMghHeaderBytes, image.bytes(), name, warnings);
  const std::size_t footer = kMghHeaderBytes + image.bytes();
  if (bytes->size() >= footer + 4) {  // whatever else stands there (tags of FreeSurfer's programs) is not ours to know
    const auto repetition_ms = static_cast<double>(big<float>({bytes->data(), bytes->size()}, footer));
    constexpr int kMillimetresAndMilliseconds = 2 | 16;
    if (repetition_ms > 0 && std::isfinite(repetition_ms)) image.pixdim[4] = repetition_ms, image.units = kMillimetresAndMilliseconds;
  }
  take_voxels(image, std::move(bytes), kMghHeaderBytes, true);
  image.warnings = std::move(warnings);
  return image;
}

}  // namespace files

Buffer encode_mgh(const Image& image, int gzip_level) {
  const std::string& name = image.name;
  require(image.storage && image.offset + image.bytes() <= image.storage->size(), "{}: the image to write has no voxels", name);
  const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.type == image.type; });
  require(known != std::end(kTypes) && image.type != Number::u16, "{}: MGH cannot hold {} (wanted uint8, int16, int32 or float32)", name,
          name_of(image.type));
  require(image.slope == 1 && image.inter == 0, "{}: MGH cannot hold the scaling x {} + {} (wanted scaled voxels)", name, image.slope,
          image.inter);
  const Size3 size = image.size();
  const std::int64_t extents[4] = {size[0], size[1], size[2], image.frames()};
  Buffer whole(files::kMghHeaderBytes + image.bytes() + kFooterBytes);
  std::byte* to = whole.data();
  std::memset(to, 0, files::kMghHeaderBytes);
  put_big<std::int32_t>(to, 1);
  for (std::size_t a = 0; a < 4; ++a) {
    require(extents[a] >= 1 && extents[a] <= 0x7fffffff, "{}: MGH cannot hold an extent of {}", name, extents[a]);
    put_big(to + 4 + 4 * a, static_cast<std::int32_t>(extents[a]));
  }
  put_big<std::int32_t>(to + 20, known->code);
  const Affine& affine = image.place.affine;
  const bool guessed = image.place.source == TransformSource::none && affine == Directions{}.affine(size);
  put_big<std::int16_t>(to + kFlagAt, guessed ? 0 : 1);  // an affine that readers would not guess is never lost
  const Vec3 spacing = spacing_of(affine), centre = image.grid().centre();
  for (std::size_t a = 0; a < 3; ++a) {
    put_big(to + kFloatsAt + 4 * a, static_cast<float>(spacing[a]));
    for (std::size_t r = 0; r < 3; ++r) put_big(to + kFloatsAt + 12 + 12 * a + 4 * r, static_cast<float>(affine.m[r][a] / spacing[a]));
    put_big(to + kFloatsAt + 48 + 4 * a, static_cast<float>(centre[a]));
  }
  std::byte* voxels = to + files::kMghHeaderBytes;  // byte 284: a multiple of every element size but 8
  std::memcpy(voxels, image.voxels(), image.bytes());
  files::swap_voxels(voxels, image.elements(), size_of(image.type));
  std::byte* footer = voxels + image.bytes();
  std::memset(footer, 0, kFooterBytes);
  constexpr int kTimeUnits = 56, kSeconds = 8;
  const double repetition = image.dim.size() > 3 ? image.pixdim[4] * ((image.units & kTimeUnits) == kSeconds ? 1000 : 1) : 0;
  put_big(footer, static_cast<float>(repetition));
  return gzip_level == 0 ? std::move(whole) : gzip({whole.data(), whole.size()}, gzip_level);
}

}  // namespace vg

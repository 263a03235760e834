// NIfTI files <-> Image: one file or a pair, plain or gzip. Finds the voxels that the header speaks of; writes header and voxels.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "nifti/files.h"
#include "nifti/gzip.h"
#include "tensor/error.h"
#include "tensor/os.h"

namespace vg {
namespace files {
namespace {

namespace fs = std::filesystem;

StoredTransforms transforms_of(const NiftiHeader& h) {
  StoredTransforms t;
  t.sform_code = h.sform_code, t.qform_code = h.qform_code;
  for (int r = 0; r < 3; ++r) std::copy(h.srow[r], h.srow[r] + 4, t.srow[r]);
  t.bcd = h.bcd, t.offset = h.qoffset;
  for (std::size_t a = 0; a < 4; ++a) t.pixdim[a] = h.pixdim[a];
  for (std::size_t a = h.dim.size() + 1; a < 4; ++a)  // an axis that the file does not have needs no spacing
    if (!(t.pixdim[a] > 0)) t.pixdim[a] = 1;
  return t;
}

// Facts of the header, all but the voxels.
Image describe(const NiftiHeader& h, const std::string& name, bool packed, Warnings& warnings) {
  Image image;
  image.name = name;
  image.format = fmt::format("NIfTI-{}, {} endian{}{}", h.version, h.big_endian ? "big" : "little", h.detached ? ", magic of a pair" : "",
                             packed ? ", gzip" : "");
  if (h.pixel != Pixel::real) image.format += h.pixel == Pixel::complex ? ", magnitude of complex numbers" : ", luminance of colour";
  image.type = h.type;
  image.dim = h.dim;
  image.place = place(transforms_of(h), h.size(), name, warnings);
  image.slope = h.slope, image.inter = h.inter;
  image.pixdim = h.pixdim;
  image.intent_code = h.intent_code, image.units = h.units;
  image.intent_name = h.intent_name, image.description = h.description, image.auxiliary_file = h.auxiliary_file;
  image.display_min = h.display_min, image.display_max = h.display_max;
  return image;
}

// The path without .hdr, .img, .hdr.gz or .img.gz.
std::string stem_of_pair(const std::string& path) { return path.substr(0, path.size() - (ends_with(path, ".gz") ? 7 : 4)); }

// The first of STEM.KIND, STEM.KIND.gz (same case as `like`, then the other) that is there; "" for none.
std::string find_part(const std::string& like, const char* kind) {
  const std::string stem = stem_of_pair(like), lower = std::string(".") + kind;
  std::string upper = lower;
  std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  const bool is_upper = like[stem.size() + 1] < 'a', gz = ends_with(like, ".gz");
  for (const std::string& ending : {is_upper ? upper : lower, is_upper ? lower : upper})
    for (const bool packed : {gz, !gz})
      for (const char* tail : {packed ? ".gz" : "", packed ? ".GZ" : ""})
        if (std::error_code ignored; fs::exists(stem + ending + tail, ignored)) return stem + ending + tail;
  return "";
}

}  // namespace

Image parse_nifti_header(std::span<const std::byte> start, bool packed, const std::string& name, const PixelOptions& options) {
  Warnings warnings;
  const NiftiHeader header = parse_header(start, name, warnings);
  check_pixel(header, name, options);
  Image image = describe(header, name, packed, warnings);
  if (header.pixel != Pixel::real) {  // what make_real will leave
    image.type = header.type == Number::f64 ? Number::f64 : Number::f32;
    image.slope = 1, image.inter = 0;
  }
  image.warnings = std::move(warnings);
  return image;
}

Image parse_nifti(Shared bytes, std::span<const std::byte> start, bool packed, const std::string& name, const PixelOptions& options) {
  Warnings warnings;
  check_name(name, packed, ".nii", ".gz", warnings);
  NiftiHeader header = parse_header(start, name, warnings);
  check_pixel(header, name, options);
  Image image = describe(header, name, packed, warnings);
  if (header.detached) {
    if (is_pair_name(name))
      fail(ErrorCode::bad_file, "{}: the header of a .hdr/.img pair without its voxels (wanted both files, by path)", name);
    warnings.push_back({"pair_magic", "the magic is that of a .hdr/.img pair, in a single file: read as a single file"});
    header.detached = false;
    // Pairs that were renamed start their voxels anywhere; nothing starts inside the header.
    header.data_offset = std::max<std::uint64_t>(header.data_offset, header.header_bytes() + 4);
  }
  bytes = prove_present(std::move(bytes), header.data_offset, header.voxel_bytes(), name, warnings);
  image.extensions = parse_extensions({bytes->data(), bytes->size()}, header, warnings);
  take_voxels(image, std::move(bytes), header.data_offset, header.big_endian, components_of(header.pixel));
  make_real(image, header.pixel);
  image.warnings = std::move(warnings);
  return image;
}

bool is_pair_name(const std::string& path) {
  for (const char* ending : {".hdr", ".img", ".hdr.gz", ".img.gz"})
    if (ends_with(path, ending)) return true;
  return false;
}

std::string header_of_pair(const std::string& path) {
  if (ends_with(path, ".hdr") || ends_with(path, ".hdr.gz")) return path;
  const std::string header = find_part(path, "hdr");
  if (header.empty()) fail(ErrorCode::io, "{}: voxels without a header: neither {}.hdr nor .hdr.gz is there", path, stem_of_pair(path));
  return header;
}

Image parse_pair(Shared head, const LoadVoxels& load_voxels, const std::string& path, const std::string& header_path,
                 const PixelOptions& options) {
  const bool packed = is_gzip({head->data(), head->size()});
  Warnings warnings;
  const std::vector<std::byte> unpacked =
      packed ? gunzip_prefix({head->data(), head->size()}, kHeaderProbeBytes, header_path) : std::vector<std::byte>{};
  const std::span<const std::byte> start =
      packed ? std::span<const std::byte>(unpacked) : std::span<const std::byte>(head->data(), head->size());
  const NiftiHeader header = parse_header(start, header_path, warnings);
  if (!header.detached) return parse_nifti(std::move(head), start, packed, header_path, options);  // a single file under a pair's name
  check_pixel(header, header_path, options);
  auto [voxels, voxel_path] = load_voxels();
  Image image = describe(header, path, packed, warnings);
  image.format = fmt::format("NIfTI-{} pair, {} endian{}", header.version, header.big_endian ? "big" : "little",
                             packed || is_gzip({voxels->data(), voxels->size()}) ? ", gzip" : "");
  if (packed) {  // all of the header file, for its extensions, as far as the law of allocation goes
    Warnings ignored;
    const std::span<const std::byte> file{head->data(), head->size()};
    const std::size_t present = gunzip_prefix(file, allocation_limit(file.size()) / 4, header_path).size();
    head = std::make_shared<Buffer>(gunzip(file, std::max<std::uint64_t>(present, header.header_bytes()), header_path, ignored));
  }
  image.extensions = parse_extensions({head->data(), head->size()}, header, warnings);
  voxels = prove_present(std::move(voxels), header.data_offset, header.voxel_bytes(), voxel_path, warnings);
  take_voxels(image, std::move(voxels), header.data_offset, header.big_endian, components_of(header.pixel));
  make_real(image, header.pixel);
  image.warnings = std::move(warnings);
  return image;
}

Image read_pair(const std::string& path, const PixelOptions& options) {
  const std::string header_path = header_of_pair(path);
  const LoadVoxels load_voxels = [&] {
    const std::string voxel_path = find_part(header_path, "img");
    if (voxel_path.empty())
      fail(ErrorCode::io, "{}: the header of a pair, and neither {}.img nor .img.gz is there", header_path, stem_of_pair(header_path));
    return std::pair{std::make_shared<Buffer>(load(voxel_path)), voxel_path};
  };
  return parse_pair(std::make_shared<Buffer>(load(header_path)), load_voxels, path, header_path, options);
}

}  // namespace files

namespace {

// The code that the image came with. An affine without a code is written as "aligned", unless it is the one that readers make up anyway.
int code_to_write(const Image& image) {
  if (image.place.code > 0) return image.place.code;
  StoredTransforms none;
  const Vec3 mm = spacing_of(image.place.affine);
  std::copy(mm.begin(), mm.end(), none.pixdim.begin() + 1);
  Warnings ignored;
  constexpr int kAligned = 2;
  return corner_distance(image.size(), place(none, image.size(), image.name, ignored).affine, image.place.affine) < 1e-3 ? 0 : kAligned;
}

// Bytes of an extension in the file: eight in front, a multiple of 16.
std::size_t padded(const Extension& e) { return (e.bytes.size() + 8 + 15) / 16 * 16; }

void need_voxels(const Image& image, const std::string& path) {
  require(image.storage && image.offset + image.bytes() <= image.storage->size(), "{}: the image to write has no voxels", path);
}

NiftiHeader header_of(const Image& image, const std::string& path) {
  require(!image.dim.empty() && image.dim.size() <= 7, "{}: {} axes (wanted 1..7)", path, image.dim.size());
  NiftiHeader h;
  h.dim = image.dim;
  h.version = std::any_of(h.dim.begin(), h.dim.end(), [](std::int64_t e) { return e > 32767; }) ? 2 : 1;
  h.type = image.type;
  h.slope = image.slope, h.inter = image.inter;
  h.pixdim = image.pixdim;
  h.units = image.units;
  h.intent_code = image.intent_code, h.intent_name = image.intent_name;
  h.description = image.description, h.auxiliary_file = image.auxiliary_file;
  h.display_min = image.display_min, h.display_max = image.display_max;
  const QForm q = to_qform(image.place.affine);
  h.sform_code = h.qform_code = code_to_write(image);
  for (int r = 0; r < 3; ++r) std::copy(image.place.affine.m[r], image.place.affine.m[r] + 4, h.srow[r]);
  h.bcd = q.bcd, h.qoffset = q.offset;
  h.pixdim[0] = q.qfac;
  for (int a = 0; a < 3; ++a) h.pixdim[a + 1] = q.spacing[a];
  // NIfTI-1 holds floats: an affine or a scaling out of their range goes into NIfTI-2, which holds doubles.
  const auto beyond = [](double v) { return std::isfinite(v) && v != 0 && !std::isnormal(static_cast<float>(v)); };
  if (beyond(h.slope) || beyond(h.inter) || std::any_of(&h.srow[0][0], &h.srow[0][0] + 12, beyond) ||
      std::any_of(h.pixdim.begin(), h.pixdim.end(), beyond))
    h.version = 2;
  h.data_offset = h.header_bytes() + 4;
  for (const Extension& e : image.extensions) h.data_offset += padded(e);
  return h;
}

// Header, extender and extensions: the first `bytes` of the file.
void put_front(const NiftiHeader& h, std::size_t bytes, const Image& image, std::byte* to) {
  std::memset(to, 0, bytes);
  const std::vector<std::byte> head = encode_header(h);
  std::memcpy(to, head.data(), head.size());
  to[head.size()] = std::byte{!image.extensions.empty()};
  std::size_t at = head.size() + 4;
  for (const Extension& e : image.extensions) {
    const auto size = static_cast<std::int32_t>(padded(e));
    const std::int32_t code = e.code;
    std::memcpy(to + at, &size, 4);
    std::memcpy(to + at + 4, &code, 4);
    if (!e.bytes.empty()) std::memcpy(to + at + 8, e.bytes.data(), e.bytes.size());
    at += padded(e);
  }
}

enum class Format { nifti, pair, mgh };
Format format_of(const std::string& path) {
  if (files::is_pair_name(path)) return Format::pair;
  if (files::ends_with(path, ".nii") || files::ends_with(path, ".nii.gz")) return Format::nifti;
  const bool mgh = files::ends_with(path, ".mgh") || files::ends_with(path, ".mgz");
  require(mgh, "{}: images are written to names that end in .nii, .nii.gz, .hdr, .img, .mgh or .mgz", path);
  return Format::mgh;
}

void write_file(const std::string& path, std::span<const std::byte> whole, const ImageWriteOptions& options) {
  os::AtomicFile file(path);
  if (files::ends_with(path, ".gz")) {
    const Buffer packed = gzip(whole, options.gzip_level);
    file.write(packed.data(), packed.size());
  } else {
    file.write(whole.data(), whole.size());
  }
  file.commit();
}

// x.hdr and x.img, both plain or both .gz, whichever of the names was given. The voxels first: a header without them is the worse half.
void write_pair(const std::string& path, const Image& image, const ImageWriteOptions& options) {
  need_voxels(image, path);
  NiftiHeader h = header_of(image, path);
  Buffer front(h.data_offset);
  h.detached = true;
  const std::size_t bytes = h.data_offset;
  h.data_offset = 0;
  put_front(h, bytes, image, front.data());
  const std::string stem = files::stem_of_pair(path), packed = files::ends_with(path, ".gz") ? ".gz" : "";
  write_file(stem + ".img" + packed, {image.voxels(), image.bytes()}, options);
  write_file(stem + ".hdr" + packed, {front.data(), front.size()}, options);
}

Buffer joined(const NiftiHeader& h, const Image& image) {
  need_voxels(image, image.name);
  Buffer whole(h.data_offset + image.bytes());
  put_front(h, h.data_offset, image, whole.data());
  std::memcpy(whole.data() + h.data_offset, image.voxels(), image.bytes());
  return whole;
}

}  // namespace

Buffer encode_image(const Image& image, int gzip_level) {
  Buffer whole = joined(header_of(image, image.name), image);
  return gzip_level == 0 ? std::move(whole) : gzip({whole.data(), whole.size()}, gzip_level);
}

void write_image(const std::string& path, const Image& image, const ImageWriteOptions& options) {
  const Format format = format_of(path);
  if (format == Format::mgh) {
    const bool packed = files::ends_with(path, ".mgz");
    require(!packed || (options.gzip_level >= 1 && options.gzip_level <= 12), "gzip level {} (wanted 1..12)", options.gzip_level);
    const Buffer whole = encode_mgh(image, packed ? options.gzip_level : 0);
    os::AtomicFile file(path);
    file.write(whole.data(), whole.size());
    return file.commit();
  }
  if (format == Format::pair) return write_pair(path, image, options);
  const Buffer whole = joined(header_of(image, path), image);
  write_file(path, {whole.data(), whole.size()}, options);
}

void write_image(const std::string& path, Image&& image, const ImageWriteOptions& options) {
  const Image& kept = image;
  if (format_of(path) != Format::nifti) return write_image(path, kept, options);
  need_voxels(image, path);
  const NiftiHeader h = header_of(image, path);
  if (image.offset < h.data_offset || image.storage.use_count() != 1) return write_image(path, kept, options);
  std::byte* start = image.storage->data() + image.offset - h.data_offset;
  put_front(h, h.data_offset, image, start);
  write_file(path, {start, h.data_offset + image.bytes()}, options);
}

bool files::write_nifti_gz(const std::string& path, const Image& facts, const VoxelSource& put) {
  const NiftiHeader h = header_of(facts, path);
  const std::size_t front = h.data_offset, unit = size_of(facts.type);  // front is a multiple of 8: elements do not straddle pieces
  Buffer head(front);
  put_front(h, h.data_offset, facts, head.data());
  const std::size_t bytes = front + facts.bytes();
  const Deflated packed = deflate_fast(bytes, [&](std::size_t begin, std::size_t end, std::byte* to) {
    if (begin < front) {
      const std::size_t part = std::min(end, front) - begin;
      std::memcpy(to, head.data() + begin, part);
      begin += part, to += part;
    }
    return put(static_cast<std::int64_t>((begin - front) / unit), static_cast<std::int64_t>((end - begin) / unit), to);
  });
  if (!packed.complete) return false;
  os::AtomicFile file(path);
  put_member(packed, bytes, [&file](std::span<const std::byte> b) { file.write(b.data(), b.size()); });
  file.commit();
  return true;
}

}  // namespace vg

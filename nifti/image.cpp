// Files <-> Image: finds the voxels behind a NIfTI header, unpacks and proves them present, turns them into the host's byte order; and
// writes.
#include "nifti/image.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "nifti/gzip.h"
#include "nifti/header.h"
#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

constexpr std::align_val_t kAlign{64};

std::string lower_case(std::string s) {
  for (char& c : s)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return s;
}
bool ends_with(const std::string& name, const char* ending) { return lower_case(name).ends_with(ending); }

template <class T>
T byteswapped(T v) {
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(v);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(v);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(v);
  return v;
}
template <class T>
void swap_range(std::byte* data, std::int64_t count) {
  T* v = reinterpret_cast<T*>(data);
  parallel_for(count, 1 << 18, [v](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) v[n] = byteswapped(v[n]);
  });
}
void swap_voxels(std::byte* data, std::int64_t count, std::size_t size) {
  if (size == 2) swap_range<std::uint16_t>(data, count);
  if (size == 4) swap_range<std::uint32_t>(data, count);
  if (size == 8) swap_range<std::uint64_t>(data, count);
}

Buffer load(const std::string& path) {
  os::InputFile file(path);
  Buffer bytes(file.size());
  std::size_t done = 0;
  while (done < bytes.size()) {
    const std::size_t got = file.read(bytes.data() + done, bytes.size() - done);
    if (got == 0) break;  // became shorter while we read: what is there is judged
    done += got;
  }
  bytes.shrink_view(done);
  return bytes;
}

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
Image describe(const NiftiHeader& h, const std::string& name, Warnings& warnings) {
  Image image;
  image.name = name;
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

std::string format_name(const NiftiHeader& h, bool packed) {
  return fmt::format("NIfTI-{}, {} endian{}{}", h.version, h.big_endian ? "big" : "little", h.detached ? ", magic of a pair" : "",
                     packed ? ", gzip" : "");
}

}  // namespace

void Buffer::Free::operator()(std::byte* p) const { ::operator delete(p, kAlign); }

Buffer::Buffer(std::size_t bytes) : size_(bytes) {
  void* p = ::operator new(std::max<std::size_t>(bytes, 1), kAlign, std::nothrow);
  if (!p) fail(ErrorCode::out_of_memory, "no memory for {} bytes of image data", bytes);
  data_.reset(static_cast<std::byte*>(p));
}

void Buffer::grow(std::size_t bytes) {
  Buffer bigger(bytes);
  std::memcpy(bigger.data(), data(), std::min(size_, bytes));
  *this = std::move(bigger);
}

Size3 Image::size() const {
  Size3 s{1, 1, 1};
  for (std::size_t a = 0; a < 3 && a < dim.size(); ++a) s[a] = dim[a];
  return s;
}
std::int64_t Image::frames() const {
  std::int64_t n = 1;
  for (std::size_t a = 3; a < dim.size(); ++a) n *= dim[a];
  return n;
}
std::int64_t Image::elements() const {
  std::int64_t n = 1;
  for (std::int64_t e : dim) n *= e;
  return n;
}

Image parse_image(std::shared_ptr<Buffer> bytes, const std::string& name) {
  Warnings warnings;
  const std::span<const std::byte> all(bytes->data(), bytes->size());
  const bool packed = is_gzip(all);
  if (packed != ends_with(name, ".gz") && ends_with(name, packed ? ".nii" : ".gz"))
    warnings.push_back(
        {"misleading_name", packed ? "named like a plain file, but the content is gzip" : "named .gz, but the content is not gzip"});

  const std::vector<std::byte> unpacked_start = packed ? gunzip_prefix(all, kHeaderProbeBytes, name) : std::vector<std::byte>{};
  const NiftiHeader header = parse_header(packed ? std::span<const std::byte>(unpacked_start) : all, name, warnings);
  if (header.detached) {
    if (ends_with(name, ".hdr") || ends_with(name, ".hdr.gz"))
      fail(ErrorCode::unsupported, "{}: the header of a .hdr/.img pair: convert it to a single .nii file", name);
    warnings.push_back({"pair_magic", "the magic is that of a .hdr/.img pair, in a single file: read as a single file"});
  }
  // Pairs that were renamed start their voxels anywhere; nothing starts inside the header.
  const std::uint64_t least = header.header_bytes() + 4, start = header.detached ? std::max(header.data_offset, least) : header.data_offset;
  const std::uint64_t needed = start + header.voxel_bytes();  // both at most 2^60
  Image image = describe(header, name, warnings);
  image.format = format_name(header, packed);

  if (packed) {
    bytes = std::make_shared<Buffer>(gunzip(all, needed, name, warnings));
  } else if (needed > bytes->size()) {
    fail(ErrorCode::bad_file, "{}: truncated: the header asks for {} bytes ({} of voxels from byte {}), the file has {}", name, needed,
         header.voxel_bytes(), start, bytes->size());
  }
  image.extensions = parse_extensions({bytes->data(), bytes->size()}, header, warnings);

  const std::size_t unit = size_of(image.type);
  image.offset = start / unit * unit;  // voxels are used in place: bring them to a multiple of their size
  if (image.offset != start) std::memmove(bytes->data() + image.offset, bytes->data() + start, image.bytes());
  image.storage = std::move(bytes);
  if (header.big_endian) swap_voxels(image.storage->data() + image.offset, image.elements(), unit);
  image.warnings = std::move(warnings);
  return image;
}

Image parse_image(std::span<const std::byte> bytes, const std::string& name) {
  auto copy = std::make_shared<Buffer>(bytes.size());
  if (!bytes.empty()) std::memcpy(copy->data(), bytes.data(), bytes.size());
  return parse_image(std::move(copy), name);
}

Image read_image(const std::string& path) { return parse_image(std::make_shared<Buffer>(load(path)), path); }

Image read_image_header(const std::string& path) {
  constexpr std::size_t kProbe = 1u << 16;
  os::InputFile file(path);
  std::vector<std::byte> bytes(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), kProbe)));
  bytes.resize(file.read(bytes.data(), bytes.size()));
  const bool packed = is_gzip(bytes);
  if (packed && file.size() > kProbe && (bytes[3] & std::byte{0x1c}) != std::byte{0}) {  // names and fields in the gzip header may be long
    Image image = read_image(path);
    image.storage.reset();
    return image;
  }
  Warnings warnings;
  const NiftiHeader header = parse_header(packed ? gunzip_prefix(bytes, kHeaderProbeBytes, path) : bytes, path, warnings);
  Image image = describe(header, path, warnings);
  image.format = format_name(header, packed);
  image.warnings = std::move(warnings);
  return image;
}

namespace {

NiftiHeader header_of(const Image& image, const std::string& path) {
  require(image.storage && image.offset + image.bytes() <= image.storage->size(), "{}: the image to write has no voxels", path);
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
  h.data_offset = h.header_bytes() + 4;
  for (const Extension& e : image.extensions) h.data_offset += padded(e);
  return h;
}

// Header, extender and extensions: the first data_offset bytes of the file.
void put_front(const NiftiHeader& h, const Image& image, std::byte* to) {
  std::memset(to, 0, h.data_offset);
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

void write_file(const std::string& path, std::span<const std::byte> whole, const ImageWriteOptions& options) {
  require(ends_with(path, ".nii") || ends_with(path, ".nii.gz"), "{}: NIfTI is written to names that end in .nii or .nii.gz", path);
  os::AtomicFile file(path);
  if (ends_with(path, ".gz")) {
    const Buffer packed = gzip(whole, options.gzip_level);
    file.write(packed.data(), packed.size());
  } else {
    file.write(whole.data(), whole.size());
  }
  file.commit();
}

Buffer joined(const NiftiHeader& h, const Image& image) {
  Buffer whole(h.data_offset + image.bytes());
  put_front(h, image, whole.data());
  std::memcpy(whole.data() + h.data_offset, image.voxels(), image.bytes());
  return whole;
}

}  // namespace

Buffer encode_image(const Image& image, int gzip_level) {
  Buffer whole = joined(header_of(image, image.name), image);
  return gzip_level == 0 ? std::move(whole) : gzip({whole.data(), whole.size()}, gzip_level);
}

void write_image(const std::string& path, const Image& image, const ImageWriteOptions& options) {
  const Buffer whole = joined(header_of(image, path), image);
  write_file(path, {whole.data(), whole.size()}, options);
}

void write_image(const std::string& path, Image&& image, const ImageWriteOptions& options) {
  const NiftiHeader h = header_of(image, path);
  if (image.offset < h.data_offset || image.storage.use_count() != 1) return write_image(path, static_cast<const Image&>(image), options);
  std::byte* start = image.storage->data() + image.offset - h.data_offset;
  put_front(h, image, start);
  write_file(path, {start, h.data_offset + image.bytes()}, options);
}

}  // namespace vg

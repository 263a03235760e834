// Which reader for which file, and what the readers share: unpacking, proof that the voxels are there, alignment and byte order, colour and
// complex numbers on the way to real ones.
#include "nifti/image.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <new>

#include "nifti/dicom.h"
#include "nifti/files.h"
#include "nifti/gzip.h"
#include "nifti/header.h"
#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

constexpr std::align_val_t kAlign{64};
constexpr std::int64_t kChunk = 1 << 18;

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
  parallel_for(count, kChunk, [v](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) v[n] = byteswapped(v[n]);
  });
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

namespace files {

bool ends_with(const std::string& name, const char* ending) {
  const std::size_t n = std::strlen(ending);
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return name.size() >= n &&
         std::equal(name.end() - static_cast<std::ptrdiff_t>(n), name.end(), ending, [&](char a, char b) { return lower(a) == b; });
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

Start load_start(const std::string& path, std::size_t count) {
  os::InputFile file(path);
  std::vector<std::byte> bytes;
  auto read_up_to = [&](std::uint64_t wanted) {
    const std::size_t have = bytes.size();
    bytes.resize(static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), wanted)));
    bytes.resize(have + (bytes.size() > have ? file.read(bytes.data() + have, bytes.size() - have) : 0));
  };
  read_up_to(count);
  if (!is_gzip(bytes)) return {std::move(bytes), false};
  // Two small pieces for the usual file; a gzip header with a long name or field may need more.
  for (std::uint64_t wanted : {std::uint64_t{1} << 10, std::uint64_t{1} << 16, file.size()}) {
    read_up_to(wanted);
    const bool all = bytes.size() >= file.size();
    try {
      std::vector<std::byte> start = gunzip_prefix(bytes, count, path);
      if (all || start.size() >= count) return {std::move(start), true};
    } catch (const Error&) {
      if (all) throw;
    }
  }
  return {gunzip_prefix(bytes, count, path), true};  // the file became shorter while we read
}

Shared prove_present(Shared bytes, std::uint64_t start, std::uint64_t voxel_bytes, const std::string& name, Warnings& warnings) {
  const std::uint64_t needed = start + voxel_bytes;  // both at most 2^60
  if (is_gzip({bytes->data(), bytes->size()}))
    return std::make_shared<Buffer>(gunzip({bytes->data(), bytes->size()}, needed, name, warnings));
  if (needed > bytes->size())
    fail(ErrorCode::bad_file, "{}: truncated: the header asks for {} bytes ({} of voxels from byte {}), the file has {}", name, needed,
         voxel_bytes, start, bytes->size());
  return bytes;
}

void take_voxels(Image& image, Shared bytes, std::uint64_t start, bool big_endian, int components) {
  const std::size_t unit = size_of(image.type), count = static_cast<std::size_t>(image.elements() * components);
  image.offset = start / unit * unit;  // voxels are used in place: bring them to a multiple of their size
  if (image.offset != start) std::memmove(bytes->data() + image.offset, bytes->data() + start, count * unit);
  image.storage = std::move(bytes);
  if (big_endian) swap_voxels(image.storage->data() + image.offset, static_cast<std::int64_t>(count), unit);
}

void swap_voxels(std::byte* data, std::int64_t count, std::size_t size) {
  if (size == 2) swap_range<std::uint16_t>(data, count);
  if (size == 4) swap_range<std::uint32_t>(data, count);
  if (size == 8) swap_range<std::uint64_t>(data, count);
}

void check_name(const std::string& name, bool packed, const char* plain_ending, const char* packed_ending, Warnings& warnings) {
  if (packed != ends_with(name, packed_ending) && ends_with(name, packed ? plain_ending : packed_ending))
    warnings.push_back({"misleading_name", packed ? "named like a plain file, but the content is gzip"
                                                  : fmt::format("named {}, but the content is not gzip", packed_ending)});
}

void check_pixel(const NiftiHeader& h, const std::string& name, const PixelOptions& options) {
  const char* what = h.pixel == Pixel::rgb    ? "RGB24 colour"
                     : h.pixel == Pixel::rgba ? "RGBA32 colour"
                     : h.type == Number::f32  ? "complex64"
                                              : "complex128";
  if (h.pixel == Pixel::complex && !options.magnitude)
    fail(ErrorCode::unsupported, "{}: datatype = {}, {}: voxels of one real number each are wanted (or the option to take the magnitude)",
         name, h.datatype, what);
  if ((h.pixel == Pixel::rgb || h.pixel == Pixel::rgba) && !options.luminance)
    fail(ErrorCode::unsupported, "{}: datatype = {}, {}: voxels of one real number each are wanted (or the option to take the luminance)",
         name, h.datatype, what);
}

namespace {

// out[n] = make(the voxel's components), for all voxels; `In` of the component, `Out` of the result.
template <class In, class Out, class Make>
void collapse(Image& image, Number type, int components, Make make) {
  auto out = std::make_shared<Buffer>(static_cast<std::size_t>(image.elements()) * sizeof(Out));
  const In* from = reinterpret_cast<const In*>(image.voxels());
  Out* to = reinterpret_cast<Out*>(out->data());
  parallel_for(image.elements(), kChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) to[n] = make(from + n * components);
  });
  image.storage = std::move(out), image.offset = 0;
  image.type = type;
  image.slope = 1, image.inter = 0;
}

}  // namespace

void make_real(Image& image, Pixel pixel) {
  if (pixel == Pixel::real) return;
  if (pixel == Pixel::complex) {
    const double a = image.slope, b = image.inter;
    auto magnitude = [a, b](const auto* z) { return std::hypot(a * static_cast<double>(z[0]) + b, a * static_cast<double>(z[1])); };
    if (image.type == Number::f64) return collapse<double, double>(image, Number::f64, 2, magnitude);
    return collapse<float, float>(image, Number::f32, 2, [&](const float* z) { return static_cast<float>(magnitude(z)); });
  }
  collapse<std::uint8_t, float>(image, Number::f32, components_of(pixel),
                                [](const std::uint8_t* c) { return static_cast<float>((299 * c[0] + 587 * c[1] + 114 * c[2]) / 1000.0); });
}

}  // namespace files

Image parse_image(std::shared_ptr<Buffer> bytes, const std::string& name, const PixelOptions& options) {
  const std::span<const std::byte> all(bytes->data(), bytes->size());
  const bool packed = is_gzip(all);
  const std::vector<std::byte> unpacked = packed ? gunzip_prefix(all, kHeaderProbeBytes, name) : std::vector<std::byte>{};
  const std::span<const std::byte> start = packed ? std::span<const std::byte>(unpacked) : all;
  if (files::is_mgh(start, name)) return files::parse_mgh(std::move(bytes), start, packed, name);
  if (files::is_nrrd(start)) return files::parse_nrrd(std::move(bytes), name, "");
  return files::parse_nifti(std::move(bytes), start, packed, name, options);
}

Image parse_image(std::span<const std::byte> bytes, const std::string& name, const PixelOptions& options) {
  auto copy = std::make_shared<Buffer>(bytes.size());
  if (!bytes.empty()) std::memcpy(copy->data(), bytes.data(), bytes.size());
  return parse_image(std::move(copy), name, options);
}

Image read_image(const std::string& path, const PixelOptions& options) {
  if (is_dicom(path)) return read_dicom(path);
  if (files::is_pair_name(path)) return files::read_pair(path, options);
  auto bytes = std::make_shared<Buffer>(files::load(path));
  if (files::is_nrrd({bytes->data(), bytes->size()})) return files::parse_nrrd(std::move(bytes), path, path);
  return parse_image(std::move(bytes), path, options);
}

Image read_image_header(const std::string& path, const PixelOptions& options) {
  if (is_dicom(path)) return read_dicom_header(path);
  const std::string file = files::is_pair_name(path) ? files::header_of_pair(path) : path;
  const files::Start start = files::load_start(file, kHeaderProbeBytes);
  if (files::is_mgh(start.bytes, file)) return files::parse_mgh_header(start.bytes, start.packed, file);
  if (files::is_nrrd(start.bytes)) return files::read_nrrd_header(file);
  return files::parse_nifti_header(start.bytes, start.packed, file, options);
}

}  // namespace vg

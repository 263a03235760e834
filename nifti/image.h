// Image: the voxels of a file exactly as they were stored, and the facts of its header. Every reader (NIfTI, MGH, NRRD) makes an Image; one
// function (volume.h) makes numbers for networks from it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nifti/geometry.h"
#include "nifti/warning.h"

namespace vg {

// The element types of image files.
enum class Number : std::uint8_t { u8, i8, u16, i16, u32, i32, u64, i64, f32, f64 };
constexpr std::size_t size_of(Number t) {
  constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 8, 8, 4, 8};
  return sizes[static_cast<int>(t)];
}
constexpr const char* name_of(Number t) {
  constexpr const char* names[] = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"};
  return names[static_cast<int>(t)];
}
// Calls f.template operator()<T>() with the C++ type.
template <class F>
decltype(auto) with_number(Number t, F&& f) {
  switch (t) {
    case Number::u8: return f.template operator()<std::uint8_t>();
    case Number::i8: return f.template operator()<std::int8_t>();
    case Number::u16: return f.template operator()<std::uint16_t>();
    case Number::i16: return f.template operator()<std::int16_t>();
    case Number::u32: return f.template operator()<std::uint32_t>();
    case Number::i32: return f.template operator()<std::int32_t>();
    case Number::u64: return f.template operator()<std::uint64_t>();
    case Number::i64: return f.template operator()<std::int64_t>();
    case Number::f32: return f.template operator()<float>();
    default: return f.template operator()<double>();
  }
}

// Uninitialised bytes, aligned to 64. (std::vector writes zeros first, which costs as much as inflating a label map.)
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  void shrink_view(std::size_t bytes) { size_ = bytes; }  // forgets the tail; the memory stays
  void grow(std::size_t bytes);                           // keeps the old bytes

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_ = 0;
};

struct Extension {  // a NIfTI header extension, uninterpreted
  int code = 0;
  std::vector<std::byte> bytes;
};

struct Image {
  std::string name;    // the file, for messages
  std::string format;  // "NIfTI-1, little endian, gzip"
  Number type = Number::u8;
  std::vector<std::int64_t> dim;  // 1 to 7 extents; the first (i) is fastest in memory
  Placement place;
  double slope = 1, inter = 0;                           // value = slope * stored + inter, in double
  std::array<double, 8> pixdim{1, 1, 1, 1, 0, 0, 0, 0};  // as stored: qfac, mm, mm, mm, then e.g. seconds
  int intent_code = 0, units = 0;                        // NIfTI codes
  std::string intent_name, description, auxiliary_file;
  double display_min = 0, display_max = 0;
  std::vector<Extension> extensions;
  Warnings warnings;

  std::shared_ptr<Buffer> storage;  // the host's byte order
  std::size_t offset = 0;           // of the first voxel in storage; a multiple of the element size

  Size3 size() const;             // i, j, k; 1 where the file has fewer axes
  std::int64_t frames() const;    // product of the extents beyond the third
  std::int64_t elements() const;  // all of them
  Grid grid() const { return {size(), place.affine}; }
  const std::byte* voxels() const { return storage->data() + offset; }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * size_of(type); }
};

// Voxels that are no single real number are refused unless a way to one is chosen here.
struct PixelOptions {
  bool luminance = false;  // colour (RGB, RGBA) becomes f32 (299 R + 587 G + 114 B) / 1000; alpha is dropped
  bool magnitude = false;  // complex becomes its absolute value, scaling included
};

// Any file that this folder reads, told by content where the content tells, plain or gzip:
//   NIfTI-1 and NIfTI-2, one file or a pair (x.hdr and x.img, each plain or .gz; either name opens the pair);
//   MGH and MGZ;  NRRD with its voxels in the same or in another file (.nhdr);  DICOM (dicom.h): a file, folder or zip of one series.
// No more than 64 MiB + 4 x the bytes present are allocated before the data are proved present. Throws io, bad_file (broken) or unsupported
// (colour, complex, 128-bit, ANALYZE), always with the file's name.
Image read_image(const std::string& path, const PixelOptions& options = {});
// The same from memory, for files that are complete in themselves; `name` stands in messages, and its ending helps to tell MGH from noise.
// The buffer may become the image's storage.
Image parse_image(std::shared_ptr<Buffer> bytes, const std::string& name, const PixelOptions& options = {});
Image parse_image(std::span<const std::byte> bytes, const std::string& name, const PixelOptions& options = {});  // copies
// The facts alone, no voxels and no extensions. Touches the first 544 bytes of a plain file, 1 KiB of most gzip files.
Image read_image_header(const std::string& path, const PixelOptions& options = {});

// What `write_image` adds to the image itself.
struct ImageWriteOptions {
  int gzip_level = 1;  // 1 (fast, threaded) .. 12 (small), for names that end in .gz or .mgz
};
// The name's ending chooses the format. .nii, .nii.gz: type, extents, scaling, transforms (both sform and qform), intent, description and
// extensions as NIfTI-1, or NIfTI-2 where an extent is beyond 32767. .hdr or .img, or either with .gz: the same as a pair. .mgh, .mgz: uint8, int16, int32 or float32 without scaling; MGH has no
// room for description, intent and extensions. Atomic. Throws io, invalid_argument. An image given up by std::move, with room for the
// header before its voxels, is written without a copy.
void write_image(const std::string& path, const Image& image, const ImageWriteOptions& options = {});
void write_image(const std::string& path, Image&& image, const ImageWriteOptions& options = {});
// The bytes that write_image would put into a NIfTI or MGH file; gzip_level 0: not packed.
Buffer encode_image(const Image& image, int gzip_level);
Buffer encode_mgh(const Image& image, int gzip_level);

}  // namespace vg

// libpng reports errors by longjmp. Every jump here starts and ends inside `guarded`, and nothing between has a destructor: buffers are
// made outside.
#include "nifti/png.h"

#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "nifti/files.h"
#include "nifti/gzip.h"
#include "tensor/error.h"
#include "tensor/os.h"

namespace vg {
namespace {

struct Source {
  const std::byte* data;
  std::size_t size, at;
  const std::string* name;
  Warnings* warnings;
  char error[256];
};

void on_error(png_structp png, png_const_charp message) {
  auto* s = static_cast<Source*>(png_get_error_ptr(png));
  std::snprintf(s->error, sizeof s->error, "%s", message);
  png_longjmp(png, 1);
}
void on_warning(png_structp png, png_const_charp message) {
  auto* s = static_cast<Source*>(png_get_error_ptr(png));
  try {
    if (s->warnings && s->warnings->size() < 100) s->warnings->push_back({"png", message});
  } catch (...) {  // no memory for a remark: the picture matters more
  }
}
void on_read(png_structp png, png_bytep to, png_size_t count) {
  auto* s = static_cast<Source*>(png_get_io_ptr(png));
  if (count > s->size - s->at) png_error(png, "the file ends in the middle of the picture");
  std::memcpy(to, s->data + s->at, count);
  s->at += count;
}
void on_write(png_structp png, png_bytep from, png_size_t count) {
  auto* out = static_cast<std::vector<std::byte>*>(png_get_io_ptr(png));
  bool ok = true;
  try {
    out->insert(out->end(), reinterpret_cast<std::byte*>(from), reinterpret_cast<std::byte*>(from) + count);
  } catch (...) {
    ok = false;
  }
  if (!ok) png_error(png, "no memory for the packed picture");
}
void on_flush(png_structp) {}

// Runs f; false if libpng raised an error meanwhile. f may hold no object with a destructor.
template <class F>
bool guarded(png_structp png, F f) {
  if (setjmp(png_jmpbuf(png))) return false;
  f();
  return true;
}

struct Reader {
  Source source;
  png_structp png = nullptr;
  png_infop info = nullptr;
  Reader(const std::byte* data, std::size_t size, const std::string& name, Warnings& warnings)
      : source{data, size, 0, &name, &warnings, ""} {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, on_error, on_warning);
    if (png) info = png_create_info_struct(png);
    if (!info) {
      png_destroy_read_struct(&png, nullptr, nullptr);
      fail(ErrorCode::out_of_memory, "{}: libpng has no memory", name);
    }
    png_set_read_fn(png, &source, on_read);
    png_set_user_limits(png, 1 << 20, 1 << 20);
    png_set_chunk_malloc_max(png, 8u << 20);
  }
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  template <class F>
  void run(F f) {
    if (!guarded(png, f)) fail(ErrorCode::bad_file, "{}: damaged PNG: {}", *source.name, source.error);
  }
};

struct Picture {  // what to write
  const void* rows;
  std::int64_t width, height;
  std::size_t row_bytes;
  int depth, colour;
  const std::vector<png_color>* palette;
  bool clear_background;
};

void write(const std::string& path, const Picture& p) {
  require(p.width > 0 && p.height > 0 && p.width < (1 << 20) && p.height < (1 << 20), "{}: a picture of {} x {} pixels (wanted 1..1048575)",
          path, p.width, p.height);
  Source state{nullptr, 0, 0, &path, nullptr, ""};
  std::vector<std::byte> out;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &state, on_error, on_warning);
  png_infop info = png ? png_create_info_struct(png) : nullptr;
  const bool ok = info && guarded(png, [&] {
                    png_set_write_fn(png, &out, on_write, on_flush);
                    png_set_IHDR(png, info, static_cast<png_uint_32>(p.width), static_cast<png_uint_32>(p.height), p.depth, p.colour,
                                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
                    if (p.palette) png_set_PLTE(png, info, p.palette->data(), static_cast<int>(p.palette->size()));
                    png_byte clear = 0;
                    if (p.clear_background) png_set_tRNS(png, info, &clear, 1, nullptr);
                    png_write_info(png, info);
                    if (p.depth == 16) png_set_swap(png);
                    for (std::int64_t y = 0; y < p.height; ++y)
                      png_write_row(png, static_cast<png_const_bytep>(p.rows) + static_cast<std::size_t>(y) * p.row_bytes);
                    png_write_end(png, nullptr);
                  });
  png_destroy_write_struct(&png, &info);
  if (!ok) fail(ErrorCode::invalid_argument, "{}: libpng: {}", path, state.error[0] ? state.error : "no memory");
  os::AtomicFile file(path);
  file.write(out.data(), out.size());
  file.commit();
}

Volume volume_of(const PngPicture& p, DType dtype) {
  Volume v;
  v.voxels = Tensor({1, 1, p.height, p.width, 1}, dtype, kCpu);
  v.name = p.name;
  v.stored = p.depth == 16 ? Number::u16 : Number::u8;
  v.warnings = p.warnings;
  v.warnings.push_back({"no_orientation", "a PNG says neither which side is left nor how large a pixel is: 1 mm is assumed"});
  return v;
}

}  // namespace

bool has_png_signature(const std::byte* eight_bytes) { return std::memcmp(eight_bytes, "\x89PNG\r\n\x1a\n", 8) == 0; }

PngPicture parse_png(const std::byte* bytes, std::size_t size, const std::string& name) {
  if (size < 8 || !has_png_signature(bytes)) fail(ErrorCode::bad_file, "{}: {}", name, size == 0 ? "empty file" : "not a PNG file");
  PngPicture out;
  out.name = name;
  Reader r(bytes, size, name, out.warnings);
  int colour = 0, passes = 1;
  std::size_t row_bytes = 0;
  r.run([&] {
    png_read_info(r.png, r.info);
    out.width = png_get_image_width(r.png, r.info);
    out.height = png_get_image_height(r.png, r.info);
    out.depth = png_get_bit_depth(r.png, r.info);
    colour = png_get_color_type(r.png, r.info);
    png_set_packing(r.png);  // one sample per byte, not scaled
    if (colour & PNG_COLOR_MASK_ALPHA) png_set_strip_alpha(r.png);
    if (out.depth == 16) png_set_swap(r.png);
    passes = png_set_interlace_handling(r.png);
    png_read_update_info(r.png, r.info);
    row_bytes = png_get_rowbytes(r.png, r.info);
    out.channels = png_get_channels(r.png, r.info);
  });
  const std::uint64_t count =
      static_cast<std::uint64_t>(out.width) * static_cast<std::uint64_t>(out.height) * static_cast<std::uint64_t>(out.channels);
  if (4 * count > allocation_limit(size))
    fail(ErrorCode::unsupported, "{}: {} x {} pixels are too many for a file of {} bytes (wanted at most {} samples)", name, out.width,
         out.height, size, allocation_limit(size) / 4);
  std::vector<png_byte> pixels(row_bytes * static_cast<std::size_t>(out.height));
  r.run([&] {
    for (int pass = 0; pass < passes; ++pass)
      for (std::int64_t y = 0; y < out.height; ++y) png_read_row(r.png, pixels.data() + row_bytes * static_cast<std::size_t>(y), nullptr);
    png_read_end(r.png, nullptr);
  });
  if (r.source.at < size)
    out.warnings.push_back({"trailing_junk", fmt::format("{} bytes after the end of the PNG: ignored", size - r.source.at)});

  png_colorp colours = nullptr;
  int colour_count = 0;
  if (colour == PNG_COLOR_TYPE_PALETTE && png_get_PLTE(r.png, r.info, &colours, &colour_count))
    for (int n = 0; n < colour_count; ++n) out.palette.push_back({colours[n].red, colours[n].green, colours[n].blue});
  out.samples.resize(count);
  if (out.depth == 16)
    std::memcpy(out.samples.data(), pixels.data(), 2 * count);
  else
    std::copy(pixels.begin(), pixels.end(), out.samples.begin());
  return out;
}

PngPicture read_png(const std::string& path) {
  const std::vector<std::byte> bytes = os::read_file(path);
  return parse_png(bytes.data(), bytes.size(), path);
}

Volume png_to_volume(const PngPicture& p) {
  Volume v = volume_of(p, DType::f32);
  float* out = v.voxels.data<float>();
  auto luminance = [](int r, int g, int b) { return static_cast<float>((299 * r + 587 * g + 114 * b) / 1000.0); };
  const std::size_t pixels = static_cast<std::size_t>(p.width * p.height);
  if (!p.palette.empty()) {
    for (std::size_t n = 0; n < pixels; ++n) {
      if (p.samples[n] >= p.palette.size())
        fail(ErrorCode::bad_file, "{}: pixel {} has palette index {}, the palette has {} colours", p.name, n, p.samples[n],
             p.palette.size());
      const auto& c = p.palette[p.samples[n]];
      out[n] = luminance(c[0], c[1], c[2]);
    }
  } else if (p.channels == 3) {
    for (std::size_t n = 0; n < pixels; ++n) out[n] = luminance(p.samples[3 * n], p.samples[3 * n + 1], p.samples[3 * n + 2]);
  } else {
    const int factor = p.depth < 8 ? 255 / ((1 << p.depth) - 1) : 1;  // 255, 85, 17: exact
    for (std::size_t n = 0; n < pixels; ++n) out[n] = static_cast<float>(p.samples[n] * factor);
  }
  return v;
}

Volume png_to_labels(const PngPicture& p) {
  Volume v = volume_of(p, DType::i32);
  std::int32_t* out = v.voxels.data<std::int32_t>();
  const std::size_t pixels = static_cast<std::size_t>(p.width * p.height);
  if (p.channels == 3) {
    for (std::size_t n = 0; n < pixels; ++n) {
      const std::uint16_t* c = &p.samples[3 * n];
      if (c[0] != c[1] || c[1] != c[2])
        fail(ErrorCode::bad_file, "{}: a colour picture holds no label ids (pixel {} is {}, {}, {}; wanted grey or a palette)", p.name, n,
             c[0], c[1], c[2]);
      out[n] = c[0];
    }
  } else {
    std::copy(p.samples.begin(), p.samples.end(), out);
  }
  return v;
}

namespace {

namespace fs = std::filesystem;

// Runs of digits count as numbers: "s2" comes before "s10".
bool natural_less(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (!digit(a[i]) || !digit(b[j])) {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i, ++j;
      continue;
    }
    while (i < a.size() && a[i] == '0') ++i;
    while (j < b.size() && b[j] == '0') ++j;
    const std::size_t from_a = i, from_b = j;
    while (i < a.size() && digit(a[i])) ++i;
    while (j < b.size() && digit(b[j])) ++j;
    if (i - from_a != j - from_b) return i - from_a < j - from_b;
    if (const int order = a.compare(from_a, i - from_a, b, from_b, j - from_b); order != 0) return order < 0;
  }
  if (i == a.size() && j == b.size()) return a < b;  // 02 and 2
  return i == a.size();
}

std::vector<std::string> slices_of(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.starts_with('.')) continue;
    if (!files::ends_with(name, ".png") || !at->is_regular_file(error)) return {};
    names.push_back(name);
  }
  if (error) fail(ErrorCode::io, "{}: {}", folder, error.message());
  std::sort(names.begin(), names.end(), natural_less);
  for (std::string& name : names) name = (fs::path(folder) / name).string();
  return names;
}

template <class T, class Read>
Volume stack(const std::string& folder, Read read) {
  std::vector<Volume> slices;  // all of them proved present before memory is asked for all
  for (const std::string& path : slices_of(folder)) {
    slices.push_back(read(read_png(path)));
    const Size3 first = slices[0].size(), own = slices.back().size();
    if (own != first)
      fail(ErrorCode::bad_file, "{}: {} x {} pixels, but {} has {} x {} (wanted slices of one size)", path, own[0], own[1], slices[0].name, first[0],
           first[1]);
  }
  if (slices.empty()) fail(ErrorCode::bad_file, "{}: no folder of .png files alone", folder);
  const Shape& s = slices[0].voxels.shape();
  Volume out = slices[0];
  out.name = folder;
  out.voxels = Tensor({1, static_cast<std::int64_t>(slices.size()), s.h(), s.w(), 1}, slices[0].voxels.dtype(), kCpu);
  T* to = out.voxels.template data<T>();
  for (const Volume& v : slices) {
    to = std::copy_n(v.voxels.template data<T>(), s.voxels(), to);
    if (v.stored == Number::u16) out.stored = Number::u16;
    for (const Warning& w : v.warnings)
      if (!has_warning(out.warnings, w.name)) out.warnings.push_back(w);
  }
  return out;
}

}  // namespace

bool is_png_stack(const std::string& folder) {
  std::error_code error;
  return fs::is_directory(folder, error) && !slices_of(folder).empty();
}
Volume png_stack_to_volume(const std::string& folder) { return stack<float>(folder, png_to_volume); }
Volume png_stack_to_labels(const std::string& folder) { return stack<std::int32_t>(folder, png_to_labels); }

void write_png(const std::string& path, const std::uint8_t* grey, std::int64_t width, std::int64_t height) {
  write(path, {grey, width, height, static_cast<std::size_t>(width), 8, PNG_COLOR_TYPE_GRAY, nullptr, false});
}
void write_png(const std::string& path, const std::uint16_t* grey, std::int64_t width, std::int64_t height) {
  write(path, {grey, width, height, 2 * static_cast<std::size_t>(width), 16, PNG_COLOR_TYPE_GRAY, nullptr, false});
}
void write_png_rgb(const std::string& path, const std::uint8_t* rgb, std::int64_t width, std::int64_t height) {
  write(path, {rgb, width, height, 3 * static_cast<std::size_t>(width), 8, PNG_COLOR_TYPE_RGB, nullptr, false});
}

void write_png_labels(const std::string& path, const std::int32_t* ids, std::int64_t width, std::int64_t height, const Lut& lut,
                      bool clear_background) {
  const std::int64_t count = width * height;
  std::int32_t most = 0;
  for (std::int64_t n = 0; n < count; ++n) {
    require(ids[n] >= 0 && ids[n] <= 65535, "{}: label {} (a PNG holds 0..65535)", path, ids[n]);
    most = std::max(most, ids[n]);
  }
  if (most > 255) {
    const std::vector<std::uint16_t> wide(ids, ids + count);
    return write_png(path, wide.data(), width, height);
  }
  const std::vector<std::uint8_t> narrow(ids, ids + count);
  std::vector<png_color> palette;
  for (int id = 0; id <= most; ++id) {
    const auto c = lut.colour(id);
    palette.push_back({c[0], c[1], c[2]});
  }
  write(path, {narrow.data(), width, height, static_cast<std::size_t>(width), 8, PNG_COLOR_TYPE_PALETTE, &palette, clear_background});
}

}  // namespace vg

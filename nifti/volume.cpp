// Image <-> Volume, reading by content, reorientation.
#include "nifti/volume.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <limits>
#include <mutex>
#include <vector>

#include "nifti/convert.h"
#include "nifti/dicom.h"
#include "nifti/files.h"
#include "nifti/header.h"
#include "nifti/png.h"
#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

constexpr int kIntentLabel = 1002;

// Which frames of the file become which channels.
struct Frames {
  std::int64_t first = 0, count = 1;
};
Frames choose(const Image& image, const ReadOptions& options) {
  const std::int64_t all = image.frames();
  if (options.frame) {
    if (*options.frame < 0 || *options.frame >= all)
      fail(ErrorCode::invalid_argument, "{}: frame {} (the file has {})", image.name, *options.frame, all);
    return {*options.frame, 1};
  }
  int long_axes = 0;
  for (std::size_t a = 3; a < image.dim.size(); ++a) long_axes += image.dim[a] > 1;
  if (long_axes > 1)
    fail(ErrorCode::unsupported, "{}: {} axes beyond the third are longer than 1 (choose one frame of {})", image.name, long_axes, all);
  return {0, all};
}

Volume prepare(const Image& image, std::int64_t channels, DType dtype) {
  Volume v;
  const Size3 s = image.size();
  v.voxels = Tensor({1, s[2], s[1], s[0], channels}, dtype, kCpu);
  v.place = image.place;
  v.name = image.name;
  v.stored = image.type;
  v.scaled = image.slope != 1 || image.inter != 0;
  v.warnings = image.warnings;
  v.extensions = image.extensions;
  return v;
}

std::string place_of(std::int64_t n, const Size3& s) { return fmt::format("({}, {}, {})", n % s[0], n / s[0] % s[1], n / (s[0] * s[1])); }

bool is_png(const std::string& path) {
  os::InputFile file(path);
  std::byte start[8];
  return file.read(start, sizeof start) == sizeof start && has_png_signature(start);
}

}  // namespace

Volume to_volume(const Image& image, const ReadOptions& options) {
  const Frames frames = choose(image, options);
  Volume v = prepare(image, frames.count, DType::f32);
  const std::int64_t voxels = v.grid().voxels();
  std::int64_t beyond = 0;
  for (std::int64_t c = 0; c < frames.count; ++c) {
    const std::byte* in = image.voxels() + static_cast<std::size_t>((frames.first + c) * voxels) * size_of(image.type);
    const auto found = convert::to_float(in, image.type, {image.slope, image.inter}, voxels, v.voxels.data<float>() + c, frames.count);
    v.non_finite += found.non_finite;
    beyond += found.beyond_2_53;
  }
  if (v.non_finite > 0) v.warnings.push_back({"non_finite", fmt::format("{} voxels are NaN or infinite: kept", v.non_finite)});
  if (beyond > 0) v.warnings.push_back({"inexact_integers", fmt::format("{} voxels are integers beyond 2^53: rounded", beyond)});
  return v;
}

Volume to_labels(const Image& image, const ReadOptions& options) {
  const Frames frames = choose(image, options);
  Volume v = prepare(image, frames.count, DType::i32);
  const std::int64_t voxels = v.grid().voxels();
  for (std::int64_t c = 0; c < frames.count; ++c) {
    const std::byte* in = image.voxels() + static_cast<std::size_t>((frames.first + c) * voxels) * size_of(image.type);
    const auto bad = convert::to_label(in, image.type, {image.slope, image.inter}, voxels, v.voxels.data<std::int32_t>() + c, frames.count);
    if (bad.at >= 0)
      fail(ErrorCode::bad_file, "{}: not a label map: voxel {} is {} (wanted whole numbers of 32 bits)", image.name,
           place_of(bad.at, v.size()), bad.value);
  }
  return v;
}

namespace {

// The number that `text` is all of.
template <class T>
bool whole(std::string_view text, std::optional<T>& to) {
  T v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || v < 0) return false;
  to = v;
  return true;
}

// Where a name says what options do not.
std::pair<std::string, ReadOptions> meant(const std::string& path, ReadOptions options) {
  Pick pick = pick_of(path);
  if (!options.frame) options.frame = pick.frame;
  if (!options.series) options.series = pick.series;
  return {std::move(pick.path), options};
}

}  // namespace

Pick pick_of(const std::string& path) {
  Pick pick{path};
  std::string rest = path;
  std::error_code ignored;
  while (!std::filesystem::exists(rest, ignored)) {
    const std::size_t comma = rest.rfind(',');
    if (comma == std::string::npos) return {path};
    const std::string_view last = std::string_view(rest).substr(comma + 1);
    constexpr std::string_view kSeries = "series=";
    const bool good = last.starts_with(kSeries) ? !pick.series && whole(last.substr(kSeries.size()), pick.series) : !pick.frame && whole(last, pick.frame);
    if (!good) return {path};
    rest.resize(comma);
  }
  pick.path = rest;
  return pick;
}

Volume read_volume(const std::string& name, const ReadOptions& given) {
  const auto [path, options] = meant(name, given);
  if (is_png_stack(path)) return png_stack_to_volume(path);
  if (is_dicom(path)) return to_volume(read_dicom(path, options.series), options);
  return is_png(path) ? png_to_volume(read_png(path)) : to_volume(read_image(path, options.pixels), options);
}

Volume read_labels(const std::string& name, const ReadOptions& given) {
  const auto [path, options] = meant(name, given);
  if (is_png_stack(path)) return png_stack_to_labels(path);
  if (is_dicom(path)) return to_labels(read_dicom(path, options.series), options);
  return is_png(path) ? png_to_labels(read_png(path)) : to_labels(read_image(path, options.pixels), options);
}

namespace {

// The image without its voxels; its type is still to be chosen.
Image facts_of(const Volume& volume, const WriteOptions& options) {
  const Tensor& t = volume.voxels;
  require(t.defined() && t.device().on_host() && t.shape().rank() == 5 && t.shape().n() == 1 &&
              (t.dtype() == DType::f32 || t.dtype() == DType::i32),
          "{}: a volume to write needs f32 or i32 voxels of shape (1, D, H, W, C) on the host", volume.name);
  Image image;
  image.name = volume.name;
  image.place = volume.place;
  const Size3 s = volume.size();
  image.dim = {s[0], s[1], s[2]};
  if (t.shape().c() > 1) image.dim.push_back(t.shape().c());
  constexpr int kMillimetres = 2;
  image.units = kMillimetres;
  image.description = options.description;
  image.extensions = volume.extensions;
  if (options.labels || t.dtype() == DType::i32) image.intent_code = kIntentLabel;
  return image;
}

// Elements [first, first + count) of the file's order (channels last there, first here) as `type`. A bad value is told with its place in
// its channel.
convert::BadLabel convert_part(const Tensor& t, Number type, std::int64_t first, std::int64_t count, std::byte* to) {
  const std::int64_t channels = t.shape().c(), voxels = t.shape().voxels();
  while (count > 0) {
    const std::int64_t channel = first / voxels, at = first % voxels, part = std::min(count, voxels - at), from = at * channels + channel;
    convert::BadLabel bad = t.dtype() == DType::f32 ? convert::from_values(t.data<float>() + from, channels, part, type, to)
                                                    : convert::from_values(t.data<std::int32_t>() + from, channels, part, type, to);
    if (bad.at >= 0) {
      bad.at += at;
      return bad;
    }
    first += part, count -= part, to += static_cast<std::size_t>(part) * size_of(type);
  }
  return {};
}

[[noreturn]] void refuse_value(const Volume& volume, const convert::BadLabel& bad, Number type) {
  fail(ErrorCode::invalid_argument, "{}: voxel {} is {}, which {} cannot hold", volume.name, place_of(bad.at, volume.size()), bad.value,
       name_of(type));
}

// .nii.gz without an image in between: values are converted piece by piece where they are packed.
void write_packed(const std::string& path, const Volume& volume, const WriteOptions& options) {
  Image facts = facts_of(volume, options);
  const Tensor& t = volume.voxels;
  std::vector<Number> types = {Number::u8, Number::i16, Number::i32};  // most label maps fit the first
  if (options.type || t.dtype() == DType::f32) types = {options.type.value_or(Number::f32)};
  for (const Number type : types) {
    facts.type = type;
    std::mutex mutex;
    convert::BadLabel first_bad;
    const bool done = files::write_nifti_gz(path, facts, [&](std::int64_t first, std::int64_t count, std::byte* to) {
      constexpr std::int64_t kInline = 1 << 15;  // few enough that the conversion asks for no threads of its own
      for (std::int64_t n = 0; n < count; n += kInline) {
        const auto bad = convert_part(t, type, first + n, std::min(kInline, count - n), to + static_cast<std::size_t>(n) * size_of(type));
        if (bad.at < 0) continue;
        const std::lock_guard lock(mutex);
        if (first_bad.at < 0 || bad.at < first_bad.at) first_bad = bad;
        return false;
      }
      return true;
    });
    if (done) return;
    if (type == types.back()) refuse_value(volume, first_bad, type);
  }
}

}  // namespace

Image to_image(const Volume& volume, const WriteOptions& options) {
  Image image = facts_of(volume, options);
  const Tensor& t = volume.voxels;
  image.type = options.type              ? *options.type
               : t.dtype() == DType::f32 ? Number::f32
                                         : convert::smallest_type(t.data<std::int32_t>(), t.elements());
  image.offset = kNifti1Bytes + 4;  // room for a header in front: write_image need not copy
  image.storage = std::make_shared<Buffer>(image.offset + image.bytes());
  if (const auto bad = convert_part(t, image.type, 0, t.elements(), image.storage->data() + image.offset); bad.at >= 0)
    refuse_value(volume, bad, image.type);
  return image;
}

void write_volume(const std::string& path, const Volume& volume, const WriteOptions& options) {
  if (options.gzip_level == 1 && files::ends_with(path, ".nii.gz")) return write_packed(path, volume, options);
  write_image(path, to_image(volume, options), {options.gzip_level});
}

void write_nifti(const std::string& path, const Volume& volume, const WriteOptions& options) {
  require(files::ends_with(path, ".nii") || files::ends_with(path, ".nii.gz"), "{}: NIfTI is written to names that end in .nii or .nii.gz",
          path);
  write_volume(path, volume, options);
}

Volume reorient(const Volume& volume, const std::string& code) {
  const AxisOrder order = order_towards(volume.place.affine, code);
  Volume out = volume;
  if (order.is_identity()) return out;
  const Grid grid = reorient(volume.grid(), order);
  out.place.affine = grid.affine;
  const Size3 old = volume.size();
  const std::int64_t c = volume.channels();
  out.voxels = Tensor({1, grid.size[2], grid.size[1], grid.size[0], c}, volume.voxels.dtype(), kCpu);
  const std::int64_t old_stride[3] = {c, old[0] * c, old[0] * old[1] * c};
  std::int64_t stride[3], start = 0;  // of the new axes in the old tensor
  for (int a = 0; a < 3; ++a) {
    stride[a] = old_stride[order.from[a]];
    if (order.flip[a]) start += stride[a] * (grid.size[a] - 1), stride[a] = -stride[a];
  }
  const auto* in = static_cast<const std::uint32_t*>(volume.voxels.raw());  // f32 or i32: four bytes either way
  auto* to = static_cast<std::uint32_t*>(out.voxels.raw());
  parallel_for(grid.size[2], 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k)
      for (std::int64_t j = 0; j < grid.size[1]; ++j) {
        std::uint32_t* row = to + (k * grid.size[1] + j) * grid.size[0] * c;
        const std::int64_t base = start + k * stride[2] + j * stride[1];
        for (std::int64_t i = 0; i < grid.size[0]; ++i)
          for (std::int64_t n = 0; n < c; ++n) row[i * c + n] = in[base + i * stride[0] + n];
      }
  });
  return out;
}

}  // namespace vg

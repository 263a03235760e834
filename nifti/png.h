// PNG slices through libpng: pictures as images or as label ids, and writing of grey, colour and label pictures. libpng's errors become
// vg::Error.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "nifti/lut.h"
#include "nifti/volume.h"

namespace vg {

bool has_png_signature(const std::byte* eight_bytes);

// What the file stores: no gamma, no scaling, alpha dropped.
struct PngPicture {
  std::string name;
  std::int64_t width = 0, height = 0;
  int depth = 8;                                     // bits per sample: 1, 2, 4, 8, 16
  int channels = 1;                                  // 1: grey or palette index; 3: red, green, blue
  std::vector<std::array<std::uint8_t, 3>> palette;  // empty unless samples are palette indices
  std::vector<std::uint16_t> samples;                // height x width x channels, first row on top
  Warnings warnings;
};
// Throws io, bad_file ("PATH: libpng's reason"), unsupported for more than 64 MiB + 4 x the file's bytes of pixels.
PngPicture read_png(const std::string& path);
PngPicture parse_png(const std::byte* bytes, std::size_t size, const std::string& name);

// f32, shape (1, 1, H, W, 1). Grey of 8 and 16 bits as stored (0..255, 0..65535), of 1, 2 and 4 bits spread over 0..255; colour as
// luminance (299 R + 587 G + 114 B) / 1000. Affine: identity, 1 mm, and the warning no_orientation.
Volume png_to_volume(const PngPicture& picture);
// i32, same shape: the grey value or palette index as stored, whatever its colour. Colour pictures are refused unless R = G = B everywhere.
Volume png_to_labels(const PngPicture& picture);

// A folder of slices: its .png files, and no other file (hidden ones aside).
bool is_png_stack(const std::string& folder);
// Those slices on one another along D, in the natural order of their names (s2 before s10): shape (1, slices, H, W, 1), otherwise as one slice.
// Throws bad_file, naming both, where a slice has other extents than the first.
Volume png_stack_to_volume(const std::string& folder);
Volume png_stack_to_labels(const std::string& folder);

// All writers are atomic and take rows from the top, without gaps.
void write_png(const std::string& path, const std::uint8_t* grey, std::int64_t width, std::int64_t height);
void write_png(const std::string& path, const std::uint16_t* grey, std::int64_t width, std::int64_t height);
void write_png_rgb(const std::string& path, const std::uint8_t* rgb, std::int64_t width, std::int64_t height);
// A label map that viewers show in the table's colours: palette index = id. Ids beyond 255 do not fit a palette: then 16-bit grey, value
// = id. `clear_background` makes id 0 transparent. Throws invalid_argument for ids outside 0..65535.
void write_png_labels(const std::string& path, const std::int32_t* ids, std::int64_t width, std::int64_t height, const Lut& lut,
                      bool clear_background = false);

}  // namespace vg

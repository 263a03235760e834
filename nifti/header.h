// The NIfTI header by hand: 348 bytes (NIfTI-1) or 540 (NIfTI-2), either byte order, into one struct; and back. Knows nothing of files or
// voxels. Layout and meaning: nifti1.h and nifti2.h of the NIfTI data format working group. Verdicts on damage: the tests beside it hold
// the table.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nifti/geometry.h"
#include "nifti/image.h"
#include "nifti/warning.h"

namespace vg {

inline constexpr std::size_t kNifti1Bytes = 348, kNifti2Bytes = 540;
inline constexpr std::size_t kHeaderProbeBytes = 544;  // enough for either header and the extender

// What one voxel is. Colour has components of uint8, complex of float32 or float64.
enum class Pixel : std::uint8_t { real, rgb, rgba, complex };
constexpr int components_of(Pixel p) { return p == Pixel::rgb ? 3 : p == Pixel::rgba ? 4 : p == Pixel::complex ? 2 : 1; }

struct NiftiHeader {
  int version = 1;  // 1 or 2
  bool big_endian = false;
  bool detached = false;  // magic "ni1"/"ni2": the voxels belong in a separate .img
  std::vector<std::int64_t> dim;
  Number type = Number::u8;  // of one component
  Pixel pixel = Pixel::real;
  int datatype = 2, bitpix = 8;  // as stored
  std::array<double, 8> pixdim{1, 1, 1, 1, 0, 0, 0, 0};
  std::uint64_t data_offset = 352;
  double slope = 1, inter = 0;  // as applied: (1, 0) where the stored pair means no scaling
  int sform_code = 0, qform_code = 0;
  double srow[3][4] = {};
  Vec3 bcd{}, qoffset{};
  int intent_code = 0, units = 0, dim_info = 0, slice_code = 0;
  std::array<double, 3> intent_p{};
  double display_min = 0, display_max = 0, slice_duration = 0, time_offset = 0;
  std::int64_t slice_start = 0, slice_end = 0;
  std::string intent_name, description, auxiliary_file;

  std::size_t header_bytes() const { return version == 2 ? kNifti2Bytes : kNifti1Bytes; }
  std::uint64_t voxel_bytes() const;  // of all voxels; cannot overflow after parse_header
  Size3 size() const;
};

// `bytes`: the beginning of the unpacked file, kHeaderProbeBytes if the file has them. Throws bad_file or unsupported.
NiftiHeader parse_header(std::span<const std::byte> bytes, const std::string& name, Warnings& warnings);
// Little endian; version 2 where h.version says so. header_bytes() long.
std::vector<std::byte> encode_header(const NiftiHeader& h);
// The extension chain between header + 4 and the voxels, or the end of a pair's header file. Damage ends the chain with a warning.
std::vector<Extension> parse_extensions(std::span<const std::byte> bytes, const NiftiHeader& h, Warnings& warnings);

// NIfTI code of an element type, and back (throws unsupported or bad_file).
int nifti_code(Number t);

}  // namespace vg

// What the readers and writers of the single formats share: the way from a file's bytes, plain or gzip, to voxels that are proved present,
// aligned and in the host's byte order. Internal to nifti/.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nifti/header.h"
#include "nifti/image.h"

namespace vg::files {

bool ends_with(const std::string& name, const char* ending);  // upper and lower case are the same
Buffer load(const std::string& path);
// The file's first `count` unpacked bytes, fewer where it is shorter; reads no more of it than that takes.
struct Start {
  std::vector<std::byte> bytes;
  bool packed = false;
};
Start load_start(const std::string& path, std::size_t count);

using Shared = std::shared_ptr<Buffer>;
// `bytes` themselves or what they unpack to, once `start` + `voxel_bytes` are there; else throws bad_file.
Shared prove_present(Shared bytes, std::uint64_t start, std::uint64_t voxel_bytes, const std::string& name, Warnings& warnings);
// Makes the voxels behind `start` the image's own: aligned to their element, in the host's byte order.
void take_voxels(Image& image, Shared bytes, std::uint64_t start, bool big_endian, int components = 1);
void swap_voxels(std::byte* data, std::int64_t count, std::size_t size);  // byte order, in place
// The warning misleading_name for gzip under a plain ending or the reverse.
void check_name(const std::string& name, bool packed, const char* plain_ending, const char* packed_ending, Warnings& warnings);

// Refuses pixels that `options` do not want, and says which option reads them.
void check_pixel(const NiftiHeader& h, const std::string& name, const PixelOptions& options);
// Colour -> f32 luminance (scaling does not apply to colour), complex -> |slope z + inter| as f32 or f64.
void make_real(Image& image, Pixel pixel);

// A .nii.gz whose voxels are made while they are packed: put(first, count, to) puts `count` elements of the file from `first` on at `to`,
// or returns false, and then nothing is written and false is returned. `facts`: an image without voxels.
using VoxelSource = std::function<bool(std::int64_t first, std::int64_t count, std::byte* to)>;
bool write_nifti_gz(const std::string& path, const Image& facts, const VoxelSource& put);

// ---- the formats. `bytes`: the file as it is; `start`: its first unpacked bytes.
Image parse_nifti(Shared bytes, std::span<const std::byte> start, bool packed, const std::string& name, const PixelOptions& options);
Image parse_nifti_header(std::span<const std::byte> start, bool packed, const std::string& name, const PixelOptions& options);
// The pair that `path` (x.hdr, x.img, either with .gz) belongs to; "" where the file has to exist and does not.
bool is_pair_name(const std::string& path);
std::string header_of_pair(const std::string& path);  // throws io if there is none
Image read_pair(const std::string& path, const PixelOptions& options);
// The same from memory: the header file's bytes; those of the voxel file and its name are asked for once the header is believed.
using LoadVoxels = std::function<std::pair<Shared, std::string>()>;
Image parse_pair(Shared head, const LoadVoxels& load_voxels, const std::string& path, const std::string& header_path,
                 const PixelOptions& options);

inline constexpr std::size_t kMghHeaderBytes = 284;
bool is_mgh(std::span<const std::byte> start, const std::string& name);
Image parse_mgh(Shared bytes, std::span<const std::byte> start, bool packed, const std::string& name);
Image parse_mgh_header(std::span<const std::byte> start, bool packed, const std::string& name);

bool is_nrrd(std::span<const std::byte> start);
// `path`: where a detached header lies; "" for a file from memory, which must be complete in itself.
Image parse_nrrd(Shared bytes, const std::string& name, const std::string& path);
Image read_nrrd_header(const std::string& path);

}  // namespace vg::files

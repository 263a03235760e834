// Rows are copied where both grids have them; everything else is fill. Whole voxels move, so there and back is exact.
#include "nifti/crop.h"

#include <algorithm>
#include <cstring>

#include "tensor/error.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

// A tensor of `size` whose voxel p is voxel p + start of `from`, or `outside`.
Tensor moved(const Tensor& from, const Size3& start, const Size3& size, float outside) {
  const Shape& s = from.shape();
  require(from.defined() && from.device().on_host() && s.rank() == 5 && s.n() == 1 && (from.dtype() == DType::f32 || from.dtype() == DType::i32),
          "crop: wanted f32 or i32 voxels of shape (1, D, H, W, C) on the host");
  for (const std::int64_t e : size) require(e >= 1, "crop: extent {} (wanted at least 1)", e);
  const std::int64_t c = s.c(), old[3] = {s.w(), s.h(), s.d()};
  Tensor out({1, size[2], size[1], size[0], c}, from.dtype(), kCpu);
  std::uint32_t fill = 0;
  if (from.dtype() == DType::f32) {
    std::memcpy(&fill, &outside, 4);
  } else {
    const auto id = static_cast<std::int32_t>(outside);
    std::memcpy(&fill, &id, 4);
  }
  const auto* in = static_cast<const std::uint32_t*>(from.raw());  // f32 and i32: four bytes either way
  auto* to = static_cast<std::uint32_t*>(out.raw());
  const std::int64_t begin = std::clamp<std::int64_t>(-start[0], 0, size[0]), end = std::clamp<std::int64_t>(old[0] - start[0], begin, size[0]);
  parallel_for(size[1] * size[2], 64, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t n = first; n < last; ++n) {
      const std::int64_t j = n % size[1] + start[1], k = n / size[1] + start[2];
      std::uint32_t* row = to + n * size[0] * c;
      const bool there = j >= 0 && j < old[1] && k >= 0 && k < old[2] && begin < end;
      if (!there) {
        std::fill(row, row + size[0] * c, fill);
        continue;
      }
      std::fill(row, row + begin * c, fill);
      std::memcpy(row + begin * c, in + ((k * old[1] + j) * old[0] + begin + start[0]) * c, static_cast<std::size_t>((end - begin) * c) * 4);
      std::fill(row + end * c, row + size[0] * c, fill);
    }
  });
  return out;
}

}  // namespace

Cropped crop(const Volume& volume, const Size3& start, const Size3& size, float outside) {
  constexpr std::int64_t kFar = std::int64_t{1} << 40;
  for (int a = 0; a < 3; ++a) require(start[a] > -kFar && start[a] < kFar && size[a] < kFar, "crop: start {} and extent {} are out of reach", start[a], size[a]);
  Cropped out{volume, {volume.grid(), volume.place, volume.name, start, size}};
  out.volume.voxels = moved(volume.voxels, start, size, outside);
  const Vec3 origin = volume.place.affine({static_cast<double>(start[0]), static_cast<double>(start[1]), static_cast<double>(start[2])});
  for (int r = 0; r < 3; ++r) out.volume.place.affine.m[r][3] = origin[r];
  return out;
}

Volume undo_crop(const Tensor& result, const CropRecord& record, float outside) {
  const Shape& s = result.shape();
  require(s.rank() == 5 && s.w() == record.size[0] && s.h() == record.size[1] && s.d() == record.size[2],
          "undo_crop: wanted voxels of shape (1, {}, {}, {}, C), not {}", record.size[2], record.size[1], record.size[0], to_string(s));
  Volume out;
  out.voxels = moved(result, {-record.start[0], -record.start[1], -record.start[2]}, record.input.size, outside);
  out.place = record.place;
  out.name = record.name;
  out.stored = result.dtype() == DType::i32 ? Number::i32 : Number::f32;
  return out;
}

Box content_box(const Volume& volume, float threshold, std::int64_t margin) {
  const Size3 size = volume.size();
  const std::int64_t c = volume.channels();
  require(volume.voxels.dtype() == DType::f32 || volume.voxels.dtype() == DType::i32, "content_box: wanted f32 or i32 voxels");
  Size3 low = size, high{-1, -1, -1};
  const auto look = [&](const auto* v) {
    for (std::int64_t k = 0; k < size[2]; ++k)
      for (std::int64_t j = 0; j < size[1]; ++j) {
        const auto* row = v + (k * size[1] + j) * size[0] * c;
        for (std::int64_t n = 0; n < size[0] * c; ++n) {
          if (!(static_cast<float>(row[n]) > threshold)) continue;
          const Size3 at{n / c, j, k};
          for (int a = 0; a < 3; ++a) low[a] = std::min(low[a], at[a]), high[a] = std::max(high[a], at[a]);
        }
      }
  };
  if (volume.voxels.dtype() == DType::f32) {
    look(volume.voxels.data<float>());
  } else {
    look(volume.voxels.data<std::int32_t>());
  }
  if (high[0] < 0) return {{0, 0, 0}, size};
  Box box;
  for (int a = 0; a < 3; ++a) {
    box.start[a] = std::max<std::int64_t>(low[a] - margin, 0);
    box.size[a] = std::min(high[a] + margin + 1, size[a]) - box.start[a];
  }
  return box;
}

}  // namespace vg

// The geometry that all resampling shares: lines of the target through the source, and which part of each lies inside. Internal to nifti/.
#pragma once
#include <algorithm>
#include <cmath>

#include "nifti/geometry.h"
#include "tensor/error.h"
#include "tensor/parallel.h"
#include "tensor/tensor.h"

namespace vg::resample {

// Rounding of the matrices must not decide on which side of a border or of a tie a whole plane falls.
inline constexpr double kSlack = 1e-6;

// The line that one row of the target draws through the source: p(i) = start + i * step.
struct Line {
  Vec3 start, step;
  double at(int axis, std::int64_t i) const { return start[axis] + static_cast<double>(i) * step[axis]; }
  bool inside(std::int64_t i, const Size3& size) const {
    for (int a = 0; a < 3; ++a) {
      const double p = at(a, i);
      if (!(p >= -0.5 - kSlack && p <= static_cast<double>(size[a]) - 0.5 + kSlack)) return false;
    }
    return true;
  }
};

struct Range {
  std::int64_t begin, end;
};
// The part of 0..count-1 that lies inside. A box is convex, so it is one range; its ends are estimated, then settled by `inside` itself.
inline Range inside_range(const Line& line, const Size3& size, std::int64_t count) {
  double low = 0, high = static_cast<double>(count - 1);
  for (int a = 0; a < 3; ++a) {
    const double first = -0.5 - kSlack, last = static_cast<double>(size[a]) - 0.5 + kSlack;
    if (std::abs(line.step[a]) < 1e-12) {
      if (line.start[a] < first || line.start[a] > last) return {0, 0};
      continue;
    }
    double x = (first - line.start[a]) / line.step[a], y = (last - line.start[a]) / line.step[a];
    if (x > y) std::swap(x, y);
    low = std::max(low, x), high = std::min(high, y);
  }
  if (!(low <= high + 2)) return {0, 0};
  std::int64_t begin = std::max<std::int64_t>(0, static_cast<std::int64_t>(low) - 2),
               end = std::min(count, static_cast<std::int64_t>(high) + 3);
  while (begin < end && !line.inside(begin, size)) ++begin;
  while (begin < end && !line.inside(end - 1, size)) --end;
  return {begin, end};
}

inline void check(const Tensor& from, const Grid& source, const Grid& target, DType dtype) {
  const Shape& s = from.shape();
  require(from.defined() && from.device().on_host() && from.dtype() == dtype && s.rank() == 5 && s.n() == 1 && s.w() == source.size[0] &&
              s.h() == source.size[1] && s.d() == source.size[2],
          "resample: wanted {} voxels of shape (1, {}, {}, {}, C) on the host, not {} {}", name_of(dtype), source.size[2], source.size[1],
          source.size[0], name_of(from.dtype()), to_string(s));
  for (std::int64_t e : target.size) require(e >= 1, "resample: target extent {} (wanted at least 1)", e);
}

// Calls row(line, range, n) for every row n of the target.
template <class Row>
void for_rows(const Grid& source, const Grid& target, Row row) {
  const Affine map = inverse(source.affine) * target.affine;  // target voxel -> source voxel
  const Vec3 step{map.m[0][0], map.m[1][0], map.m[2][0]};
  const std::int64_t rows = target.size[1] * target.size[2];
  parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const Line line{map({0, static_cast<double>(n % target.size[1]), static_cast<double>(n / target.size[1])}), step};
      row(line, inside_range(line, source.size, target.size[0]), n);
    }
  });
}

// The whole of a resampling but its formula: (1, D, H, W, C) voxels of the target, each by voxel(line, i, out), which writes C values; `outside`
// where the source has nothing to say.
template <class T, class Voxel>
Tensor resampled(const Grid& source, const Grid& target, std::int64_t channels, DType dtype, T outside, Voxel voxel) {
  const std::int64_t width = target.size[0];
  Tensor out({1, target.size[2], target.size[1], width, channels}, dtype, kCpu);
  for_rows(source, target, [&](const Line& line, Range range, std::int64_t n) {
    T* row = out.data<T>() + n * width * channels;
    std::fill(row, row + range.begin * channels, outside);
    std::fill(row + range.end * channels, row + width * channels, outside);
    for (std::int64_t i = range.begin; i < range.end; ++i) voxel(line, i, row + i * channels);
  });
  return out;
}

}  // namespace vg::resample

// Row by row: along i of the target the place in the source moves on a straight line, so each row knows beforehand which part of it lies
// inside, and the inner loop has no bounds to check. Places are computed in double from the index, never by repeated addition.
#include "nifti/resample.h"

#include <algorithm>
#include <cmath>

#include "tensor/error.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

// Rounding of the matrices must not decide on which side of a border or of a tie a whole plane falls.
constexpr double kSlack = 1e-6;

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
Range inside_range(const Line& line, const Size3& size, std::int64_t count) {
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

void check(const Tensor& from, const Grid& source, const Grid& target, DType dtype) {
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

// One axis of a linear interpolation: the lower neighbour, the step to the upper one in elements (0 at the edge), the upper one's weight.
struct Side {
  std::int64_t at, step;
  float weight;
};
Side side_of(double p, std::int64_t size, std::int64_t stride) {
  p = std::min(std::max(p, 0.0), static_cast<double>(size - 1));
  const auto low = static_cast<std::int64_t>(p);
  return {low * stride, low + 1 < size ? stride : 0, static_cast<float>(p - static_cast<double>(low))};
}

float mix(float a, float b, float weight) { return a + (b - a) * weight; }

}  // namespace

Tensor resample_linear(const Tensor& from, const Grid& source, const Grid& target, float outside) {
  check(from, source, target, DType::f32);
  const std::int64_t c = from.shape().c(), width = target.size[0];
  Tensor out({1, target.size[2], target.size[1], width, c}, DType::f32, kCpu);
  const float* in = from.data<float>();
  const std::int64_t stride[3] = {c, source.size[0] * c, source.size[0] * source.size[1] * c};
  for_rows(source, target, [&](const Line& line, Range range, std::int64_t n) {
    float* row = out.data<float>() + n * width * c;
    std::fill(row, row + range.begin * c, outside);
    std::fill(row + range.end * c, row + width * c, outside);
    for (std::int64_t i = range.begin; i < range.end; ++i) {
      const Side x = side_of(line.at(0, i), source.size[0], stride[0]), y = side_of(line.at(1, i), source.size[1], stride[1]),
                 z = side_of(line.at(2, i), source.size[2], stride[2]);
      const float* v = in + x.at + y.at + z.at;
      for (std::int64_t ch = 0; ch < c; ++ch, ++v) {
        const float* w = v + z.step;
        const float near = mix(mix(v[0], v[x.step], x.weight), mix(v[y.step], v[y.step + x.step], x.weight), y.weight);
        const float far = mix(mix(w[0], w[x.step], x.weight), mix(w[y.step], w[y.step + x.step], x.weight), y.weight);
        row[i * c + ch] = mix(near, far, z.weight);
      }
    }
  });
  return out;
}

Tensor resample_nearest(const Tensor& from, const Grid& source, const Grid& target, std::int32_t outside) {
  check(from, source, target, DType::i32);
  const std::int64_t c = from.shape().c(), width = target.size[0];
  Tensor out({1, target.size[2], target.size[1], width, c}, DType::i32, kCpu);
  const std::int32_t* in = from.data<std::int32_t>();
  auto nearest = [](double p, std::int64_t size) {  // halves go up
    return std::min(static_cast<std::int64_t>(std::max(p + 0.5 + kSlack, 0.0)), size - 1);
  };
  for_rows(source, target, [&](const Line& line, Range range, std::int64_t n) {
    std::int32_t* row = out.data<std::int32_t>() + n * width * c;
    std::fill(row, row + range.begin * c, outside);
    std::fill(row + range.end * c, row + width * c, outside);
    for (std::int64_t i = range.begin; i < range.end; ++i) {
      const std::int64_t x = nearest(line.at(0, i), source.size[0]), y = nearest(line.at(1, i), source.size[1]),
                         z = nearest(line.at(2, i), source.size[2]);
      const std::int32_t* v = in + ((z * source.size[1] + y) * source.size[0] + x) * c;
      std::copy(v, v + c, row + i * c);
    }
  });
  return out;
}

}  // namespace vg

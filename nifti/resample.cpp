// Row by row: along i of the target the place in the source moves on a straight line, so each row knows beforehand which part of it lies
// inside, and the inner loop has no bounds to check. Places are computed in double from the index, never by repeated addition.
#include "nifti/resample.h"

#include <algorithm>
#include <cmath>

#include "nifti/resample_lines.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

using namespace resample;

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
  const std::int64_t c = from.shape().c();
  const float* in = from.data<float>();
  const std::int64_t stride[3] = {c, source.size[0] * c, source.size[0] * source.size[1] * c};
  return resampled(source, target, c, DType::f32, outside, [&](const Line& line, std::int64_t i, float* out) {
    const Side x = side_of(line.at(0, i), source.size[0], stride[0]), y = side_of(line.at(1, i), source.size[1], stride[1]),
               z = side_of(line.at(2, i), source.size[2], stride[2]);
    const float* v = in + x.at + y.at + z.at;
    for (std::int64_t ch = 0; ch < c; ++ch, ++v) {
      const float* w = v + z.step;
      const float near = mix(mix(v[0], v[x.step], x.weight), mix(v[y.step], v[y.step + x.step], x.weight), y.weight);
      const float far = mix(mix(w[0], w[x.step], x.weight), mix(w[y.step], w[y.step + x.step], x.weight), y.weight);
      out[ch] = mix(near, far, z.weight);
    }
  });
}

Tensor resample_nearest(const Tensor& from, const Grid& source, const Grid& target, std::int32_t outside) {
  check(from, source, target, DType::i32);
  const std::int64_t c = from.shape().c();
  const std::int32_t* in = from.data<std::int32_t>();
  auto nearest = [](double p, std::int64_t size) {  // halves go up
    return std::min(static_cast<std::int64_t>(std::max(p + 0.5 + kSlack, 0.0)), size - 1);
  };
  return resampled(source, target, c, DType::i32, outside, [&](const Line& line, std::int64_t i, std::int32_t* out) {
    const std::int64_t x = nearest(line.at(0, i), source.size[0]), y = nearest(line.at(1, i), source.size[1]),
                       z = nearest(line.at(2, i), source.size[2]);
    const std::int32_t* v = in + ((z * source.size[1] + y) * source.size[0] + x) * c;
    std::copy(v, v + c, out);
  });
}

Grid grid_with_spacing(const Grid& grid, const Vec3& mm) {
  const Vec3 old = spacing_of(grid.affine);
  Grid out = grid;
  double voxels = 1;
  for (int a = 0; a < 3; ++a) {
    require(mm[a] > 0 && std::isfinite(mm[a]), "a spacing of {} mm (wanted more than 0)", mm[a]);
    const double extent = std::max(1.0, std::nearbyint(static_cast<double>(grid.size[a]) * old[a] / mm[a]));
    voxels *= extent;
    require(voxels < 0x1p31, "a spacing of {} mm makes more than 2^31 voxels", mm[a]);
    out.size[a] = static_cast<std::int64_t>(extent);
    for (int r = 0; r < 3; ++r) out.affine.m[r][a] *= mm[a] / old[a];
  }
  // The middle stays: (size - 1) / 2 in voxels counted from their centres.
  const auto middle = [](const Grid& g) {
    return g.affine({static_cast<double>(g.size[0] - 1) / 2, static_cast<double>(g.size[1] - 1) / 2, static_cast<double>(g.size[2] - 1) / 2});
  };
  const Vec3 is = middle(out), was = middle(grid);
  for (int r = 0; r < 3; ++r) out.affine.m[r][3] += was[r] - is[r];
  return out;
}

}  // namespace vg

// Cubic B-splines (Unser, Aldroubi, Eden 1993): the values become coefficients by a recursive filter along each axis, and a place takes a weighted
// mean of the 4 x 4 x 4 coefficients around it. Unlike a cubic through the neighbours alone it passes through every value and is smooth twice over.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "nifti/resample.h"
#include "nifti/resample_lines.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

using namespace resample;

// One line of values into coefficients, mirrored at the ends (without repeating the end itself): c = 6 / ((1 - z B)(1 - z F)) v, z = sqrt(3) - 2.
void filter(double* v, std::int64_t n) {
  if (n < 2) return;
  const double z = std::sqrt(3.0) - 2;
  for (std::int64_t i = 0; i < n; ++i) v[i] *= 6;
  // The causal start: the sum over the mirrored signal, exact for its period 2 n - 2.
  double power = z, last = std::pow(z, static_cast<double>(n - 1)), sum = v[0] + last * v[n - 1];
  double back = last * last / z;
  for (std::int64_t i = 1; i < n - 1; ++i) {
    sum += (power + back) * v[i];
    power *= z, back /= z;
  }
  v[0] = sum / (1 - last * last);
  for (std::int64_t i = 1; i < n; ++i) v[i] += z * v[i - 1];
  v[n - 1] = z / (z * z - 1) * (v[n - 1] + z * v[n - 2]);
  for (std::int64_t i = n - 2; i >= 0; --i) v[i] = z * (v[i + 1] - v[i]);
}

// Along one axis of (D, H, W, C): lines of `n` values `stride` apart, which start at start(line).
template <class Start>
void filter_axis(float* v, std::int64_t lines, std::int64_t n, std::int64_t stride, Start start) {
  parallel_for(lines, 64, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> line(static_cast<std::size_t>(n));
    for (std::int64_t l = begin; l < end; ++l) {
      float* at = v + start(l);
      for (std::int64_t i = 0; i < n; ++i) line[static_cast<std::size_t>(i)] = at[i * stride];
      filter(line.data(), n);
      for (std::int64_t i = 0; i < n; ++i) at[i * stride] = static_cast<float>(line[static_cast<std::size_t>(i)]);
    }
  });
}

// One axis at a place: where the four coefficients are, in elements, and their weights.
struct Taps {
  std::array<std::int64_t, 4> at;
  std::array<double, 4> weight;
};
Taps taps_of(double p, std::int64_t size, std::int64_t stride) {
  p = std::min(std::max(p, 0.0), static_cast<double>(size - 1));
  const auto low = static_cast<std::int64_t>(p);
  const double t = p - static_cast<double>(low), s = 1 - t;
  Taps taps;
  taps.weight = {s * s * s / 6, (4 - 6 * t * t + 3 * t * t * t) / 6, (4 - 6 * s * s + 3 * s * s * s) / 6, t * t * t / 6};
  for (std::int64_t n = 0; n < 4; ++n) {
    std::int64_t i = low - 1 + n;
    if (size == 1) i = 0;
    if (i < 0) i = -i;
    if (i >= size) i = std::max<std::int64_t>(2 * (size - 1) - i, 0);
    taps.at[static_cast<std::size_t>(n)] = i * stride;
  }
  return taps;
}

}  // namespace

Tensor spline_coefficients(const Tensor& values) {
  const Shape& s = values.shape();
  require(values.defined() && values.device().on_host() && values.dtype() == DType::f32 && s.rank() == 5 && s.n() == 1,
          "spline_coefficients: wanted f32 voxels of shape (1, D, H, W, C) on the host");
  Tensor out(s, DType::f32, kCpu);
  std::copy(values.data<float>(), values.data<float>() + values.elements(), out.data<float>());
  float* v = out.data<float>();
  const std::int64_t c = s.c(), w = s.w(), h = s.h(), d = s.d();
  filter_axis(v, d * h * c, w, c, [&](std::int64_t l) { return l / c * w * c + l % c; });
  filter_axis(v, d * w * c, h, w * c, [&](std::int64_t l) { return l / (w * c) * h * w * c + l % (w * c); });
  filter_axis(v, h * w * c, d, h * w * c, [](std::int64_t l) { return l; });
  return out;
}

Tensor resample_cubic(const Tensor& from, const Grid& source, const Grid& target, float outside) {
  check(from, source, target, DType::f32);
  const Tensor coefficients = spline_coefficients(from);
  const std::int64_t c = from.shape().c();
  const float* in = coefficients.data<float>();
  const std::int64_t stride[3] = {c, source.size[0] * c, source.size[0] * source.size[1] * c};
  return resampled(source, target, c, DType::f32, outside, [&](const Line& line, std::int64_t i, float* out) {
    const Taps x = taps_of(line.at(0, i), source.size[0], stride[0]), y = taps_of(line.at(1, i), source.size[1], stride[1]),
               z = taps_of(line.at(2, i), source.size[2], stride[2]);
    for (std::int64_t ch = 0; ch < c; ++ch) {
      double sum = 0;
      for (std::size_t kz = 0; kz < 4; ++kz)
        for (std::size_t ky = 0; ky < 4; ++ky) {
          const float* v = in + z.at[kz] + y.at[ky] + ch;
          sum += z.weight[kz] * y.weight[ky] * (x.weight[0] * v[x.at[0]] + x.weight[1] * v[x.at[1]] + x.weight[2] * v[x.at[2]] + x.weight[3] * v[x.at[3]]);
        }
      out[ch] = static_cast<float>(sum);
    }
  });
}

}  // namespace vg

// Source of the rules: FreeSurfer's mri_convert --conform (MRIconformedTemplate, MRIchangeType with fractions 0.0 and 0.999), as restated
// by FastSurfer.
#include "nifti/conform.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <vector>

#include "nifti/resample.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

constexpr std::int64_t kChunk = 1 << 18;
constexpr double kTolerance = 1e-3;

// Directions of i, j, k: left, inferior, anterior.
Affine lia() {
  Affine a;
  const double m[3][3] = {{-1, 0, 0}, {0, 0, 1}, {0, -1, 0}};
  for (int r = 0; r < 3; ++r) std::copy(m[r], m[r] + 3, a.m[r]);
  return a;
}

bool whole_grey_values(const Tensor& t) {
  std::mutex mutex;
  bool all = true;
  const float* v = t.data<float>();
  parallel_for(t.elements(), kChunk, [&](std::int64_t begin, std::int64_t end) {
    bool ok = true;
    for (std::int64_t n = begin; n < end; ++n) ok &= v[n] >= 0 && v[n] <= 255 && v[n] == static_cast<float>(static_cast<int>(v[n]));
    const std::lock_guard lock(mutex);
    all &= ok;
  });
  return all;
}

Tensor without_non_finite(const Tensor& t) {
  Tensor out = copy_to(t, kCpu);
  float* v = out.data<float>();
  for (std::int64_t n = 0; n < out.elements(); ++n)
    if (!std::isfinite(v[n])) v[n] = 0;
  return out;
}

// In place on a tensor of its own.
void to_grey(Tensor& t, const GreyScale& g) {
  float* v = t.data<float>();
  parallel_for(t.elements(), kChunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const double grey = std::clamp((static_cast<double>(v[n]) - g.low) * g.scale, 0.0, 255.0);
      v[n] = static_cast<float>(std::nearbyint(grey));
    }
  });
}

// How many mm the scan's corners lie beyond the box.
double overhang(const Grid& input, const Grid& box) {
  const Affine map = inverse(box.affine) * input.affine;
  double worst = 0;
  for (int corner = 0; corner < 8; ++corner) {
    Vec3 p;
    for (int a = 0; a < 3; ++a) p[a] = corner >> a & 1 ? static_cast<double>(input.size[a]) - 0.5 : -0.5;
    const Vec3 q = map(p);
    for (int a = 0; a < 3; ++a) worst = std::max({worst, -0.5 - q[a], q[a] - (static_cast<double>(box.size[a]) - 0.5)});
  }
  return worst;
}

}  // namespace

Grid conformed_grid(const Grid& input) {
  Grid out{{kConformSize, kConformSize, kConformSize}, lia()};
  const Vec3 centre = input.centre(), at = out.affine({kConformSize / 2.0, kConformSize / 2.0, kConformSize / 2.0});
  for (int r = 0; r < 3; ++r) out.affine.m[r][3] = centre[r] - at[r];
  return out;
}

bool has_conformed_grid(const Grid& grid) {
  const Affine wanted = lia();
  for (int a = 0; a < 3; ++a) {
    if (grid.size[a] != kConformSize) return false;
    for (int r = 0; r < 3; ++r)
      if (!(std::abs(grid.affine.m[r][a] - wanted.m[r][a]) <= kTolerance)) return false;
  }
  return true;
}

GreyScale robust_grey_scale(const Tensor& t) {
  constexpr int kBins = 1000;
  constexpr double kHigh = 0.999;
  const float* v = t.data<float>();
  const std::int64_t count = t.elements();
  require(count > 0, "conform: no voxels");
  std::mutex mutex;
  float least = v[0], most = v[0];
  std::int64_t non_zero = 0;
  parallel_for(count, kChunk, [&](std::int64_t begin, std::int64_t end) {
    float low = v[begin], high = v[begin];
    std::int64_t some = 0;
    for (std::int64_t n = begin; n < end; ++n)
      low = v[n] < low ? v[n] : low, high = v[n] > high ? v[n] : high, some += std::abs(v[n]) >= 1e-15f;
    const std::lock_guard lock(mutex);
    least = std::min(least, low), most = std::max(most, high), non_zero += some;
  });
  const double low = least, width = (static_cast<double>(most) - low) / kBins;
  if (!(width > 0)) return {low, 1};

  std::array<double, kBins + 1> edges;  // as numpy.histogram: equal bins, the last one closed
  for (int b = 0; b < kBins; ++b) edges[b] = b * width + low;
  edges[kBins] = most;
  std::array<std::int64_t, kBins> bins{};
  parallel_for(count, kChunk, [&](std::int64_t begin, std::int64_t end) {
    std::array<std::int64_t, kBins> mine{};
    for (std::int64_t n = begin; n < end; ++n) {
      const double x = v[n];
      int b = std::min(static_cast<int>((x - low) / width), kBins - 1);
      if (x < edges[b])
        --b;
      else if (b < kBins - 1 && x >= edges[b + 1])
        ++b;
      ++mine[b];
    }
    const std::lock_guard lock(mutex);
    for (int b = 0; b < kBins; ++b) bins[b] += mine[b];
  });
  // The first bin border with all but 0.1 % of the non-zero voxels below it, two bins back (FreeSurfer counts from the top and stops one
  // early).
  const std::int64_t below = count - static_cast<std::int64_t>((1.0 - kHigh) * static_cast<double>(non_zero));
  std::int64_t sum = 0;
  int border = 0;
  while (border < kBins && sum < below) sum += bins[border++];
  const double high = std::max(border - 2, 0) * width + low;
  return {low, high > low ? 255.0 / (high - low) : 1.0};
}

Conformed conform(const Volume& volume) {
  const Tensor& t = volume.voxels;
  if (!t.defined() || t.dtype() != DType::f32 || !t.device().on_host() || t.shape().rank() != 5 || t.shape().n() != 1 || t.shape().c() != 1)
    fail(ErrorCode::invalid_argument, "{}: conform takes one f32 channel, shape (1, D, H, W, 1), not {} {}", volume.name,
         name_of(t.dtype()), to_string(t.shape()));
  Conformed out;
  ConformRecord& record = out.record;
  record.input = volume.grid();
  record.place = volume.place;
  record.name = volume.name;
  record.identity = has_conformed_grid(record.input);
  record.conformed = record.identity ? record.input : conformed_grid(record.input);
  out.volume = volume;
  out.volume.place.affine = record.conformed.affine;

  Tensor source = volume.non_finite > 0 ? without_non_finite(t) : t;
  const bool keeps_values = (volume.stored == Number::u8 && !volume.scaled) || (record.identity && whole_grey_values(source));
  const GreyScale grey = keeps_values ? GreyScale{} : robust_grey_scale(source);
  record.low = grey.low, record.scale = grey.scale;
  if (record.identity) {
    if (keeps_values) {
      out.volume.voxels = source;
      return out;
    }
    source = copy_to(source, kCpu);
  } else {
    const double mm = overhang(record.input, record.conformed);
    if (mm > 1.0)
      out.volume.warnings.push_back(
          {"conform_crops", fmt::format("the scan reaches {:.0f} mm beyond the conformed box of 256 mm: results there are 0", mm)});
    source = resample_linear(source, record.input, record.conformed, static_cast<float>(grey.low));
  }
  to_grey(source, grey);
  out.volume.voxels = source;
  out.volume.non_finite = 0;
  return out;
}

Volume undo_conform(const Tensor& result, const ConformRecord& record) {
  Volume out;
  out.place = record.place;
  out.name = record.name;
  const Size3& s = record.conformed.size;
  const Shape& shape = result.shape();
  require(shape.rank() == 5 && shape.n() == 1 && shape.d() == s[2] && shape.h() == s[1] && shape.w() == s[0],
          "{}: a result to bring back has shape {}, the conformed grid is (1, {}, {}, {}, C)", record.name, to_string(shape), s[2], s[1],
          s[0]);
  if (record.identity)
    out.voxels = result;
  else if (result.dtype() == DType::i32)
    out.voxels = resample_nearest(result, record.conformed, record.input);
  else
    out.voxels = resample_linear(result, record.conformed, record.input);
  return out;
}

}  // namespace vg

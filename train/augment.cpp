// Draws, and plans carried out on the cpu.
#include "train/augment.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/scratch.h"

namespace vg {
namespace {

bool happens(Random& random, double probability) { return probability > 0.0 && random.uniform() < static_cast<float>(probability); }

// m = m * rotation by `angle` in the plane of axes a and b.
void rotate(double (&m)[3][3], int a, int b, double angle) {
  const double c = std::cos(angle), s = std::sin(angle);
  for (auto& row : m) {
    const double u = row[a], v = row[b];
    row[a] = u * c + v * s;
    row[b] = v * c - u * s;
  }
}

}  // namespace

PatchPlace draw_place(Random& random, const AugmentConfig& c, const Dataset& data, const std::array<double, 3>& centre) {
  PatchPlace p;
  p.centre = centre;
  if (happens(random, c.affine)) {
    p.whole_voxels = false;
    const bool flat = data.spatial_dims == 2;
    for (int a = 0; a < 3; ++a)
      for (int b = a + 1; b < 3; ++b)
        if (!flat || a == 1) {
          const double angle = static_cast<double>(random.uniform(-1.0f, 1.0f)) * c.rotation * std::numbers::pi / 180.0;
          rotate(p.m, a, b, angle);
        }
    const double scale = std::exp(static_cast<double>(random.uniform(-1.0f, 1.0f)) * std::log1p(c.scaling));
    for (int a = 0; a < 3; ++a)
      for (int b = flat ? 1 : 0; b < 3; ++b) p.m[a][b] *= scale;
  }
  if (c.flip && data.left_right_axis >= 0 && happens(random, 0.5)) {
    p.mirrored = true;
    for (auto& row : p.m) row[data.left_right_axis] = -row[data.left_right_axis];
  }
  return p;
}

IntensityParams draw_intensity(Random& random, const AugmentConfig& c) {
  IntensityParams p;
  if (happens(random, c.intensity)) {
    p.contrast = random.uniform(0.75f, 1.25f), p.brightness = random.uniform(-0.25f, 0.25f);
    p.gamma = std::exp(random.uniform(-0.35f, 0.35f));
  }
  if (happens(random, c.noise)) {
    p.noise = random.uniform(0.0f, 0.1f);
    p.key = random.bits();
    p.key = p.key << 32 | random.bits();
  }
  return p;
}

std::int64_t control_points(std::int64_t extent, double spacing) {
  return static_cast<std::int64_t>(std::floor(static_cast<double>(extent - 1) / spacing)) + 4;
}

PatchBend draw_bend(Random& random, const AugmentConfig& c, const Dataset& data, const std::array<std::int64_t, 3>& patch) {
  PatchBend b;
  if (!happens(random, c.elastic)) return b;
  const bool flat = data.spatial_dims == 2;
  b.spacing = c.elastic_spacing;
  for (std::size_t a = 0; a < 3; ++a) b.grid[static_cast<int>(a) + 1] = flat && a == 0 ? 1 : control_points(patch[a], c.elastic_spacing);
  const auto most = static_cast<float>(c.elastic_magnitude) * random.uniform();
  for (std::int64_t i = 0; i < b.grid.elements(); ++i) b.control.push_back(flat && i % 3 == 0 ? 0.0f : most * random.uniform(-1.0f, 1.0f));
  return b;
}

PatchPlan draw_plan(Random& random, const AugmentConfig& c, const Dataset& data, const std::array<double, 3>& centre,
                    const std::array<std::int64_t, 3>& patch) {
  PatchPlan p;
  p.place = draw_place(random, c, data, centre);
  p.intensity = draw_intensity(random, c);
  p.bend = draw_bend(random, c, data, patch);
  if (!p.bend.control.empty()) p.place.whole_voxels = false;
  return p;
}

Box reach(const PatchPlan& plan, const std::array<std::int64_t, 3>& patch, const Shape& sample) {
  const PatchPlace& place = plan.place;
  Box box;
  if (plan.plain()) {
    for (std::size_t a = 0; a < 3; ++a) box.start[a] = std::llround(place.centre[a] - static_cast<double>(patch[a] - 1) / 2.0);
    box.extents = patch;
    return box;
  }
  double half[3];  // of the patch as the matrix sees it; displacements are mixtures of their control points
  for (std::size_t a = 0; a < 3; ++a) {
    float most = 0.0f;
    for (std::size_t i = a; i < plan.bend.control.size(); i += 3) most = std::max(most, std::fabs(plan.bend.control[i]));
    half[a] = static_cast<double>(patch[a] - 1) / 2.0 + static_cast<double>(most);
  }
  constexpr double kRounding = 1e-3;  // of the kernel's coordinates
  for (std::size_t a = 0; a < 3; ++a) {
    double far = kRounding;
    for (std::size_t b = 0; b < 3; ++b) far += std::fabs(place.m[a][b]) * half[b];
    const std::int64_t extent = sample[static_cast<int>(a) + 1];
    const auto low = std::clamp<std::int64_t>(static_cast<std::int64_t>(std::floor(place.centre[a] - far)), 0, extent - 1);
    const auto high = std::clamp<std::int64_t>(static_cast<std::int64_t>(std::floor(place.centre[a] + far)) + 1, 0, extent - 1);
    box.start[a] = low, box.extents[a] = high - low + 1;
  }
  return box;
}

void copy_box(const Sample& sample, const Box& box, float* image, std::uint8_t* labels) {
  const Shape& s = sample.image.shape();
  const std::int64_t c = s.c(), wide = box.extents[2], low = std::clamp<std::int64_t>(-box.start[2], 0, wide),
                     high = std::clamp<std::int64_t>(s.w() - box.start[2], low, wide);
  for (std::int64_t z = 0; z < box.extents[0]; ++z)
    for (std::int64_t y = 0; y < box.extents[1]; ++y, image += wide * c, labels += wide) {
      const std::int64_t d = box.start[0] + z, h = box.start[1] + y;
      const bool inside = d >= 0 && d < s.d() && h >= 0 && h < s.h();
      const std::int64_t from = inside ? low : 0, to = inside ? high : 0, row = inside ? (d * s.h() + h) * s.w() + box.start[2] : 0;
      std::fill_n(image, from * c, 0.0f), std::fill_n(image + to * c, (wide - to) * c, 0.0f);
      std::fill_n(labels, from, std::uint8_t{0}), std::fill_n(labels + to, wide - to, std::uint8_t{0});
      std::copy_n(sample.image.data<float>() + (row + from) * c, (to - from) * c, image + from * c);
      std::copy_n(sample.labels.data<std::uint8_t>() + row + from, to - from, labels + from);
    }
}

Tensor swap_table(const Dataset& data) {
  Tensor table({256}, DType::u8, kCpu);
  for (std::size_t k = 0; k < 256; ++k)
    table.data<std::uint8_t>()[k] =
        static_cast<std::uint8_t>(k < data.classes.size() && data.classes[k].pair >= 0 ? data.classes[k].pair : static_cast<int>(k));
  return table;
}

ResampleParams resample_params(const PatchPlan& plan, const std::array<std::int64_t, 3>& start) {
  ResampleParams p;
  for (std::size_t a = 0; a < 3; ++a) {
    for (std::size_t b = 0; b < 3; ++b) p.matrix[a][b] = plan.place.m[a][b];
    p.centre[a] = plan.place.centre[a] - static_cast<double>(start[a]);
    p.spacing[a] = plan.bend.spacing;
  }
  return p;
}

void make_patch(const Sample& sample, const PatchPlan& plan, const Tensor& swap, Tensor& image, Tensor& labels) {
  ScratchOwner scratch(kCpu);
  const Exec ex{kCpu, &scratch};
  if (plan.plain()) {
    const Shape& s = image.shape();
    copy_box(sample, reach(plan, {s.d(), s.h(), s.w()}, sample.image.shape()), image.data<float>(), labels.data<std::uint8_t>());
  } else {
    const Tensor control = plan.bend.control.empty() ? Tensor() : from_host(plan.bend.control, plan.bend.grid);
    resample(ex, image, labels, sample.image, sample.labels, control, plan.place.mirrored ? swap : Tensor(), resample_params(plan, {0, 0, 0}));
  }
  vary_intensity(ex, image, plan.intensity);
}

}  // namespace vg

// Patch geometry and intensity variation.
#include "train/augment.h"

#include <algorithm>
#include <cmath>
#include <numbers>

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

namespace {

// A patch that is neither turned nor mirrored: rows of the sample, copied; zeros and background where it hangs over the border.
void copy_patch(const Sample& sample, const std::array<std::int64_t, 3>& first, const std::array<std::int64_t, 3>& patch, float* image, std::uint8_t* labels) {
  const Shape& s = sample.image.shape();
  const std::int64_t c = s.c(), low = std::clamp<std::int64_t>(-first[2], 0, patch[2]), high = std::clamp<std::int64_t>(s.w() - first[2], low, patch[2]);
  for (std::int64_t z = 0; z < patch[0]; ++z)
    for (std::int64_t y = 0; y < patch[1]; ++y, image += patch[2] * c, labels += patch[2]) {
      const std::int64_t d = first[0] + z, h = first[1] + y;
      const bool inside = d >= 0 && d < s.d() && h >= 0 && h < s.h();
      const std::int64_t from = inside ? low : 0, to = inside ? high : 0, row = inside ? (d * s.h() + h) * s.w() + first[2] : 0;
      std::fill_n(image, from * c, 0.0f), std::fill_n(image + to * c, (patch[2] - to) * c, 0.0f);
      std::fill_n(labels, from, std::uint8_t{0}), std::fill_n(labels + to, patch[2] - to, std::uint8_t{0});
      std::copy_n(sample.image.data<float>() + (row + from) * c, (to - from) * c, image + from * c);
      std::copy_n(sample.labels.data<std::uint8_t>() + row + from, to - from, labels + from);
    }
}

}  // namespace

void read_patch(const Sample& sample, const Dataset& data, const PatchPlace& place, const std::array<std::int64_t, 3>& patch, float* image,
                std::uint8_t* labels) {
  const Shape& s = sample.image.shape();
  if (place.whole_voxels && !place.mirrored) {
    std::array<std::int64_t, 3> first;
    for (std::size_t a = 0; a < 3; ++a) first[a] = std::llround(place.centre[a] - static_cast<double>(patch[a] - 1) / 2.0);
    return copy_patch(sample, first, patch, image, labels);
  }
  const std::int64_t extent[3] = {s.d(), s.h(), s.w()}, channels = s.c();
  const auto* from = sample.image.data<float>();
  const auto* ids = sample.labels.data<std::uint8_t>();
  std::uint8_t swap[256];
  for (int k = 0; k < 256; ++k) {
    const bool paired = place.mirrored && k < static_cast<int>(data.classes.size()) && data.classes[static_cast<std::size_t>(k)].pair >= 0;
    swap[k] = static_cast<std::uint8_t>(paired ? data.classes[static_cast<std::size_t>(k)].pair : k);
  }
  for (std::int64_t z = 0; z < patch[0]; ++z)
    for (std::int64_t y = 0; y < patch[1]; ++y)
      for (std::int64_t x = 0; x < patch[2]; ++x, image += channels, ++labels) {
        const double v[3] = {static_cast<double>(z) - static_cast<double>(patch[0] - 1) / 2.0, static_cast<double>(y) - static_cast<double>(patch[1] - 1) / 2.0,
                             static_cast<double>(x) - static_cast<double>(patch[2] - 1) / 2.0};
        std::int64_t near[3], low[3];
        double part[3];
        bool inside = true, around = true;
        for (int a = 0; a < 3; ++a) {
          const double at = place.centre[static_cast<std::size_t>(a)] + place.m[a][0] * v[0] + place.m[a][1] * v[1] + place.m[a][2] * v[2];
          near[a] = static_cast<std::int64_t>(std::floor(at + 0.5));
          low[a] = static_cast<std::int64_t>(std::floor(at));
          part[a] = at - static_cast<double>(low[a]);
          inside &= near[a] >= 0 && near[a] < extent[a];
          around &= low[a] >= -1 && low[a] < extent[a];
        }
        *labels = inside ? swap[ids[(near[0] * extent[1] + near[1]) * extent[2] + near[2]]] : std::uint8_t{0};
        if (place.whole_voxels) {
          if (inside)
            std::copy_n(from + ((near[0] * extent[1] + near[1]) * extent[2] + near[2]) * channels, channels, image);
          else
            std::fill_n(image, channels, 0.0f);
          continue;
        }
        std::fill_n(image, channels, 0.0f);
        if (!around) continue;
        for (int corner = 0; corner < 8; ++corner) {
          std::int64_t at[3];
          double weight = 1.0;
          for (int a = 0; a < 3; ++a) {
            const int up = (corner >> a) & 1;
            at[a] = low[a] + up;
            weight *= up ? part[a] : 1.0 - part[a];
          }
          if (weight == 0.0 || at[0] < 0 || at[0] >= extent[0] || at[1] < 0 || at[1] >= extent[1] || at[2] < 0 || at[2] >= extent[2]) continue;
          const float* voxel = from + ((at[0] * extent[1] + at[1]) * extent[2] + at[2]) * channels;
          for (std::int64_t c = 0; c < channels; ++c) image[c] += static_cast<float>(weight) * voxel[c];
        }
      }
}

void vary_intensity(Random& random, const AugmentConfig& c, float* image, std::int64_t voxels, std::int64_t channels) {
  const std::int64_t count = voxels * channels;
  if (happens(random, c.intensity)) {
    const float contrast = random.uniform(0.75f, 1.25f), brightness = random.uniform(-0.25f, 0.25f), gamma = std::exp(random.uniform(-0.35f, 0.35f));
    // Gamma acts on the range of the patch, mapped to 0..1 and back.
    const auto [low, high] = std::minmax_element(image, image + count);
    const float base = *low, range = std::max(*high - *low, 1e-6f);
    for (std::int64_t i = 0; i < count; ++i) image[i] = (base + range * std::pow((image[i] - base) / range, gamma)) * contrast + brightness;
  }
  if (happens(random, c.noise)) {
    const float sd = random.uniform(0.0f, 0.1f);
    for (std::int64_t i = 0; i < count; ++i) image[i] += sd * random.normal();
  }
}

}  // namespace vg

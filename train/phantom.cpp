// From the anatomy of a subject to a scan of it: pose and elastic deformation, bias field, scanner units, Rician noise, voxel by voxel in
// parallel.
#include "train/phantom.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "tensor/error.h"
#include "tensor/parallel.h"
#include "tensor/random.h"
#include "train/phantom_anatomy.h"

namespace vg {
namespace {

using phantom::Head;
using phantom::kTissues;
using phantom::Point;
using phantom::stream_of;

constexpr float kPi = 3.14159265358979f;
// The box of RAS mm that holds the head, and its centre: the field of view is placed around it.
constexpr double kExtent[3] = {184, 214, 192}, kCentre[3] = {0, 0, -4};

// A smooth function of place with four components, sums of plane waves given by cubic B-splines on a lattice of 40 mm: three of a
// displacement in mm (waves of 100 to 250 mm, 1.4 mm rms, so that local volumes change by some 6 %) and the logarithm of the bias field
// (150 to 400 mm).
class Field {
 public:
  static constexpr int kPoints = 10, kChannels = 4;
  static constexpr float kStep = 40, kFirst = -180;
  using Row = std::array<std::array<float, kChannels>, kPoints>;

  Field(const PhantomParams& params, float bias) {
    Random elastic(params.seed, stream_of(params.subject, phantom::kElastic)),
        random(params.seed, stream_of(params.subject, phantom::kBiasField));
    for (int channel = 0; channel < kChannels; ++channel)
      for (int wave = 0; wave < 4; ++wave) {
        if (channel < 3) {
          const float mm = std::clamp(elastic.normal(), -2.0f, 2.0f) * static_cast<float>(params.deformation);
          add_wave(channel, elastic, mm, 100, 250);
        } else {
          add_wave(channel, random, bias * random.uniform(0.5f, 1), 150, 400);
        }
      }
  }

  // The lattice contracted along the two axes other than `axis`, at coordinates `at` of which at[axis] is not read.
  Row row(int axis, const double at[3]) const {
    const int b = axis == 0 ? 1 : 0, c = axis == 2 ? 1 : 2;
    float wb[4], wc[4];
    const int fb = weights(static_cast<float>(at[b]), wb), fc = weights(static_cast<float>(at[c]), wc);
    Row row{};
    for (int p = 0; p < kPoints; ++p)
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
          int xyz[3];
          xyz[axis] = p;
          xyz[b] = fb + i;
          xyz[c] = fc + j;
          const auto& point = values_[xyz[2]][xyz[1]][xyz[0]];
          for (int n = 0; n < kChannels; ++n) row[p][n] += wb[i] * wc[j] * point[n];
        }
    return row;
  }
  static std::array<float, kChannels> along(const Row& row, float at) {
    float w[4];
    const int first = weights(at, w);
    std::array<float, kChannels> value{};
    for (int i = 0; i < 4; ++i)
      for (int n = 0; n < kChannels; ++n) value[n] += w[i] * row[first + i][n];
    return value;
  }

 private:
  void add_wave(int channel, Random& random, float amplitude, float shortest, float longest) {
    const float u = random.uniform(-1, 1), angle = random.uniform(0, 2 * kPi), r = std::sqrt(1 - u * u),
                k = 2 * kPi / random.uniform(shortest, longest);
    const float kx = k * r * std::cos(angle), ky = k * r * std::sin(angle), kz = k * u, phase = random.uniform(0, 2 * kPi);
    for (int z = 0; z < kPoints; ++z)
      for (int y = 0; y < kPoints; ++y)
        for (int x = 0; x < kPoints; ++x)
          values_[z][y][x][channel] += amplitude * std::cos(kx * place(x) + ky * place(y) + kz * place(z) + phase);
  }
  static float place(int point) { return kFirst + kStep * static_cast<float>(point); }
  // Uniform cubic B-spline; places beyond the lattice take the value at its border. Returns the first of four points.
  static int weights(float at, float w[4]) {
    const float t = std::clamp((at - kFirst) / kStep, 1.0f, static_cast<float>(kPoints) - 2.001f);
    const int cell = static_cast<int>(t);
    const float f = t - static_cast<float>(cell), g = 1 - f;
    w[0] = g * g * g / 6;
    w[1] = (3 * f * f * f - 6 * f * f + 4) / 6;
    w[2] = (3 * g * g * g - 6 * g * g + 4) / 6;
    w[3] = f * f * f / 6;
    return cell - 1;
  }

  std::array<float, kChannels> values_[kPoints][kPoints][kPoints] = {};
};

// World -> template: turn, shift, stretch.
struct Pose {
  float m[3][3], shift[3];

  explicit Pose(const PhantomParams& params) {
    Random random(params.seed, stream_of(params.subject, phantom::kPose));
    const auto bounded = [&](float sd) { return sd * std::clamp(random.normal(), -2.0f, 2.0f); };
    const float degree = kPi / 180, a = bounded(3 * degree), b = bounded(2 * degree),
                c = bounded(2.5f * degree);  // about x (nodding), y, z
    const float sa = std::sin(a), ca = std::cos(a), sb = std::sin(b), cb = std::cos(b), sc = std::sin(c), cc = std::cos(c);
    const float turn[3][3] = {{cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa},
                              {sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa},
                              {-sb, cb * sa, cb * ca}};
    const float size = 1 + bounded(0.025f);
    for (int i = 0; i < 3; ++i) {
      const float stretch = 1 / (size * (1 + bounded(0.015f)));
      for (int j = 0; j < 3; ++j) m[i][j] = stretch * turn[i][j];
      shift[i] = bounded(2);
    }
  }
  Point operator()(float x, float y, float z) const {
    x -= shift[0];
    y -= shift[1];
    z -= shift[2];
    return {m[0][0] * x + m[0][1] * y + m[0][2] * z, m[1][0] * x + m[1][1] * y + m[1][2] * z, m[2][0] * x + m[2][1] * y + m[2][2] * z};
  }
};

// How one scanner shows one subject. Intensities of tissues relative to white matter = 0.85.
struct Scan {
  int site;
  float units, noise, bias;
  std::array<float, kTissues> intensity;

  explicit Scan(const PhantomParams& params) {
    struct Site {
      float units, contrast, noise, bias;
    };
    static constexpr Site kSites[kPhantomSites] = {{130, 1.0f, 0.016f, 0.08f}, {480, 0.9f, 0.022f, 0.13f}, {1050, 1.15f, 0.028f, 0.10f}};
    static constexpr std::array<float, kTissues> kTypical = {0.01f, 0.95f, 0.42f, 0.08f, 0.35f, 0.2f,  0.19f, 0.56f, 0.85f,
                                                             0.70f, 0.58f, 0.63f, 0.75f, 0.57f, 0.55f, 0.55f, 0.82f, 0.78f};
    Random random(params.seed, stream_of(params.subject, phantom::kContrast));
    const int drawn = static_cast<int>(random.below(kPhantomSites));
    site = params.site < 0 ? drawn : params.site;
    const Site& s = kSites[site];
    units = s.units * random.uniform(0.85f, 1.15f);
    noise = s.noise * random.uniform(0.75f, 1.25f) * static_cast<float>(params.noise);
    bias = s.bias * random.uniform(0.5f, 1.2f) * static_cast<float>(params.bias);
    const float gamma = s.contrast * random.uniform(0.92f, 1.08f);
    for (int t = 0; t < kTissues; ++t)
      intensity[t] = units * std::pow(kTypical[t] * (1 + 0.012f * std::clamp(random.normal(), -2.0f, 2.0f)), gamma);
    noise *= intensity[phantom::kWhite];
  }
};

// Two numbers of mean 0 and variance 1, each the sum of four uniform ones (Irwin-Hall: normal up to 3.4 standard deviations), from one
// Philox block.
std::array<float, 2> normal_pair(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const Philox4 r = philox(seed, stream, index);
  std::array<float, 2> pair{};
  for (int i = 0; i < 4; ++i) pair[i / 2] += static_cast<float>((r.v[i] & 0xffffu) + (r.v[i] >> 16));
  for (float& p : pair) p = (p * 0x1p-16f - 2) * 1.7320508f;
  return pair;
}

struct Axes {  // of a grid's i, j, k: which world axis, and in which direction
  int world[3];
  double sign[3];
};
Axes axes_of(const std::string& code) {
  Axes axes{};
  bool used[3] = {};
  bool good = code.size() == 3;
  for (int i = 0; good && i < 3; ++i) {
    const std::size_t at = std::string("RASLPI").find(code[static_cast<std::size_t>(i)]);
    good = at != std::string::npos && !used[at % 3];
    if (!good) break;
    axes.world[i] = static_cast<int>(at % 3);
    axes.sign[i] = at < 3 ? 1 : -1;
    used[at % 3] = true;
  }
  require(good, "phantom: orientation \"{}\" (wanted three letters of three different axes, such as RAS or LIA)", code);
  return axes;
}

std::array<std::int64_t, 3> extents_of(const Shape& grid) {  // i, j, k
  require(grid.rank() == 3, "phantom: grid {} (wanted three extents D, H, W)", to_string(grid));
  for (int i = 0; i < 3; ++i) require(grid[i] >= 1 && grid[i] <= 1024, "phantom: grid {} (wanted extents of 1 to 1024)", to_string(grid));
  return {grid[2], grid[1], grid[0]};
}

constexpr std::int32_t kLabels[] = {0, 2, 3, 4, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 41, 42, 43, 46, 47, 49, 50, 51, 52, 53, 54};

}  // namespace

Lut phantom_labels() {
  const Lut all = builtin_freesurfer();
  Lut lut;
  for (const std::int32_t id : kLabels) lut.entries[id] = {all.name(id), all.colour(id)};
  return lut;
}

double phantom_spacing(const Shape& grid, const std::string& orientation) {
  const Axes axes = axes_of(orientation);
  const auto extents = extents_of(grid);
  double spacing = 0.25;
  for (int i = 0; i < 3; ++i)
    if (extents[i] > 1) spacing = std::max(spacing, 0.25 * std::ceil(4 * kExtent[axes.world[i]] / static_cast<double>(extents[i])));
  return std::min(spacing, 16.0);
}

Phantom make_phantom(const PhantomParams& params) {
  const Axes axes = axes_of(params.orientation);
  const auto extents = extents_of(params.grid);
  const double spacing = params.spacing == 0 ? phantom_spacing(params.grid, params.orientation) : params.spacing;
  require(spacing >= 0.25 && spacing <= 16, "phantom: spacing {} mm (wanted 0.25 to 16)", spacing);
  require(params.site >= -1 && params.site < kPhantomSites, "phantom: site {} (wanted -1 to {})", params.site, kPhantomSites - 1);
  require(params.subject >= 0, "phantom: subject {} (wanted 0 or more)", params.subject);

  const Scan scan(params);
  const Pose pose(params);
  const Field field(params, scan.bias);
  const Head head(params.seed, params.subject, static_cast<float>(spacing), scan.intensity);

  Affine affine;
  double first[3];  // world coordinates of voxel (0, 0, 0)
  for (int i = 0; i < 3; ++i) {
    const int w = axes.world[i];
    for (int row = 0; row < 3; ++row) affine.m[row][i] = row == w ? axes.sign[i] * spacing : 0;
    first[w] = kCentre[w] - axes.sign[i] * spacing * 0.5 * static_cast<double>(extents[i] - 1);
    affine.m[w][3] = first[w];
  }

  const Shape shape{1, extents[2], extents[1], extents[0], 1};
  Tensor image(shape, DType::f32, kCpu), labels(shape, DType::i32, kCpu);
  float* const values = image.data<float>();
  std::int32_t* const ids = labels.data<std::int32_t>();
  const std::uint64_t noise_stream = stream_of(params.subject, phantom::kNoise);
  parallel_for(extents[2] * extents[1], 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      double at[3] = {first[0], first[1], first[2]};
      at[axes.world[1]] += axes.sign[1] * spacing * static_cast<double>(row % extents[1]);
      at[axes.world[2]] += axes.sign[2] * spacing * static_cast<double>(row / extents[1]);
      const int along = axes.world[0];
      const Field::Row lattice = field.row(along, at);
      for (std::int64_t i = 0; i < extents[0]; ++i) {
        at[along] = first[along] + axes.sign[0] * spacing * static_cast<double>(i);
        const auto f = Field::along(lattice, static_cast<float>(at[along]));
        Point p = pose(static_cast<float>(at[0]), static_cast<float>(at[1]), static_cast<float>(at[2]));
        p = {p.x + f[0], p.y + f[1], p.z + f[2]};
        const Head::Sample sample = head.sample(p);
        const std::int64_t voxel = row * extents[0] + i;
        const auto n = normal_pair(params.seed, noise_stream, static_cast<std::uint64_t>(voxel));
        const float real = sample.value * std::exp(f[3]) + scan.noise * n[0], imaginary = scan.noise * n[1];
        values[voxel] = std::floor(std::sqrt(real * real + imaginary * imaginary) + 0.5f);
        ids[voxel] = sample.label;
      }
    }
  });
  Phantom made;
  made.site = scan.site;
  for (Volume* v : {&made.image, &made.labels}) {
    v->voxels = v == &made.image ? image : labels;
    v->place = {affine, TransformSource::sform, 1};
    v->name = fmt::format("phantom {}/{}", params.seed, params.subject);
    v->stored = Number::i16;
  }
  return made;
}

}  // namespace vg

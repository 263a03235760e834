// Resampling against the formula in double precision: turned, scaled, mirrored, bent and shifted maps, voxels inside, across and beyond the border.
#include "kernels/resample.h"

#include <array>
#include <cmath>

#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(resample);

struct Case {
  Shape to, from;
  std::array<std::int64_t, 3> points;  // of the control grid; 0: none
  double angle, scale;
  bool mirrored;
};
const Case kCases[] = {
    {{1, 7, 9, 17, 1}, {1, 9, 11, 19, 1}, {0, 0, 0}, 0.3, 1.1, false},     // turned
    {{1, 9, 7, 33, 1}, {1, 9, 7, 33, 1}, {5, 4, 7}, 0.2, 0.9, true},       // turned, mirrored and bent
    {{1, 1, 17, 40, 3}, {1, 1, 19, 33, 3}, {1, 6, 5}, -0.4, 1.2, true},    // a slice, bent in its plane
    {{2, 3, 5, 9, 4}, {2, 4, 6, 7, 4}, {4, 4, 4}, 0.7, 1.5, false},        // two samples, four channels
    {{1, 5, 4, 70, 4}, {1, 8, 8, 50, 4}, {0, 0, 0}, -0.1, 1.0, false},
    {{1, 4, 6, 5, 8}, {1, 2, 2, 2, 8}, {4, 1, 9}, 1.0, 3.0, false},        // mostly outside
    {{3, 1, 1, 7, 1}, {3, 3, 3, 3, 1}, {1, 1, 4}, 0.0, 0.5, false},
    {{1, 2, 2, 3, 1}, {1, 4, 4, 4, 1}, {0, 0, 0}, 0.5, 0.7, false},
    {{1, 2, 3, 4, 4}, {1, 4, 4, 4, 4}, {0, 0, 0}, 0.5, 0.7, true},
    {{1, 11, 3, 20, 8}, {1, 9, 5, 18, 8}, {0, 0, 0}, 0.1, 1.0, true},
    {{1, 5, 9, 6, 4}, {1, 7, 7, 7, 4}, {4, 5, 4}, 0.2, 1.1, true},
};

ResampleParams params_of(const Case& c) {
  ResampleParams p;
  const double s = std::sin(c.angle), k = std::cos(c.angle);
  const bool flat = c.to.d() == 1 && c.from.d() == 1;
  const double turn_w[3][3] = {{1, 0, 0}, {0, k, -s}, {0, s, k}}, turn_h[3][3] = {{k, 0, -s}, {0, 1, 0}, {s, 0, k}};
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) {
      double sum = flat ? turn_w[a][b] : 0.0;
      for (int i = 0; i < 3 && !flat; ++i) sum += turn_w[a][i] * turn_h[i][b];
      p.matrix[a][b] = sum * (flat && (a == 0 || b == 0) ? 1.0 : c.scale) * (c.mirrored && b == 2 ? -1 : 1);
    }
  for (int a = 0; a < 3; ++a) {
    const double cells = static_cast<double>(std::max<std::int64_t>(c.points[static_cast<std::size_t>(a)] - 3, 1));
    p.centre[a] = static_cast<double>(c.from[a + 1] - 1) / 2 + 0.37 * (a > 0 || !flat), p.spacing[a] = static_cast<double>(c.to[a + 1]) / cells;
  }
  return p;
}

double spline(int piece, double t) {
  switch (piece) {
    case 0: return (1 - t) * (1 - t) * (1 - t) / 6;
    case 1: return (3 * t * t * t - 6 * t * t + 4) / 6;
    case 2: return (-3 * t * t * t + 3 * t * t + 3 * t + 1) / 6;
    default: return t * t * t / 6;
  }
}

// at(v) for the voxel (z, y, x) of the output.
std::array<double, 3> place(const Shape& to, const ResampleParams& p, const std::vector<float>& control,
                            const std::array<std::int64_t, 3>& points, const std::array<std::int64_t, 3>& voxel) {
  double v[3], u[3] = {}, into[3];
  std::int64_t cell[3];
  for (int a = 0; a < 3; ++a) v[a] = static_cast<double>(voxel[static_cast<std::size_t>(a)]) - static_cast<double>(to[a + 1] - 1) / 2;
  if (!control.empty()) {
    for (int a = 0; a < 3; ++a) {
      const std::int64_t cells = std::max<std::int64_t>(points[static_cast<std::size_t>(a)] - 3, 1);
      const double t = std::clamp(v[a] / p.spacing[a] + static_cast<double>(cells) / 2, 0.0, static_cast<double>(cells));
      cell[a] = std::min(static_cast<std::int64_t>(t), cells - 1), into[a] = t - static_cast<double>(cell[a]);
    }
    for (int i = 0; i < 64; ++i) {
      const int piece[3] = {i / 16, i / 4 % 4, i % 4};
      double weight = 1;
      std::int64_t at = 0;
      for (int a = 0; a < 3; ++a) {
        weight *= spline(piece[a], into[a]);
        at = at * points[static_cast<std::size_t>(a)] + std::min(cell[a] + piece[a], points[static_cast<std::size_t>(a)] - 1);
      }
      for (int a = 0; a < 3; ++a) u[a] += weight * static_cast<double>(control[static_cast<std::size_t>(at * 3 + a)]);
    }
  }
  std::array<double, 3> at;
  for (int a = 0; a < 3; ++a) {
    double sum = p.centre[a];
    for (int b = 0; b < 3; ++b) sum += p.matrix[a][b] * (v[b] + u[b]);
    at[static_cast<std::size_t>(a)] = sum;
  }
  return at;
}

std::int64_t index_of(const Shape& s, std::int64_t n, std::int64_t z, std::int64_t y, std::int64_t x) {
  return z < 0 || y < 0 || x < 0 || z >= s.d() || y >= s.h() || x >= s.w() ? -1 : ((n * s.d() + z) * s.h() + y) * s.w() + x;
}

// visit(number of the output's voxel, sample, place in the input)
template <class Visit>
void each_voxel(const Shape& to, const ResampleParams& p, const std::vector<float>& control, const std::array<std::int64_t, 3>& points, Visit visit) {
  for (std::int64_t i = 0; i < to.n() * to.voxels(); ++i) {
    const std::int64_t v = i % to.voxels();
    visit(i, i / to.voxels(), place(to, p, control, points, {v / (to.h() * to.w()), v / to.w() % to.h(), v % to.w()}));
  }
}

std::vector<double> linear(const Case& c, const ResampleParams& p, const std::vector<float>& from, const std::vector<float>& control) {
  std::vector<double> want(static_cast<std::size_t>(c.to.elements()));
  each_voxel(c.to, p, control, c.points, [&](std::int64_t i, std::int64_t n, const std::array<double, 3>& at) {
    for (int corner = 0; corner < 8; ++corner) {
      double weight = 1;
      std::int64_t w[3];
      for (int a = 0; a < 3; ++a) {
        const double whole = std::floor(at[static_cast<std::size_t>(a)]), part = at[static_cast<std::size_t>(a)] - whole;
        w[a] = static_cast<std::int64_t>(whole) + (corner >> a & 1), weight *= corner >> a & 1 ? part : 1 - part;
      }
      const std::int64_t voxel = index_of(c.from, n, w[0], w[1], w[2]);
      for (std::int64_t k = 0; k < c.to.c() && voxel >= 0; ++k)
        want[static_cast<std::size_t>(i * c.to.c() + k)] +=
            weight * static_cast<double>(from[static_cast<std::size_t>(voxel * c.to.c() + k)]);
    }
  });
  return want;
}

TEST(Resample, ImagesAndLabels) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(to_string(c.to));
    const ResampleParams p = params_of(c);
    const std::vector<float> from = normals(c.from.elements(), 1);
    const Shape label_from = {c.from.n(), c.from.d(), c.from.h(), c.from.w(), 1}, label_to = {c.to.n(), c.to.d(), c.to.h(), c.to.w(), 1};
    const bool bent = c.points[0] > 0;
    const Shape grid = {1, c.points[0], c.points[1], c.points[2], 3};
    std::vector<float> control = bent ? uniforms(grid.elements(), 2, -2.0, 2.0) : std::vector<float>{};
    if (bent && c.from.d() == 1)
      for (std::size_t i = 0; i < control.size(); i += 3) control[i] = 0.0f;
    std::vector<std::int32_t> ids, swap;
    for (std::int64_t i = 0; i < label_from.elements(); ++i) ids.push_back(static_cast<std::int32_t>(i * 7 % 251));
    for (int i = 0; i < 256; ++i) swap.push_back(255 - i);
    const std::vector<double> want = linear(c, p, from, control);
    Bits bits;
    const auto same_everywhere = [&](KernelRun run, const Tensor& t, const char* what) {
      if (run.device.on_host()) run.group = "cpu and sim";  // neither fuses
      bits.same(run, t, what);
    };
    for (const KernelRun& run : runs_of(resample))
      for (const bool swapped : {false, true}) {
        SCOPED_TRACE(run.name + (swapped ? ", swapped" : ""));
        Tensor image = run.blank(c.to), labels = run.blank(label_to, DType::u8), none;
        const Tensor x = run.put(from, c.from), k = run.put_labels(ids, label_from, DType::u8), bend = bent ? run.put(control, grid) : Tensor(),
                     table = swapped ? run.put_labels(swap, {256}, DType::u8) : Tensor();
        resample(run.exec(), image, labels, x, k, bend, table, p);
        expect_close(image, want, {.relative = 1e-5, .trivial = c.scale == 3.0});
        if (!swapped) same_everywhere(run, image, "image"), same_everywhere(run, labels, "labels");
        int near_ties = 0;
        const std::vector<std::uint8_t> got = to_host<std::uint8_t>(labels);
        each_voxel(c.to, p, control, c.points, [&](std::int64_t i, std::int64_t n, const std::array<double, 3>& at) {
          std::int64_t w[3];
          bool tie = false;
          for (int a = 0; a < 3; ++a) {
            const double up = at[static_cast<std::size_t>(a)] + 0.5;
            w[a] = static_cast<std::int64_t>(std::floor(up)), tie |= std::fabs(up - std::round(up)) < 1e-4;
          }
          if (tie && ++near_ties) return;
          const std::int64_t voxel = index_of(c.from, n, w[0], w[1], w[2]);
          const std::int32_t label = voxel < 0 ? 0 : ids[static_cast<std::size_t>(voxel)];
          ASSERT_EQ(got[static_cast<std::size_t>(i)], voxel >= 0 && swapped ? 255 - label : label) << "voxel " << i;
        });
        EXPECT_LT(near_ties, static_cast<int>(got.size()) / 10 + 1);
        // Either may be left out.
        Tensor alone = run.blank(c.to), labels_alone = run.blank(label_to, DType::u8);
        resample(run.exec(), alone, none, x, none, bend, none, p);
        resample(run.exec(), none, labels_alone, none, k, bend, table, p);
        EXPECT_EQ(to_host<float>(alone), to_host<float>(image));
        EXPECT_EQ(to_host<std::uint8_t>(labels_alone), got);
      }
  }
}

// A map of whole voxels onto whole voxels changes no bit, wherever the middle is.
TEST(Resample, WholeVoxelsAreCopied) {
  const Shape from = {1, 6, 7, 40, 1}, to = {1, 4, 5, 33, 1};
  const std::vector<float> x = normals(from.elements(), 5);
  for (const bool mirrored : {false, true}) {
    ResampleParams p;
    p.matrix[2][2] = mirrored ? -1 : 1;
    const std::int64_t start[3] = {-1, 3, 5};
    std::vector<float> want;
    for (int a = 0; a < 3; ++a) p.centre[a] = static_cast<double>(start[a]) + static_cast<double>(to[a + 1] - 1) / 2;
    for (std::int64_t i = 0; i < to.elements(); ++i) {
      const std::int64_t w = i % to.w(), voxel = index_of(from, 0, i / (to.h() * to.w()) + start[0], i / to.w() % to.h() + start[1],
                                                          start[2] + (mirrored ? to.w() - 1 - w : w));
      want.push_back(voxel < 0 ? 0.0f : x[static_cast<std::size_t>(voxel)]);
    }
    for (const KernelRun& run : runs_of(resample)) {
      SCOPED_TRACE(run.name);
      Tensor image = run.blank(to), none;
      resample(run.exec(), image, none, run.put(x, from), none, none, none, p);
      EXPECT_EQ(to_host<float>(image), want);
    }
  }
}

// Along a line of 256 voxels that are numbered, the value read is the coordinate: its error, far from the middle of a turned, bent, large output, is what floats
// allow. The image is a ramp in one axis at a time, so that interpolation adds no error of its own.
TEST(Resample, CoordinatesAreExactToAThousandthOfAVoxel) {
  const Shape from = {1, 2, 2, 512, 1}, to = {1, 256, 1, 256, 1};
  std::vector<float> ramp;
  for (std::int64_t i = 0; i < from.elements(); ++i) ramp.push_back(static_cast<float>(i % 512) - 256.0f);
  ResampleParams p;
  const double angle = 0.83, scale = 1.17;
  p.matrix[0][0] = 1e-9, p.matrix[2][0] = scale * std::sin(angle), p.matrix[2][2] = scale * std::cos(angle);
  p.centre[0] = 0.5, p.centre[1] = 0.5, p.centre[2] = 256 + 1.0 / 3, p.spacing[0] = p.spacing[2] = 24;
  const std::array<std::int64_t, 3> points = {14, 1, 14};
  const Shape grid = {1, 14, 1, 14, 3};
  std::vector<float> control = uniforms(grid.elements(), 3, -8, 8);
  for (std::size_t i = 0; i < control.size(); i += 3) control[i + 1] = 0;
  std::vector<double> want;
  each_voxel(to, p, control, points, [&](std::int64_t, std::int64_t, const std::array<double, 3>& at) { want.push_back(at[2] - 256); });
  for (const KernelRun& run : runs_of(resample)) {
    SCOPED_TRACE(run.name);
    Tensor image = run.blank(to), none;
    resample(run.exec(), image, none, run.put(ramp, from), none, run.put(control, grid), none, p);
    const std::vector<float> got = to_host<float>(image);
    double worst = 0;
    int judged = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      if (std::fabs(want[i]) < 255) worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - want[i])), ++judged;
    EXPECT_GT(judged, 50000);
    EXPECT_LT(worst, 2e-4);  // 1e-3 is promised
  }
}

}  // namespace
}  // namespace vg::test

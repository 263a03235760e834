// Resampling on the cpu: rows of the output are the unit of work. Places are worked out for a vector of voxels at a time; what lies there is then
// fetched voxel by voxel, since a vector's gather is no faster than its single loads. The steps and their order are those of resample.cu, and nothing is
// fused: the same bits for every instruction set, and on sim.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/resample_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/resample.h"
#include "kernels/simd-inl.h"

#ifndef VG_RESAMPLE_CPU_ROW
#define VG_RESAMPLE_CPU_ROW
namespace vg {

// A row of the output. `image` or `labels` may be null, and `swap` and `table`.
struct ResampleRow {
  float* image;
  std::uint8_t* labels;
  const float* from;
  const std::uint8_t *from_labels, *swap;
  std::int64_t extent[3], channels, voxels;  // extent: of the input
  const ResampleMap* map;
  float v[3];          // of the first voxel, from the output's middle
  const float* table;  // [axis][point]: displacements along the row, control points of D and H summed
};

// The four pieces of the cubic B-spline at t in 0 .. 1; their sum is 1.
inline void spline(float t, float (&w)[4]) {
  const float s = 1.0f - t, t2 = t * t;
  w[0] = s * s * s * (1.0f / 6.0f);
  w[1] = (0.5f * t - 1.0f) * t2 + 2.0f / 3.0f;
  w[3] = t2 * t * (1.0f / 6.0f);
  w[2] = 1.0f - w[0] - w[1] - w[3];
}

}  // namespace vg
#endif

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// Two neighbouring voxels of one axis, held inside, with weights that are 0 outside; and the nearest one, -1 where that is outside.
struct Places {
  HWY_ALIGN std::int32_t low[3][kLanes], high[3][kLanes], nearest[3][kLanes];
  HWY_ALIGN float low_weight[3][kLanes], high_weight[3][kLanes];
};

HWY_INLINE void place(VF at, int axis, const ResampleRow& r, Places& to) {
  const VI base = hn::Set(I(), r.map->base[axis]), extent = hn::Set(I(), static_cast<std::int32_t>(r.extent[axis])), none = hn::Set(I(), -1);
  const VF whole = hn::Floor(at), part = hn::Sub(at, whole);
  const VI low = hn::Add(base, hn::ConvertTo(I(), whole)), high = hn::Add(low, hn::Set(I(), 1));
  const VI nearest = hn::Add(base, hn::ConvertTo(I(), hn::Floor(hn::Add(at, set(0.5f)))));
  const auto inside = [&](VI i) HWY_ATTR { return hn::And(hn::Gt(i, none), hn::Lt(i, extent)); };
  const auto first = inside(low), second = inside(high);
  hn::Store(hn::IfThenElseZero(first, low), I(), to.low[axis]);
  hn::Store(hn::IfThenElseZero(second, high), I(), to.high[axis]);
  hn::Store(hn::IfThenElse(inside(nearest), nearest, none), I(), to.nearest[axis]);
  hn::Store(hn::IfThenElseZero(hn::RebindMask(F(), first), hn::Sub(set(1.0f), part)), F(), to.low_weight[axis]);
  hn::Store(hn::IfThenElseZero(hn::RebindMask(F(), second), part), F(), to.high_weight[axis]);
}

// v += the displacement there
HWY_INLINE void displace(VF (&v)[3], const ResampleRow& r) {
  const ResampleMap& m = *r.map;
  const auto cells = static_cast<float>(m.cells[2]);
  const VF t = hn::Min(hn::Max(hn::Add(hn::Mul(v[2], set(m.per_voxel[2])), set(0.5f * cells)), set(0.0f)), set(cells));
  const VF cell = hn::Min(hn::Floor(t), set(cells - 1.0f)), in = hn::Sub(t, cell), rest = hn::Sub(set(1.0f), in), square = hn::Mul(in, in);
  VF weight[4];
  weight[0] = hn::Mul(hn::Mul(hn::Mul(rest, rest), rest), set(1.0f / 6.0f));
  weight[1] = hn::Add(hn::Mul(hn::Sub(hn::Mul(set(0.5f), in), set(1.0f)), square), set(2.0f / 3.0f));
  weight[3] = hn::Mul(hn::Mul(square, in), set(1.0f / 6.0f));
  weight[2] = hn::Sub(hn::Sub(hn::Sub(set(1.0f), weight[0]), weight[1]), weight[3]);
  const VI last = hn::Set(I(), m.points[2] - 1);
  VF u[3] = {set(0.0f), set(0.0f), set(0.0f)};
  for (int k = 0; k < 4; ++k) {
    const VI point = hn::Min(hn::Add(hn::ConvertTo(I(), cell), hn::Set(I(), k)), last);
    for (int a = 0; a < 3; ++a) u[a] = hn::Add(u[a], hn::Mul(weight[k], hn::GatherIndex(F(), r.table + a * m.points[2], point)));
  }
  for (int a = 0; a < 3; ++a) v[a] = hn::Add(v[a], u[a]);
}

HWY_INLINE void fetch_image(const ResampleRow& r, const Places& p, std::int64_t lane, float* to) {
  const std::int64_t c = r.channels, low = p.low[2][lane] * c, high = p.high[2][lane] * c;
  const float low_weight = p.low_weight[2][lane], high_weight = p.high_weight[2][lane];
  const float* rows[4];
  float weights[4];
  for (int i = 0; i < 4; ++i) {
    const std::int64_t d = i & 2 ? p.high[0][lane] : p.low[0][lane], h = i & 1 ? p.high[1][lane] : p.low[1][lane];
    rows[i] = r.from + (d * r.extent[1] + h) * r.extent[2] * c;
    weights[i] = (i & 2 ? p.high_weight[0][lane] : p.low_weight[0][lane]) * (i & 1 ? p.high_weight[1][lane] : p.low_weight[1][lane]);
  }
  for (std::int64_t k = 0; k < c; ++k) {
    float sum = 0.0f;
    for (int i = 0; i < 4; ++i) sum += weights[i] * (low_weight * rows[i][low + k] + high_weight * rows[i][high + k]);
    to[k] = sum;
  }
}

HWY_INLINE std::uint8_t fetch_label(const ResampleRow& r, const Places& p, std::int64_t lane) {
  const std::int64_t d = p.nearest[0][lane], h = p.nearest[1][lane], w = p.nearest[2][lane];
  if ((d | h | w) < 0) return 0;
  const std::uint8_t label = r.from_labels[(d * r.extent[1] + h) * r.extent[2] + w];
  return r.swap ? r.swap[label] : label;
}

void resample_row(const ResampleRow& r) {
  const ResampleMap& m = *r.map;
  Places p;
  for (std::int64_t x = 0; x < r.voxels; x += kLanes) {
    VF v[3] = {set(r.v[0]), set(r.v[1]), hn::Add(set(r.v[2] + static_cast<float>(x)), hn::Iota(F(), 0.0f))};
    if (r.table) displace(v, r);
    for (int a = 0; a < 3; ++a) {
      VF at = hn::Add(set(m.part[a]), hn::Mul(set(m.matrix[a][0]), v[0]));
      at = hn::Add(at, hn::Mul(set(m.matrix[a][1]), v[1]));
      place(hn::Add(at, hn::Mul(set(m.matrix[a][2]), v[2])), a, r, p);
    }
    const std::int64_t count = r.voxels - x < kLanes ? r.voxels - x : kLanes;
    for (std::int64_t i = 0; r.image && i < count; ++i) fetch_image(r, p, i, r.image + (x + i) * r.channels);
    for (std::int64_t i = 0; r.labels && i < count; ++i) r.labels[x + i] = fetch_label(r, p, i);
  }
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"

namespace vg {
namespace {

HWY_EXPORT(resample_row);

// Into the cell that holds a place along one axis; returns how far.
float cell_of(float v, int cells, float per_voxel, int& cell) {
  const float t = std::clamp(v * per_voxel + 0.5f * static_cast<float>(cells), 0.0f, static_cast<float>(cells));
  cell = std::min(static_cast<int>(t), cells - 1);
  return t - static_cast<float>(cell);
}

// table[axis][k]: what the 4 x 4 neighbours along D and H of the row's control point k add up to.
void fill_table(float* table, const float* control, const ResampleMap& m, float vz, float vy) {
  int cell_d, cell_h;
  float along_d[4], along_h[4];
  spline(cell_of(vz, m.cells[0], m.per_voxel[0], cell_d), along_d);
  spline(cell_of(vy, m.cells[1], m.per_voxel[1], cell_h), along_h);
  const int width = m.points[2];
  std::fill_n(table, 3 * width, 0.0f);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const std::int64_t d = std::min(cell_d + i, m.points[0] - 1), h = std::min(cell_h + j, m.points[1] - 1);
      const float weight = along_d[i] * along_h[j];
      const float* row = control + (d * m.points[1] + h) * width * 3;
      for (int k = 0; k < width; ++k)
        for (int a = 0; a < 3; ++a) table[a * width + k] += weight * row[k * 3 + a];
    }
}

}  // namespace

namespace cpu {

void resample(const Exec&, Tensor& image, Tensor& labels, const Tensor& from_image, const Tensor& from_labels, const Tensor& control, const Tensor& swap,
              const ResampleParams& p) {
  const Shape& to = image.defined() ? image.shape() : labels.shape();
  const Shape& from = image.defined() ? from_image.shape() : from_labels.shape();
  const std::int64_t c = image.defined() ? to.c() : 1;
  assert(to.n() == from.n() && (!image.defined() || to.c() == from.c()));
  const ResampleMap map = resample_map(p, control);
  for_rows(to.n() * to.d() * to.h(), to.w() * c, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> table(control.defined() ? static_cast<std::size_t>(3 * map.points[2]) : 0);
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t n = row / (to.d() * to.h()), z = row / to.h() % to.d(), y = row % to.h();
      ResampleRow r{.image = image.defined() ? image.data<float>() + row * to.w() * c : nullptr,
                    .labels = labels.defined() ? labels.data<std::uint8_t>() + row * to.w() : nullptr,
                    .from = image.defined() ? from_image.data<float>() + n * from.voxels() * c : nullptr,
                    .from_labels = labels.defined() ? from_labels.data<std::uint8_t>() + n * from.voxels() : nullptr,
                    .swap = swap.defined() ? swap.data<std::uint8_t>() : nullptr,
                    .extent = {from.d(), from.h(), from.w()},
                    .channels = c,
                    .voxels = to.w(),
                    .map = &map,
                    .v = {static_cast<float>(z) - 0.5f * static_cast<float>(to.d() - 1), static_cast<float>(y) - 0.5f * static_cast<float>(to.h() - 1),
                          -0.5f * static_cast<float>(to.w() - 1)},
                    .table = nullptr};
      if (control.defined()) {
        fill_table(table.data(), control.data<float>(), map, r.v[0], r.v[1]);
        r.table = table.data();
      }
      HWY_DYNAMIC_DISPATCH(resample_row)(r);
    }
  });
}

}  // namespace cpu

VG_KERNEL_HOME(resample);
VG_IMPL(cpu, cpu, resample);

}  // namespace vg
#endif

// Resampling on the device. A warp takes a row of the output, so that the voxel's place is worked out once a row, and neighbouring lanes write neighbouring
// voxels. The elastic part is separable: of its 64 control points per voxel, 16 are summed for the whole row first, in shared memory; 4 are left.
#include "kernels/resample.h"

#include "kernels/device.cuh"

namespace vg {
namespace VG_NS {

inline constexpr int kWarps = kThreads / 32;

// The four pieces of the cubic B-spline at t in 0 .. 1; their sum is 1.
__device__ inline void spline(float t, float (&w)[4]) {
  const float s = 1.0f - t, t2 = t * t;
  w[0] = s * s * s * (1.0f / 6.0f);
  w[1] = (0.5f * t - 1.0f) * t2 + 2.0f / 3.0f;
  w[3] = t2 * t * (1.0f / 6.0f);
  w[2] = 1.0f - w[0] - w[1] - w[3];
}

// The cell that holds a place along one axis; returns how far into it.
__device__ inline float cell_of(float v, int cells, float per_voxel, int& cell) {
  const float t = fminf(fmaxf(v * per_voxel + 0.5f * static_cast<float>(cells), 0.0f), static_cast<float>(cells));
  const int whole = static_cast<int>(t);
  cell = whole < cells ? whole : cells - 1;
  return t - static_cast<float>(cell);
}

// Two neighbouring voxels of one axis, held inside, with weights that are 0 outside.
struct Pair {
  int low, high;
  float low_weight, high_weight;
};
__device__ inline Pair pair_of(float at, int base, int extent) {
  const float whole = floorf(at), part = at - whole;
  const int low = base + static_cast<int>(whole), high = low + 1;
  const bool first = low >= 0 && low < extent, second = high >= 0 && high < extent;
  return {first ? low : 0, second ? high : 0, first ? 1.0f - part : 0.0f, second ? part : 0.0f};
}
__device__ inline int nearest_of(float at, int base) { return base + static_cast<int>(floorf(at + 0.5f)); }

// table[warp][k * 3 + axis]: the displacement of the row's control point k, its 4 x 4 neighbours along D and H summed.
template <int V, bool kElastic>
__global__ __launch_bounds__(kThreads) void resample_kernel(float* __restrict__ image, std::uint8_t* __restrict__ labels,
                                                            const float* __restrict__ from_image, const std::uint8_t* __restrict__ from_labels,
                                                            const float* __restrict__ control, const std::uint8_t* __restrict__ swap, ResampleMap r, Extent to,
                                                            Extent from, std::int64_t rows, int channels) {
  SIMT_DYN_SHARED(float, tables);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (row >= rows) return;
  const Voxel place = voxel_at(row, {0, to.d, to.h});  // sample, z, y
  const float vz = static_cast<float>(place.h) - 0.5f * static_cast<float>(to.d - 1), vy = static_cast<float>(place.w) - 0.5f * static_cast<float>(to.h - 1);
  float* table = tables + warp * r.points[2] * 3;
  if (kElastic) {
    int cell_d, cell_h;
    float along_d[4], along_h[4];
    spline(cell_of(vz, r.cells[0], r.per_voxel[0], cell_d), along_d);
    spline(cell_of(vy, r.cells[1], r.per_voxel[1], cell_h), along_h);
    const int width = r.points[2] * 3;
    for (int k = lane; k < width; k += 32) {
      float sum = 0.0f;
      SIMT_UNROLL for (int i = 0; i < 4; ++i) {
        const int d = cell_d + i < r.points[0] ? cell_d + i : r.points[0] - 1;
        SIMT_UNROLL for (int j = 0; j < 4; ++j) {
          const int h = cell_h + j < r.points[1] ? cell_h + j : r.points[1] - 1;
          sum += along_d[i] * along_h[j] * control[static_cast<std::int64_t>(d * r.points[1] + h) * width + k];
        }
      }
      table[k] = sum;
    }
    __syncwarp();
  }
  const float middle = 0.5f * static_cast<float>(to.w - 1);
  const std::int64_t sample = static_cast<std::int64_t>(place.d) * from.voxels();
  for (int x = lane; x < to.w; x += 32) {
    float v[3] = {vz, vy, static_cast<float>(x) - middle};
    if (kElastic) {
      int cell;
      float along[4], u[3] = {0.0f, 0.0f, 0.0f};
      spline(cell_of(v[2], r.cells[2], r.per_voxel[2], cell), along);
      SIMT_UNROLL for (int k = 0; k < 4; ++k) {
        const int w = cell + k < r.points[2] ? cell + k : r.points[2] - 1;
        SIMT_UNROLL for (int a = 0; a < 3; ++a) u[a] += along[k] * table[w * 3 + a];
      }
      SIMT_UNROLL for (int a = 0; a < 3; ++a) v[a] += u[a];
    }
    float at[3];
    SIMT_UNROLL for (int a = 0; a < 3; ++a) at[a] = r.part[a] + r.matrix[a][0] * v[0] + r.matrix[a][1] * v[1] + r.matrix[a][2] * v[2];
    if (labels) {
      const int d = nearest_of(at[0], r.base[0]), h = nearest_of(at[1], r.base[1]), w = nearest_of(at[2], r.base[2]);
      std::uint8_t label = 0;
      if (d >= 0 && d < from.d && h >= 0 && h < from.h && w >= 0 && w < from.w) {
        label = from_labels[sample + row_at(d, h, w, from)];
        if (swap) label = swap[label];
      }
      labels[row * to.w + x] = label;
    }
    if (!image) continue;
    const Pair d = pair_of(at[0], r.base[0], from.d), h = pair_of(at[1], r.base[1], from.h), w = pair_of(at[2], r.base[2], from.w);
    const float* rows_of[4] = {from_image + (sample + row_at(d.low, h.low, 0, from)) * channels,
                               from_image + (sample + row_at(d.low, h.high, 0, from)) * channels,
                               from_image + (sample + row_at(d.high, h.low, 0, from)) * channels,
                               from_image + (sample + row_at(d.high, h.high, 0, from)) * channels};
    const float weights[4] = {d.low_weight * h.low_weight, d.low_weight * h.high_weight, d.high_weight * h.low_weight, d.high_weight * h.high_weight};
    float* out = image + (row * to.w + x) * channels;
    for (int c = 0; c < channels; c += V) {
      Pack<V> sum;
      SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] = 0.0f;
      SIMT_UNROLL for (int i = 0; i < 4; ++i) {
        const Pack<V> low = load<V>(rows_of[i] + static_cast<std::int64_t>(w.low) * channels + c),
                      high = load<V>(rows_of[i] + static_cast<std::int64_t>(w.high) * channels + c);
        SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] += weights[i] * (w.low_weight * low.v[j] + w.high_weight * high.v[j]);
      }
      store<V>(out + c, sum);
    }
  }
}

void resample(const Exec& ex, Tensor& image, Tensor& labels, const Tensor& from_image, const Tensor& from_labels, const Tensor& control, const Tensor& swap,
              const ResampleParams& p) {
  const Shape& to = image.defined() ? image.shape() : labels.shape();
  const Shape& from = image.defined() ? from_image.shape() : from_labels.shape();
  const int channels = image.defined() ? static_cast<int>(to.c()) : 1;
  assert(to.n() == from.n() && (!image.defined() || to.c() == from.c()));
  const ResampleMap map = resample_map(p, control);
  const std::int64_t rows = to.n() * to.d() * to.h();
  const bool fours = image.defined() && in_fours(channels, image.data<float>(), from_image.data<float>());
  const auto launch = [&](auto resample_any, std::size_t shared) {
    VG_LAUNCH(ex, resample_any, simt::blocks_for(rows, kWarps), kThreads, shared, image.defined() ? image.data<float>() : nullptr,
              labels.defined() ? labels.data<std::uint8_t>() : nullptr, data_or_null(from_image),
              from_labels.defined() ? from_labels.data<std::uint8_t>() : nullptr, data_or_null(control),
              swap.defined() ? swap.data<std::uint8_t>() : nullptr, map, extent_of(to), extent_of(from), rows, channels);
  };
  if (control.defined()) {
    const std::size_t shared = static_cast<std::size_t>(control.shape().w()) * 3 * kWarps * sizeof(float);
    launch(fours ? resample_kernel<4, true> : resample_kernel<1, true>, shared);
  } else {
    launch(fours ? resample_kernel<4, false> : resample_kernel<1, false>, 0);
  }
}

}  // namespace VG_NS

VG_DEVICE_IMPL(resample);

}  // namespace vg

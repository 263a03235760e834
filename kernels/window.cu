// Windows on the device. All three kernels give a row of voxels along W to a block (decide: a part of a row), so that coordinates are worked out once a
// row, and neighbouring threads touch neighbouring addresses.
#include "kernels/window.h"

#include "kernels/class_tile.cuh"

namespace vg {
namespace VG_NS {

inline constexpr int kRowThreads = 128;

// Rows of a window: block -> (z, y) in the window and in the image.
struct WindowRows {
  Extent window, image;
  int start_d, start_h, start_w;
};
inline WindowRows rows_of(const Shape& window, const Shape& image, const std::int64_t (&start)[3]) {
  return {extent_of(window), extent_of(image), static_cast<int>(start[0]), static_cast<int>(start[1]), static_cast<int>(start[2])};
}

__global__ __launch_bounds__(kRowThreads) void cut_window_kernel(float* __restrict__ window, const float* __restrict__ image, WindowRows r, int channels) {
  const int z = static_cast<int>(blockIdx.x) / r.window.h, y = static_cast<int>(blockIdx.x) - z * r.window.h;
  const int d = z + r.start_d, h = y + r.start_h, width = r.window.w * channels, skip = r.start_w * channels, end = r.image.w * channels;
  const bool inside = d >= 0 && d < r.image.d && h >= 0 && h < r.image.h;
  float* to = window + static_cast<std::int64_t>(blockIdx.x) * width;
  const float* from = image + row_at(inside ? d : 0, inside ? h : 0, 0, r.image) * channels;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kRowThreads) to[i] = inside && i + skip >= 0 && i + skip < end ? from[i + skip] : 0.0f;
}

void cut_window(const Exec& ex, Tensor& window, const Tensor& image, const WindowParams& p) {
  const WindowRows r = rows_of(window.shape(), image.shape(), p.start);
  const int channels = static_cast<int>(image.shape().c());
  assert(window.shape().n() == 1 && image.shape().n() == 1 && window.shape().c() == channels);
  VG_LAUNCH(ex, cut_window_kernel, static_cast<unsigned>(r.window.d * r.window.h), kRowThreads, 0, window.data<float>(), image.data<float>(), r, channels);
}

// r.image: of the sums, its d the ring's planes. V neighbouring channels at once.
template <int V, class T>
__global__ __launch_bounds__(kRowThreads) void blend_window_kernel(float* __restrict__ sums, const T* __restrict__ scores, const float* __restrict__ weights,
                                                                   WindowRows r, int depth, int channels) {
  const int z = static_cast<int>(blockIdx.x) / r.window.h, y = static_cast<int>(blockIdx.x) - z * r.window.h;
  const int d = z + r.start_d, h = y + r.start_h;
  if (d < 0 || d >= depth || h < 0 || h >= r.image.h) return;
  const float weight = weights[z] * weights[r.window.d + y];
  const float* along = weights + r.window.d + r.window.h;
  const int first = r.start_w < 0 ? -r.start_w : 0, beyond = r.image.w - r.start_w, last = beyond < r.window.w ? beyond : r.window.w;
  const T* from = scores + static_cast<std::int64_t>(blockIdx.x) * r.window.w * channels;
  float* to = sums + (row_at(d % r.image.d, h, 0, r.image) + r.start_w) * channels;
  for (int i = first * channels + static_cast<int>(threadIdx.x) * V; i < last * channels; i += kRowThreads * V) {
    const float k = weight * along[i / channels];
    const Pack<V> score = load<V>(from + i);
    Pack<V> sum = load<V>(to + i);
    SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] += k * score.v[j];
    store<V>(to + i, sum);
  }
}

void blend_window(const Exec& ex, Tensor& sums, const Tensor& scores, const Tensor& weights, const BlendParams& p) {
  const WindowRows r = rows_of(scores.shape(), sums.shape(), p.start);
  const int channels = static_cast<int>(sums.shape().c());
  assert(scores.shape().n() == 1 && sums.shape().n() == 1 && scores.shape().c() == channels && weights.elements() == r.window.d + r.window.h + r.window.w);
  for_float_type(scores.dtype(), "blend_window", [&](auto zero) {
    using T = decltype(zero);
    const auto blend_window_any = in_fours(channels, sums.data<float>(), scores.data<T>()) ? blend_window_kernel<4, T> : blend_window_kernel<1, T>;
    VG_LAUNCH(ex, blend_window_any, static_cast<unsigned>(r.window.d * r.window.h), kRowThreads, 0, sums.data<float>(), scores.data<T>(),
              weights.data<float>(), r, static_cast<int>(p.depth), channels);
  });
}

// Block -> one of `parts` tiles of a row of the labels. from_*: DecideParams.
struct DecideRows {
  Extent labels, scores;
  int from_d, from_h, from_w, parts;
};

template <class T, class Label>
__global__ __launch_bounds__(kTileThreads) void decide_kernel(Label* __restrict__ labels, float* __restrict__ confidence, float* __restrict__ entropy,
                                                              const T* __restrict__ scores, const float* __restrict__ totals, DecideRows r, int classes,
                                                              int kept, int tile_size) {
  SIMT_DYN_SHARED(float, tile);
  const std::int64_t row = blockIdx.x / r.parts;
  const int x0 = static_cast<int>(blockIdx.x - row * r.parts) * tile_size, count = r.labels.w - x0 < tile_size ? r.labels.w - x0 : tile_size;
  const std::int64_t plane = row / r.labels.h;
  const int n = static_cast<int>(plane / r.labels.d), z = static_cast<int>(plane - static_cast<std::int64_t>(n) * r.labels.d);
  const int y = static_cast<int>(row - plane * r.labels.h), thread = static_cast<int>(threadIdx.x);
  const std::int64_t score = n * r.scores.voxels() + row_at((z + r.from_d) % r.scores.d, y + r.from_h, x0 + r.from_w, r.scores);
  for_tile(count, classes, CopyIn<T>{tile, scores + score * classes});
  __syncthreads();
  if (thread >= count) return;
  const float* s = tile + thread * pitch_of(classes);
  int best = 0;
  for (int c = 1; c < classes; ++c) best = s[c] > s[best] ? c : best;
  const std::int64_t at = row * r.labels.w + x0 + thread;
  labels[at * kept] = static_cast<Label>(best);
  if (kept == 1 && !confidence && !entropy) return;
  const float k = totals ? 1.0f / (totals[z] * totals[r.labels.d + y] * totals[r.labels.d + r.labels.h + x0 + thread]) : 1.0f;
  float sum = 0.0f, moment = 0.0f;
  for (int c = 0; c < classes; ++c) {
    const float t = (s[c] - s[best]) * k, e = expf(t);
    sum += e;
    moment += e > 0.0f ? e * t : 0.0f;
  }
  if (confidence) confidence[at * kept] = 1.0f / sum;
  if (entropy) entropy[at] = logf(sum) - moment / sum;
  for (int k_th = 1, last = best; k_th < kept; ++k_th) {  // the best of those that come after the last one
    int next = -1;
    for (int c = 0; c < classes; ++c) {
      const bool after = s[c] < s[last] || (s[c] == s[last] && c > last);
      if (after && (next < 0 || s[c] > s[next])) next = c;
    }
    last = next < 0 ? last : next;  // NaN comes after nothing
    labels[at * kept + k_th] = static_cast<Label>(last);
    if (confidence) confidence[at * kept + k_th] = expf((s[last] - s[best]) * k) / sum;
  }
}

void decide(const Exec& ex, Tensor& labels, Tensor& confidence, Tensor& entropy, const Tensor& scores, const Tensor& totals, const DecideParams& p) {
  const int classes = static_cast<int>(scores.shape().c()), tile = tile_voxels(classes);
  const DecideRows r = {extent_of(labels.shape()), extent_of(scores.shape()), static_cast<int>(p.from[0]), static_cast<int>(p.from[1]),
                        static_cast<int>(p.from[2]), static_cast<int>(simt::blocks_for(labels.shape().w(), tile))};
  const int kept = static_cast<int>(labels.shape().c());
  assert(kept >= 1 && kept <= classes && (!confidence.defined() || confidence.shape() == labels.shape()));
  assert(labels.shape().n() == scores.shape().n() && r.labels.d <= r.scores.d && (labels.dtype() == DType::i32 || classes <= 256));
  assert(!totals.defined() || totals.elements() == r.labels.d + r.labels.h + r.labels.w);
  const std::int64_t blocks = labels.shape().n() * r.labels.d * r.labels.h * r.parts;
  for_float_type(scores.dtype(), "decide", [&](auto zero) {
    using T = decltype(zero);
    const auto launch = [&](auto* to, auto decide_any) {
      VG_LAUNCH(ex, decide_any, static_cast<unsigned>(blocks), kTileThreads, tile_bytes(classes, 0), to, confidence.defined() ? confidence.data<float>() : nullptr,
                entropy.defined() ? entropy.data<float>() : nullptr, scores.data<T>(), data_or_null(totals), r, classes, kept, tile);
    };
    if (labels.dtype() == DType::u8)
      launch(labels.data<std::uint8_t>(), decide_kernel<T, std::uint8_t>);
    else
      launch(labels.data<std::int32_t>(), decide_kernel<T, std::int32_t>);
  });
}

}  // namespace VG_NS

VG_DEVICE_IMPL(cut_window);
VG_DEVICE_IMPL(blend_window);
VG_DEVICE_IMPL(decide);

}  // namespace vg

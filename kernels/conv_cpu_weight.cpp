// The weight gradient of a convolution and channel sums, on the cpu. dW is a sum of outer products over voxels: for one kernel row (kd, kh), row
// pieces of dy meet row pieces of x, and a tile of dW gathers a whole chunk of them in registers (conv_cpu_outer.cpp).
//
// Order of summation, whatever the number of threads: voxels of a chunk one after the other, the chunks of a sample in order, the samples in a
// binary tree ((0+1)+(2+3))+... Chunks depend on the extents of one sample only.
#include <algorithm>
#include <cassert>
#include <cstring>
#include <numeric>
#include <vector>

#include "kernels/conv_cpu.h"
#include "tensor/parallel.h"

namespace vg {

VG_KERNEL_HOME(conv_backward_weight);
VG_KERNEL_HOME(channel_sum);

namespace cpu {
namespace {

using std::int64_t;

constexpr int64_t kCut = 1024;         // longest row piece, voxels
constexpr int64_t kMemory = 16 << 20;  // floats of partial sums alive at a time, unless one sample needs more
constexpr int64_t kReduce = 4096;      // floats of dW that one thread sums up

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// How dW of one input lies in the partial sums, and who is broadcast. Rows are broadcast from one tensor, columns are vectors of the other.
//   x_vectors: rows are output channels, columns belong to x;  else rows belong to x, columns are output channels.
//   flat: with dilation 1 the kW taps of a kernel row are kW * I neighbouring floats of x, which are taken together (`taps` is 1); else one by one.
struct Layout {
  bool x_vectors, flat;
  int64_t taps, rows, columns, pitch;  // of each kernel row: taps matrices of rows x pitch floats; pitch is at least one vector
};

// What the multipliers are busy with per voxel and kernel row: too small tiles wait for results, one vector per row waits for loads.
double cost_of(const Layout& l, const OuterKernels& k) {
  double cost = 0;
  for (int64_t left = ceil_div(l.columns, k.lanes); left > 0;) {
    const int64_t vectors = left == 3 ? 3 : std::min<int64_t>(left, 2), tiles = ceil_div(l.rows, k.max_rows[vectors]);
    cost += std::max<double>(static_cast<double>(l.rows * vectors) * (vectors == 1 ? 1.25 : 1.0), 8.0 * static_cast<double>(tiles));
    left -= vectors;
  }
  return cost * static_cast<double>(l.taps);
}

Layout choose_layout(int64_t outputs, int64_t inputs, int64_t kernel_w, bool flat_possible, const OuterKernels& k) {
  Layout best{};
  double least = 0;
  for (const bool x_vectors : {false, true})
    for (const bool flat : {false, true}) {
      if (flat && !flat_possible) continue;
      const int64_t span = flat ? kernel_w * inputs : inputs, taps = flat ? 1 : kernel_w;
      Layout l{x_vectors, flat, taps, x_vectors ? outputs : span, x_vectors ? span : outputs, 0};
      l.pitch = std::max<int64_t>(l.columns, k.lanes);
      if (x_vectors && !flat && l.columns < k.lanes) continue;  // vectors would reach beyond the voxel; flat makes copies of such
      const double cost = cost_of(l, k);
      if (best.taps == 0 || cost < least) best = l, least = cost;
    }
  return best;
}

struct Input {
  const float* data;
  int64_t channels, first;  // first: its channel 0 among the weights' input channels
  Layout layout;
  int64_t begin;  // of its matrices in a partial sum
};

struct Span {
  int64_t begin, end;
};

struct Lists {  // of one work item
  std::vector<Run> runs;
  std::vector<float> windows, wide;
  std::size_t windows_used = 0, wide_used = 0;
};

class WeightGradient {
 public:
  WeightGradient(const Tensor& dy, const Tensor& x0, const Tensor& x1, const Shape& weights, const ConvParams& p);
  void run(const Exec& ex, const Grad& dw);

 private:
  Span interior(const Input& input, int64_t at) const;
  const float* widen(const float* dy, int64_t voxels, Lists& lists) const;
  const float* window(const Input& input, const float* x_row, int64_t j, Lists& lists) const;
  void find_runs(int64_t n, int64_t chunk, const Input& input, int64_t kernel_row, int64_t tap, Lists& lists) const;
  void matrix(const Input& input, const Lists& lists, float* out) const;
  void compute(int64_t start, int64_t samples, float* partials) const;
  void reduce(float* partials, int64_t samples) const;
  void write(const float* sum, const Grad& dw) const;
  int64_t dy_step(const Layout& l) const { return !l.x_vectors && l.columns < kernels_.lanes ? kernels_.lanes : outputs_; }

  const OuterKernels& kernels_;
  const ConvParams p_;
  const float* const dy_;
  std::vector<Input> inputs_;
  const int64_t samples_, outputs_;
  int64_t out_[3], in_[3], kernel_[3];
  int64_t cuts_, pieces_, pieces_in_chunk_, chunks_;  // a piece is an output row, or a part of a long one
  int64_t partial_ = 0;                               // floats of one partial sum
};

WeightGradient::WeightGradient(const Tensor& dy, const Tensor& x0, const Tensor& x1, const Shape& weights, const ConvParams& p)
    : kernels_(outer_kernels()), p_(p), dy_(dy.data<float>()), samples_(dy.shape().n()), outputs_(dy.shape().c()) {
  bool pointwise = true;
  for (int a = 0; a < 3; ++a) {
    out_[a] = dy.shape()[1 + a], in_[a] = x0.shape()[1 + a], kernel_[a] = weights[2 + a];
    pointwise = pointwise && kernel_[a] == 1 && p.stride[a] == 1 && p.pad[a] == 0 && out_[a] == in_[a];
  }
  if (pointwise) {  // rows do not matter: one long row
    out_[2] = in_[2] = dy.shape().voxels();
    out_[0] = out_[1] = in_[0] = in_[1] = 1;
  }
  for (const Tensor* x : {&x0, &x1}) {
    if (!x->defined()) continue;
    const int64_t channels = x->shape().c();
    const Layout layout = choose_layout(outputs_, channels, kernel_[2], p.dilation[2] == 1 || kernel_[2] == 1, kernels_);
    inputs_.push_back({x->data<float>(), channels, x == &x1 ? x0.shape().c() : 0, layout, partial_});
    partial_ += kernel_[0] * kernel_[1] * layout.taps * layout.rows * layout.pitch;
  }
  // A chunk's rows of x and dy should stay in the second-level cache while every tile of dW passes over them.
  const int64_t voxels = std::clamp<int64_t>((128 << 10) / (outputs_ + weights[1]), 512, 4096), longest = std::min(out_[2], kCut);
  cuts_ = ceil_div(out_[2], kCut);
  pieces_ = out_[0] * out_[1] * cuts_;
  pieces_in_chunk_ = std::max<int64_t>(1, voxels / longest);
  chunks_ = ceil_div(pieces_, pieces_in_chunk_);
}

// Output voxels of a row whose `span` taps, the first at input voxel stride j + at, all lie within the row.
Span WeightGradient::interior(const Input& input, int64_t at) const {
  const int64_t stride = p_.stride[2], span = input.layout.flat ? kernel_[2] : 1;
  const int64_t begin = std::clamp<int64_t>(-floor_div(at, stride), 0, out_[2]);
  return {begin, std::clamp(floor_div(in_[2] - span - at, stride) + 1, begin, out_[2])};
}

// dy of a piece with its few channels widened to a whole vector, zeros after the last.
const float* WeightGradient::widen(const float* dy, int64_t voxels, Lists& lists) const {
  float* to = lists.wide.data() + lists.wide_used;
  lists.wide_used += static_cast<std::size_t>(voxels * kernels_.lanes);
  std::memset(to, 0, static_cast<std::size_t>(voxels * kernels_.lanes) * sizeof(float));
  for (int64_t v = 0; v < voxels; ++v)
    for (int64_t c = 0; c < outputs_; ++c) to[v * kernels_.lanes + c] = dy[v * outputs_ + c];
  return to;
}

// Windows are kW * I floats of x around output voxel j, zeros outside the row: what a border voxel multiplies, in a run of its own.
const float* WeightGradient::window(const Input& input, const float* x_row, int64_t j, Lists& lists) const {
  const int64_t channels = input.channels, floats = std::max<int64_t>(kernel_[2] * channels, kernels_.lanes);
  float* to = lists.windows.data() + lists.windows_used;
  lists.windows_used += static_cast<std::size_t>(floats);
  std::memset(to, 0, static_cast<std::size_t>(floats) * sizeof(float));
  const int64_t start = j * p_.stride[2] - p_.pad[2];  // input voxel of tap 0
  const int64_t first = std::clamp<int64_t>(-start, 0, kernel_[2]), last = std::clamp<int64_t>(in_[2] - start, first, kernel_[2]);
  if (first < last)
    std::memcpy(to + first * channels, x_row + (start + first) * channels,
                static_cast<std::size_t>((last - first) * channels) * sizeof(float));
  return to;
}

void WeightGradient::find_runs(int64_t n, int64_t chunk, const Input& input, int64_t kernel_row, int64_t tap, Lists& lists) const {
  const Layout& l = input.layout;
  const int64_t first = chunk * pieces_in_chunk_, last = std::min(pieces_, first + pieces_in_chunk_), channels = input.channels;
  const int64_t at = (l.flat ? 0 : tap * p_.dilation[2]) - p_.pad[2];
  const bool narrow = l.columns < kernels_.lanes;
  const Span inner = narrow && l.x_vectors ? Span{0, 0} : interior(input, at);  // too narrow for vectors: windows everywhere
  const int64_t longest = std::min(out_[2], kCut);
  lists.runs.clear(), lists.windows_used = lists.wide_used = 0;
  if (l.flat) {
    const int64_t border = std::min(longest, out_[2] - (inner.end - inner.begin));
    lists.windows.resize(static_cast<std::size_t>((last - first) * border * std::max<int64_t>(kernel_[2] * channels, kernels_.lanes)));
  }
  if (narrow && !l.x_vectors) lists.wide.resize(static_cast<std::size_t>((last - first) * longest * kernels_.lanes));
  for (int64_t i = first; i < last; ++i) {
    const int64_t row = i / cuts_, begin = i % cuts_ * kCut, end = std::min(out_[2], begin + kCut);
    const int64_t z = row / out_[1] * p_.stride[0] - p_.pad[0] + kernel_row / kernel_[1] * p_.dilation[0];
    const int64_t y = row % out_[1] * p_.stride[1] - p_.pad[1] + kernel_row % kernel_[1] * p_.dilation[1];
    if (z < 0 || z >= in_[0] || y < 0 || y >= in_[1]) continue;
    const float* x_row = input.data + ((n * in_[0] + z) * in_[1] + y) * in_[2] * channels;
    const float* dy = dy_ + ((n * out_[0] * out_[1] + row) * out_[2] + begin) * outputs_;
    if (narrow && !l.x_vectors) dy = widen(dy, end - begin, lists);
    const auto add_run = [&](const float* x, int64_t j, int64_t count) {
      const float* gradient = dy + (j - begin) * dy_step(l);
      lists.runs.push_back(l.x_vectors ? Run{gradient, x, count} : Run{x, gradient, count});
    };
    const int64_t low = std::clamp(inner.begin, begin, end), high = std::clamp(inner.end, low, end);
    if (low < high) add_run(x_row + (low * p_.stride[2] + at) * channels, low, high - low);
    if (!l.flat) continue;
    for (int64_t j = begin; j < low; ++j) add_run(window(input, x_row, j, lists), j, 1);
    for (int64_t j = high; j < end; ++j) add_run(window(input, x_row, j, lists), j, 1);
  }
}

// One matrix of dW: every tile takes all runs of the chunk.
void WeightGradient::matrix(const Input& input, const Lists& lists, float* out) const {
  const Layout& l = input.layout;
  const int64_t x_step = p_.stride[2] * input.channels, a_step = l.x_vectors ? dy_step(l) : x_step,
                b_step = l.x_vectors ? x_step : dy_step(l);
  const int64_t all = ceil_div(l.columns, kernels_.lanes);
  for (int64_t v = 0, vectors = 0; v < all; v += vectors) {
    vectors = all - v == 3 ? 3 : std::min<int64_t>(all - v, 2);
    const int64_t column = v * kernels_.lanes,
                  last = std::max<int64_t>(0, std::min(column + vectors * kernels_.lanes, l.columns) - kernels_.lanes) - column;
    const int64_t tiles = ceil_div(l.rows, kernels_.max_rows[vectors]);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t begin = l.rows * t / tiles, end = l.rows * (t + 1) / tiles;
      kernels_.outer[vectors][end - begin](lists.runs.data(), static_cast<int>(lists.runs.size()), begin, column, a_step, b_step, last,
                                           out + begin * l.pitch + column, l.pitch);
    }
  }
}

// A sum of partial sums, element by element: chunks in order, then the samples' tree. The result lies in the first one.
void WeightGradient::reduce(float* partials, int64_t samples) const {
  parallel_for(partial_, kReduce, [&](int64_t begin, int64_t end) {
    const auto sum = [&](int64_t n, int64_t chunk) { return partials + (n * chunks_ + chunk) * partial_ + begin; };
    for (int64_t n = 0; n < samples; ++n)
      for (int64_t c = 1; c < chunks_; ++c) kernels_.add(sum(n, 0), sum(n, c), end - begin);
    for (int64_t step = 1; step < samples; step *= 2)
      for (int64_t n = 0; n + step < samples; n += 2 * step) kernels_.add(sum(n, 0), sum(n + step, 0), end - begin);
  });
}

void WeightGradient::write(const float* sum, const Grad& dw) const {
  const int64_t taps = kernel_[0] * kernel_[1] * kernel_[2], input_channels = dw.shape()[1];
  const auto place = [&](const Input& input, int64_t o, int64_t i, int64_t kernel_row, int64_t k) {
    const Layout& l = input.layout;
    const int64_t x = l.flat ? k * input.channels + i : i, matrix = kernel_row * l.taps + (l.flat ? 0 : k);
    return input.begin + (matrix * l.rows + (l.x_vectors ? o : x)) * l.pitch + (l.x_vectors ? x : o);
  };
  for (const Input& input : inputs_)
    parallel_for(outputs_, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < input.channels; ++i)
        for (int64_t r = 0; r < kernel_[0] * kernel_[1]; ++r)
          for (int64_t k = 0; k < kernel_[2]; ++k)
            for (int64_t o = begin; o < end; ++o) {
              float& to = dw.data()[(o * input_channels + input.first + i) * taps + r * kernel_[2] + k];
              const float gradient = sum[place(input, o, i, r, k)];
              to = dw.beta == 0.0f ? gradient : to + gradient;
            }
    });
}

// All partial sums of samples [start, start + samples).
void WeightGradient::compute(int64_t start, int64_t samples, float* partials) const {
  const int64_t kernel_rows = kernel_[0] * kernel_[1], inputs = static_cast<int64_t>(inputs_.size());
  parallel_for(samples * chunks_ * inputs * kernel_rows, 1, [&](int64_t first, int64_t last) {
    Lists lists;
    for (int64_t item = first; item < last; ++item) {
      const int64_t row = item % kernel_rows, chunk = item / kernel_rows / inputs % chunks_, n = item / kernel_rows / inputs / chunks_;
      const Input& input = inputs_[static_cast<std::size_t>(item / kernel_rows % inputs)];
      const Layout& l = input.layout;
      for (int64_t tap = 0; tap < l.taps; ++tap) {
        find_runs(start + n, chunk, input, row, tap, lists);
        matrix(input, lists, partials + (n * chunks_ + chunk) * partial_ + input.begin + (row * l.taps + tap) * l.rows * l.pitch);
      }
    }
  });
}

// Samples go in groups whose partial sums fit into kMemory. A group is a whole subtree of the samples' tree; groups meet as the digits of a binary
// counter do, which is the rest of the tree.
void WeightGradient::run(const Exec& ex, const Grad& dw) {
  int64_t group = 1, levels = 0;
  while (group < samples_ && 2 * group * chunks_ * partial_ <= kMemory) group *= 2;
  while (group < samples_ && int64_t{1} << levels <= ceil_div(samples_, group)) ++levels;
  float* const partials = ex.scratch->reserve<float>((group * chunks_ + levels) * partial_);
  const auto waiting = [&](int64_t level) { return partials + (group * chunks_ + level) * partial_; };  // sums of 1, 2, 4, ... groups
  const auto add_waiting = [&](int64_t level) {
    parallel_for(partial_, kReduce,
                 [&](int64_t begin, int64_t end) { kernels_.add(partials + begin, waiting(level) + begin, end - begin); });
  };
  const std::size_t bytes = static_cast<std::size_t>(partial_) * sizeof(float);
  int64_t groups = 0;
  for (int64_t start = 0; start < samples_; start += group, ++groups) {
    const int64_t samples = std::min(group, samples_ - start);
    compute(start, samples, partials);
    reduce(partials, samples);
    if (levels == 0) break;
    int64_t level = 0;
    for (; groups >> level & 1; ++level) add_waiting(level);
    std::memcpy(waiting(level), partials, bytes);
  }
  for (int64_t level = 0, first = 1; level < levels; ++level)
    if (groups >> level & 1) {  // the youngest first
      if (first)
        std::memcpy(partials, waiting(level), bytes);
      else
        add_waiting(level);
      first = 0;
    }
  write(partials, dw);
}

}  // namespace

void conv_backward_weight(const Exec& ex, const Grad& dw, const Tensor& dy, const Tensor& x0, const Tensor& x1, const ConvParams& p) {
  assert(dw.shape()[0] == dy.shape().c() && dw.shape()[1] == x0.shape().c() + (x1.defined() ? x1.shape().c() : 0));
  if (dw.wanted()) WeightGradient(dy, x0, x1, dw.shape(), p).run(ex, dw);
}

void channel_sum(const Exec& ex, const Grad& db, const Tensor& dy) {
  const Shape& s = dy.shape();
  const int64_t channels = s.c(), voxels = s.voxels(), chunk = 4096, chunks = ceil_div(voxels, chunk);
  const OuterKernels& kernels = outer_kernels();
  // Lanes are independent sums, at least 16 vectors of them; lane i belongs to channel i mod C.
  const int64_t unit = std::lcm(channels, static_cast<int64_t>(kernels.lanes)), period = ceil_div(16 * kernels.lanes, unit) * unit;
  float* const partials = ex.scratch->reserve<float>(s.n() * chunks * channels);
  parallel_for(s.n() * chunks, 1, [&](int64_t first, int64_t last) {
    std::vector<float> lanes(static_cast<std::size_t>(period));
    for (int64_t item = first; item < last; ++item) {
      const int64_t n = item / chunks, begin = item % chunks * chunk, count = std::min(chunk, voxels - begin);
      std::fill(lanes.begin(), lanes.end(), 0.0f);
      kernels.add_periods(lanes.data(), period, dy.data<float>() + (n * voxels + begin) * channels, count * channels);
      float* const sum = partials + item * channels;
      for (int64_t c = 0; c < channels; ++c) sum[c] = lanes[static_cast<std::size_t>(c)];
      for (int64_t i = channels; i < period; ++i) sum[i % channels] += lanes[static_cast<std::size_t>(i)];
    }
  });
  const auto sum = [&](int64_t n, int64_t c) { return partials + (n * chunks + c) * channels; };
  for (int64_t n = 0; n < s.n(); ++n)
    for (int64_t c = 1; c < chunks; ++c) kernels.add(sum(n, 0), sum(n, c), channels);
  for (int64_t step = 1; step < s.n(); step *= 2)
    for (int64_t n = 0; n + step < s.n(); n += 2 * step) kernels.add(sum(n, 0), sum(n + step, 0), channels);
  for (int64_t c = 0; c < channels; ++c) db.data()[c] = db.beta == 0.0f ? partials[c] : db.data()[c] + partials[c];
}

}  // namespace cpu

VG_IMPL(cpu, cpu, conv_backward_weight);
VG_IMPL(cpu, cpu, channel_sum);

}  // namespace vg

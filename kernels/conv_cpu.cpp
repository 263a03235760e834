// Convolution and its data gradient on the cpu. Both are one computation: every output voxel gathers input voxels through the taps of three axes;
// they differ in which input position a tap reads (Axis) and in how the weights lie (pack). Input rows are read in place, never copied: a tile of
// neighbouring output voxels takes all taps at once in the interior, and tap by tap on the voxels where the tap is inside at a border.
#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "kernels/conv_cpu.h"
#include "tensor/parallel.h"

namespace vg {

VG_KERNEL_HOME(conv_forward);
VG_KERNEL_HOME(conv_backward_data);

namespace cpu {
namespace {

using std::int64_t;

// Output position first + step j of a phase reads input position at + in_step j through its tap. The forward pass has one phase; the data
// gradient of a convolution with stride s has s, because u + pad - k dilation is a multiple of s for every s-th u only.
struct AxisTap {
  int64_t k, at;
};
struct AxisPhase {
  int64_t first = 0, count = 0;
  std::vector<AxisTap> taps;  // by rising `at`
};
struct Axis {
  int64_t step = 1, in_step = 1, out = 1, in = 1;
  std::vector<AxisPhase> phases;
};

Axis forward_axis(int64_t out, int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  Axis axis{1, stride, out, in, {AxisPhase{0, out, {}}}};
  for (int64_t k = 0; k < kernel; ++k) axis.phases[0].taps.push_back({k, k * dilation - pad});
  return axis;
}

Axis backward_axis(int64_t out, int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  Axis axis{stride, 1, out, in, {}};
  for (int64_t first = 0; first < stride; ++first) {
    AxisPhase phase{first, first < out ? (out - first + stride - 1) / stride : 0, {}};
    for (int64_t k = kernel - 1; k >= 0; --k)
      if ((first + pad - k * dilation) % stride == 0) phase.taps.push_back({k, (first + pad - k * dilation) / stride});
    axis.phases.push_back(phase);
  }
  return axis;
}

// One of up to two tensors that a channel axis is cut into.
struct Input {
  const float* data;
  int64_t channels, first;
};
struct Output {
  float* data;
  int64_t channels, first;
  float beta;
};

// `vectors` vectors of output channels, some of them maybe beyond the last channel.
struct Block {
  float* y;            // at the block's first channel
  int64_t y_channels;  // of y: its step from voxel to voxel
  int64_t first;       // channel within the weights
  int channels, vectors;
  float beta;
  int64_t weights, bias;  // where its packed lines begin, floats
};

// The weights' strides: element (output channel o, input channel i, tap k) is at o out_step + i in_step + k.
struct Weights {
  const float* data;
  int64_t out_step, in_step, kernel[3];
  const float* bias;
};

struct Gather {
  int64_t samples;
  std::vector<Input> inputs;
  std::vector<Output> outputs;
  Axis axis[3];
  Weights weights;
  Activation activation;
};

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// The j whose tap reads inside the input: [begin, end), clipped to [low, high).
struct Span {
  int64_t begin, end;
  friend bool operator==(Span a, Span b) { return a.begin == b.begin && a.end == b.end; }
};
Span inside(const Axis& axis, const AxisTap& tap, Span within) {
  return {std::max(within.begin, -floor_div(tap.at, axis.in_step)),
          std::min(within.end, floor_div(axis.in - 1 - tap.at, axis.in_step) + 1)};
}

class GatherRun {
 public:
  GatherRun(const Exec& ex, const Gather& gather);
  void run();

 private:
  struct RowPair {  // a valid (depth, height) tap of an output row: which kernel row meets which input row
    int64_t kernel_row, in_row;
  };
  struct Lists {  // a work item's, reused from row to row
    std::vector<RowPair> pairs;
    std::vector<Segment> segments;
  };

  void plan_blocks();
  void pack() const;
  void pack(const Block& block, std::size_t input, int64_t first, int64_t last) const;
  void find_pairs(int64_t z, int64_t y, std::vector<RowPair>& pairs) const;
  void append_segments(int64_t n, const AxisPhase& phase, std::size_t tap, std::size_t taps, Lists& lists) const;
  void row(int64_t n, int64_t z, int64_t y, Span columns, const Block& block, Lists& lists) const;
  void border_tile(int64_t n, const AxisPhase& phase, const Block& block, int64_t j, int voxels, float* tile, Lists& lists) const;

  const Gather& g_;
  const TileKernels& kernels_;
  std::vector<Block> blocks_;
  std::vector<int64_t> first_line_;    // of an input's weights within a block
  std::vector<int64_t> tap_position_;  // of W tap k among its kernel row's packed taps: phase by phase, by rising input position
  int64_t lines_ = 0, packed_floats_ = 0;
  float* packed_ = nullptr;
};

GatherRun::GatherRun(const Exec& ex, const Gather& gather) : g_(gather), kernels_(tile_kernels()) {
  plan_blocks();
  packed_ = ex.scratch->reserve<float>(packed_floats_);
  pack();
}

void GatherRun::plan_blocks() {
  const int64_t* k = g_.weights.kernel;
  for (const Input& input : g_.inputs) first_line_.push_back(lines_), lines_ += k[0] * k[1] * k[2] * input.channels;
  tap_position_.assign(static_cast<std::size_t>(k[2]), 0);
  int64_t position = 0;
  for (const AxisPhase& phase : g_.axis[2].phases)
    for (const AxisTap& tap : phase.taps) tap_position_[static_cast<std::size_t>(tap.k)] = position++;
  for (const Output& output : g_.outputs)
    for (int64_t done = 0; done < output.channels;) {
      const int64_t left = (output.channels - done + kernels_.lanes - 1) / kernels_.lanes;
      Block block{};
      block.vectors = static_cast<int>(left == 3 ? 3 : std::min<int64_t>(left, 2));
      block.channels = static_cast<int>(std::min<int64_t>(output.channels - done, block.vectors * kernels_.lanes));
      block.y = output.data + done, block.y_channels = output.channels, block.first = output.first + done, block.beta = output.beta;
      block.bias = packed_floats_;
      block.weights = block.bias + block.vectors * kernels_.lanes;
      packed_floats_ = block.weights + lines_ * block.vectors * kernels_.lanes;
      blocks_.push_back(block);
      done += block.channels;
    }
}

void GatherRun::pack() const {
  constexpr int64_t kGroup = 16;  // input channels in one piece of work
  for (std::size_t q = 0; q < g_.inputs.size(); ++q) {
    const int64_t groups = (g_.inputs[q].channels + kGroup - 1) / kGroup;
    parallel_for(static_cast<int64_t>(blocks_.size()) * groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u)
        pack(blocks_[static_cast<std::size_t>(u / groups)], q, u % groups * kGroup,
             std::min(g_.inputs[q].channels, (u % groups + 1) * kGroup));
    });
  }
  for (const Block& block : blocks_)
    for (int c = 0; c < block.vectors * kernels_.lanes; ++c)
      packed_[block.bias + c] = g_.weights.bias && c < block.channels ? g_.weights.bias[block.first + c] : 0.0f;
}

// Line (kernel row, tap position, input channel) of a block: its output channels' weights, zeros after the last.
void GatherRun::pack(const Block& block, std::size_t input, int64_t first, int64_t last) const {
  const Weights& w = g_.weights;
  const int64_t width = block.vectors * kernels_.lanes, channels = g_.inputs[input].channels, kernel_rows = w.kernel[0] * w.kernel[1];
  float* const to = packed_ + block.weights + first_line_[input] * width;
  const auto line = [&](int64_t kernel_row, int64_t k) {
    return (kernel_row * w.kernel[2] + tap_position_[static_cast<std::size_t>(k)]) * channels;
  };
  const auto copy_taps = [&](int64_t i, int64_t c) {
    const float* from = w.data + (block.first + c) * w.out_step + (g_.inputs[input].first + i) * w.in_step;
    for (int64_t r = 0; r < kernel_rows; ++r)
      for (int64_t k = 0; k < w.kernel[2]; ++k) to[(line(r, k) + i) * width + c] = *from++;
  };
  for (int64_t i = first; i < last; ++i)
    for (int64_t r = 0; r < kernel_rows; ++r)
      for (int64_t k = 0; k < w.kernel[2]; ++k)
        for (int64_t c = block.channels; c < width; ++c) to[(line(r, k) + i) * width + c] = 0.0f;
  // Source order, so that each line of the source is read once; four input channels keep the destination in the first-level cache.
  const int64_t at_once = w.in_step < w.out_step ? 4 : 1;
  for (int64_t start = first; start < last; start += at_once)
    for (int64_t c = 0; c < block.channels; ++c)
      for (int64_t i = start; i < std::min(last, start + at_once); ++i) copy_taps(i, c);
}

void GatherRun::find_pairs(int64_t z, int64_t y, std::vector<RowPair>& pairs) const {
  pairs.clear();
  const Axis &d = g_.axis[0], &h = g_.axis[1];
  for (const AxisTap& td : d.phases[static_cast<std::size_t>(z % d.step)].taps) {
    const int64_t in_z = td.at + z / d.step * d.in_step;
    if (in_z < 0 || in_z >= d.in) continue;
    for (const AxisTap& th : h.phases[static_cast<std::size_t>(y % h.step)].taps) {
      const int64_t in_y = th.at + y / h.step * h.in_step;
      if (in_y >= 0 && in_y < h.in) pairs.push_back({td.k * g_.weights.kernel[1] + th.k, in_z * h.in + in_y});
    }
  }
}

// The segments of `taps` neighbouring W taps: one per row pair and input, or one per tap where a tap's neighbour is not the next voxel.
void GatherRun::append_segments(int64_t n, const AxisPhase& phase, std::size_t tap, std::size_t taps, Lists& lists) const {
  const Axis &d = g_.axis[0], &h = g_.axis[1], &w = g_.axis[2];
  for (const RowPair& pair : lists.pairs)
    for (std::size_t q = 0; q < g_.inputs.size(); ++q) {
      const int64_t channels = g_.inputs[q].channels, in_row = (n * d.in * h.in + pair.in_row) * w.in;
      for (std::size_t t = tap; t < tap + taps;) {
        std::size_t run = 1;
        while (t + run < tap + taps && phase.taps[t + run].at == phase.taps[t].at + static_cast<int64_t>(run)) ++run;
        lists.segments.push_back(
            {reinterpret_cast<std::intptr_t>(g_.inputs[q].data) +
                 (in_row + phase.taps[t].at) * channels * static_cast<int64_t>(sizeof(float)),
             first_line_[q] +
                 (pair.kernel_row * g_.weights.kernel[2] + tap_position_[static_cast<std::size_t>(phase.taps[t].k)]) * channels,
             static_cast<int64_t>(run) * channels, w.in_step * channels});
        t += run;
      }
    }
}

// Taps that are inside for the same voxels of the tile go together.
void GatherRun::border_tile(int64_t n, const AxisPhase& phase, const Block& block, int64_t j, int voxels, float* tile, Lists& lists) const {
  const int64_t width = block.vectors * kernels_.lanes;
  for (int v = 0; v < voxels; ++v) std::memcpy(tile + v * width, packed_ + block.bias, static_cast<std::size_t>(width) * sizeof(float));
  for (std::size_t t = 0, next = 0; t < phase.taps.size(); t = next) {
    const Span span = inside(g_.axis[2], phase.taps[t], {j, j + voxels});
    for (next = t + 1; next < phase.taps.size() && inside(g_.axis[2], phase.taps[next], {j, j + voxels}) == span;) ++next;
    if (span.begin >= span.end) continue;
    lists.segments.clear();
    append_segments(n, phase, t, next - t, lists);
    float* part = tile + (span.begin - j) * width;
    kernels_.tile[block.vectors][span.end - span.begin](lists.segments.data(), static_cast<int>(lists.segments.size()), span.begin,
                                                        packed_ + block.weights, part, width, part, width);
  }
}

// One block of channels of one output row; `columns` are positions within each phase.
void GatherRun::row(int64_t n, int64_t z, int64_t y, Span columns, const Block& block, Lists& lists) const {
  alignas(64) float tile[kMaxTile];
  const Axis& w = g_.axis[2];
  const int64_t width = block.vectors * kernels_.lanes, y_step = w.step * block.y_channels;
  const bool direct = block.channels == width && block.beta == 0.0f && g_.activation.kind == ActivationKind::identity;
  float* const out_row = block.y + ((n * g_.axis[0].out + z) * g_.axis[1].out + y) * w.out * block.y_channels;
  find_pairs(z, y, lists.pairs);
  for (const AxisPhase& phase : w.phases) {
    const Span range{columns.begin, std::min(columns.end, phase.count)};
    if (range.begin >= range.end) continue;
    Span interior = range;
    for (const AxisTap& tap : phase.taps) interior = inside(w, tap, interior);
    const int64_t length = range.end - range.begin, most = kernels_.max_voxels[block.vectors], tiles = (length + most - 1) / most;
    bool ready = false;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t begin = range.begin + length * i / tiles, end = range.begin + length * (i + 1) / tiles;
      const int voxels = static_cast<int>(end - begin);
      float* const to = out_row + phase.first * block.y_channels + begin * y_step;
      const bool whole = begin >= interior.begin && end <= interior.end;
      if (whole) {
        if (!ready) lists.segments.clear(), append_segments(n, phase, 0, phase.taps.size(), lists), ready = true;
        kernels_.tile[block.vectors][voxels](lists.segments.data(), static_cast<int>(lists.segments.size()), begin, packed_ + block.weights,
                                             packed_ + block.bias, 0, direct ? to : tile, direct ? y_step : width);
      } else {
        border_tile(n, phase, block, begin, voxels, tile, lists), ready = false;
      }
      if (!direct || !whole) kernels_.finish(to, y_step, tile, width, voxels, block.channels, block.beta, g_.activation);
    }
  }
}

void GatherRun::run() {
  constexpr int64_t kColumns = 1024;        // of one work item: long rows (1-D, 1x1x1) are cut
  constexpr int64_t kWork = 4 << 20;        // multiply-adds in a work item: some 50 microseconds
  constexpr int64_t kResident = 256 << 10;  // bytes of packed weights that may be read again for every row
  const Axis &d = g_.axis[0], &h = g_.axis[1], &w = g_.axis[2];
  const int64_t blocks = static_cast<int64_t>(blocks_.size());
  const int64_t together = packed_floats_ * static_cast<int64_t>(sizeof(float)) <= kResident ? blocks : 1;  // blocks in a work item
  const int64_t positions = w.phases[0].count, cuts = (positions + kColumns - 1) / kColumns;
  const int64_t row_work = std::max<int64_t>(1, std::min(positions, kColumns) * lines_ * blocks_[0].channels * together);
  const int64_t rows = std::clamp<int64_t>(kWork / row_work, 1, h.out), slabs = (h.out + rows - 1) / rows;
  const int64_t per_group = g_.samples * d.out * slabs * cuts;
  parallel_for(blocks / together * per_group, 1, [&](int64_t first, int64_t last) {
    Lists lists;
    for (int64_t item = first; item < last; ++item) {
      const int64_t group = item / per_group, cut = item % cuts, slab = item / cuts % slabs, z = item / cuts / slabs % d.out,
                    n = item / cuts / slabs / d.out % g_.samples;
      for (int64_t b = group * together; b < (group + 1) * together; ++b)
        for (int64_t y = slab * rows; y < std::min(h.out, (slab + 1) * rows); ++y)
          row(n, z, y, {cut * kColumns, (cut + 1) * kColumns}, blocks_[static_cast<std::size_t>(b)], lists);
    }
  });
}

void run_gather(const Exec& ex, Gather& g, const Shape& out, const Shape& in, const ConvParams& p, bool backward) {
  bool pointwise = true;
  for (int a = 0; a < 3; ++a)
    pointwise = pointwise && g.weights.kernel[a] == 1 && p.stride[a] == 1 && p.pad[a] == 0 && out[1 + a] == in[1 + a];
  if (pointwise) {  // rows do not matter: one long row
    for (int a = 0; a < 2; ++a) g.axis[a] = forward_axis(1, 1, 1, 1, 1, 0);
    g.axis[2] = forward_axis(out.voxels(), in.voxels(), 1, 1, 1, 0);
  } else {
    for (int a = 0; a < 3; ++a)
      g.axis[a] =
          (backward ? backward_axis : forward_axis)(out[1 + a], in[1 + a], g.weights.kernel[a], p.stride[a], p.dilation[a], p.pad[a]);
  }
  GatherRun(ex, g).run();
}

}  // namespace

void conv_forward(const Exec& ex, Tensor& y, const Tensor& x0, const Tensor& x1, const Tensor& w, const Tensor& b, const ConvParams& p) {
  const Shape &ws = w.shape(), &xs = x0.shape();
  assert(ws[0] == y.shape().c() && ws[1] == xs.c() + (x1.defined() ? x1.shape().c() : 0) && xs.n() == y.shape().n());
  assert(p.activation.kind != ActivationKind::prelu);
  if (y.elements() == 0) return;
  const int64_t taps = ws[2] * ws[3] * ws[4];
  Gather g{};
  g.samples = xs.n();
  g.inputs.push_back({x0.data<float>(), xs.c(), 0});
  if (x1.defined()) g.inputs.push_back({x1.data<float>(), x1.shape().c(), xs.c()});
  g.outputs.push_back({y.data<float>(), ws[0], 0, 0.0f});
  g.weights = {w.data<float>(), ws[1] * taps, taps, {ws[2], ws[3], ws[4]}, b.defined() ? b.data<float>() : nullptr};
  g.activation = p.activation;
  run_gather(ex, g, y.shape(), xs, p, false);
}

void conv_backward_data(const Exec& ex, const Grad& dx0, const Grad& dx1, const Tensor& dy, const Tensor& w, const Tensor& b,
                        const ConvParams& p) {
  const Shape &ws = w.shape(), &ds = dy.shape();
  assert(ws[0] == ds.c());
  if (!dx0.wanted() && !dx1.wanted()) return;
  const Shape& out = (dx0.wanted() ? dx0 : dx1).shape();
  if (out.n() * out.voxels() == 0) return;
  const int64_t taps = ws[2] * ws[3] * ws[4];
  Gather g{};
  g.samples = out.n();
  g.inputs.push_back({dy.data<float>(), ws[0], 0});
  if (dx0.wanted()) g.outputs.push_back({dx0.data(), dx0.shape().c(), 0, dx0.beta});
  if (dx1.wanted()) g.outputs.push_back({dx1.data(), dx1.shape().c(), ws[1] - dx1.shape().c(), dx1.beta});
  g.weights = {w.data<float>(), taps, ws[1] * taps, {ws[2], ws[3], ws[4]}, b.defined() ? b.data<float>() : nullptr};
  run_gather(ex, g, out, ds, p, true);
}

}  // namespace cpu

VG_IMPL(cpu, cpu, conv_forward);
VG_IMPL(cpu, cpu, conv_backward_data);

}  // namespace vg

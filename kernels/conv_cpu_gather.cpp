// The engine of convolution and data gradient on the cpu: blocks of output channels with packed weights, slabs of output rows for threads,
// tiles of neighbouring voxels for the vector kernel. Input rows are read in place. A tile takes all taps at once where they lie inside; at
// a border it takes them in groups, each on the voxels where the group is inside. No tap ever reads padding.
// (Cutting the weights into parts that stay in the first-level cache was tried; it is slower: streamed from the second they cost 2 %.)
#include "kernels/conv_cpu_gather.h"

#include <algorithm>
#include <cstring>

#include "tensor/parallel.h"

namespace vg::cpu {
namespace {

using std::int64_t;

// `vectors` vectors of output channels, some of them maybe beyond the last channel.
struct Block {
  Planes y;
  int64_t y_channels = 0, y_first = 0;  // of y: its step from voxel to voxel; the block's first
  int64_t first = 0;                    // channel within the weights
  int channels = 0, vectors = 0;
  float beta = 0.0f;
  int64_t weights = 0, bias = 0;  // where its packed lines begin, floats
};

// Positions [begin, end) of a row.
struct Span {
  int64_t begin, end;
  friend bool operator==(Span a, Span b) { return a.begin == b.begin && a.end == b.end; }
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// The j whose tap reads inside the input.
Span inside(const Axis& axis, const AxisTap& tap, Span within) {
  return {std::max(within.begin, -floor_div(tap.at, axis.in_step)),
          std::min(within.end, floor_div(axis.in - 1 - tap.at, axis.in_step) + 1)};
}

class GatherRun {
 public:
  explicit GatherRun(const Gather& gather);
  void run(const Exec& ex);
  int64_t floats() const { return g_.packed ? 0 : packed_floats_; }  // of scratch
  std::vector<float> packed() {
    std::vector<float> to(static_cast<std::size_t>(packed_floats_));
    packed_ = to.data();
    pack();
    return to;
  }

 private:
  struct Lists {                   // of one thread, reused
    std::vector<int64_t> in_rows;  // [row of the slab][kernel row]: input row within the sample, or -1
    std::vector<int64_t> newest;   // [row of the slab and one more]: the last of them, or -1
    std::vector<Segment> segments;
  };
  struct Slab {
    int64_t n, row, rows;
    Span columns;  // within each phase
  };

  void plan_blocks();
  void pack() const;
  void pack(const Block& block, std::size_t input, int64_t first, int64_t last) const;
  void find_in_rows(const Slab& slab, Lists& lists) const;
  void find_segments(int64_t n, const int64_t* in_rows, const AxisPhase& phase, std::size_t tap, std::size_t taps, Lists& lists) const;
  void border_tile(int64_t n, const int64_t* in_rows, const AxisPhase& phase, const Block& block, int64_t j, int voxels, float* sums,
                   Ahead& ahead, Lists& lists) const;
  Ahead look_ahead(const Slab& slab, int64_t r, const Block& block, const AxisPhase& phase, int64_t begin, int64_t end,
                   const Lists& lists) const;
  void row(const Slab& slab, int64_t r, const AxisPhase& phase, const Block& block, Ahead* points_ahead, Lists& lists) const;
  void run_points() const;
  const float* in_row(int64_t n, int64_t row, std::size_t input) const;
  float* out(const Slab& slab, int64_t row, const AxisPhase& phase, const Block& block, int64_t j) const;
  int64_t width(const Block& block) const { return block.vectors * kernels_.lanes; }

  const Gather& g_;
  const TileKernels& kernels_;
  const Axis &d_, &h_, &w_;
  const int64_t kernel_rows_;
  std::vector<Block> blocks_;
  std::vector<int64_t> first_line_;    // of an input's weights within a block
  std::vector<int64_t> tap_position_;  // of W tap k among its kernel row's packed taps: phase by phase, by rising input position
  bool fetch_ahead_ = false;
  bool points_ = false;  // one tap, one row
  int64_t lines_ = 0, packed_floats_ = 0;
  float* packed_ = nullptr;
};

constexpr int64_t kColumns = 1024;        // longest part of a row in a slab: 1-D and 1x1x1 rows are cut
constexpr int64_t kPoints = 27;           // voxels that pass all blocks together where there is but one tap
constexpr int64_t kPointFloats = 2048;     // of packed weights, for which so few voxels are worth a call
constexpr int64_t kPointBytes = 1 << 20;  // of packed weights that stay in the second-level cache then
constexpr int64_t kWork = 4 << 20;        // multiply-adds in a slab: some 50 microseconds
constexpr int64_t kFewBytes = 256 << 10;  // of packed weights that may be read again for every slab
constexpr int64_t kInputBytes = 1 << 20;  // of input rows that stay in the second-level cache while all blocks pass

GatherRun::GatherRun(const Gather& gather)
    : g_(gather),
      kernels_(tile_kernels()),
      d_(gather.axis[0]),
      h_(gather.axis[1]),
      w_(gather.axis[2]),
      kernel_rows_(gather.weights.kernel[0] * gather.weights.kernel[1]) {
  plan_blocks();
  // With one product per input channel (1x1x1, 2x2x2 upsampling) memory has no pause to be used.
  fetch_ahead_ = w_.phases.size() == 1 && kernel_rows_ > 1;
  points_ = kernel_rows_ * g_.weights.kernel[2] == 1 && d_.out * h_.out == 1 && w_.phases.size() == 1 && w_.in_step == 1 && !g_.wanted &&
            g_.outputs.size() == 1 && packed_floats_ >= kPointFloats && packed_floats_ * static_cast<int64_t>(sizeof(float)) <= kPointBytes;
}

void GatherRun::plan_blocks() {
  for (const GatherInput& input : g_.inputs) first_line_.push_back(lines_), lines_ += kernel_rows_ * g_.weights.kernel[2] * input.channels;
  tap_position_.assign(static_cast<std::size_t>(g_.weights.kernel[2]), 0);
  int64_t position = 0;
  for (const AxisPhase& phase : w_.phases)
    for (const AxisTap& tap : phase.taps) tap_position_[static_cast<std::size_t>(tap.k)] = position++;
  for (const GatherOutput& output : g_.outputs)
    for (int64_t done = 0; done < output.channels;) {
      const int64_t left = ceil_div(output.channels - done, kernels_.lanes);
      Block block;
      block.y = output.data;
      block.vectors = static_cast<int>(left == 3 ? 3 : std::min<int64_t>(left, 2));
      block.channels = static_cast<int>(std::min<int64_t>(output.channels - done, width(block)));
      block.y_channels = output.channels, block.y_first = done, block.first = output.first + done, block.beta = output.beta;
      block.bias = packed_floats_;
      block.weights = block.bias + width(block);
      packed_floats_ = block.weights + lines_ * width(block);
      blocks_.push_back(block);
      done += block.channels;
    }
}

void GatherRun::pack() const {
  constexpr int64_t kGroup = 16;  // input channels in one piece of work
  for (std::size_t q = 0; q < g_.inputs.size(); ++q) {
    const int64_t groups = ceil_div(g_.inputs[q].channels, kGroup);
    parallel_for(static_cast<int64_t>(blocks_.size()) * groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u)
        pack(blocks_[static_cast<std::size_t>(u / groups)], q, u % groups * kGroup,
             std::min(g_.inputs[q].channels, (u % groups + 1) * kGroup));
    });
  }
  for (const Block& block : blocks_)
    for (int64_t c = 0; c < width(block); ++c)
      packed_[block.bias + c] = g_.weights.bias && c < block.channels ? g_.weights.bias[block.first + c] : 0.0f;
}

// Line (kernel row, tap position, input channel) of a block: its output channels' weights, zeros after the last.
void GatherRun::pack(const Block& block, std::size_t input, int64_t first, int64_t last) const {
  const GatherWeights& w = g_.weights;
  const int64_t width = this->width(block), channels = g_.inputs[input].channels;
  float* const to = packed_ + block.weights + first_line_[input] * width;
  const int64_t taps = kernel_rows_ * w.kernel[2], together = w.in_step == taps ? last - first : 1;  // channels whose taps are neighbours
  std::vector<float*> lines(static_cast<std::size_t>(together * taps));
  for (int64_t i = first; i < last; i += together) {
    for (int64_t c = 0; c < together; ++c)
      for (int64_t k = 0; k < taps; ++k) {
        const int64_t tap = k / w.kernel[2] * w.kernel[2] + tap_position_[static_cast<std::size_t>(k % w.kernel[2])];
        lines[static_cast<std::size_t>(c * taps + k)] = to + (tap * channels + i + c) * width;
      }
    const float* const from = w.data + block.first * w.out_step + (g_.inputs[input].first + i) * w.in_step;
    kernels_.gather_lines(lines.data(), together * taps, from, w.out_step, block.channels, static_cast<int>(width), from + together * w.in_step);
  }
}

void GatherRun::find_in_rows(const Slab& slab, Lists& lists) const {
  lists.in_rows.assign(static_cast<std::size_t>((slab.rows + 1) * kernel_rows_), -1);
  lists.newest.assign(static_cast<std::size_t>(slab.rows + 1), -1);
  for (int64_t r = 0; r <= slab.rows && slab.row + r < d_.out * h_.out; ++r) {
    const int64_t z = (slab.row + r) / h_.out, y = (slab.row + r) % h_.out;
    for (const AxisTap& td : d_.phases[static_cast<std::size_t>(z % d_.step)].taps) {
      const int64_t in_z = td.at + z / d_.step * d_.in_step;
      if (in_z < 0 || in_z >= d_.in || !g_.inputs[0].data.at(slab.n * d_.in + in_z, h_.in * w_.in)) continue;
      for (const AxisTap& th : h_.phases[static_cast<std::size_t>(y % h_.step)].taps) {
        const int64_t in_y = th.at + y / h_.step * h_.in_step;
        if (in_y < 0 || in_y >= h_.in) continue;
        lists.in_rows[static_cast<std::size_t>(r * kernel_rows_ + td.k * g_.weights.kernel[1] + th.k)] = in_z * h_.in + in_y;
        lists.newest[static_cast<std::size_t>(r)] = std::max(lists.newest[static_cast<std::size_t>(r)], in_z * h_.in + in_y);
      }
    }
  }
}

// The segments of some W taps for one output row: one per kernel row and input, or one per tap where taps are not neighbours in memory.
void GatherRun::find_segments(int64_t n, const int64_t* in_rows, const AxisPhase& phase, std::size_t tap, std::size_t taps,
                              Lists& lists) const {
  lists.segments.clear();
  for (int64_t r = 0; r < kernel_rows_; ++r) {
    if (in_rows[r] < 0) continue;
    for (std::size_t q = 0; q < g_.inputs.size(); ++q) {
      const int64_t channels = g_.inputs[q].channels;
      const auto row = reinterpret_cast<std::intptr_t>(in_row(n, in_rows[r], q));
      for (std::size_t t = tap; t < tap + taps;) {
        const AxisTap& first = phase.taps[t];
        std::size_t run = 1;
        while (t + run < tap + taps && phase.taps[t + run].at == first.at + static_cast<int64_t>(run)) ++run;
        lists.segments.push_back(
            {row + first.at * channels * static_cast<int64_t>(sizeof(float)),
             first_line_[q] + (r * g_.weights.kernel[2] + tap_position_[static_cast<std::size_t>(first.k)]) * channels,
             static_cast<int64_t>(run) * channels, w_.in_step * channels});
        t += run;
      }
    }
  }
}

// Taps that are inside for the same voxels of the tile go together.
void GatherRun::border_tile(int64_t n, const int64_t* in_rows, const AxisPhase& phase, const Block& block, int64_t j, int voxels,
                            float* sums, Ahead& ahead, Lists& lists) const {
  const int64_t width = this->width(block);
  const Span all{j, j + voxels};
  for (int v = 0; v < voxels; ++v) std::memcpy(sums + v * width, packed_ + block.bias, static_cast<std::size_t>(width) * sizeof(float));
  for (std::size_t t = 0, next = 0; t < phase.taps.size(); t = next) {
    const Span span = inside(w_, phase.taps[t], all);
    for (next = t + 1; next < phase.taps.size() && inside(w_, phase.taps[next], all) == span;) ++next;
    if (span.begin >= span.end) continue;
    find_segments(n, in_rows, phase, t, next - t, lists);
    float* const to = sums + (span.begin - j) * width;
    kernels_.tile[block.vectors][span.end - span.begin](lists.segments.data(), static_cast<int>(lists.segments.size()), span.begin,
                                                        packed_ + block.weights, to, width, to, width, ahead);
  }
}

// Input row `row` of sample n's D H rows.
const float* GatherRun::in_row(int64_t n, int64_t row, std::size_t input) const {
  const int64_t c = g_.inputs[input].channels;
  return g_.inputs[input].data.at(n * d_.in + row / h_.in, h_.in * w_.in * c) + row % h_.in * w_.in * c;
}

float* GatherRun::out(const Slab& slab, int64_t row, const AxisPhase& phase, const Block& block, int64_t j) const {
  const int64_t z = (slab.row + row) / h_.out, y = (slab.row + row) % h_.out, c = block.y_channels;
  const float* plane = block.y.at(slab.n * d_.out + z, h_.out * w_.out * c);
  return const_cast<float*>(plane) + (y * w_.out + phase.first + j * w_.step) * c + block.y_first;
}

// While positions [begin, end) of a row are computed: what the same positions of the next row bring anew, where there is time for it.
Ahead GatherRun::look_ahead(const Slab& slab, int64_t r, const Block& block, const AxisPhase& phase, int64_t begin, int64_t end,
                            const Lists& lists) const {
  Ahead ahead;
  if (!fetch_ahead_ || slab.row + r + 1 >= d_.out * h_.out) return ahead;
  const int64_t bytes = static_cast<int64_t>(sizeof(float)), in_row = lists.newest[static_cast<std::size_t>(r + 1)];
  if (&block == &blocks_[0] && in_row >= 0 && in_row != lists.newest[static_cast<std::size_t>(r)]) {
    const GatherInput& input = g_.inputs[0];
    const std::intptr_t first =
        reinterpret_cast<std::intptr_t>(this->in_row(slab.n, in_row, 0)) + begin * w_.in_step * input.channels * bytes;
    ahead.range[0] = {first, first + (end - begin) * w_.in_step * input.channels * bytes};
  }
  const std::intptr_t first = reinterpret_cast<std::intptr_t>(out(slab, r + 1, phase, block, begin));
  ahead.range[1] = {first, first + (end - begin) * block.y_channels * bytes};
  return ahead;
}

// One phase of one block of channels of one output row, tile by tile. points_ahead: what to fetch meanwhile, or null: what the next row needs.
void GatherRun::row(const Slab& slab, int64_t r, const AxisPhase& phase, const Block& block, Ahead* points_ahead, Lists& lists) const {
  alignas(64) float sums[kMaxTile];
  Span range{slab.columns.begin, std::min(slab.columns.end, phase.count)};
  if (g_.wanted) {
    const RowSpan wanted = g_.wanted[slab.n * h_.out + (slab.row + r) % h_.out];
    range = {std::max(range.begin, wanted.begin), std::min(range.end, wanted.end)};
    if (range.begin >= range.end) return;
  }
  const int64_t width = this->width(block), y_step = w_.step * block.y_channels;
  const int64_t length = range.end - range.begin, tiles = ceil_div(length, kernels_.max_voxels[block.vectors]);
  const bool straight = block.channels == width && block.beta == 0.0f && g_.activation.kind == ActivationKind::identity;
  const int64_t* in_rows = lists.in_rows.data() + r * kernel_rows_;
  Span interior = range;
  for (const AxisTap& tap : phase.taps) interior = inside(w_, tap, interior);
  bool found = false;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t begin = range.begin + length * i / tiles, end = range.begin + length * (i + 1) / tiles;
    const int voxels = static_cast<int>(end - begin);
    float* const y = out(slab, r, phase, block, begin);
    Ahead row_ahead = points_ahead ? Ahead() : look_ahead(slab, r, block, phase, begin, end, lists);
    Ahead& ahead = points_ahead ? *points_ahead : row_ahead;
    const bool whole = begin >= interior.begin && end <= interior.end;
    if (whole) {
      if (!found) find_segments(slab.n, in_rows, phase, 0, phase.taps.size(), lists);
      kernels_.tile[block.vectors][voxels](lists.segments.data(), static_cast<int>(lists.segments.size()), begin, packed_ + block.weights,
                                           packed_ + block.bias, 0, straight ? y : sums, straight ? y_step : width, ahead);
    } else {
      border_tile(slab.n, in_rows, phase, block, begin, voxels, sums, ahead, lists);
    }
    found = whole;
    if (!straight || !whole) kernels_.finish(y, y_step, sums, width, voxels, block.channels, block.beta, g_.activation);
  }
}

// One tap, one row: all blocks of channels of a few voxels, one after the other, so that outputs are written as they lie in memory; what the
// next voxels write is fetched meanwhile, or every store would wait.
void GatherRun::run_points() const {
  const int64_t positions = w_.out, parts = ceil_div(positions, kPoints), bytes = static_cast<int64_t>(sizeof(float));
  const int64_t grain = std::max<int64_t>(1, kWork / std::max<int64_t>(1, kPoints * packed_floats_));
  parallel_for(g_.samples * parts, grain, [&](int64_t first, int64_t last) {
    Lists lists;
    for (int64_t item = first; item < last; ++item) {
      const auto place = [&](int64_t i) { return Slab{i / parts, 0, 1, {positions * (i % parts) / parts, positions * (i % parts + 1) / parts}}; };
      const Slab slab = place(item);
      find_in_rows(slab, lists);
      Ahead ahead;
      if (item + 1 < last) {
        const Slab next = place(item + 1);
        const Block& block = blocks_[0];
        const auto y = reinterpret_cast<std::intptr_t>(out(next, 0, w_.phases[0], block, next.columns.begin));
        const auto x = reinterpret_cast<std::intptr_t>(in_row(next.n, 0, 0) + next.columns.begin * g_.inputs[0].channels);
        const int64_t voxels = next.columns.end - next.columns.begin;
        ahead.range[0] = {y, y + voxels * block.y_channels * bytes}, ahead.range[1] = {x, x + voxels * g_.inputs[0].channels * bytes};
      }
      for (const Block& block : blocks_) row(slab, 0, w_.phases[0], block, &ahead, lists);
    }
  });
}

// Work is cut into slabs of output rows; slabs are grouped so that the input rows of a group stay in cache while one block of channels
// after the other passes over them. Nothing of this depends on the number of samples or of threads.
void GatherRun::run(const Exec& ex) {
  packed_ = g_.packed ? const_cast<float*>(g_.packed) : ex.scratch->reserve<float>(packed_floats_);
  if (!g_.packed) pack();
  if (points_) return run_points();
  const int64_t blocks = static_cast<int64_t>(blocks_.size()), out_rows = d_.out * h_.out, positions = w_.phases[0].count;
  const int64_t cuts = ceil_div(positions, kColumns), longest = std::min(positions, kColumns);
  const bool together = packed_floats_ * static_cast<int64_t>(sizeof(float)) <= kFewBytes;  // all blocks in a piece of work
  const int64_t wanted = kWork / std::max<int64_t>(1, longest * lines_ * blocks_[0].channels * (together ? blocks : 1));
  const int64_t slabs = ceil_div(out_rows, std::clamp<int64_t>(wanted, 1, out_rows)), rows = ceil_div(out_rows, slabs);
  int64_t input_bytes = 0;  // that a slab brings anew
  for (const GatherInput& input : g_.inputs)
    input_bytes += input.channels * static_cast<int64_t>(sizeof(float)) * d_.in * h_.in * w_.in * rows / out_rows;
  const int64_t group = together ? 1 : std::clamp<int64_t>(kInputBytes / std::max<int64_t>(1, input_bytes), 1, slabs),
                groups = ceil_div(slabs, group);
  const int64_t passes = together ? 1 : blocks;
  parallel_for(g_.samples * groups * passes * group * cuts, 1, [&](int64_t first, int64_t last) {
    Lists lists;
    for (int64_t item = first; item < last; ++item) {
      const int64_t cut = item % cuts, within = item / cuts % group, pass = item / cuts / group % passes;
      const int64_t part = item / cuts / group / passes, start = (part % groups * group + within) * rows;
      if (start >= out_rows) continue;
      const Slab slab{part / groups, start, std::min(rows, out_rows - start), {cut * kColumns, (cut + 1) * kColumns}};
      find_in_rows(slab, lists);
      for (int64_t b = together ? 0 : pass; b < (together ? blocks : pass + 1); ++b)
        for (int64_t r = 0; r < slab.rows; ++r)
          for (const AxisPhase& phase : w_.phases)
            if (slab.columns.begin < phase.count) row(slab, r, phase, blocks_[static_cast<std::size_t>(b)], nullptr, lists);
    }
  });
}

}  // namespace

void run_gather(const Exec& ex, const Gather& gather) { GatherRun(gather).run(ex); }
std::size_t gather_scratch(const Gather& gather) { return static_cast<std::size_t>(GatherRun(gather).floats()) * sizeof(float); }

std::vector<float> packed_for_gather(const Gather& gather) { return GatherRun(gather).packed(); }

}  // namespace vg::cpu

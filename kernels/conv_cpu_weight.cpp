// The weight gradient of a convolution and channel sums, on the cpu: blocks of voxels (conv_cpu_panel.cpp) spread over threads, and the
// order in which their sums meet. Whatever the number of threads: blocks of a chunk one after the other, the chunks of a sample in order,
// the samples in a binary tree ((0+1)+(2+3))+... Blocks and chunks depend on the extents of one sample only.
//
// Two ways. Where one sample has more numbers than dW: threads share out chunks of voxels, each with its own sum of dW. Where dW is the
// larger (deep layers: few voxels, many channels): threads share out dW, and each goes through all samples, so that sums stay in cache.
#include "kernels/conv_cpu_weight.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <numeric>

#include "kernels/blocks.h"
#include "kernels/conv_cpu_matrix.h"

namespace vg {

VG_KERNEL_HOME(conv_backward_weight);
VG_KERNEL_HOME(channel_sum);

namespace cpu {
namespace {

using std::int64_t;

constexpr int64_t kMemory = 4 << 20;         // floats of chunk sums alive at a time, unless one sample needs more:
constexpr int64_t kSampleMemory = 16 << 20;  // of one sample
constexpr int64_t kReduce = 4096;            // floats of dW that one thread adds up

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

class WeightGradient {
 public:
  WeightGradient(const Tensor& dy, const Tensor& x0, const Tensor& x1, const Shape& weights, const ConvParams& p);
  void run(const Exec& ex, const Grad& dw) const { by_weights_ ? share_weights(ex, dw) : share_voxels(ex, dw); }

 private:
  void plan_blocks(int64_t channels);
  void plan_parts();
  void plan_room();
  Block block(int64_t n, int64_t index) const;
  void add_blocks(const Part& part, int64_t n, int64_t first, int64_t last, const float* dy_panels, float* dy, float* sum,
                  Panels& panels) const;
  void share_voxels(const Exec& ex, const Grad& dw) const;
  void share_weights(const Exec& ex, const Grad& dw) const;
  std::pair<int64_t, int64_t> lines_of(const Part& part) const;
  void write(const Part& part, const float* sum, int64_t first, int64_t last, const Grad& dw) const;

  const OuterKernels& kernels_;
  WeightShape s_;
  bool by_weights_ = false;
  std::vector<Part> parts_;
  int64_t floats_ = 0;                                        // of a whole sum
  int64_t x_room_ = 0, dy_room_ = 0, largest_part_ = 0;       // floats: of panels for one block, of a part
  int64_t size_[3], counts_[3], blocks_, in_chunk_, chunks_;  // of a block; blocks along each axis; blocks of a sample, of a chunk; chunks
};

WeightGradient::WeightGradient(const Tensor& dy, const Tensor& x0, const Tensor& x1, const Shape& weights, const ConvParams& p)
    : kernels_(outer_kernels()), s_{p, dy.data<float>(), dy.shape().n(), dy.shape().c(), {}, {}, {}, {}} {
  bool pointwise = true;
  for (int a = 0; a < 3; ++a) {
    s_.out[a] = dy.shape()[1 + a], s_.in[a] = x0.shape()[1 + a], s_.kernel[a] = weights[2 + a];
    pointwise = pointwise && s_.kernel[a] == 1 && p.stride[a] == 1 && p.pad[a] == 0 && s_.out[a] == s_.in[a];
  }
  if (pointwise) {  // rows do not matter: one long row
    s_.out[2] = s_.in[2] = dy.shape().voxels();
    s_.out[0] = s_.out[1] = s_.in[0] = s_.in[1] = 1;
  }
  for (const Tensor* x : {&x0, &x1})
    if (x->defined())
      s_.inputs.push_back({x->data<float>(), x->shape().c(), x == &x1 ? x0.shape().c() : 0,
                           choose_layout(s_.outputs, x->shape().c(), s_.kernel[2], p.dilation[2] == 1, kernels_)});
  plan_blocks(s_.outputs + weights[1]);
  plan_parts();
  plan_room();
}

// Blocks whose panels stay in the second-level cache; chunks of some thousand voxels, whose sum of dW costs little beside them.
void WeightGradient::plan_blocks(int64_t channels) {
  const int64_t voxels = std::clamp<int64_t>((64 << 10) / channels, 256, 1024), *out = s_.out;
  const auto split = [](int64_t extent, int64_t wanted) {
    return ceil_div(extent, ceil_div(extent, std::clamp<int64_t>(wanted, 1, extent)));
  };
  size_[2] = split(out[2], voxels);
  size_[1] = size_[2] < out[2] ? 1 : split(out[1], voxels / size_[2]);
  size_[0] = size_[1] < out[1] ? 1 : split(out[0], voxels / (size_[2] * size_[1]));
  for (int a = 0; a < 3; ++a) counts_[a] = ceil_div(out[a], size_[a]);
  blocks_ = counts_[0] * counts_[1] * counts_[2];
  const int64_t all = out[0] * out[1] * out[2], taps = s_.kernel[0] * s_.kernel[1] * s_.kernel[2];
  const int64_t weights = taps * (channels - s_.outputs) * s_.outputs;
  by_weights_ = weights > all * channels;
  const int64_t chunk_voxels = std::max(std::clamp<int64_t>(all / 16, 1024, 16384), all * weights / kSampleMemory);
  in_chunk_ = by_weights_ ? blocks_ : std::clamp<int64_t>(chunk_voxels / (size_[0] * size_[1] * size_[2]), 1, blocks_);
  chunks_ = ceil_div(blocks_, in_chunk_);
}

void WeightGradient::plan_parts() {
  for (std::size_t q = 0; q < s_.inputs.size(); ++q) {
    const Layout& l = s_.inputs[q].layout;
    const std::size_t step = by_weights_ && !l.flat ? 1 : l.x.groups.size();
    for (int64_t kd = 0; kd < s_.kernel[0]; ++kd)
      for (std::size_t g = 0; g < l.x.groups.size(); g += step) {
        const int64_t first = l.x.groups[g].first, count = l.x.groups[g + step - 1].first + l.x.groups[g + step - 1].count - first;
        Part part{q, kd, g, step, first, count, l.x_vectors ? s_.outputs : count, 0, floats_, 0};
        part.pitch = ceil_div(l.x_vectors ? count : s_.outputs, kernels_.lanes) * kernels_.lanes;
        part.floats = s_.kernel[1] * l.taps * part.rows * part.pitch;
        floats_ += part.floats;
        parts_.push_back(part);
      }
  }
}

void WeightGradient::plan_room() {
  const auto lines = [](int64_t floats) { return ceil_div(floats, 64) * 64; };
  for (const Part& part : parts_) {
    x_room_ = std::max(x_room_, lines(x_panel_floats(s_, part, size_)));
    dy_room_ = std::max(dy_room_, lines(dy_panel_floats(s_, part, size_)));
    largest_part_ = std::max(largest_part_, lines(part.floats));
  }
}

Block WeightGradient::block(int64_t n, int64_t index) const {
  Block b{n, {index / counts_[2] / counts_[1], index / counts_[2] % counts_[1], index % counts_[2]}, {}};
  for (int a = 0; a < 3; ++a) b.first[a] *= size_[a], b.count[a] = std::min(size_[a], s_.out[a] - b.first[a]);
  return b;
}

// Blocks [first, last) of a sample. dy_panels: copies of dy for all blocks of the sample, or null: made here, one after the other, in `dy`.
void WeightGradient::add_blocks(const Part& part, int64_t n, int64_t first, int64_t last, const float* dy_panels, float* dy, float* sum,
                                Panels& panels) const {
  for (int64_t i = first; i < last; ++i) {
    const Block now = block(n, i), next = block(n, std::min(i + 1, blocks_ - 1));
    if (!dy_panels) copy_dy(s_, part, now, dy);
    panels.dy = dy_panels ? dy_panels + i * dy_room_ : dy;
    add_block(s_, part, now, i + 1 < blocks_ ? &next : nullptr, i == first, sum, panels);
  }
}

// Every part of dW on its own goes through all samples, and is written while it is in cache.
void WeightGradient::share_weights(const Exec& ex, const Grad& dw) const {
  const int64_t levels = s_.samples > 1 ? BinaryCounter::slots(s_.samples) : 0, inputs = static_cast<int64_t>(s_.inputs.size());
  const int64_t sum_room = largest_part_ * (1 + levels), panels_of_input = s_.samples * blocks_ * dy_room_;
  float* const all_dy = ex.scratch->reserve<float>(inputs * panels_of_input + threads() * (x_room_ + sum_room));
  float* const room = all_dy + inputs * panels_of_input;
  for (const Part& part : parts_)
    if (part.kd == 0 && part.group == 0)
      parallel_for(s_.samples * blocks_, 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i)
          copy_dy(s_, part, block(i / blocks_, i % blocks_), all_dy + static_cast<int64_t>(part.input) * panels_of_input + i * dy_room_);
      });
  parallel_for_worker(static_cast<int64_t>(parts_.size()), 1, [&](int worker, int64_t first, int64_t last) {
    float* const own = room + worker * (x_room_ + sum_room);
    Panels panels{own + sum_room, nullptr, {}};
    std::vector<float*> slot(static_cast<std::size_t>(levels + 1));  // the newest sum behind the levels
    for (int64_t level = 0; level <= levels; ++level) slot[static_cast<std::size_t>(level)] = own + level * largest_part_;
    float*& newest = slot[static_cast<std::size_t>(levels)];
    const auto swap = [&](int64_t level) { std::swap(newest, slot[static_cast<std::size_t>(level)]); };
    for (int64_t i = first; i < last; ++i) {
      const Part& part = parts_[static_cast<std::size_t>(i)];
      const float* dy = all_dy + static_cast<int64_t>(part.input) * panels_of_input;
      const auto add_slot = [&](int64_t level) { kernels_.add(newest, slot[static_cast<std::size_t>(level)], part.floats); };
      BinaryCounter samples;
      for (int64_t n = 0; n < s_.samples; ++n) {
        add_blocks(part, n, 0, blocks_, dy + n * blocks_ * dy_room_, nullptr, newest, panels);
        if (levels) samples.push(add_slot, swap);
      }
      samples.finish(swap, add_slot);
      const auto [from, to] = lines_of(part);
      write(part, newest, from, to, dw);
    }
  });
}

// Chunks of voxels each have a sum of their own. Samples go in groups whose sums fit into kMemory; a group is a whole subtree of the
// samples' tree.
void WeightGradient::share_voxels(const Exec& ex, const Grad& dw) const {
  const int64_t parts = static_cast<int64_t>(parts_.size());
  int64_t group = 1;
  while (group < s_.samples && 2 * group * chunks_ * floats_ <= kMemory) group *= 2;
  const int64_t sum_room = (group * chunks_ + (group < s_.samples ? BinaryCounter::slots(s_.samples) : 0)) * floats_;
  float* const sums = ex.scratch->reserve<float>(sum_room + threads() * (x_room_ + dy_room_));
  const auto sum = [&](int64_t n, int64_t chunk) { return sums + (n * chunks_ + chunk) * floats_; };
  const auto slot = [&](int64_t level) { return sums + (group * chunks_ + level) * floats_; };
  const auto for_elements = [&](const auto& body) { parallel_for(floats_, kReduce, body); };
  const auto add_slot = [&](int64_t level) {
    for_elements([&](int64_t begin, int64_t end) { kernels_.add(sums + begin, slot(level) + begin, end - begin); });
  };
  const auto copy = [&](float* to, const float* from) { std::memcpy(to, from, static_cast<std::size_t>(floats_) * sizeof(float)); };
  BinaryCounter groups;
  for (int64_t start = 0; start < s_.samples; start += group) {
    const int64_t samples = std::min(group, s_.samples - start);
    parallel_for_worker(samples * chunks_ * parts, 1, [&](int worker, int64_t first, int64_t last) {
      float* const room = sums + sum_room + worker * (x_room_ + dy_room_);
      Panels panels{room, nullptr, {}};
      for (int64_t i = first; i < last; ++i) {
        const Part& part = parts_[static_cast<std::size_t>(i % parts)];
        const int64_t chunk = i / parts % chunks_, begin = chunk * in_chunk_, end = std::min(blocks_, begin + in_chunk_);
        add_blocks(part, start + i / parts / chunks_, begin, end, nullptr, room + x_room_, sums + i / parts * floats_ + part.begin, panels);
      }
    });
    for_elements([&](int64_t begin, int64_t end) {
      for (int64_t n = 0; n < samples; ++n)
        for (int64_t c = 1; c < chunks_; ++c) kernels_.add(sum(n, 0) + begin, sum(n, c) + begin, end - begin);
      for (int64_t step = 1; step < samples; step *= 2)
        for (int64_t n = 0; n + step < samples; n += 2 * step) kernels_.add(sum(n, 0) + begin, sum(n + step, 0) + begin, end - begin);
    });
    if (group < s_.samples) groups.push(add_slot, [&](int64_t level) { copy(slot(level), sums); });
  }
  groups.finish([&](int64_t level) { copy(sums, slot(level)); }, add_slot);
  for (const Part& part : parts_) {
    const auto [from, to] = lines_of(part);
    parallel_for(to - from, 16, [&, from = from](int64_t begin, int64_t end) { write(part, sums + part.begin, from + begin, from + end, dw); });
  }
}

// What write() goes over: output channels where x gives columns, else input channels.
std::pair<int64_t, int64_t> WeightGradient::lines_of(const Part& part) const {
  const WeightInput& input = s_.inputs[part.input];
  if (input.layout.x_vectors) return {0, part.rows};
  return input.layout.flat ? std::pair{int64_t{0}, input.channels} : std::pair{part.x_first, part.x_first + part.x_count};
}

// Input channels [first, last) of a part, or with columns of x output channels [first, last), from its matrices [kh][tap] to dw (O, I, kD, kH, kW):
// the taps of a plane are neighbours there, and with one plane the input channels as well.
void WeightGradient::write(const Part& part, const float* sum, int64_t first, int64_t last, const Grad& dw) const {
  const WeightInput& input = s_.inputs[part.input];
  const Layout& l = input.layout;
  const int64_t plane = s_.kernel[1] * s_.kernel[2], taps = s_.kernel[0] * plane, o_step = dw.shape()[1] * taps;
  float* const to = dw.data() + input.first * taps + part.kd * plane;
  const bool add = dw.beta != 0.0f;
  const float* rows[kMostLines];
  // Pointers to all taps of input channel i for output channel o (the first of a line of them, unless columns are input channels).
  const auto find = [&](const float** to_rows, int64_t i, int64_t o) {
    for (int64_t kh = 0; kh < s_.kernel[1]; ++kh)
      for (int64_t kw = 0; kw < s_.kernel[2]; ++kw) {
        const int64_t x = (l.flat ? kw * input.channels + i : i) - part.x_first, matrix = kh * l.taps + (l.flat ? 0 : kw);
        *to_rows++ = sum + (matrix * part.rows + (l.x_vectors ? o : x)) * part.pitch + (l.x_vectors ? x : o);
      }
  };
  const int64_t i0 = l.flat ? 0 : part.x_first, i_count = l.flat ? input.channels : part.x_count;
  if (plane > kMostLines) {  // kernels larger than any that we know
    for (int64_t i = l.x_vectors ? i0 : first; i < (l.x_vectors ? i0 + i_count : last); ++i)
      for (int64_t o = l.x_vectors ? first : 0; o < (l.x_vectors ? last : s_.outputs); ++o) {
        std::vector<const float*> each(static_cast<std::size_t>(plane));
        find(each.data(), i, o);
        for (int64_t k = 0; k < plane; ++k) {
          float& w = to[o * o_step + i * taps + k];
          w = add ? w + *each[static_cast<std::size_t>(k)] : *each[static_cast<std::size_t>(k)];
        }
      }
  } else if (l.x_vectors) {
    for (int64_t o = first; o < last; ++o) {
      find(rows, i0, o);
      kernels_.transpose_lines(to + o * o_step + i0 * taps, taps, rows, plane, i_count, add);
    }
  } else {
    const int64_t most = s_.kernel[0] == 1 ? kMostLines / plane : 1;
    for (int64_t i = first, count = 0; i < last; i += count) {
      count = std::min(most, last - i);
      for (int64_t c = 0; c < count; ++c) find(rows + c * plane, i + c, 0);
      kernels_.transpose_lines(to + i * taps, o_step, rows, count * plane, s_.outputs, add);
    }
  }
}

}  // namespace

void conv_backward_weight(const Exec& ex, const Grad& dw, const Tensor& dy, const Tensor& x0, const Tensor& x1, const ConvParams& p) {
  assert(dw.shape()[0] == dy.shape().c() && dw.shape()[1] == x0.shape().c() + (x1.defined() ? x1.shape().c() : 0));
  if (!dw.wanted()) return;
  WinogradWeights shape{dy.data<float>(), dy.shape().n(), dy.shape().c(), {}, {}, {}, {{x0.data<float>(), x0.shape().c(), 0}}, p};
  for (int a = 0; a < 3; ++a) shape.out[a] = dy.shape()[1 + a], shape.in[a] = x0.shape()[1 + a], shape.kernel[a] = dw.shape()[2 + a];
  if (x1.defined()) shape.inputs.push_back({x1.data<float>(), x1.shape().c(), x0.shape().c()});
  if (choose_matrix(ex.convolution, shape))
    run_matrix(ex, shape, dw);
  else if (const WinogradTile tile = choose_winograd(ex.convolution, shape); tile.used())
    run_winograd(ex, shape, tile, dw);
  else
    WeightGradient(dy, x0, x1, dw.shape(), p).run(ex, dw);
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

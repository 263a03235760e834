// One block of voxels of the weight gradient: x (with its border, zeros outside the image) and dy are copied into panels whose order is the
// order of reading, then every tile of dW takes all the block's outer products in registers (conv_cpu_outer.cpp).
#include <algorithm>

#include "kernels/conv_cpu_weight.h"

namespace vg::cpu {
namespace {

using std::int64_t;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kNarrow = 32;  // channels up to which a panel holds all of them side by side

// Two vectors a group, three at the end of an odd number.
Side columns_of(int64_t count, const OuterKernels& k) {
  Side side;
  side.vectors = true;
  for (int64_t done = 0, left = ceil_div(count, k.lanes); left > 0;) {
    const int vectors = static_cast<int>(left == 3 ? 3 : std::min<int64_t>(left, 2));
    side.groups.push_back({done, std::min(count - done, int64_t{vectors} * k.lanes), vectors});
    done += vectors * k.lanes, left -= vectors;
  }
  return side;
}

Side rows_of(int64_t count, const Side& columns, const OuterKernels& k) {
  Side side;
  const int64_t tiles = ceil_div(count, k.max_rows[columns.groups[0].vectors]);
  for (int64_t t = 0; t < tiles; ++t) side.groups.push_back({count * t / tiles, count * (t + 1) / tiles - count * t / tiles, 0});
  return side;
}

// What the multipliers are busy with per voxel and kernel row: small tiles wait for results, one vector per row waits for loads.
double cost_of(const Layout& l) {
  const Side &columns = l.x_vectors ? l.x : l.dy, &rows = l.x_vectors ? l.dy : l.x;
  double cost = 0;
  for (const Side::Group& c : columns.groups)
    for (const Side::Group& r : rows.groups)
      cost += std::max(static_cast<double>(r.count * c.vectors) * (c.vectors == 1 ? 1.25 : 1.0), 8.0);
  return cost * static_cast<double>(l.taps);
}

// The box of x that a block meets: planes of one kd, rows of all kh, positions of all kw.
struct Box {
  int64_t rows, positions;
};
Box box_of(const WeightShape& s, const int64_t (&count)[3]) {
  return {(count[1] - 1) * s.p.stride[1] + (s.kernel[1] - 1) * s.p.dilation[1] + 1,
          (count[2] - 1) * s.p.stride[2] + (s.kernel[2] - 1) * s.p.dilation[2] + 1};
}

// dy is read where it is when a panel would be the same.
bool in_place(const WeightShape& s, const Layout& l) { return !l.dy.grouped && l.dy.pitch == s.outputs; }

}  // namespace

Layout choose_layout(int64_t outputs, int64_t inputs, int64_t kernel_w, bool flat_possible, const OuterKernels& k) {
  Layout best{};
  double least = 0;
  for (const bool x_vectors : {false, true})
    for (const bool flat : {false, true}) {
      if (flat && (!flat_possible || kernel_w == 1 || inputs > kNarrow)) continue;
      Layout l{x_vectors, flat, flat ? 1 : kernel_w, flat ? kernel_w * inputs : inputs, {}, {}};
      if (x_vectors)
        l.x = columns_of(l.x_count, k), l.dy = rows_of(outputs, l.x, k);
      else
        l.dy = columns_of(outputs, k), l.x = rows_of(l.x_count, l.dy, k);
      for (Side* side : {&l.x, &l.dy}) {
        const int64_t channels = side == &l.x ? inputs : outputs;
        side->grouped = channels > kNarrow;
        side->pitch = side->vectors ? ceil_div(channels, k.lanes) * k.lanes : channels;
        if (side == &l.x && flat) side->pitch = inputs;
        if (!side->grouped) continue;
        side->pitch = 0;
        for (const Side::Group& g : side->groups)
          side->pitch = std::max(side->pitch, side->vectors ? int64_t{g.vectors} * k.lanes : g.count);
      }
      const double cost = cost_of(l);
      if (best.taps == 0 || cost < least) best = l, least = cost;
    }
  return best;
}

int64_t x_panel_floats(const WeightShape& s, const Part& part, const int64_t (&count)[3]) {
  const Side& x = s.inputs[part.input].layout.x;
  const Box box = box_of(s, count);
  const int64_t beyond = kMaxVectors * outer_kernels().lanes;  // the last columns of a flat row reach beyond it
  return count[0] * box.rows * box.positions * x.pitch * (x.grouped ? static_cast<int64_t>(part.groups) : 1) + beyond;
}

int64_t dy_panel_floats(const WeightShape& s, const Part& part, const int64_t (&count)[3]) {
  const Layout& l = s.inputs[part.input].layout;
  if (in_place(s, l)) return 0;
  return count[0] * count[1] * count[2] * l.dy.pitch * (l.dy.grouped ? static_cast<int64_t>(l.dy.groups.size()) : 1);
}

namespace {

// One call of add_block.
class BlockSum {
 public:
  BlockSum(const WeightShape& s, const Part& part, const Block& block, Panels& panels)
      : s_(s), part_(part), b_(block), input_(s.inputs[part.input]), l_(input_.layout), panels_(panels), box_(box_of(s, block.count)) {
    x_panel_ = b_.count[0] * box_.rows * box_.positions * l_.x.pitch;
    dy_panel_ = b_.count[0] * b_.count[1] * b_.count[2] * l_.dy.pitch;
  }
  void copy_x();
  void copy_dy(float* panel) const;
  Ahead look_ahead(const Block& next) const;
  void multiply(bool fresh, Ahead& ahead, float* sum);

 private:
  bool inside(int64_t z, int64_t row) const {
    const int64_t in_z = plane(z), in_y = low(1) + row;
    return in_z >= 0 && in_z < s_.in[0] && in_y >= 0 && in_y < s_.in[1];
  }
  // Is a row of the box met by some kh? With dilation or stride, some are not.
  bool met(int64_t row) const {
    for (int64_t kh = 0; kh < s_.kernel[1]; ++kh) {
      const int64_t y = row - kh * s_.p.dilation[1];
      if (y >= 0 && y % s_.p.stride[1] == 0 && y / s_.p.stride[1] < b_.count[1]) return true;
    }
    return false;
  }
  int64_t plane(int64_t z) const { return low(0) + z * s_.p.stride[0] + part_.kd * s_.p.dilation[0]; }
  int64_t low(int a) const { return b_.first[a] * s_.p.stride[a] - s_.p.pad[a]; }  // input position of tap 0
  const float* dy_row(int64_t z, int64_t y) const {
    return s_.dy + (((b_.n * s_.out[0] + b_.first[0] + z) * s_.out[1] + b_.first[1] + y) * s_.out[2] + b_.first[2]) * s_.outputs;
  }
  int64_t x_row(int64_t z, int64_t row) const { return (z * box_.rows + row) * box_.positions * l_.x.pitch; }
  int64_t dy_panel_row(int64_t z, int64_t y) const { return (z * b_.count[1] + y) * b_.count[2] * l_.dy.pitch; }
  void find_runs(int64_t kh);
  void matrix(int64_t tap, bool fresh, Ahead& ahead, float* out);

  const WeightShape& s_;
  const Part& part_;
  const Block& b_;
  const WeightInput& input_;
  const Layout& l_;
  Panels& panels_;
  const OuterKernels& k_ = outer_kernels();
  const Box box_;
  int64_t x_panel_, dy_panel_;  // floats of one group's
};

void BlockSum::copy_x() {
  const int64_t left = std::clamp<int64_t>(-low(2), 0, box_.positions),
                right = std::clamp<int64_t>(s_.in[2] - low(2), left, box_.positions);
  const int64_t pitch = l_.x.pitch;
  for (std::size_t g = 0; g < (l_.x.grouped ? part_.groups : 1); ++g) {
    const Side::Group all{0, input_.channels, 0}, &group = l_.x.grouped ? l_.x.groups[part_.group + g] : all;
    for (int64_t z = 0; z < b_.count[0]; ++z)
      for (int64_t r = 0; r < box_.rows; ++r) {
        if (!inside(z, r) || !met(r)) continue;
        float* const to = panels_.x + static_cast<int64_t>(g) * x_panel_ + x_row(z, r);
        const float* from =
            input_.data + (((b_.n * s_.in[0] + plane(z)) * s_.in[1] + low(1) + r) * s_.in[2] + low(2) + left) * input_.channels;
        std::fill(to, to + left * pitch, 0.0f);
        k_.copy_channels(to + left * pitch, pitch, l_.x.vectors && !l_.flat, from + group.first, input_.channels, group.count,
                         right - left);
        std::fill(to + right * pitch, to + box_.positions * pitch, 0.0f);
      }
  }
}

void BlockSum::copy_dy(float* panel) const {
  if (in_place(s_, l_)) return;
  for (std::size_t g = 0; g < (l_.dy.grouped ? l_.dy.groups.size() : 1); ++g) {
    const Side::Group all{0, s_.outputs, 0}, &group = l_.dy.grouped ? l_.dy.groups[g] : all;
    for (int64_t z = 0; z < b_.count[0]; ++z)
      for (int64_t y = 0; y < b_.count[1]; ++y)
        k_.copy_channels(panel + static_cast<int64_t>(g) * dy_panel_ + dy_panel_row(z, y), l_.dy.pitch, l_.dy.vectors,
                         dy_row(z, y) + group.first, s_.outputs, group.count, b_.count[2]);
  }
}

// dy of the next block and the rows of x that are new in it, where blocks follow each other in memory.
Ahead BlockSum::look_ahead(const Block& next) const {
  Ahead ahead;
  const int64_t bytes = static_cast<int64_t>(sizeof(float)), voxels = next.count[0] * next.count[1] * next.count[2];
  const int64_t out = ((next.n * s_.out[0] + next.first[0]) * s_.out[1] + next.first[1]) * s_.out[2] + next.first[2];
  const auto newest = [&](int a) {
    return std::clamp<int64_t>(next.first[a] * s_.p.stride[a] - s_.p.pad[a] + (s_.kernel[a] - 1) * s_.p.dilation[a], 0, s_.in[a] - 1);
  };
  const int64_t in = ((next.n * s_.in[0] + newest(0)) * s_.in[1] + newest(1)) * s_.in[2] + newest(2);
  const std::intptr_t dy = reinterpret_cast<std::intptr_t>(s_.dy + out * s_.outputs),
                      x = reinterpret_cast<std::intptr_t>(input_.data + in * input_.channels);
  ahead.range[0] = {dy, dy + voxels * s_.outputs * bytes};
  ahead.range[1] = {x, x + voxels * s_.p.stride[0] * s_.p.stride[1] * s_.p.stride[2] * input_.channels * bytes};
  return ahead;
}

void BlockSum::find_runs(int64_t kh) {
  panels_.runs.clear();
  for (int64_t z = 0; z < b_.count[0]; ++z)
    for (int64_t y = 0; y < b_.count[1]; ++y) {
      const int64_t r = y * s_.p.stride[1] + kh * s_.p.dilation[1];
      if (!inside(z, r)) continue;
      const float *x = panels_.x + x_row(z, r), *dy = in_place(s_, l_) ? dy_row(z, y) : panels_.dy + dy_panel_row(z, y);
      panels_.runs.push_back(l_.x_vectors ? Run{dy, x, b_.count[2]} : Run{x, dy, b_.count[2]});
    }
}

// One matrix: every tile takes all runs.
void BlockSum::matrix(int64_t tap, bool fresh, Ahead& ahead, float* out) {
  const Side &columns = l_.x_vectors ? l_.x : l_.dy, &rows = l_.x_vectors ? l_.dy : l_.x;
  const int64_t x_step = s_.p.stride[2] * l_.x.pitch, x_tap = tap * s_.p.dilation[2] * l_.x.pitch;
  const auto first_of = [&](const Side& side) { return &side == &l_.x ? part_.group : 0; };
  const auto last_of = [&](const Side& side) { return &side == &l_.x ? part_.group + part_.groups : side.groups.size(); };
  const auto offset_of = [&](const Side& side, std::size_t g) {
    const int64_t start =
        side.grouped ? static_cast<int64_t>(g - first_of(side)) * (&side == &l_.x ? x_panel_ : dy_panel_) : side.groups[g].first;
    return start + (&side == &l_.x ? x_tap : 0);
  };
  const int64_t row0 = l_.x_vectors ? 0 : part_.x_first, column0 = l_.x_vectors ? part_.x_first : 0;
  for (std::size_t c = first_of(columns); c < last_of(columns); ++c)
    for (std::size_t r = first_of(rows); r < last_of(rows); ++r) {
      const int vectors = columns.groups[c].vectors;
      float* const to = out + (rows.groups[r].first - row0) * part_.pitch + columns.groups[c].first - column0;
      for (int64_t done = 0, m = 0; done < rows.groups[r].count; done += m) {
        m = std::min<int64_t>(rows.groups[r].count - done, k_.max_rows[vectors]);
        k_.outer[vectors][m](panels_.runs.data(), static_cast<int>(panels_.runs.size()), offset_of(rows, r) + done, offset_of(columns, c),
                             l_.x_vectors ? l_.dy.pitch : x_step, l_.x_vectors ? x_step : l_.dy.pitch, fresh, to + done * part_.pitch,
                             part_.pitch, ahead);
      }
    }
}

void BlockSum::multiply(bool fresh, Ahead& ahead, float* sum) {
  for (int64_t kh = 0; kh < s_.kernel[1]; ++kh) {
    find_runs(kh);
    if (panels_.runs.empty() && !fresh) continue;
    for (int64_t tap = 0; tap < l_.taps; ++tap) matrix(tap, fresh, ahead, sum + (kh * l_.taps + tap) * part_.rows * part_.pitch);
  }
}

}  // namespace

void copy_dy(const WeightShape& shape, const Part& part, const Block& block, float* panel) {
  Panels none{};
  BlockSum(shape, part, block, none).copy_dy(panel);
}

void add_block(const WeightShape& shape, const Part& part, const Block& block, const Block* next, bool fresh, float* sum, Panels& panels) {
  BlockSum block_sum(shape, part, block, panels);
  block_sum.copy_x();
  Ahead ahead = next ? block_sum.look_ahead(*next) : Ahead();
  block_sum.multiply(fresh, ahead, sum);
}

}  // namespace vg::cpu

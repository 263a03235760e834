// Private to the cpu weight gradient: how dW of a convolution is cut into matrices, tiles and blocks of voxels, and the copies of x and dy
// (panels) that the tiles run over. conv_cpu_panel.cpp sums one block of voxels; conv_cpu_weight.cpp spreads blocks over threads and adds
// up.
#pragma once
#include <vector>

#include "kernels/conv_cpu.h"

namespace vg::cpu {

// One operand of the outer products: x or dy, as rows (broadcast) or columns (vectors) of dW's matrices. Wide operands are copied in groups
// of channels, one panel per group, so that a tile reads memory in order; narrow ones are read through one panel, or dy in place.
struct Side {
  struct Group {
    std::int64_t first, count;  // rows or columns of the matrix
    int vectors;                // columns only
  };
  bool vectors = false;
  bool grouped = false;
  std::int64_t pitch = 0;  // floats from voxel to voxel of a panel
  std::vector<Group> groups;
};

// How dW of one input lies in memory while it is summed: for every (kd, kh) `taps` matrices, output channels against input channels.
//   x_vectors: columns are x's channels, rows are output channels; else the other way round.
//   flat: the kW taps of a kernel row are kW * I neighbouring floats of x (dilation 1), taken as one long channel axis; `taps` is 1.
struct Layout {
  bool x_vectors, flat;
  std::int64_t taps, x_count;  // x_count: channels of x, or kW of them when flat
  Side x, dy;
};

// A piece of dW that is summed on its own: one input, one kd, some groups of x. Matrices [kh][tap][rows][pitch] from float `begin` of a
// sum.
struct Part {
  std::size_t input;
  std::int64_t kd;
  std::size_t group, groups;
  std::int64_t x_first, x_count, rows, pitch, begin, floats;
};

// Output voxels that are summed in one go.
struct Block {
  std::int64_t n, first[3], count[3];  // D, H, W
};

struct WeightInput {
  const float* data;
  std::int64_t channels, first;  // first: its channel 0 among the weights' input channels
  Layout layout;
};

struct WeightShape {
  ConvParams p;
  const float* dy;
  std::int64_t samples, outputs, out[3], in[3], kernel[3];
  std::vector<WeightInput> inputs;
};

Layout choose_layout(std::int64_t outputs, std::int64_t inputs, std::int64_t kernel_w, bool flat_possible, const OuterKernels& kernels);

// The most that a part needs for the panels of blocks of `count` voxels, floats.
std::int64_t x_panel_floats(const WeightShape& shape, const Part& part, const std::int64_t (&count)[3]);
std::int64_t dy_panel_floats(const WeightShape& shape, const Part& part, const std::int64_t (&count)[3]);

// Copies a block of dy; the copy serves all parts of one input. Nothing to do where dy_panel_floats is 0.
void copy_dy(const WeightShape& shape, const Part& part, const Block& block, float* panel);

struct Panels {
  float* x;               // room for a copy of x
  const float* dy;        // made by copy_dy
  std::vector<Run> runs;  // reused
};
// The part of dW = or += the block's outer products. `fresh`: =. `next`: the block that follows, whose memory is fetched ahead, or null.
void add_block(const WeightShape& shape, const Part& part, const Block& block, const Block* next, bool fresh, float* sum, Panels& panels);

}  // namespace vg::cpu

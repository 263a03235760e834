// Private to the cpu convolutions: forward pass and data gradient as one computation. Every output voxel gathers input voxels through the
// taps of three axes; the two differ in which input position a tap reads (Axis) and in how the weights lie (Weights).
#pragma once
#include <vector>

#include "kernels/conv_cpu.h"
#include "kernels/conv_planes.h"

namespace vg::cpu {

// Output position first + step j of a phase reads input position at + in_step j through its tap, where that lies in [0, in). The forward
// pass has one phase; the data gradient of stride s has s, because u + pad - k dilation is a multiple of s for every s-th u only.
struct AxisTap {
  std::int64_t k, at;
};
struct AxisPhase {
  std::int64_t first = 0, count = 0;
  std::vector<AxisTap> taps;  // by rising `at`
};
struct Axis {
  std::int64_t step = 1, in_step = 1, out = 1, in = 1;  // out, in: extents
  std::vector<AxisPhase> phases;
};

inline Axis forward_axis(std::int64_t out, std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t dilation, std::int64_t pad) {
  Axis axis{1, stride, out, in, {AxisPhase{0, out, {}}}};
  for (std::int64_t k = 0; k < kernel; ++k) axis.phases[0].taps.push_back({k, k * dilation - pad});
  return axis;
}

// The planes (n, z) of a tensor, number n D + z: one behind the other, or wherever a table says (null: zeros, or nobody wants it).
struct Planes {
  Planes() = default;
  Planes(const float* dense) : data(dense) {}  // NOLINT: the usual case
  Planes(const float* const* planes) : table(planes) {}  // NOLINT
  const float* data = nullptr;
  const float* const* table = nullptr;
  const float* at(std::int64_t plane, std::int64_t floats) const { return table ? table[plane] : data + plane * floats; }
};

// A tensor that holds channels [first, first + channels) of the weights' input or output channels.
struct GatherInput {
  Planes data;
  std::int64_t channels, first;
  std::int64_t tap = 0;  // added to the number of every tap: inputs may be the planes that the taps of D read
};
struct GatherOutput {
  Planes data;  // written
  std::int64_t channels, first;
  float beta;
};

// Element (output channel o, input channel i, tap k) is at o out_step + i in_step + k.
struct GatherWeights {
  const float* data;
  std::int64_t out_step, in_step, kernel[3];
  const float* bias;  // or null
};

struct Gather {
  std::int64_t samples;
  std::vector<GatherInput> inputs;
  std::vector<GatherOutput> outputs;
  Axis axis[3];
  GatherWeights weights;
  Activation activation;
  const float* packed = nullptr;    // the weights, packed beforehand for the same layer; null: packed on every run
  const RowSpan* wanted = nullptr;  // of row n H + y, all z alike; null: all. Every row of a tile must be wanted alike (see conv_planes.h)
};

void run_gather(const Exec& ex, const Gather& gather);
std::size_t gather_scratch(const Gather& gather);  // bytes
std::vector<float> packed_for_gather(const Gather& gather);

}  // namespace vg::cpu

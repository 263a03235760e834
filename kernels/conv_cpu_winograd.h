// Private to the cpu convolutions: Winograd's minimal filtering F(m, 3) for 3-tap axes of stride 1 and any dilation, forward and data
// gradient alike (Gather). A tile of m outputs along an axis costs m + 2 multiplications instead of 3 m:
//
//   y = A^T [ (G w) . (B^T x) ]        per axis; axes nest       (Lavin & Gray 2015, "Fast algorithms for convolutional neural networks")
//
// F(4,4,4) needs 216 products where the plain sum needs 1728. Its transforms cost accuracy: 3 to 5 times the rounding error of the plain sum
// (conv_bench prints it); F(2,2,2) has the plain sum's error. Which one is taken: choose_winograd.
#pragma once
#include "kernels/conv_cpu_gather.h"

namespace vg::cpu {

// Outputs per tile along D, H, W: 1 (an axis with one tap), 2 or 4. All 0: do not use.
struct WinogradTile {
  int m[3] = {0, 0, 0};
  bool used() const { return m[2] > 0; }
  static constexpr int points(int m) { return m == 1 ? 1 : m + 2; }  // products per tile of one axis
  int points() const { return points(m[0]) * points(m[1]) * points(m[2]); }
};

// The tile by which `gather` is fastest by a cost model within what is allowed; unused where the plain sum is.
WinogradTile choose_winograd(const ConvAlgorithm& algorithm, const Gather& gather);
// The model: cycles of one core for one sample, by `tile` or (unused) by the plain sum.
double conv_cycles(const Gather& gather, const WinogradTile& tile);

// The same for the weight gradient: dw of one or two inputs from dy.
struct WinogradWeights {
  const float* dy;
  std::int64_t samples, outputs, out[3], in[3], kernel[3];
  std::vector<GatherInput> inputs;
  ConvParams p;
};
WinogradTile choose_winograd(const ConvAlgorithm& algorithm, const WinogradWeights& shape);
double weight_cycles(const WinogradWeights& shape, const WinogradTile& tile);
void run_winograd(const Exec& ex, const WinogradWeights& shape, const WinogradTile& tile, const Grad& dw);

void run_winograd(const Exec& ex, const Gather& gather, const WinogradTile& tile);
std::size_t winograd_scratch(const Gather& gather, const WinogradTile& tile);  // bytes
std::vector<float> packed_for_winograd(const Gather& gather, const WinogradTile& tile);

// ---- vector kernels (conv_cpu_transform.cpp) ------------------------------------------------------------------------------
// `q` counts the points of D and H, `p` those of W. Widths are floats, whole vectors.

constexpr int kMostPoints = 36;  // of two axes

struct WinogradKernels {
  // t[q][x][c] = B^T over the rows' (D, H) at x and c: rows[q] is row q of the tile, `step` floats from x to x + 1.
  // Channels beyond `channels` become 0 up to a whole vector.
  using InRows = void(const float* const* rows, std::int64_t count, std::int64_t step, std::int64_t channels, float* t, std::int64_t t_q,
                      std::int64_t t_x);
  // v[p][tile][c] = B^T over W: position k of a tile at t + starts[tile] + k * tap.
  using InColumns = void(const float* t, const std::int64_t* starts, std::int64_t tiles, std::int64_t tap, std::int64_t width, float* v,
                         std::int64_t v_p, std::int64_t v_tile);
  // r[x][c] = A^T over W: output j of a tile at r + starts[tile] + j * tap.
  using OutColumns = void(const float* m, std::int64_t m_p, std::int64_t m_tile, const std::int64_t* starts, std::int64_t tiles,
                          std::int64_t tap, std::int64_t width, float* r);
  // rows[j][x][c] = bias[c] + A^T over (D, H): rows[j] is output row j of the tile.
  using OutRows = void(const float* r, std::int64_t r_q, std::int64_t r_x, std::int64_t count, const float* bias, std::int64_t width,
                       float* const* rows, std::int64_t step);
  // u[q points_w + p][c] = G over three axes of w[tap][c], taps in the Gather's order. `u_step` floats from point to point.
  using Weights = void(const float* w, std::int64_t width, float* u, std::int64_t u_step);

  // For the weight gradient: the transposes. The rows are those of dy, m of them per axis; q and p count points all the same.
  // t[q][x][c] = A over (D, H) of the rows.
  using GradRows = InRows;
  // v[p][tile][c] = A over W: position j of a tile at t + starts[tile] + j * tap.
  using GradColumns = InColumns;
  // w[tap][c] = G^T over three axes of u[q points_w + p][c]; `w_step` floats from tap to tap.
  using WeightGrad = void(const float* u, std::int64_t u_step, std::int64_t width, float* w, std::int64_t w_step);

  InRows* in_rows[3][3];    // [index of m[0]][index of m[1]]
  GradRows* grad_rows[3][3];
  GradColumns* grad_columns[3];
  WeightGrad* weight_grad[3][3][3];
  OutRows* out_rows[3][3];
  InColumns* in_columns[3];
  OutColumns* out_columns[3];
  Weights* weights[3][3][3];
  static constexpr int index(int m) { return m == 4 ? 2 : m - 1; }
};
const WinogradKernels& winograd_kernels();  // of this machine's best target

}  // namespace vg::cpu

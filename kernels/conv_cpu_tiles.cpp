// Where the tiles of Winograd convolution lie.
#include "kernels/conv_cpu_tiles.h"

#include <algorithm>

namespace vg::cpu {

using std::int64_t;

namespace {
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
std::size_t index(int64_t i) { return static_cast<std::size_t>(i); }

// The row (z, y) of a tensor, from position x on; null outside.
const float* row_at(Planes data, int64_t n, int64_t z, int64_t y, int64_t x, const int64_t (&extents)[3], int64_t channels) {
  if (z < 0 || z >= extents[0] || y < 0 || y >= extents[1]) return nullptr;
  const float* plane = data.at(n * extents[0] + z, extents[1] * extents[2] * channels);
  return plane ? plane + (y * extents[2] + x) * channels : nullptr;
}

Ahead::Range range(const float* row, int64_t x, int64_t count, int64_t extent, int64_t channels) {
  if (!row) return {};
  const int64_t first = std::clamp<int64_t>(x, 0, extent), last = std::clamp<int64_t>(x + count, first, extent);
  return {reinterpret_cast<std::intptr_t>(row + first * channels), reinterpret_cast<std::intptr_t>(row + last * channels)};
}
}  // namespace

AxisTiles axis_tiles(int m, int64_t dilation, int64_t at, int64_t out, int64_t in) {
  AxisTiles t{m, WinogradTile::points(m), dilation, at, out, in, {}};
  for (int64_t g = 0; g < out; g += t.group())
    for (int64_t r = 0; r < dilation && g + r < out; ++r) t.starts.push_back(g + r);
  return t;
}

void TileGrid::balance(int64_t rows_in_all) {
  piece_rows = ceil_div(rows_in_all, ceil_div(rows_in_all, piece_rows));
  piece_groups = ceil_div(groups(), ceil_div(groups(), piece_groups));
}

int64_t TileGrid::pieces(int64_t rows_in_all) const { return ceil_div(rows_in_all, piece_rows) * ceil_div(groups(), piece_groups); }

Piece TileGrid::piece(int64_t index, int64_t rows_in_all) const {
  const int64_t across = ceil_div(groups(), piece_groups);
  Piece p{index / across * piece_rows, piece_rows, index % across * piece_groups, piece_groups};
  p.rows = std::min(p.rows, rows_in_all - p.row), p.groups = std::min(p.groups, groups() - p.group);
  return p;
}

int64_t TileGrid::tiles(const Piece& p) const {
  const std::vector<int64_t>& s = axis[2].starts;
  return std::lower_bound(s.begin(), s.end(), (p.group + p.groups) * axis[2].group()) - std::lower_bound(s.begin(), s.end(), p.group * axis[2].group());
}

Starts TileGrid::starts(const Piece& p, int64_t begin, int64_t end, int64_t in_width, int64_t out_width) const {
  const AxisTiles& w = axis[2];
  const int64_t per_row = tiles(p), x0 = p.group * w.group();
  const int64_t* const from = w.starts.data() + (std::lower_bound(w.starts.begin(), w.starts.end(), x0) - w.starts.begin());
  Starts at;
  at.tiles = end - begin;
  for (int64_t i = 0; i < at.tiles; ++i) {
    const int64_t row = (begin + i) / per_row, x = from[(begin + i) % per_row] - x0;
    at.in[i] = (row * in_span() + x) * in_width, at.out[i] = (row * out_span() + x) * out_width;
  }
  return at;
}

TileGrid::Place TileGrid::place(int64_t row) const {
  const int64_t ys = static_cast<int64_t>(axis[1].starts.size()), zs = static_cast<int64_t>(axis[0].starts.size());
  return {row / ys / zs, axis[0].starts[index(row / ys % zs)], axis[1].starts[index(row % ys)]};
}

void TileGrid::input_rows(int64_t row, Planes data, int64_t channels, int64_t x, const float** rows) const {
  const AxisTiles &d = axis[0], &h = axis[1];
  const Place p = place(row);
  for (int64_t q = 0; q < q_points(); ++q)
    rows[q] = row_at(data, p.n, p.z + d.at + q / h.n * d.dilation, p.y + h.at + q % h.n * h.dilation, x, {d.in, h.in, axis[2].in}, channels);
}

void TileGrid::output_rows(int64_t row, Planes data, int64_t channels, int64_t x, const float** rows) const {
  const AxisTiles &d = axis[0], &h = axis[1];
  const Place p = place(row);
  for (int64_t j = 0; j < d.m * h.m; ++j)
    rows[j] = row_at(data, p.n, p.z + j / h.m * d.dilation, p.y + j % h.m * h.dilation, x, {d.out, h.out, axis[2].out}, channels);
}

Ahead::Range TileGrid::fetch_input(const Piece& piece, int64_t q, Planes data, int64_t channels) const {
  const AxisTiles &d = axis[0], &h = axis[1];
  const Place p = place(piece.row);
  const float* row = row_at(data, p.n, p.z + d.at + q / h.n * d.dilation, p.y + h.at + q % h.n * h.dilation, 0, {d.in, h.in, axis[2].in}, channels);
  return range(row, piece.group * axis[2].group() + axis[2].at, in_span(), axis[2].in, channels);
}

Ahead::Range TileGrid::fetch_output(const Piece& piece, int64_t j, Planes data, int64_t channels) const {
  const AxisTiles &d = axis[0], &h = axis[1];
  if (j >= d.m * h.m) return {};
  const Place p = place(piece.row);
  const float* row = row_at(data, p.n, p.z + j / h.m * d.dilation, p.y + j % h.m * h.dilation, 0, {d.out, h.out, axis[2].out}, channels);
  return range(row, piece.group * axis[2].group(), out_span(), axis[2].out, channels);
}

}  // namespace vg::cpu

// Private to Winograd convolution on the cpu: an output grid cut into tiles, rows of tiles and pieces of work, for any dilation. Shared by
// the forward pass and data gradient (conv_cpu_winograd.cpp) and the weight gradient (conv_cpu_winograd_weight.cpp).
#pragma once
#include "kernels/conv_cpu_winograd.h"

namespace vg::cpu {

// One axis as tiles: tile i makes outputs starts[i] + j dilation, j < m, of inputs starts[i] + at + k dilation, k < n.
struct AxisTiles {
  int m = 0, n = 0;
  std::int64_t dilation = 1, at = 0, out = 0, in = 0;
  std::vector<std::int64_t> starts;
  std::int64_t group() const { return m * dilation; }  // outputs that the tiles of all residues make together
};
AxisTiles axis_tiles(int m, std::int64_t dilation, std::int64_t at, std::int64_t out, std::int64_t in);

// Rows of tiles [row, row + rows), groups of tiles along W [group, group + groups).
struct Piece {
  std::int64_t row, rows, group, groups;
};

constexpr std::int64_t kChunkTiles = 56;  // that pass through the points of W together

// Where tiles begin in a row of transformed inputs and of outputs, floats.
struct Starts {
  std::int64_t tiles, in[kChunkTiles], out[kChunkTiles];
};

struct TileGrid {
  AxisTiles axis[3];
  std::int64_t samples = 1;
  std::int64_t piece_rows = 1, piece_groups = 1;  // of a piece, at most

  std::int64_t rows_of_sample() const { return static_cast<std::int64_t>(axis[0].starts.size() * axis[1].starts.size()); }
  std::int64_t rows() const { return samples * rows_of_sample(); }
  std::int64_t groups() const { return (axis[2].out + axis[2].group() - 1) / axis[2].group(); }
  std::int64_t row_tiles() const { return static_cast<std::int64_t>(axis[2].starts.size()); }
  std::int64_t out_span() const { return piece_groups * axis[2].group(); }  // voxels of a piece's row
  std::int64_t in_span() const { return out_span() + (axis[2].n - axis[2].m) * axis[2].dilation; }
  std::int64_t q_points() const { return axis[0].n * axis[1].n; }

  // Evens out: as many pieces as before, of nearly equal size.
  void balance(std::int64_t rows_in_all);
  std::int64_t pieces(std::int64_t rows_in_all) const;
  Piece piece(std::int64_t index, std::int64_t rows_in_all) const;
  std::int64_t tiles(const Piece& p) const;  // in one row
  Starts starts(const Piece& p, std::int64_t begin, std::int64_t end, std::int64_t in_width, std::int64_t out_width) const;

  // Where row `row` of all samples begins: the sample, and the first output (z, y) of its tiles.
  struct Place {
    std::int64_t n, z, y;
  };
  Place place(std::int64_t row) const;
  // The input rows of a row of tiles from position x on, q by q, or null outside the image; and its output rows.
  void input_rows(std::int64_t row, Planes data, std::int64_t channels, std::int64_t x, const float** rows) const;
  void output_rows(std::int64_t row, Planes data, std::int64_t channels, std::int64_t x, const float** rows) const;
  // Positions [first, last) of a row of `data` (input or output rows as above) as addresses to fetch.
  Ahead::Range fetch_input(const Piece& p, std::int64_t q, Planes data, std::int64_t channels) const;
  Ahead::Range fetch_output(const Piece& p, std::int64_t q, Planes data, std::int64_t channels) const;
};

inline std::int64_t whole_lines(std::int64_t floats) { return (floats + 15) / 16 * 16; }
// Rows whose distance is a multiple of 4 KiB would fight for the same places of the first-level cache.
inline std::int64_t odd_lines(std::int64_t floats) { return ((floats + 15) / 16 | 1) * 16; }

}  // namespace vg::cpu

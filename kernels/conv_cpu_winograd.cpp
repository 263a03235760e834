// The engine of Winograd convolution on the cpu. A block is some rows of tiles. Its three phases:
//
//   rows      t[q][row][x] = B^T over D and H of the input, once for every x of the row: neighbouring tiles share it
//   columns   for every q:  v[p][tile] = B^T over W,  m[p][tile] = v[p] u[q][p] (the register tiles of the direct sum),  r[q][row][x] = A^T over W
//   outputs   y[z][y][x] = A^T over D and H of r, bias, activation
//
// v and m of one q stay in the first-level cache, t and r in the second. Dilation costs nothing: a tile's voxels are `dilation` apart.
// Narrow layers: every thread has blocks of its own. Wide ones, whose transformed weights u exceed the second-level cache: all threads work
// on one block, phase by phase, and share out the q, so that u streams past once per block.
#include "kernels/conv_cpu_tiles.h"

#include <algorithm>
#include <cmath>

#include "tensor/parallel.h"

namespace vg::cpu {
namespace {

using std::int64_t;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

AxisTiles tiles_of(const Axis& axis, int m) {
  const std::vector<AxisTap>& taps = axis.phases[0].taps;
  return axis_tiles(m, taps.size() > 1 ? taps[1].at - taps[0].at : 1, taps[0].at, axis.out, axis.in);
}

bool three_taps(const Axis& axis) {
  if (axis.phases.size() != 1 || axis.in_step != 1 || axis.phases[0].taps.size() != 3) return false;
  const std::vector<AxisTap>& taps = axis.phases[0].taps;
  return taps[2].at - taps[1].at == taps[1].at - taps[0].at && taps[1].at > taps[0].at;
}
bool one_tap(const Axis& axis) { return axis.phases.size() == 1 && axis.in_step == 1 && axis.phases[0].taps.size() == 1; }

struct Block {  // of output channels: `vectors` vectors, some maybe beyond the last
  Planes y;
  int64_t y_channels = 0, y_first = 0, first = 0, column = 0;  // of y; within y, the weights, r
  int channels = 0, vectors = 0;
  float beta = 0.0f;
  int64_t weights = 0;  // where its lines begin in u
};

struct Room {  // of one block
  float *t, *r, *v, *m, *finish;
};

class WinogradRun {
 public:
  WinogradRun(const Gather& gather, const WinogradTile& tile);
  void run(const Exec& ex);
  int64_t floats() const { return zero_floats_ + bias_floats_ + whole_lines(u_floats_) + threads() * own_floats_ + shared_floats_; }  // of scratch

 private:
  void plan_channels();
  void plan_pieces();
  void list_pieces();
  void plan_room();
  void pack();
  void pack_lines(const Block& block, std::size_t input, int64_t first, int64_t last) const;
  void in_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, float* t) const;
  void columns(const Starts& at, int64_t q, const Room& room, Ahead& ahead) const;
  void out_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, const Room& room) const;
  int64_t width(const Block& block) const { return block.vectors * tiles_.lanes; }

  const Gather& g_;
  const WinogradTile tile_;
  const TileKernels& tiles_;
  const WinogradKernels& kernels_;
  TileGrid grid_;
  const int64_t qs_, ps_;  // points of D and H together, of W
  std::vector<Block> blocks_;
  std::vector<int64_t> column_;         // where an input's channels begin in t and v
  int64_t lines_ = 0;                   // input channels of all inputs
  int64_t in_width_ = 0, out_width_ = 0;  // of t and r, floats per voxel
  std::vector<Piece> pieces_;
  int64_t t_span_ = 0, r_span_ = 0;               // voxels of a row of t, of r
  int64_t t_q_ = 0, r_q_ = 0, chunk_ = 0;         // floats between points; tiles in one step of `columns`
  bool together_ = false;               // all threads on one block
  float *u_ = nullptr, *bias_ = nullptr, *zeros_ = nullptr;
  int64_t u_floats_ = 0, t_floats_ = 0, r_floats_ = 0, v_floats_ = 0, m_floats_ = 0, finish_floats_ = 0;
  int64_t zero_floats_ = 0, bias_floats_ = 0, own_floats_ = 0, shared_floats_ = 0;  // own: of each thread
};

constexpr int64_t kSecondLevel = 1 << 20;  // bytes of transformed weights that every thread may read for itself
constexpr int64_t kPieceTiles = 28;        // of one thread's block: enough to read u for, few enough for t and r to stay in cache
constexpr int64_t kTogetherBytes = 8 << 20;  // of t and r when threads share a block
constexpr int64_t kFinish = 8;             // voxels along W that are finished together

WinogradRun::WinogradRun(const Gather& gather, const WinogradTile& tile)
    : g_(gather),
      tile_(tile),
      tiles_(tile_kernels()),
      kernels_(winograd_kernels()),
      grid_{{tiles_of(gather.axis[0], tile.m[0]), tiles_of(gather.axis[1], tile.m[1]), tiles_of(gather.axis[2], tile.m[2])}, gather.samples},
      qs_(grid_.q_points()),
      ps_(grid_.axis[2].n) {
  plan_channels();
  plan_pieces();
  plan_room();
}

void WinogradRun::plan_channels() {
  for (const GatherInput& input : g_.inputs) {
    column_.push_back(in_width_);
    in_width_ += ceil_div(input.channels, tiles_.lanes) * tiles_.lanes;
    lines_ += input.channels;
  }
  for (const GatherOutput& output : g_.outputs)
    for (int64_t done = 0; done < output.channels;) {
      const int64_t left = ceil_div(output.channels - done, tiles_.lanes);
      Block block;
      block.y = output.data;
      block.vectors = static_cast<int>(left == 3 ? 3 : std::min<int64_t>(left, 2));
      block.channels = static_cast<int>(std::min<int64_t>(output.channels - done, width(block)));
      block.y_channels = output.channels, block.y_first = done, block.first = output.first + done, block.beta = output.beta;
      block.column = out_width_, block.weights = u_floats_;
      out_width_ += width(block), u_floats_ += lines_ * width(block) * qs_ * ps_;
      blocks_.push_back(block);
      done += block.channels;
    }
}

void WinogradRun::plan_pieces() {
  const AxisTiles& w = grid_.axis[2];
  const int64_t rows = grid_.rows(), row_bytes = 4 * qs_ * w.group() * grid_.groups() * (in_width_ + out_width_);
  const int64_t alone = ceil_div(rows * grid_.row_tiles(), kPieceTiles);  // pieces, if every thread has its own
  together_ = threads() > 1 && !g_.wanted && (u_floats_ * 4 > kSecondLevel || alone < 4 * threads());
  grid_.piece_groups = grid_.groups();
  if (together_) {
    grid_.piece_rows = std::clamp<int64_t>(kTogetherBytes / row_bytes, 1, rows);
  } else if (grid_.row_tiles() <= kPieceTiles) {
    grid_.piece_rows = std::clamp<int64_t>(kPieceTiles / grid_.row_tiles(), 1, rows);
  } else {
    grid_.piece_groups = std::clamp<int64_t>(ceil_div(kPieceTiles, w.dilation), 1, grid_.groups());
  }
  grid_.balance(rows);
  list_pieces();
  r_span_ = grid_.out_span(), t_span_ = grid_.in_span();
  t_q_ = odd_lines(grid_.piece_rows * t_span_ * in_width_), r_q_ = odd_lines(grid_.piece_rows * r_span_ * out_width_);
  chunk_ = std::min(grid_.piece_rows * grid_.piece_groups * w.dilation, kChunkTiles);
}

// Where only parts of rows are wanted, every row has pieces of its own.
void WinogradRun::list_pieces() {
  const int64_t rows = grid_.rows(), group = grid_.axis[2].group();
  if (!g_.wanted) {
    for (int64_t i = 0; i < grid_.pieces(rows); ++i) pieces_.push_back(grid_.piece(i, rows));
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    const TileGrid::Place p = grid_.place(row);
    const RowSpan& wanted = g_.wanted[p.n * grid_.axis[1].out + p.y];
    const int64_t first = wanted.begin / group, groups = wanted.empty() ? 0 : ceil_div(wanted.end, group) - first;
    const int64_t parts = ceil_div(groups, grid_.piece_groups);
    for (int64_t i = 0; i < parts; ++i)
      pieces_.push_back({row, 1, first + groups * i / parts, groups * (i + 1) / parts - groups * i / parts});
  }
}

// u: per block of output channels [q][p][input channel][width].
void WinogradRun::pack() {
  constexpr int64_t kGroup = 8;  // input channels in one piece of work
  for (std::size_t i = 0; i < g_.inputs.size(); ++i) {
    const int64_t groups = ceil_div(g_.inputs[i].channels, kGroup);
    parallel_for(static_cast<int64_t>(blocks_.size()) * groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k)
        pack_lines(blocks_[static_cast<std::size_t>(k / groups)], i, k % groups * kGroup,
                   std::min(g_.inputs[i].channels, (k % groups + 1) * kGroup));
    });
  }
  for (const Block& block : blocks_)
    for (int64_t c = 0; c < width(block); ++c)
      bias_[block.column + c] = g_.weights.bias && c < block.channels ? g_.weights.bias[block.first + c] : 0.0f;
}

void WinogradRun::pack_lines(const Block& block, std::size_t input, int64_t first, int64_t last) const {
  alignas(64) float taps[27 * kMaxVectors * 16];
  const GatherWeights& w = g_.weights;
  const int64_t width = this->width(block);
  int64_t line = first;
  for (std::size_t i = 0; i < input; ++i) line += g_.inputs[i].channels;
  for (int64_t c = first; c < last; ++c, ++line) {
    const float* from = w.data + block.first * w.out_step + (g_.inputs[input].first + c) * w.in_step + g_.inputs[input].tap;
    float* to = taps;
    for (const AxisTap& z : g_.axis[0].phases[0].taps)
      for (const AxisTap& y : g_.axis[1].phases[0].taps)
        for (const AxisTap& x : g_.axis[2].phases[0].taps) {
          tiles_.gather_line(to, from + (z.k * w.kernel[1] + y.k) * w.kernel[2] + x.k, w.out_step, block.channels, static_cast<int>(width));
          to += width;
        }
    kernels_.weights[WinogradKernels::index(tile_.m[0])][WinogradKernels::index(tile_.m[1])][WinogradKernels::index(tile_.m[2])](
        taps, width, u_ + block.weights + line * width, lines_ * width);
  }
}

// Positions [begin, end) of row `row` of t.
void WinogradRun::in_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, float* t) const {
  const AxisTiles& w = grid_.axis[2];
  const int64_t x0 = p.group * w.group() + w.at, left = std::clamp<int64_t>(-x0, begin, end), right = std::clamp<int64_t>(w.in - x0, left, end);
  float* const to = t + row * t_span_ * in_width_;
  for (int64_t q = 0; q < qs_; ++q) {
    std::fill(to + q * t_q_ + begin * in_width_, to + q * t_q_ + left * in_width_, 0.0f);
    std::fill(to + q * t_q_ + right * in_width_, to + q * t_q_ + end * in_width_, 0.0f);
  }
  if (left >= right) return;
  for (std::size_t i = 0; i < g_.inputs.size(); ++i) {
    const int64_t channels = g_.inputs[i].channels;
    const float* rows[kMostPoints];
    grid_.input_rows(p.row + row, g_.inputs[i].data, channels, x0 + left, rows);
    for (int64_t q = 0; q < qs_; ++q)
      if (!rows[q]) rows[q] = zeros_;
    kernels_.in_rows[WinogradKernels::index(tile_.m[0])][WinogradKernels::index(tile_.m[1])](rows, right - left, channels, channels,
                                                                                           to + left * in_width_ + column_[i], t_q_, in_width_);
  }
}

// All points of W of one q.
void WinogradRun::columns(const Starts& at, int64_t q, const Room& room, Ahead& ahead) const {
  const AxisTiles& w = grid_.axis[2];
  const int64_t tiles = at.tiles;
  const int64_t v_p = odd_lines(tiles * in_width_), m_p = odd_lines(tiles * out_width_);
  kernels_.in_columns[WinogradKernels::index(w.m)](room.t + q * t_q_, at.in, tiles, w.dilation * in_width_, in_width_, room.v, v_p,
                                                   in_width_);
  static constexpr float kZeros[kMaxVectors * 16] = {};
  for (int64_t point = 0; point < ps_; ++point) {
    Segment segments[3];
    int64_t line = (q * ps_ + point) * lines_;
    for (std::size_t i = 0; i < g_.inputs.size(); ++i) {
      segments[i] = {reinterpret_cast<std::intptr_t>(room.v + point * v_p + column_[i]), line, g_.inputs[i].channels, in_width_};
      line += g_.inputs[i].channels;
    }
    for (const Block& block : blocks_) {
      const int64_t parts = ceil_div(tiles, tiles_.max_voxels[block.vectors]);
      for (int64_t i = 0; i < parts; ++i) {
        const int64_t first = tiles * i / parts, count = tiles * (i + 1) / parts - first;
        tiles_.tile[block.vectors][count](segments, static_cast<int>(g_.inputs.size()), first, u_ + block.weights, kZeros, 0,
                                          room.m + point * m_p + first * out_width_ + block.column, out_width_, ahead);
      }
    }
  }
  kernels_.out_columns[WinogradKernels::index(w.m)](room.m, m_p, out_width_, at.out, tiles, w.dilation * out_width_, out_width_,
                                                    room.r + q * r_q_);
}

// Positions [begin, end) of row `row` of r.
void WinogradRun::out_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, const Room& room) const {
  const int64_t x0 = p.group * grid_.axis[2].group(), outputs = tile_.m[0] * tile_.m[1];
  end = std::min(end, grid_.axis[2].out - x0);
  const auto kernel = kernels_.out_rows[WinogradKernels::index(tile_.m[0])][WinogradKernels::index(tile_.m[1])];
  for (const Block& block : blocks_) {
    const int64_t width = this->width(block);
    const bool straight = block.channels == width && block.beta == 0.0f && g_.activation.kind == ActivationKind::identity;
    const float* first[16];
    grid_.output_rows(p.row + row, block.y, block.y_channels, x0, first);
    for (int64_t x = begin; x < end; x += kFinish) {
      const int64_t count = std::min(kFinish, end - x);
      float *rows[16], *y[16];
      for (int64_t i = 0; i < outputs; ++i) {
        y[i] = first[i] ? const_cast<float*>(first[i]) + x * block.y_channels + block.y_first : nullptr;
        rows[i] = !straight ? room.finish + i * kFinish * width : y[i] ? y[i] : room.finish;
      }
      kernel(room.r + (row * r_span_ + x) * out_width_ + block.column, r_q_, out_width_, count, bias_ + block.column, width, rows,
             straight ? block.y_channels : width);
      if (straight) continue;
      for (int64_t i = 0; i < outputs; ++i)
        if (y[i])
          tiles_.finish(y[i], block.y_channels, rows[i], width, static_cast<int>(count), block.channels, block.beta, g_.activation);
    }
  }
}

void WinogradRun::plan_room() {
  int64_t most_channels = 0, y_channels = 0;
  for (const GatherInput& input : g_.inputs) most_channels = std::max(most_channels, input.channels);
  for (const GatherOutput& output : g_.outputs) y_channels = std::max(y_channels, output.channels);
  t_floats_ = whole_lines(t_q_ * qs_), r_floats_ = whole_lines(r_q_ * qs_);
  v_floats_ = odd_lines(chunk_ * in_width_) * ps_, m_floats_ = odd_lines(chunk_ * out_width_) * ps_;
  finish_floats_ = whole_lines(kFinish * std::max<int64_t>(16 * kMaxVectors * 16, y_channels + 16));
  zero_floats_ = whole_lines(grid_.axis[2].in * most_channels), bias_floats_ = whole_lines(out_width_);
  own_floats_ = v_floats_ + m_floats_ + finish_floats_ + (together_ ? 0 : t_floats_ + r_floats_);
  shared_floats_ = together_ ? t_floats_ + r_floats_ : 0;
}

void WinogradRun::run(const Exec& ex) {
  zeros_ = ex.scratch->reserve<float>(floats());
  bias_ = zeros_ + zero_floats_, u_ = bias_ + bias_floats_;
  float* const rooms = u_ + whole_lines(u_floats_);
  std::fill(zeros_, zeros_ + zero_floats_, 0.0f);
  pack();
  const auto room_of = [&](int worker) {
    Room room{};
    room.v = rooms + worker * own_floats_, room.m = room.v + v_floats_, room.finish = room.m + m_floats_;
    room.t = together_ ? rooms + threads() * own_floats_ : room.finish + finish_floats_;
    room.r = room.t + t_floats_;
    return room;
  };
  if (!together_) {
    const auto pieces = static_cast<int64_t>(pieces_.size());
    parallel_for_worker(pieces, 1, [&](int worker, int64_t first, int64_t last) {
      const Room room = room_of(worker);
      for (int64_t i = first; i < last; ++i) {
        const Piece& p = pieces_[static_cast<std::size_t>(i)];
        const int64_t tiles = p.rows * grid_.tiles(p);
        const int64_t r_span = p.groups * grid_.axis[2].group(), t_span = r_span + t_span_ - r_span_;
        for (int64_t row = 0; row < p.rows; ++row) in_rows(p, row, 0, t_span, room.t);
        const Piece& next = pieces_[static_cast<std::size_t>(std::min(i + 1, pieces - 1))];
        for (int64_t begin = 0; begin < tiles; begin += chunk_) {
          const Starts at = grid_.starts(p, begin, std::min(tiles, begin + chunk_), in_width_, out_width_);
          for (int64_t q = 0; q < qs_; ++q) {
            Ahead ahead{{grid_.fetch_input(next, q, g_.inputs[0].data, g_.inputs[0].channels),
                         grid_.fetch_output(p, q, g_.outputs[0].data, g_.outputs[0].channels)}};
            columns(at, q, room, ahead);
          }
        }
        for (int64_t row = 0; row < p.rows; ++row) out_rows(p, row, 0, r_span, room);
      }
    });
    return;
  }
  constexpr int64_t kSpan = 16;  // voxels of a row in one piece of work
  for (const Piece& p : pieces_) {
    const int64_t tiles = p.rows * grid_.tiles(p), chunks = ceil_div(tiles, chunk_), t_spans = ceil_div(t_span_, kSpan), r_spans = ceil_div(r_span_, kSpan);
    parallel_for(p.rows * t_spans, 1, [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k) {
        const int64_t begin = k % t_spans * kSpan;
        in_rows(p, k / t_spans, begin, std::min(t_span_, begin + kSpan), room_of(0).t);
      }
    });
    parallel_for_worker(qs_ * chunks, 1, [&](int worker, int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k) {
        const int64_t chunk = k % chunks;
        Ahead none;
        columns(grid_.starts(p, tiles * chunk / chunks, tiles * (chunk + 1) / chunks, in_width_, out_width_), k / chunks, room_of(worker), none);
      }
    });
    parallel_for_worker(p.rows * r_spans, 1, [&](int worker, int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k) {
        const int64_t begin = k % r_spans * kSpan;
        out_rows(p, k / r_spans, begin, std::min(r_span_, begin + kSpan), room_of(worker));
      }
    });
  }
}

}  // namespace

namespace {

// Cycles of one core for one sample, fitted to an AVX-512 server (conv_bench -a 222 etc.). Never of several samples, nor of the number of threads:
// a sample's result must not depend on its company.
struct Cost {
  double voxels = 1, taps = 1, lines = 0, in_vectors = 0, out_vectors = 0;
  explicit Cost(const Gather& g) {
    const double lanes = tile_kernels().lanes;
    for (const Axis& axis : g.axis) voxels *= static_cast<double>(axis.out), taps *= static_cast<double>(axis.phases[0].taps.size());
    for (const GatherInput& input : g.inputs) lines += static_cast<double>(input.channels), in_vectors += std::ceil(static_cast<double>(input.channels) / lanes);
    for (const GatherOutput& output : g.outputs) out_vectors += std::ceil(static_cast<double>(output.channels) / lanes);
  }
  double direct() const { return voxels * taps * lines * out_vectors / (out_vectors > 1 ? 1.6 : 1.26); }
  double winograd(const Gather& g, const WinogradTile& tile) const {
    double tiles = 1, outputs = 1;
    for (int a = 0; a < 3; ++a) tiles *= static_cast<double>(tiles_of(g.axis[a], tile.m[a]).starts.size()), outputs *= tile.m[a];
    const double points = tile.points(), weights = lines * out_vectors * points;
    const double transform = (tile.m[0] > 1 ? 22 : 12) + 3.5 * points / outputs;  // per voxel and vector of channels
    const double slices = g.axis[0].out == 1 ? 4 : 1;  // slices come many at a time and share the transformed weights
    const double bytes = weights * tile_kernels().lanes * 4;
    return tiles * points * lines * out_vectors / 1.6 + tiles * outputs * transform * (in_vectors + out_vectors) + weights * (bytes < 1.6e7 ? 24 : 100) / slices;
  }
};

constexpr double kSmall = 3e5;  // cycles: not worth a thought
constexpr double kGain = 0.9;   // of the direct sum's cost

}  // namespace

double conv_cycles(const Gather& g, const WinogradTile& tile) { return tile.used() ? Cost(g).winograd(g, tile) : Cost(g).direct(); }

WinogradTile choose_winograd(const ConvAlgorithm& algorithm, const Gather& g) {
  using Allow = ConvAlgorithm::Allow;
  if (algorithm.allow == Allow::direct || !three_taps(g.axis[2])) return {};
  for (int a = 0; a < 2; ++a)
    if (!three_taps(g.axis[a]) && !one_tap(g.axis[a])) return {};
  const auto tile_with = [&](int d, int h, int w) {
    return WinogradTile{{one_tap(g.axis[0]) ? 1 : d, one_tap(g.axis[1]) ? 1 : h, w}};
  };
  if (const std::int8_t* tile = algorithm.tile; tile[2] > 0) return tile_with(tile[0], tile[1], tile[2]);
  const Cost cost(g);
  WinogradTile best;
  double least = kGain * cost.direct();
  if (least < kSmall) return best;
  for (const int d : {2, 4})
    for (const int hw : {2, 4}) {
      if (hw < d || (hw == 4 && algorithm.allow == Allow::exact)) continue;
      const WinogradTile tile = tile_with(d, hw, hw);
      if (const double c = cost.winograd(g, tile); c < least) least = c, best = tile;
    }
  return best;
}

void run_winograd(const Exec& ex, const Gather& gather, const WinogradTile& tile) { WinogradRun(gather, tile).run(ex); }
std::size_t winograd_scratch(const Gather& gather, const WinogradTile& tile) {
  return static_cast<std::size_t>(WinogradRun(gather, tile).floats()) * sizeof(float);
}

}  // namespace vg::cpu

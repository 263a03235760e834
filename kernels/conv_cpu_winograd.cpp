// The engine of Winograd convolution on the cpu. A block is some rows of tiles. Its three phases:
//
//   rows      t[q][row][x] = B^T over D and H of the input, once for every x of the row: neighbouring tiles share it
//   columns   for every q:  v[p][tile] = B^T over W,  m[p][tile] = v[p] u[q][p] (the register tiles of the direct sum),  r[q][row][x] = A^T over W
//   outputs   y[z][y][x] = A^T over D and H of r, bias, activation
//
// v and m of one q stay in the first-level cache, t and r in the second. Dilation costs nothing: a tile's voxels are `dilation` apart.
// Narrow layers: every thread has pieces of its own. Wide ones, whose transformed weights u exceed the second-level cache: all threads work
// on one piece, phase by phase, and share out the q, so that u streams past once per piece. Wide ones of few tiles: v of all of them is made
// first; then threads share out the output channels, and make u slice by slice just before they need it: it never leaves their caches.
// Whoever does what, a sum is taken over the input channels in their order: the three ways give the same bits.
#include "kernels/conv_cpu_tiles.h"

#include <algorithm>
#include <cmath>
#include <functional>

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
  int64_t floats() const { return zero_floats_ + (g_.packed ? 0 : packed_floats()) + threads() * own_floats_ + shared_floats_; }  // of scratch
  std::vector<float> packed() {
    std::vector<float> to(static_cast<std::size_t>(packed_floats()));
    bias_ = to.data(), u_ = bias_ + bias_floats_;
    pack_bias(), pack();
    return to;
  }

 private:
  void plan_channels();
  void plan_pieces();
  void list_pieces();
  void plan_room();
  int64_t packed_floats() const { return bias_floats_ + whole_lines(u_floats_); }
  void pack() const;
  void pack_bias();
  void pack_lines(const Block& block, std::size_t input, int64_t first, int64_t last, float* u, int64_t u_step) const;
  void in_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, float* t) const;
  void columns(const Starts& at, int64_t q, const Room& room, Ahead& ahead) const;
  void out_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, const Room& room) const;
  void out_block(const Block& block, const Piece& p, int64_t row, int64_t begin, int64_t end, const float* r, int64_t r_q, int64_t r_x,
                 float* finish) const;
  void run_alone(const std::function<Room(int)>& room_of) const;
  void run_together(const std::function<Room(int)>& room_of) const;
  void run_few(float* shared, float* rooms) const;
  void some_blocks(std::size_t first, std::size_t last, const float* v, float* room) const;
  void all_in_rows(const Piece& p, float* t) const;
  void plan_few();
  int64_t u_step(const Block& block) const { return odd_lines(lines_ * width(block)); }  // floats from point to point
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
  int64_t v_tile_ = 0;                    // of v, floats per tile
  std::vector<Piece> pieces_;
  int64_t t_span_ = 0, r_span_ = 0;               // voxels of a row of t, of r
  int64_t t_q_ = 0, r_q_ = 0, chunk_ = 0;         // floats between points; tiles in one step of `columns`
  bool together_ = false;               // all threads on one piece
  bool few_tiles_ = false;              // all tiles at once, threads share out the output channels:
  int64_t few_v_ = 0, few_m_ = 0, few_u_ = 0, few_r_ = 0;  // floats of v from point to point; of a block's m; of a slice of u from point to point; of r
  int64_t slice_ = 0;                   // input channels in a slice of u
  std::size_t group_ = 1;               // blocks of output channels that share a slice of v
  float *u_ = nullptr, *bias_ = nullptr, *zeros_ = nullptr;
  int64_t u_floats_ = 0, t_floats_ = 0, r_floats_ = 0, v_floats_ = 0, m_floats_ = 0, finish_floats_ = 0;
  int64_t zero_floats_ = 0, bias_floats_ = 0, own_floats_ = 0, shared_floats_ = 0;  // own: of each thread
};

constexpr int64_t kSecondLevel = 1 << 20;  // bytes of transformed weights that stay beside the rest
constexpr int64_t kAlone = 7 << 18;          // the same where tiles are many: read from the third level, which costs less than sharing t and r would
constexpr int64_t kPieceTiles = 28;        // of one thread's block: enough to read u for, few enough for t and r to stay in cache
constexpr int64_t kTogetherBytes = 8 << 20;  // of t and r when threads share a block
constexpr int64_t kFewProducts = 2560;     // tiles in all times points, for which u is not kept: m of 32 channels is then 320 KB
constexpr int64_t kSlice = 512 << 10;      // bytes of a slice of u
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
  v_tile_ = odd_lines(in_width_);
  for (const GatherOutput& output : g_.outputs)
    for (int64_t done = 0; done < output.channels;) {
      const int64_t left = ceil_div(output.channels - done, tiles_.lanes);
      Block block;
      block.y = output.data;
      block.vectors = static_cast<int>(left == 3 ? 3 : std::min<int64_t>(left, 2));
      block.channels = static_cast<int>(std::min<int64_t>(output.channels - done, width(block)));
      block.y_channels = output.channels, block.y_first = done, block.first = output.first + done, block.beta = output.beta;
      block.column = out_width_, block.weights = u_floats_;
      out_width_ += width(block), u_floats_ += u_step(block) * qs_ * ps_;
      blocks_.push_back(block);
      done += block.channels;
    }
}

void WinogradRun::plan_pieces() {
  const AxisTiles& w = grid_.axis[2];
  const int64_t rows = grid_.rows(), row_bytes = 4 * qs_ * w.group() * grid_.groups() * (in_width_ + out_width_);
  const int64_t alone = ceil_div(rows * grid_.row_tiles(), kPieceTiles);  // pieces, if every thread has its own
  together_ = threads() > 1 && !g_.wanted && (u_floats_ * 4 > kAlone || alone < 4 * threads());
  few_tiles_ = !g_.wanted && u_floats_ * 4 > kSecondLevel && rows * grid_.row_tiles() * qs_ * ps_ <= kFewProducts;
  grid_.piece_groups = grid_.groups();
  if (few_tiles_) {
    grid_.piece_rows = rows;
  } else if (together_) {
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
void WinogradRun::pack() const {
  constexpr int64_t kGroup = 8;  // input channels in one piece of work
  int64_t column = 0;
  for (std::size_t i = 0; i < g_.inputs.size(); ++i) {
    const int64_t groups = ceil_div(g_.inputs[i].channels, kGroup);
    parallel_for(static_cast<int64_t>(blocks_.size()) * groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const Block& block = blocks_[static_cast<std::size_t>(k / groups)];
        const int64_t first = k % groups * kGroup, line = column + first;
        pack_lines(block, i, first, std::min(g_.inputs[i].channels, first + kGroup), u_ + block.weights + line * width(block), u_step(block));
      }
    });
    column += g_.inputs[i].channels;
  }
}

void WinogradRun::pack_bias() {
  for (const Block& block : blocks_)
    for (int64_t c = 0; c < width(block); ++c)
      bias_[block.column + c] = g_.weights.bias && c < block.channels ? g_.weights.bias[block.first + c] : 0.0f;
}

// Input channels [first, last) of an input, one line each, from `u` on.
void WinogradRun::pack_lines(const Block& block, std::size_t input, int64_t first, int64_t last, float* u, int64_t u_step) const {
  constexpr int64_t kTogether = 8;  // input channels
  alignas(64) float taps[kTogether][27 * kMaxVectors * 16];
  float* lines[kTogether * 27];
  const GatherWeights& w = g_.weights;
  const int64_t width = this->width(block), neighbours = w.kernel[0] * w.kernel[1] * w.kernel[2];
  float* slot[27] = {};  // of a tap by its number, among `taps` of channel 0
  int64_t used = 0, before = neighbours, behind = 0;
  for (const AxisTap& z : g_.axis[0].phases[0].taps)
    for (const AxisTap& y : g_.axis[1].phases[0].taps)
      for (const AxisTap& x : g_.axis[2].phases[0].taps) {
        const int64_t tap = (z.k * w.kernel[1] + y.k) * w.kernel[2] + x.k;
        slot[tap] = taps[0] + used++ * width, before = std::min(before, tap), behind = std::max(behind, tap + 1);
      }
  // Taps that lie between those in use do not occur: three or one of each axis, one of an axis only as its first.
  const int64_t count = behind - before, most = used == w.in_step ? kTogether : 1;
  const float* from = w.data + block.first * w.out_step + (g_.inputs[input].first + first) * w.in_step + g_.inputs[input].tap + before;
  for (int64_t c = first, channels = 0; c < last; c += channels) {
    channels = std::min(most, last - c);
    for (int64_t i = 0; i < channels; ++i)
      for (int64_t k = 0; k < count; ++k) lines[i * count + k] = slot[before + k] + i * (taps[1] - taps[0]);
    tiles_.gather_lines(lines, channels * count, from, w.out_step, block.channels, static_cast<int>(width), from + channels * w.in_step);
    from += channels * w.in_step;
    for (int64_t i = 0; i < channels; ++i, u += width)
      kernels_.weights[WinogradKernels::index(tile_.m[0])][WinogradKernels::index(tile_.m[1])][WinogradKernels::index(tile_.m[2])](taps[i], width, u, u_step);
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
  const int64_t v_p = odd_lines(tiles * v_tile_), m_p = odd_lines(tiles * out_width_);
  kernels_.in_columns[WinogradKernels::index(w.m)](room.t + q * t_q_, at.in, tiles, w.dilation * in_width_, in_width_, room.v, v_p,
                                                   v_tile_);
  static constexpr float kZeros[kMaxVectors * 16] = {};
  for (int64_t point = 0; point < ps_; ++point) {
    Segment segments[3];
    int64_t line = 0;
    for (std::size_t i = 0; i < g_.inputs.size(); ++i) {
      segments[i] = {reinterpret_cast<std::intptr_t>(room.v + point * v_p + column_[i]), line, g_.inputs[i].channels, v_tile_};
      line += g_.inputs[i].channels;
    }
    for (const Block& block : blocks_) {
      const int64_t parts = ceil_div(tiles, tiles_.max_voxels[block.vectors]);
      for (int64_t i = 0; i < parts; ++i) {
        const int64_t first = tiles * i / parts, count = tiles * (i + 1) / parts - first;
        tiles_.tile[block.vectors][count](segments, static_cast<int>(g_.inputs.size()), first, u_ + block.weights + (q * ps_ + point) * u_step(block), kZeros, 0,
                                          room.m + point * m_p + first * out_width_ + block.column, out_width_, ahead);
      }
    }
  }
  kernels_.out_columns[WinogradKernels::index(w.m)](room.m, m_p, out_width_, at.out, tiles, w.dilation * out_width_, out_width_,
                                                    room.r + q * r_q_);
}

// Positions [begin, end) of row `row` of r.
void WinogradRun::out_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, const Room& room) const {
  for (const Block& block : blocks_) out_block(block, p, row, begin, end, room.r + block.column, r_q_, out_width_, room.finish);
}

void WinogradRun::out_block(const Block& block, const Piece& p, int64_t row, int64_t begin, int64_t end, const float* r, int64_t r_q, int64_t r_x,
                            float* finish) const {
  const int64_t x0 = p.group * grid_.axis[2].group(), outputs = tile_.m[0] * tile_.m[1], width = this->width(block);
  end = std::min(end, grid_.axis[2].out - x0);
  const auto kernel = kernels_.out_rows[WinogradKernels::index(tile_.m[0])][WinogradKernels::index(tile_.m[1])];
  const bool straight = block.channels == width && block.beta == 0.0f && g_.activation.kind == ActivationKind::identity;
  const float* first[16];
  grid_.output_rows(p.row + row, block.y, block.y_channels, x0, first);
  for (int64_t x = begin; x < end; x += kFinish) {
    const int64_t count = std::min(kFinish, end - x);
    float *rows[16], *y[16];
    for (int64_t i = 0; i < outputs; ++i) {
      y[i] = first[i] ? const_cast<float*>(first[i]) + x * block.y_channels + block.y_first : nullptr;
      rows[i] = !straight ? finish + i * kFinish * width : y[i] ? y[i] : finish;
    }
    kernel(r + (row * r_span_ + x) * r_x, r_q, r_x, count, bias_ + block.column, width, rows, straight ? block.y_channels : width);
    if (straight) continue;
    for (int64_t i = 0; i < outputs; ++i)
      if (y[i]) tiles_.finish(y[i], block.y_channels, rows[i], width, static_cast<int>(count), block.channels, block.beta, g_.activation);
  }
}

void WinogradRun::plan_room() {
  int64_t most_channels = 0, y_channels = 0;
  for (const GatherInput& input : g_.inputs) most_channels = std::max(most_channels, input.channels);
  for (const GatherOutput& output : g_.outputs) y_channels = std::max(y_channels, output.channels);
  t_floats_ = whole_lines(t_q_ * qs_), r_floats_ = whole_lines(r_q_ * qs_);
  v_floats_ = odd_lines(chunk_ * v_tile_) * ps_, m_floats_ = odd_lines(chunk_ * out_width_) * ps_;
  finish_floats_ = whole_lines(kFinish * std::max<int64_t>(16 * kMaxVectors * 16, y_channels + 16));
  zero_floats_ = whole_lines(grid_.axis[2].in * most_channels), bias_floats_ = whole_lines(out_width_);
  own_floats_ = v_floats_ + m_floats_ + finish_floats_ + (together_ ? 0 : t_floats_ + r_floats_);
  shared_floats_ = together_ ? t_floats_ + r_floats_ : 0;
  if (few_tiles_) plan_few();
}

void WinogradRun::plan_few() {
  const int64_t tiles = grid_.rows() * grid_.row_tiles(), points = qs_ * ps_;
  int64_t widest = 0;
  for (const Block& block : blocks_) widest = std::max(widest, width(block));
  group_ = blocks_.size() >= 8 * static_cast<std::size_t>(threads()) ? 2 : 1;
  slice_ = std::max<int64_t>(kSlice / (4 * points * widest * static_cast<int64_t>(group_)) / 16 * 16, 16);
  few_v_ = odd_lines(tiles * v_tile_), few_m_ = odd_lines(tiles * widest), few_u_ = odd_lines(slice_ * widest);
  few_r_ = odd_lines(grid_.rows() * r_span_ * widest);
  u_floats_ = 0, shared_floats_ = t_floats_ + few_v_ * points;
  own_floats_ = static_cast<int64_t>(group_) * (few_m_ + few_u_) * points + few_r_ * qs_ + finish_floats_;
}

void WinogradRun::run(const Exec& ex) {
  zeros_ = ex.scratch->reserve<float>(floats());
  float* const own_weights = zeros_ + zero_floats_;
  float* const rooms = own_weights + (g_.packed ? 0 : packed_floats());
  bias_ = g_.packed ? const_cast<float*>(g_.packed) : own_weights, u_ = bias_ + bias_floats_;
  std::fill(zeros_, zeros_ + zero_floats_, 0.0f);
  if (!g_.packed) pack_bias();
  if (few_tiles_) return run_few(rooms + threads() * own_floats_, rooms);
  if (!g_.packed) pack();
  const auto room_of = [&](int worker) {
    Room room{};
    room.v = rooms + worker * own_floats_, room.m = room.v + v_floats_, room.finish = room.m + m_floats_;
    room.t = together_ ? rooms + threads() * own_floats_ : room.finish + finish_floats_;
    room.r = room.t + t_floats_;
    return room;
  };
  together_ ? run_together(room_of) : run_alone(room_of);
}

void WinogradRun::run_alone(const std::function<Room(int)>& room_of) const {
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
}

constexpr int64_t kSpan = 16;  // voxels of a row in one piece of work

// t of a whole piece, by all threads.
void WinogradRun::all_in_rows(const Piece& p, float* t) const {
  const int64_t spans = ceil_div(t_span_, kSpan);
  parallel_for(p.rows * spans, 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const int64_t begin = k % spans * kSpan;
      in_rows(p, k / spans, begin, std::min(t_span_, begin + kSpan), t);
    }
  });
}

void WinogradRun::run_together(const std::function<Room(int)>& room_of) const {
  for (const Piece& p : pieces_) {
    const int64_t tiles = p.rows * grid_.tiles(p), chunks = ceil_div(tiles, chunk_), r_spans = ceil_div(r_span_, kSpan);
    all_in_rows(p, room_of(0).t);
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

void WinogradRun::run_few(float* shared, float* rooms) const {
  const Piece& all = pieces_[0];
  const AxisTiles& w = grid_.axis[2];
  float *const t = shared, *const v = shared + t_floats_;
  const int64_t tiles = all.rows * grid_.tiles(all), chunks = ceil_div(tiles, kChunkTiles);
  all_in_rows(all, t);
  parallel_for(qs_ * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t q = k / chunks, first = tiles * (k % chunks) / chunks, last = tiles * (k % chunks + 1) / chunks;
      const Starts at = grid_.starts(all, first, last, in_width_, 0);
      kernels_.in_columns[WinogradKernels::index(w.m)](t + q * t_q_, at.in, at.tiles, w.dilation * in_width_, in_width_,
                                                       v + q * ps_ * few_v_ + first * v_tile_, few_v_, v_tile_);
    }
  });
  const auto groups = static_cast<int64_t>((blocks_.size() + group_ - 1) / group_);
  parallel_for_worker(groups, 1, [&](int worker, int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const std::size_t first = static_cast<std::size_t>(k) * group_;
      some_blocks(first, std::min(first + group_, blocks_.size()), v, rooms + worker * own_floats_);
    }
  });
}

// Everything of blocks [first, last) of output channels.
void WinogradRun::some_blocks(std::size_t first, std::size_t last, const float* v, float* room) const {
  static constexpr float kZeros[kMaxVectors * 16] = {};
  const Piece& all = pieces_[0];
  const AxisTiles& w = grid_.axis[2];
  const int64_t tiles = all.rows * grid_.tiles(all), points = qs_ * ps_;
  float *const m = room, *const u = m + static_cast<int64_t>(group_) * few_m_ * points, *const r = u + static_cast<int64_t>(group_) * few_u_ * points;
  const auto m_of = [&](std::size_t b, int64_t point) { return m + (static_cast<int64_t>(b - first) * points + point) * few_m_; };
  Ahead none;
  for (std::size_t i = 0; i < g_.inputs.size(); ++i)
    for (int64_t c = 0; c < g_.inputs[i].channels; c += slice_) {
      const int64_t count = std::min(slice_, g_.inputs[i].channels - c);
      const bool fresh = i == 0 && c == 0;
      for (std::size_t b = first; b < last; ++b) pack_lines(blocks_[b], i, c, c + count, u + static_cast<int64_t>(b - first) * few_u_ * points, few_u_);
      for (int64_t point = 0; point < points; ++point) {
        const Segment segment{reinterpret_cast<std::intptr_t>(v + point * few_v_ + column_[i] + c), 0, count, v_tile_};
        for (std::size_t b = first; b < last; ++b) {
          const int64_t vectors = blocks_[b].vectors, width = this->width(blocks_[b]), parts = ceil_div(tiles, tiles_.max_voxels[vectors]);
          for (int64_t k = 0; k < parts; ++k) {
            const int64_t begin = tiles * k / parts;
            float* const to = m_of(b, point) + begin * width;
            tiles_.tile[vectors][tiles * (k + 1) / parts - begin](&segment, 1, begin, u + (static_cast<int64_t>(b - first) * points + point) * few_u_,
                                                                  fresh ? kZeros : to, fresh ? 0 : width, to, width, none);
          }
        }
      }
    }
  for (std::size_t b = first; b < last; ++b) {
    const int64_t width = this->width(blocks_[b]);
    for (int64_t begin = 0; begin < tiles; begin += kChunkTiles) {
      const Starts at = grid_.starts(all, begin, std::min(tiles, begin + kChunkTiles), 0, width);
      for (int64_t q = 0; q < qs_; ++q)
        kernels_.out_columns[WinogradKernels::index(w.m)](m_of(b, q * ps_) + begin * width, few_m_, width, at.out, at.tiles, w.dilation * width, width,
                                                          r + q * few_r_);
    }
    for (int64_t row = 0; row < all.rows; ++row) out_block(blocks_[b], all, row, 0, r_span_, r, few_r_, width, r + few_r_ * qs_);
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
    const bool few = bytes > kSecondLevel && tiles * points <= kFewProducts;
    const double per_weight = few ? (slices > 1 ? 12 : 20) : bytes < 1.6e7 ? 24 : 100;
    return tiles * points * lines * out_vectors / 1.6 + tiles * outputs * transform * (in_vectors + out_vectors) + weights * per_weight / slices;
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

std::vector<float> packed_for_winograd(const Gather& gather, const WinogradTile& tile) { return WinogradRun(gather, tile).packed(); }

}  // namespace vg::cpu

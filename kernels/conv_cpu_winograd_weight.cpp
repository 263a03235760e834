// The weight gradient by Winograd's tiles on the cpu. In the transformed domain it is one outer product per tile and point:
//
//   du[q][p] = sum over tiles of  (B^T x)[q][p]  (x)  (A dy)[q][p]          dw = G^T du       (the transpose of y = A^T [(G w) . (B^T x)])
//
// The rows / columns phases are those of the forward pass, once for x and once for dy; the outer products are the register tiles of the
// plain weight gradient. Narrow layers: a thread sums a chunk of pieces into a du of its own. Wide ones: all threads work on one piece and
// share out q and the input channels, so that every part of du stays in one cache. Wide ones of few tiles, where du is the larger: B^T x and
// A dy of all samples are made first, then threads share out du, and every part of it becomes dw where it is, in cache; the same bits.
// Chunks and pieces depend on one sample's shape alone; a sample's chunks are added in order, samples in a binary tree, as everywhere.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/blocks.h"
#include "kernels/conv_cpu_tiles.h"

namespace vg::cpu {
namespace {

using std::int64_t;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kPieceTiles = 24;           // of one thread's piece
constexpr int64_t kSecondLevel = 1 << 20;     // bytes of du that a thread may have for itself
constexpr int64_t kTogetherBytes = 16 << 20;  // of transformed rows when threads share a piece
constexpr int64_t kChunks = 32;               // of a sample, at most
constexpr int64_t kMemory = 4 << 20;          // floats of chunk sums alive at a time, unless one sample needs more
constexpr int64_t kFewBytes = 8 << 20;        // of both transformed tensors of a sample, all points, where du is shared out
constexpr int64_t kFewMemory = 128 << 20;     // bytes of those of all samples
constexpr int64_t kPart = 320 << 10;          // bytes of a part of du
constexpr int64_t kInputs = 64;               // input channels in one piece of shared work

class WeightRun {
 public:
  WeightRun(const WinogradWeights& shape, const WinogradTile& tile);
  void run(const Exec& ex, const Grad& dw) { few_tiles_ ? run_few(ex, dw) : together_ ? run_together(ex, dw) : run_alone(ex, dw); }

 private:
  struct Room {
    float *x, *dy, *v, *d, *u;
  };
  // Input channels [first, first + count) of input `input`; line: of the first, among all; column: in transformed rows.
  struct Part {
    std::size_t input;
    int64_t first, count, line, column, width;
  };

  void plan();
  void x_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, float* to) const;
  void dy_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, float* to) const;
  void columns(const Starts& at, int64_t q, const Part& part, bool fresh, const Room& room, Ahead& ahead) const;
  void back(int64_t line, const float* u, float* sum) const;  // du to dw of one input channel
  void write(const float* sum, const Grad& dw) const;
  void run_alone(const Exec& ex, const Grad& dw);
  void run_together(const Exec& ex, const Grad& dw);
  struct Few;
  void run_few(const Exec& ex, const Grad& dw);
  void transform(const Few& f, int64_t n) const;
  void few_part(const Few& f, int64_t part, float* room, const Grad& dw) const;
  int64_t sum_floats() const { return lines_ * taps_ * out_width_; }

  const WinogradWeights& s_;
  const WinogradTile tile_;
  const OuterKernels& outer_;
  const WinogradKernels& kernels_;
  TileGrid grid_;  // of one sample
  std::vector<Part> parts_;
  int64_t qs_, ps_, taps_, lines_ = 0, in_width_ = 0, out_width_;
  int64_t x_q_ = 0, dy_q_ = 0, chunk_tiles_ = 0, pieces_ = 0, in_chunk_ = 0, chunks_ = 0;
  bool together_ = false, few_tiles_ = false;
  const float* zeros_ = nullptr;
};

WeightRun::WeightRun(const WinogradWeights& shape, const WinogradTile& tile)
    : s_(shape), tile_(tile), outer_(outer_kernels()), kernels_(winograd_kernels()) {
  for (int a = 0; a < 3; ++a) grid_.axis[a] = axis_tiles(tile.m[a], s_.kernel[a] > 1 ? s_.p.dilation[a] : 1, -s_.p.pad[a], s_.out[a], s_.in[a]);
  grid_.samples = s_.samples;
  qs_ = grid_.q_points(), ps_ = grid_.axis[2].n, taps_ = s_.kernel[0] * s_.kernel[1] * s_.kernel[2];
  out_width_ = ceil_div(s_.outputs, outer_.lanes) * outer_.lanes;
  plan();
}

// Nothing here looks at the number of threads or of samples: results must not depend on them.
void WeightRun::plan() {
  for (const GatherInput& input : s_.inputs) lines_ += input.channels, in_width_ += ceil_div(input.channels, outer_.lanes) * outer_.lanes;
  const AxisTiles& w = grid_.axis[2];
  const int64_t rows = grid_.rows_of_sample();
  together_ = lines_ * out_width_ * qs_ * ps_ * 4 > kSecondLevel;
  grid_.piece_groups = grid_.groups();
  if (together_) {
    grid_.piece_rows = std::clamp<int64_t>(kTogetherBytes / (4 * qs_ * w.group() * grid_.groups() * (in_width_ + out_width_)), 1, rows);
  } else if (grid_.row_tiles() <= kPieceTiles) {
    grid_.piece_rows = std::clamp<int64_t>(kPieceTiles / grid_.row_tiles(), 1, rows);
  } else {
    grid_.piece_groups = std::clamp<int64_t>(ceil_div(kPieceTiles, w.dilation), 1, grid_.groups());
  }
  grid_.balance(rows);
  pieces_ = grid_.pieces(rows);
  in_chunk_ = ceil_div(pieces_, std::clamp<int64_t>(pieces_ / 2, 1, kChunks)), chunks_ = ceil_div(pieces_, in_chunk_);
  x_q_ = odd_lines(grid_.piece_rows * grid_.in_span() * in_width_), dy_q_ = odd_lines(grid_.piece_rows * grid_.out_span() * out_width_);
  const int64_t few_bytes = 4 * rows * grid_.row_tiles() * qs_ * ps_ * (in_width_ + out_width_);
  few_tiles_ = together_ && few_bytes <= kFewBytes && few_bytes * s_.samples <= kFewMemory;
  chunk_tiles_ = std::min(grid_.piece_rows * grid_.piece_groups * w.dilation, kChunkTiles);
  for (std::size_t i = 0; i < s_.inputs.size(); ++i) {
    const int64_t channels = s_.inputs[i].channels, most = together_ ? kInputs : channels;
    const int64_t line = i ? s_.inputs[0].channels : 0, column = i ? ceil_div(s_.inputs[0].channels, outer_.lanes) * outer_.lanes : 0;
    for (int64_t c = 0; c < channels; c += most) {
      const int64_t count = std::min(most, channels - c);
      parts_.push_back({i, c, count, line + c, column + c, ceil_div(count, outer_.lanes) * outer_.lanes});
    }
  }
}

void WeightRun::x_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, float* t) const {
  const AxisTiles& w = grid_.axis[2];
  const int64_t x0 = p.group * w.group() + w.at, left = std::clamp<int64_t>(-x0, begin, end), right = std::clamp<int64_t>(w.in - x0, left, end);
  float* const to = t + row * grid_.in_span() * in_width_;
  for (int64_t q = 0; q < qs_; ++q) {
    std::fill(to + q * x_q_ + begin * in_width_, to + q * x_q_ + left * in_width_, 0.0f);
    std::fill(to + q * x_q_ + right * in_width_, to + q * x_q_ + end * in_width_, 0.0f);
  }
  if (left >= right) return;
  int64_t column = 0;
  for (const GatherInput& input : s_.inputs) {
    const float* rows[kMostPoints];
    grid_.input_rows(p.row + row, input.data, input.channels, x0 + left, rows);
    for (int64_t q = 0; q < qs_; ++q)
      if (!rows[q]) rows[q] = zeros_;
    kernels_.in_rows[WinogradKernels::index(tile_.m[0])][WinogradKernels::index(tile_.m[1])](rows, right - left, input.channels, input.channels,
                                                                                           to + left * in_width_ + column, x_q_, in_width_);
    column += ceil_div(input.channels, outer_.lanes) * outer_.lanes;
  }
}

void WeightRun::dy_rows(const Piece& p, int64_t row, int64_t begin, int64_t end, float* t) const {
  const AxisTiles& w = grid_.axis[2];
  const int64_t x0 = p.group * w.group(), right = std::clamp<int64_t>(w.out - x0, begin, end);
  float* const to = t + row * grid_.out_span() * out_width_;
  for (int64_t q = 0; q < qs_; ++q) std::fill(to + q * dy_q_ + right * out_width_, to + q * dy_q_ + end * out_width_, 0.0f);
  if (begin >= right) return;
  const float* rows[kMostPoints];
  grid_.output_rows(p.row + row, s_.dy, s_.outputs, x0 + begin, rows);
  for (int64_t j = 0; j < tile_.m[0] * tile_.m[1]; ++j)
    if (!rows[j]) rows[j] = zeros_;
  kernels_.grad_rows[WinogradKernels::index(tile_.m[0])][WinogradKernels::index(tile_.m[1])](rows, right - begin, s_.outputs, s_.outputs,
                                                                                           to + begin * out_width_, dy_q_, out_width_);
}

// du[q][all p] of the part's input channels (= or +=) over some tiles.
void WeightRun::columns(const Starts& at, int64_t q, const Part& part, bool fresh, const Room& room, Ahead& ahead) const {
  const AxisTiles& w = grid_.axis[2];
  const int64_t tiles = at.tiles, v_p = odd_lines(tiles * part.width), d_p = odd_lines(tiles * out_width_);
  const int m = WinogradKernels::index(w.m);
  // `at` counts in_width_ floats per voxel, whatever the part.
  kernels_.in_columns[m](room.x + q * x_q_ + part.column, at.in, tiles, w.dilation * in_width_, part.width, room.v, v_p, part.width);
  kernels_.grad_columns[m](room.dy + q * dy_q_, at.out, tiles, w.dilation * out_width_, out_width_, room.d, d_p, out_width_);
  for (int64_t p = 0; p < ps_; ++p) {
    const Run run{room.v + p * v_p, room.d + p * d_p, tiles};
    float* const u = room.u + ((q * ps_ + p) * lines_ + part.line) * out_width_;
    for (int64_t column = 0, left = out_width_ / outer_.lanes; left > 0;) {
      const int64_t vectors = left == 3 ? 3 : std::min<int64_t>(left, 2), most = outer_.max_rows[vectors], steps = ceil_div(part.count, most);
      for (int64_t i = 0; i < steps; ++i) {
        const int64_t first = part.count * i / steps, rows = part.count * (i + 1) / steps - first;
        outer_.outer[vectors][rows](&run, 1, first, column, part.width, out_width_, fresh, u + first * out_width_ + column, out_width_, ahead);
      }
      column += vectors * outer_.lanes, left -= vectors;
    }
  }
}

void WeightRun::back(int64_t line, const float* u, float* sum) const {
  kernels_.weight_grad[WinogradKernels::index(tile_.m[0])][WinogradKernels::index(tile_.m[1])][WinogradKernels::index(tile_.m[2])](
      u + line * out_width_, lines_ * out_width_, out_width_, sum + line * taps_ * out_width_, out_width_);
}

// sum: [input channel][tap][output channel] to dw (O, I, taps).
void WeightRun::write(const float* sum, const Grad& dw) const {
  const int64_t all = dw.shape()[1] * taps_, most = std::max<int64_t>(1, kMostLines / taps_) * taps_;
  parallel_for(lines_, most / taps_, [&](int64_t begin, int64_t end) {
    const float* rows[kMostLines];
    for (int64_t row = begin * taps_, count = 0; row < end * taps_; row += count) {
      count = std::min(most, end * taps_ - row);
      for (int64_t r = 0; r < count; ++r) rows[r] = sum + (row + r) * out_width_;
      outer_.transpose_lines(dw.data() + row, all, rows, count, s_.outputs, dw.beta != 0.0f);
    }
  });
}

void WeightRun::run_alone(const Exec& ex, const Grad& dw) {
  const int64_t floats = whole_lines(sum_floats()), x_floats = whole_lines(x_q_ * qs_), dy_floats = whole_lines(dy_q_ * qs_);
  const int64_t v_floats = odd_lines(chunk_tiles_ * in_width_) * ps_, d_floats = odd_lines(chunk_tiles_ * out_width_) * ps_;
  const int64_t own = x_floats + dy_floats + v_floats + d_floats + whole_lines(lines_ * out_width_ * qs_ * ps_);
  int64_t zero_floats = s_.outputs * s_.out[2];
  for (const GatherInput& input : s_.inputs) zero_floats = std::max(zero_floats, input.channels * s_.in[2]);
  zero_floats = whole_lines(zero_floats);
  int64_t group = 1;  // samples whose sums are alive together: a whole subtree
  while (group < s_.samples && 2 * group * chunks_ * floats <= kMemory) group *= 2;
  const int64_t slots = group < s_.samples ? BinaryCounter::slots(s_.samples) : 0;
  float* const zeros = ex.scratch->reserve<float>(zero_floats + (group * chunks_ + slots) * floats + threads() * own);
  std::fill(zeros, zeros + zero_floats, 0.0f);
  zeros_ = zeros;
  float* const sums = zeros + zero_floats;
  float* const rooms = sums + (group * chunks_ + slots) * floats;
  const int64_t rows = grid_.rows_of_sample();
  const auto sum = [&](int64_t n, int64_t chunk) { return sums + (n * chunks_ + chunk) * floats; };
  const auto slot = [&](int64_t level) { return sums + (group * chunks_ + level) * floats; };
  const auto add = [&](float* to, const float* from) {
    parallel_for(floats, 4096, [&](int64_t begin, int64_t end) { outer_.add(to + begin, from + begin, end - begin); });
  };
  const auto copy = [&](float* to, const float* from) { std::memcpy(to, from, static_cast<std::size_t>(floats) * sizeof(float)); };
  BinaryCounter groups;
  for (int64_t start = 0; start < s_.samples; start += group) {
    const int64_t samples = std::min(group, s_.samples - start);
    parallel_for_worker(samples * chunks_, 1, [&](int worker, int64_t first, int64_t last) {
      Room room{};
      room.x = rooms + worker * own, room.dy = room.x + x_floats, room.v = room.dy + dy_floats, room.d = room.v + v_floats, room.u = room.d + d_floats;
      for (int64_t item = first; item < last; ++item) {
        const int64_t n = item / chunks_, chunk = item % chunks_, end = std::min(pieces_, (chunk + 1) * in_chunk_);
        const auto piece = [&](int64_t i) {
          Piece p = grid_.piece(i, rows);
          p.row += (start + n) * rows;
          return p;
        };
        for (int64_t i = chunk * in_chunk_; i < end; ++i) {
          const Piece p = piece(i), next = piece(std::min(i + 1, end - 1));
          for (int64_t row = 0; row < p.rows; ++row) x_rows(p, row, 0, grid_.in_span(), room.x), dy_rows(p, row, 0, grid_.out_span(), room.dy);
          const int64_t tiles = p.rows * grid_.tiles(p);
          for (int64_t begin = 0; begin < tiles; begin += chunk_tiles_) {
            const Starts at = grid_.starts(p, begin, std::min(tiles, begin + chunk_tiles_), in_width_, out_width_);
            for (int64_t q = 0; q < qs_; ++q) {
              Ahead ahead{{grid_.fetch_input(next, q, s_.inputs[0].data, s_.inputs[0].channels), grid_.fetch_output(next, q, s_.dy, s_.outputs)}};
              for (const Part& part : parts_) columns(at, q, part, i == chunk * in_chunk_ && begin == 0, room, ahead);
            }
          }
        }
        for (int64_t line = 0; line < lines_; ++line) back(line, room.u, sum(n, chunk));
      }
    });
    for (int64_t n = 0; n < samples; ++n)
      for (int64_t c = 1; c < chunks_; ++c) add(sum(n, 0), sum(n, c));
    for (int64_t step = 1; step < samples; step *= 2)
      for (int64_t n = 0; n + step < samples; n += 2 * step) add(sum(n, 0), sum(n + step, 0));
    if (group < s_.samples) groups.push([&](int64_t level) { add(sums, slot(level)); }, [&](int64_t level) { copy(slot(level), sums); });
  }
  groups.finish([&](int64_t level) { copy(sums, slot(level)); }, [&](int64_t level) { add(sums, slot(level)); });
  write(sums, dw);
}

void WeightRun::run_together(const Exec& ex, const Grad& dw) {
  const int64_t floats = whole_lines(sum_floats()), x_floats = whole_lines(x_q_ * qs_), dy_floats = whole_lines(dy_q_ * qs_);
  const int64_t v_floats = odd_lines(chunk_tiles_ * std::min(in_width_, whole_lines(kInputs))) * ps_, d_floats = odd_lines(chunk_tiles_ * out_width_) * ps_;
  const int64_t u_floats = whole_lines(lines_ * out_width_ * qs_ * ps_), slots = s_.samples > 1 ? BinaryCounter::slots(s_.samples) : 0;
  int64_t zero_floats = s_.outputs * s_.out[2];
  for (const GatherInput& input : s_.inputs) zero_floats = std::max(zero_floats, input.channels * s_.in[2]);
  zero_floats = whole_lines(zero_floats);
  float* const zeros = ex.scratch->reserve<float>(zero_floats + (1 + slots) * floats + x_floats + dy_floats + u_floats + threads() * (v_floats + d_floats));
  std::fill(zeros, zeros + zero_floats, 0.0f);
  zeros_ = zeros;
  std::vector<float*> slot;  // behind the levels: the newest sum
  for (int64_t level = 0; level <= slots; ++level) slot.push_back(zeros + zero_floats + level * floats);
  float*& sum = slot.back();
  float* const x = zeros + zero_floats + (1 + slots) * floats;
  Room shared{x, x + x_floats, nullptr, nullptr, x + x_floats + dy_floats};
  float* const rooms = shared.u + u_floats;
  constexpr int64_t kSpan = 16;  // voxels of a row in one piece of work
  const int64_t rows = grid_.rows_of_sample(), in_spans = ceil_div(grid_.in_span(), kSpan), out_spans = ceil_div(grid_.out_span(), kSpan);
  const auto add = [&](int64_t level) {
    const float* const other = slot[static_cast<std::size_t>(level)];
    parallel_for(floats, 4096, [&](int64_t begin, int64_t end) { outer_.add(sum + begin, other + begin, end - begin); });
  };
  const auto swap = [&](int64_t level) { std::swap(sum, slot[static_cast<std::size_t>(level)]); };
  BinaryCounter samples;
  for (int64_t n = 0; n < s_.samples; ++n) {
    for (int64_t i = 0; i < pieces_; ++i) {
      Piece p = grid_.piece(i, rows);
      p.row += n * rows;
      parallel_for(p.rows * (in_spans + out_spans), 1, [&](int64_t first, int64_t last) {
        for (int64_t k = first; k < last; ++k) {
          const int64_t row = k / (in_spans + out_spans), span = k % (in_spans + out_spans);
          if (span < in_spans)
            x_rows(p, row, span * kSpan, std::min(grid_.in_span(), (span + 1) * kSpan), shared.x);
          else
            dy_rows(p, row, (span - in_spans) * kSpan, std::min(grid_.out_span(), (span - in_spans + 1) * kSpan), shared.dy);
        }
      });
      const int64_t tiles = p.rows * grid_.tiles(p), parts = static_cast<int64_t>(parts_.size());
      parallel_for_worker(qs_ * parts, 1, [&](int worker, int64_t first, int64_t last) {
        Room room = shared;
        room.v = rooms + worker * (v_floats + d_floats), room.d = room.v + v_floats;
        Ahead none;
        for (int64_t k = first; k < last; ++k)
          for (int64_t begin = 0; begin < tiles; begin += chunk_tiles_)
            columns(grid_.starts(p, begin, std::min(tiles, begin + chunk_tiles_), in_width_, out_width_), k / parts, parts_[static_cast<std::size_t>(k % parts)],
                    i == 0 && begin == 0, room, none);
      });
    }
    parallel_for(lines_, 2, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) back(line, shared.u, sum);
    });
    if (slots) samples.push(add, swap);
  }
  samples.finish(swap, add);
  write(sum, dw);
}

// Where things lie while du is shared out.
struct WeightRun::Few {
  float *x, *dy, *v, *d;                // rows of one sample (shared); B^T x, A dy: [sample][point][tile][width]
  int64_t tiles, v_p, d_p, points;      // of one sample; floats from point to point
  int64_t v_tile, d_tile;               // floats from tile to tile
  int64_t lines, width, u_step, sum;    // of a part: input channels, output channels; floats of u from point to point, of a sum
  int64_t line_parts, levels;
};

void WeightRun::run_few(const Exec& ex, const Grad& dw) {
  Few f{};
  const int64_t rows = grid_.rows_of_sample(), samples = s_.samples;
  f.tiles = rows * grid_.row_tiles(), f.points = qs_ * ps_;
  f.v_tile = odd_lines(in_width_), f.d_tile = odd_lines(out_width_), f.v_p = odd_lines(f.tiles * f.v_tile), f.d_p = odd_lines(f.tiles * f.d_tile);
  f.width = std::min<int64_t>(out_width_, 2 * outer_.lanes);
  const int64_t most = outer_.max_rows[2];
  f.lines = std::min(lines_, std::max<int64_t>(1, kPart / (4 * f.points * f.width * most)) * most);
  f.line_parts = ceil_div(lines_, f.lines), f.lines = ceil_div(lines_, f.line_parts);
  f.u_step = odd_lines(f.lines * f.width), f.sum = whole_lines(f.lines * taps_ * f.width);
  f.levels = samples > 1 ? BinaryCounter::slots(samples) : 0;
  const int64_t x_floats = odd_lines(rows * grid_.in_span() * in_width_) * qs_, dy_floats = odd_lines(rows * grid_.out_span() * out_width_) * qs_;
  int64_t zero_floats = s_.outputs * s_.out[2];
  for (const GatherInput& input : s_.inputs) zero_floats = std::max(zero_floats, input.channels * s_.in[2]);
  zero_floats = whole_lines(zero_floats);
  const int64_t own = f.u_step * f.points + (1 + f.levels) * f.sum;
  float* const zeros = ex.scratch->reserve<float>(zero_floats + x_floats + dy_floats + samples * f.points * (f.v_p + f.d_p) + threads() * own);
  std::fill(zeros, zeros + zero_floats, 0.0f);
  zeros_ = zeros;
  f.x = zeros + zero_floats, f.dy = f.x + x_floats, f.v = f.dy + dy_floats, f.d = f.v + samples * f.points * f.v_p;
  float* const rooms = f.d + samples * f.points * f.d_p;
  x_q_ = x_floats / qs_, dy_q_ = dy_floats / qs_;  // a whole sample is one piece
  for (int64_t n = 0; n < samples; ++n) transform(f, n);
  parallel_for_worker(f.line_parts * ceil_div(out_width_, f.width), 1, [&](int worker, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) few_part(f, i, rooms + worker * own, dw);
  });
}

// B^T x and A dy of a sample.
void WeightRun::transform(const Few& f, int64_t n) const {
  const AxisTiles& w = grid_.axis[2];
  const int64_t rows = grid_.rows_of_sample(), chunks = ceil_div(f.tiles, kChunkTiles);
  const Piece p{n * rows, rows, 0, grid_.groups()};
  parallel_for(2 * rows, 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) k % 2 ? dy_rows(p, k / 2, 0, grid_.out_span(), f.dy) : x_rows(p, k / 2, 0, grid_.in_span(), f.x);
  });
  parallel_for(2 * qs_ * chunks, 1, [&](int64_t begin, int64_t end) {
    const int m = WinogradKernels::index(w.m);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t q = k / 2 / chunks, chunk = k / 2 % chunks, first = f.tiles * chunk / chunks, last = f.tiles * (chunk + 1) / chunks;
      const Starts at = grid_.starts(p, first, last, in_width_, out_width_);
      if (k % 2)
        kernels_.grad_columns[m](f.dy + q * dy_q_, at.out, at.tiles, w.dilation * out_width_, out_width_,
                                 f.d + (n * f.points + q * ps_) * f.d_p + first * f.d_tile, f.d_p, f.d_tile);
      else
        kernels_.in_columns[m](f.x + q * x_q_, at.in, at.tiles, w.dilation * in_width_, in_width_,
                               f.v + (n * f.points + q * ps_) * f.v_p + first * f.v_tile, f.v_p, f.v_tile);
    }
  });
}

// One part of dw through all samples.
void WeightRun::few_part(const Few& f, int64_t part, float* room, const Grad& dw) const {
  const int64_t column = part / f.line_parts * f.width, width = std::min(f.width, out_width_ - column), vectors = width / outer_.lanes;
  const int64_t first_line = part % f.line_parts * f.lines, lines = std::min(f.lines, lines_ - first_line);
  float* const u = room;
  std::vector<float*> slot;  // behind the levels: the newest sum
  for (int64_t level = 0; level <= f.levels; ++level) slot.push_back(room + f.u_step * f.points + level * f.sum);
  float*& newest = slot.back();
  const auto swap = [&](int64_t level) { std::swap(newest, slot[static_cast<std::size_t>(level)]); };
  const auto add = [&](int64_t level) { outer_.add(newest, slot[static_cast<std::size_t>(level)], lines * taps_ * width); };
  const auto back_kernel = kernels_.weight_grad[WinogradKernels::index(tile_.m[0])][WinogradKernels::index(tile_.m[1])][WinogradKernels::index(tile_.m[2])];
  BinaryCounter samples;
  Ahead none;
  for (int64_t n = 0; n < s_.samples; ++n) {
    for (int64_t point = 0; point < f.points; ++point) {
      const Run run{f.v + (n * f.points + point) * f.v_p, f.d + (n * f.points + point) * f.d_p, f.tiles};
      int64_t line = 0, in_column = 0;  // of an input: its first; where its channels begin in v
      for (const GatherInput& input : s_.inputs) {
        const int64_t begin = std::max(first_line, line), end = std::min(first_line + lines, line + input.channels), count = std::max<int64_t>(end - begin, 0);
        const int64_t steps = ceil_div(count, outer_.max_rows[vectors]);
        for (int64_t i = 0; i < steps; ++i) {
          const int64_t first = begin + count * i / steps, rows = begin + count * (i + 1) / steps - first;
          outer_.outer[vectors][rows](&run, 1, in_column + first - line, column, f.v_tile, f.d_tile, true, u + point * f.u_step + (first - first_line) * width,
                                      width, none);
        }
        line += input.channels, in_column += ceil_div(input.channels, outer_.lanes) * outer_.lanes;
      }
    }
    for (int64_t line = 0; line < lines; ++line) back_kernel(u + line * width, f.u_step, width, newest + line * taps_ * width, width);
    if (f.levels) samples.push(add, swap);
  }
  samples.finish(swap, add);
  const int64_t all = dw.shape()[1] * taps_, most = std::max<int64_t>(1, kMostLines / taps_) * taps_;
  const float* rows[kMostLines];
  for (int64_t row = 0, count = 0; row < lines * taps_; row += count) {
    count = std::min(most, lines * taps_ - row);
    for (int64_t r = 0; r < count; ++r) rows[r] = newest + (row + r) * width;
    outer_.transpose_lines(dw.data() + column * all + first_line * taps_ + row, all, rows, count, std::min(width, s_.outputs - column), dw.beta != 0.0f);
  }
}

}  // namespace

namespace {

// Cycles of one core for one sample, as for the forward pass.
struct Cost {
  const WinogradWeights& s;
  double voxels = 1, lines = 0, in_vectors = 0, lanes = outer_kernels().lanes, out_vectors = std::ceil(static_cast<double>(s.outputs) / lanes);
  explicit Cost(const WinogradWeights& shape) : s(shape) {
    for (const std::int64_t out : s.out) voxels *= static_cast<double>(out);
    for (const GatherInput& input : s.inputs) lines += static_cast<double>(input.channels), in_vectors += std::ceil(static_cast<double>(input.channels) / lanes);
  }
  double direct() const { return (voxels / 1.36 + 8) * static_cast<double>(s.kernel[0] * s.kernel[1] * s.kernel[2]) * lines * out_vectors; }
  double winograd(const WinogradTile& tile) const {
    double tiles = 1, outputs = 1;
    for (int a = 0; a < 3; ++a) {
      tiles *= static_cast<double>(axis_tiles(tile.m[a], s.kernel[a] > 1 ? s.p.dilation[a] : 1, 0, s.out[a], s.in[a]).starts.size());
      outputs *= tile.m[a];
    }
    const double points = tile.points(), weights = lines * out_vectors * points, transform = (tile.m[0] > 1 ? 22 : 12) + 3.5 * points / outputs;
    const bool few = tiles * points * (in_vectors + out_vectors) * lanes * 4 <= kFewBytes;
    return tiles * points * lines * out_vectors / 1.3 + tiles * outputs * transform * (in_vectors + out_vectors) +
           weights * (few || weights * lanes * 4 < 1.6e7 ? 12 : 60);
  }
};

}  // namespace

double weight_cycles(const WinogradWeights& shape, const WinogradTile& tile) { return tile.used() ? Cost(shape).winograd(tile) : Cost(shape).direct(); }

WinogradTile choose_winograd(const ConvAlgorithm& algorithm, const WinogradWeights& s) {
  using Allow = ConvAlgorithm::Allow;
  if (algorithm.allow == Allow::direct || s.kernel[2] != 3) return {};
  for (int a = 0; a < 3; ++a)
    if (s.p.stride[a] != 1 || (s.kernel[a] != 1 && s.kernel[a] != 3)) return {};
  const auto tile_with = [&](int d, int h, int w) { return WinogradTile{{s.kernel[0] == 1 ? 1 : d, s.kernel[1] == 1 ? 1 : h, w}}; };
  if (const std::int8_t* tile = algorithm.tile; tile[2] > 0) return tile_with(tile[0], tile[1], tile[2]);
  const Cost cost(s);
  WinogradTile best;
  double least = 0.9 * cost.direct();
  if (least < 3e5) return best;
  for (const int d : {2, 4})
    for (const int hw : {2, 4}) {
      if (hw < d || (hw == 4 && algorithm.allow == Allow::exact)) continue;
      const WinogradTile tile = tile_with(d, hw, hw);
      if (const double c = cost.winograd(tile); c < least) least = c, best = tile;
    }
  return best;
}

void run_winograd(const Exec& ex, const WinogradWeights& shape, const WinogradTile& tile, const Grad& dw) { WeightRun(shape, tile).run(ex, dw); }

}  // namespace vg::cpu

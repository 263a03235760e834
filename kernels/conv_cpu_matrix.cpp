// The engine of convolution and data gradient on the matrix unit. Input rows of a piece of work are copied as high and low bf16 halves with the
// zeros of the padding around them (a panel, in the second-level cache); strips of 16 neighbouring voxels then meet packed weights tap by tap.
//
// Channels go in steps of 32. Where some are left beyond the last whole step (99 = 3 * 32 + 3), a step each for nine taps would be wasted on them:
// the taps of all of them are laid side by side in a second panel, the tail, as one step (9 * 3 = 27).
// A strip may run over the end of a row into the padding and the next row (`flat`): fewer strips where rows are short.
// Few voxels and many weights: all threads make one panel of everything, then share out the output channels, whose weights each packs for itself.
// Whoever does what, a sum is taken over the channels and taps in one order: the bits are the same.
#include "kernels/conv_cpu_matrix.h"

#include <algorithm>
#include <cstring>

#include "tensor/parallel.h"

namespace vg::cpu {
namespace {

using std::int64_t;
using std::uint16_t;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kMostTaps = 27;
constexpr int64_t kPanelBytes = 1 << 20;     // of a piece's panel
constexpr int64_t kPoints = 512;             // voxels of a piece where there is one tap
constexpr int64_t kNearBytes = 768 << 10;    // of packed weights that stay beside the panel: every strip meets all of them at once
constexpr int64_t kStreamBytes = 32 << 20;   // of an output, from which it is written around the caches (simd-inl.h)
constexpr int64_t kFewVoxels = 1024;         // of all samples, for which weights are packed where they are used
constexpr int64_t kManyBytes = 512 << 10;    // ... if they are as many

struct Block {  // of output channels
  float* y = nullptr;
  int64_t y_channels = 0, y_first = 0, first = 0;
  int channels = 0;
  int64_t width = 0;  // 32 or 16
  float beta = 0.0f;
  int64_t weights = 0, bias = 0;  // where they begin: bytes, floats
};

struct Piece {
  int64_t n, z, y, rows, x, columns;
};

struct Strip {
  StripPlace place;
  int64_t at, lanes;  // position in the rows of the piece, as the panel counts them; voxels
  const Piece* piece;
};

struct Room {
  float* sums;              // of a tile
  float* stage = nullptr;  // for the results of four strips, which leave together, from voxel `first` on
  int64_t first = 0;
};

class MatrixRun {
 public:
  explicit MatrixRun(const Gather& gather);
  void run(const Exec& ex);
  int64_t floats() const { return bias_floats_ + (weight_bytes_ + panel_bytes_ * panels_ + own_bytes_ * threads()) / 4 + 64; }
  double cycles() const;  // of one core, for one sample

 private:
  void plan_channels();
  void plan_pieces();
  void pack(const Block& block, int64_t first, int64_t last, char* to) const;
  void fill(const Piece& p, char* panel, int64_t first_row, int64_t last_row) const;
  void fill_tail(const Piece& p, char* panel) const;
  void keep_rows(char* panel) const;
  Ahead::Range input_rows(const Piece& p) const;
  Ahead::Range output_rows(const Strip& first, const Strip& last) const;
  std::vector<MatrixSegment> segments(const char* panel) const;
  void add_strips(const Piece& p, int64_t panel, std::vector<Strip>& strips) const;
  void multiply(const Block& block, const std::vector<MatrixSegment>& segments, const Strip* four, const char* weights, const Room& room,
                Ahead& ahead) const;
  void finish(const Block& block, const Strip& strip, const float* sums, const Room& room) const;
  int64_t voxel_of(const Strip& strip, int64_t lane) const;
  void stream(const Strip* four, const Room& room) const;
  void run_pieces(char* weights, char* panels) const;
  void run_few(char* panels, char* rooms) const;
  int64_t block_bytes(const Block& b) const { return steps_ * b.width / kTileSide * 2 * kTileBytes; }
  int64_t most_in_rows() const { return rows_of(piece_rows_); }
  int64_t rows_of(int64_t out_rows) const { return (out_rows - 1) * g_.axis[1].in_step + reach_[1]; }  // of the panel
  const std::vector<AxisTap>& taps(int a) const { return g_.axis[a].phases[0].taps; }

  const Gather& g_;
  const MatrixKernels& k_;
  std::vector<Block> blocks_;
  int64_t channels_ = 0, whole_ = 0, left_ = 0;     // input channels; in steps of their own; in the tail
  int64_t taps_ = 1, chunks_ = 0, tail_steps_ = 0, steps_ = 0;
  int64_t reach_[3] = {};                            // input positions that the taps span
  int64_t pitch_ = 0, tail_pitch_ = 0;               // bf16 numbers from voxel to voxel
  int64_t piece_rows_ = 1, piece_columns_ = 1, span_ = 0, across_ = 1, down_ = 1;  // span: voxels of a panel's row; pieces along W, along H
  bool flat_ = false, few_ = false, near_ = false, streamed_ = false;
  int64_t main_numbers_ = 0, left_numbers_ = 0, tail_numbers_ = 0;  // of one half of a panel: channels in whole steps, the others, tail
  int64_t panel_bytes_ = 0, panels_ = 0, own_bytes_ = 0, weight_bytes_ = 0, bias_floats_ = 0;
  float* bias_ = nullptr;
};

MatrixRun::MatrixRun(const Gather& gather) : g_(gather), k_(matrix_kernels()) {
  plan_channels();
  plan_pieces();
}

void MatrixRun::plan_channels() {
  for (const GatherInput& input : g_.inputs) channels_ += input.channels;
  bool dense = true;  // taps of a row are neighbours, and so are the voxels that they move over
  for (int a = 0; a < 3; ++a) {
    const std::vector<AxisTap>& t = taps(a);
    taps_ *= static_cast<int64_t>(t.size()), reach_[a] = t.back().at - t.front().at + 1;
    dense = dense && g_.axis[a].in_step == 1 && (a < 2 || reach_[a] == static_cast<int64_t>(t.size()));
  }
  left_ = channels_ % kTileDepth;
  const int64_t row_taps = static_cast<int64_t>(taps(2).size());
  if (!dense || taps_ == 1 || g_.inputs.size() > 1 || left_ * row_taps > kTileSide) left_ = 0;
  whole_ = channels_ - left_;
  chunks_ = ceil_div(whole_, kTileDepth), tail_steps_ = ceil_div(taps_ * left_, kTileDepth);
  steps_ = taps_ * chunks_ + tail_steps_;
  // An odd number of cache lines: with a power of two the voxels of a strip would fight for a few sets of the first-level cache.
  pitch_ = chunks_ ? (chunks_ | 1) * kTileDepth : 0, tail_pitch_ = tail_steps_ * kTileDepth;
  for (const GatherOutput& output : g_.outputs)
    for (int64_t done = 0; done < output.channels;) {
      Block b;
      b.y = const_cast<float*>(output.data.data), b.y_channels = output.channels, b.y_first = done, b.first = output.first + done, b.beta = output.beta;
      b.width = output.channels - done > kTileSide ? 2 * kTileSide : kTileSide;
      b.channels = static_cast<int>(std::min(output.channels - done, b.width));
      b.weights = weight_bytes_, b.bias = bias_floats_;
      weight_bytes_ += block_bytes(b), bias_floats_ += 2 * kTileSide;
      done += b.channels;
      blocks_.push_back(b);
    }
}

void MatrixRun::plan_pieces() {
  const Axis &h = g_.axis[1], &w = g_.axis[2];
  const int64_t voxel = 4 * (pitch_ + tail_pitch_ + left_), planes = static_cast<int64_t>(taps(0).size());
  few_ = g_.samples * g_.axis[0].out * h.out * w.out <= kFewVoxels && weight_bytes_ >= kManyBytes;
  const int64_t fit = std::clamp<int64_t>(kPanelBytes / (voxel * planes * reach_[1] * w.in_step), 64, taps_ == 1 ? kPoints : int64_t{1} << 30);
  piece_columns_ = ceil_div(w.out, ceil_div(w.out, few_ ? w.out : fit));
  piece_columns_ = std::min(w.out, ceil_div(piece_columns_, kTileSide) * kTileSide);
  across_ = ceil_div(w.out, piece_columns_);
  span_ = (piece_columns_ - 1) * w.in_step + reach_[2];
  if (few_) {
    piece_rows_ = h.out;
  } else if (across_ == 1) {
    piece_rows_ = std::clamp<int64_t>((kPanelBytes / (voxel * planes * span_) - reach_[1] + 1) / h.in_step, 1, h.out);
    piece_rows_ = std::min(piece_rows_, std::max<int64_t>(1, ceil_div(h.out * g_.axis[0].out, 16)));  // enough pieces for many threads
  }
  down_ = ceil_div(h.out, piece_rows_), piece_rows_ = ceil_div(h.out, down_);
  const int64_t positions = (piece_rows_ - 1) * span_ + piece_columns_;
  flat_ = h.in_step == 1 && w.in_step == 1 && ceil_div(positions, kTileSide) < piece_rows_ * ceil_div(piece_columns_, kTileSide);
  const int64_t slack = kTileSide * w.in_step;  // strips read beyond the last voxel, whatever is there: nobody reads those sums
  main_numbers_ = ceil_div((planes * most_in_rows() * span_ + slack) * pitch_, 64) * 64;
  left_numbers_ = left_ ? ceil_div(planes * most_in_rows() * span_ * left_ + 2 * kTileDepth, 64) * 64 : 0;
  tail_numbers_ = ceil_div((piece_rows_ * span_ + slack) * tail_pitch_, 64) * 64;
  panel_bytes_ = 4 * (main_numbers_ + left_numbers_ + tail_numbers_);
  panels_ = few_ ? g_.samples * g_.axis[0].out : threads();
  const int64_t sums = 4 * kTileSide * kTileSide * 4;
  own_bytes_ = sums;
  near_ = !few_ && weight_bytes_ <= kNearBytes;
  const int64_t row_bytes = 4 * blocks_[0].y_channels;
  streamed_ = near_ && g_.outputs.size() == 1 && blocks_[0].beta == 0.0f && g_.samples * g_.axis[0].out * h.out * w.out * row_bytes >= kStreamBytes;
  if (streamed_) own_bytes_ += 4 * kTileSide * row_bytes;
  if (few_) {
    int64_t largest = 0;
    for (const Block& b : blocks_) largest = std::max(largest, block_bytes(b));
    own_bytes_ += largest, weight_bytes_ = 0;
  }
}

// Cycles fitted to a server with AMX: products with what stops them, copies, sums on their way to memory, weights.
double MatrixRun::cycles() const {
  double voxels = 1, vectors = 0, weights = 0;
  for (const Axis& axis : g_.axis) voxels *= static_cast<double>(axis.out);
  for (const Block& b : blocks_) vectors += static_cast<double>(b.width) / 16, weights += static_cast<double>(steps_ * kTileDepth * b.width);
  const double filled = static_cast<double>(piece_columns_) / static_cast<double>(flat_ ? span_ : ceil_div(piece_columns_, kTileSide) * kTileSide);
  const double panel = static_cast<double>(taps(0).size()) * static_cast<double>(most_in_rows()) / static_cast<double>(piece_rows_) *
                       static_cast<double>(span_) / static_cast<double>(piece_columns_);
  const double in_vectors = static_cast<double>(ceil_div(channels_, 16));
  return voxels * (static_cast<double>(steps_) * vectors * 4.3 / filled + panel * in_vectors * 12 + (left_ ? 62.0 : 32.0) + vectors * 10) + weights * 0.4;
}

// Tiles of input channels [first, last) of whole steps; those from whole_ on are the tail.
void MatrixRun::pack(const Block& block, int64_t first, int64_t last, char* to) const {
  const GatherWeights& w = g_.weights;
  const bool tail = first == whole_;
  const int64_t width = block.width, tile = 2 * width / kTileSide * kTileBytes, depth = tail ? tail_pitch_ : kTileDepth;
  std::vector<float> lines(static_cast<std::size_t>((tail ? 1 : taps_) * depth * width));
  std::vector<float*> to_line(static_cast<std::size_t>((last - first) * taps_));
  const int64_t neighbours = w.kernel[0] * w.kernel[1] * w.kernel[2];
  std::vector<int64_t> order(static_cast<std::size_t>(neighbours));  // of a tap by its number: its place among the segments
  int64_t place = 0;
  for (const AxisTap& z : taps(0))
    for (const AxisTap& y : taps(1))
      for (const AxisTap& x : taps(2)) order[static_cast<std::size_t>((z.k * w.kernel[1] + y.k) * w.kernel[2] + x.k)] = place++;
  for (int64_t i = first; i < last; ++i)
    for (int64_t k = 0; k < taps_; ++k) {
      const int64_t at = order[static_cast<std::size_t>(k)];
      to_line[static_cast<std::size_t>((i - first) * taps_ + k)] = lines.data() + (tail ? at * left_ + i - first : at * depth + i - first) * width;
    }
  // The halves of both inputs are neighbours among the weights too: channel i of all inputs is number first + i.
  const float* const from = w.data + block.first * w.out_step + (g_.inputs[0].first + first) * w.in_step;
  const int64_t together = w.in_step == taps_ ? last - first : 1;
  const auto gather = together * taps_ < kTileSide ? tile_kernels().gather_lines : k_.gather;
  for (int64_t i = 0; i < last - first; i += together)
    gather(to_line.data() + i * taps_, together * taps_, from + i * w.in_step, w.out_step, block.channels, static_cast<int>(width), from + (i + together) * w.in_step);
  if (tail) {
    for (int64_t s = 0; s < tail_steps_; ++s) k_.pack(to + s * tile, lines.data() + s * kTileDepth * width, width);
  } else {
    for (int64_t t = 0; t < taps_; ++t) k_.pack(to + (t * chunks_ + first / kTileDepth) * tile, lines.data() + t * depth * width, width);
  }
}

// Rows [first, last) of the panel, counted through its planes.
void MatrixRun::fill(const Piece& p, char* panel, int64_t first_row, int64_t last_row) const {
  const Axis &d = g_.axis[0], &h = g_.axis[1], &w = g_.axis[2];
  const int64_t rows = most_in_rows(), x0 = p.x * w.in_step + taps(2).front().at, span = (p.columns - 1) * w.in_step + reach_[2];
  const int64_t left = std::clamp<int64_t>(-x0, 0, span), right = std::clamp<int64_t>(w.in - x0, left, span);
  auto* const numbers = reinterpret_cast<uint16_t*>(panel);
  uint16_t* const others = numbers + 2 * main_numbers_;
  const auto clear = [&](uint16_t* to, int64_t voxels, int64_t pitch, int64_t low) {
    std::memset(to, 0, static_cast<std::size_t>(2 * voxels * pitch)), std::memset(to + low, 0, static_cast<std::size_t>(2 * voxels * pitch));
  };
  for (int64_t row = first_row; row < last_row; ++row) {
    if (row % rows >= rows_of(p.rows)) continue;
    const int64_t z = p.z * d.in_step + taps(0)[static_cast<std::size_t>(row / rows)].at, y = p.y * h.in_step + taps(1).front().at + row % rows;
    uint16_t *const to = numbers + row * span_ * pitch_, *const rest = others + row * span_ * left_;
    const bool inside = z >= 0 && z < d.in && y >= 0 && y < h.in;
    const int64_t begin = inside ? left : span, end = inside ? right : span;
    clear(to, begin, pitch_, main_numbers_), clear(to + end * pitch_, span_ - end, pitch_, main_numbers_);
    if (left_) clear(rest, begin, left_, left_numbers_), clear(rest + end * left_, span_ - end, left_, left_numbers_);
    if (begin >= end) continue;
    int64_t column = 0;
    for (std::size_t i = 0; i < g_.inputs.size(); ++i) {
      const GatherInput& input = g_.inputs[i];
      const float* const from = input.data.data + (((p.n * d.in + z) * h.in + y) * w.in + x0 + begin) * input.channels;
      const int64_t count = std::min(input.channels, whole_), padded = i + 1 == g_.inputs.size() ? chunks_ * kTileDepth - column : 0;
      if (count) k_.split(to + begin * pitch_ + column, pitch_, main_numbers_, from, input.channels, count, padded, end - begin);
      if (left_) k_.split(rest + begin * left_, left_, left_numbers_, from + whole_, input.channels, left_, 0, end - begin);
      column += input.channels;
    }
  }
}

// The rows that the next piece below shares with this one move to where it wants them.
void MatrixRun::keep_rows(char* panel) const {
  const int64_t moved = piece_rows_ * g_.axis[1].in_step, rows = most_in_rows(), kept = rows - moved;
  if (kept <= 0) return;
  auto* const numbers = reinterpret_cast<uint16_t*>(panel);
  const auto move = [&](uint16_t* half, int64_t row) { std::memmove(half, half + moved * row, static_cast<std::size_t>(2 * kept * row)); };
  for (std::size_t plane = 0; plane < taps(0).size(); ++plane)
    for (int half = 0; half < 2; ++half) {
      const int64_t first = static_cast<int64_t>(plane) * rows * span_;
      move(numbers + half * main_numbers_ + first * pitch_, span_ * pitch_);
      if (left_) move(numbers + 2 * main_numbers_ + half * left_numbers_ + first * left_, span_ * left_);
    }
}

// What the piece below this one needs of the first input beyond what is here, and where some strips' sums go: to be fetched.
Ahead::Range MatrixRun::input_rows(const Piece& p) const {
  const Axis &h = g_.axis[1], &w = g_.axis[2];
  const int64_t z = std::clamp<int64_t>(p.z * g_.axis[0].in_step + taps(0).back().at, 0, g_.axis[0].in - 1);
  const int64_t first = (p.y + p.rows - 1) * h.in_step + taps(1).back().at + 1, last = first + p.rows * h.in_step, channels = g_.inputs[0].channels;
  const auto row = [&](int64_t y) {
    const int64_t x = h.in == 1 ? std::clamp<int64_t>((p.x + (y >= first + 1 ? 2 : 1) * p.columns) * w.in_step, 0, w.in) : 0;
    return reinterpret_cast<std::intptr_t>(g_.inputs[0].data.data + (((p.n * g_.axis[0].in + z) * h.in + (h.in == 1 ? 0 : std::clamp<int64_t>(y, 0, h.in))) * w.in + x) * channels);
  };
  return {row(first), row(last)};
}

Ahead::Range MatrixRun::output_rows(const Strip& first, const Strip& last) const {
  const auto at = [&](int64_t voxel) { return reinterpret_cast<std::intptr_t>(blocks_[0].y + voxel * blocks_[0].y_channels); };
  return {at(voxel_of(first, 0)), at(voxel_of(last, last.lanes - 1) + 1)};
}

// The tail of every position: kernel row by kernel row.
void MatrixRun::fill_tail(const Piece& p, char* panel) const {
  if (!left_) return;
  const int64_t rows = most_in_rows(), run = static_cast<int64_t>(taps(2).size()) * left_;
  auto* const numbers = reinterpret_cast<uint16_t*>(panel);
  for (int half = 0; half < 2; ++half) {
    const uint16_t* const others = numbers + 2 * main_numbers_ + half * left_numbers_;
    uint16_t* const tail = numbers + 2 * (main_numbers_ + left_numbers_) + half * tail_numbers_;
    for (int64_t row = 0; row < p.rows; ++row) {
      uint16_t* to = tail + row * span_ * tail_pitch_;
      std::memset(to, 0, static_cast<std::size_t>(2 * span_ * tail_pitch_));
      int64_t z = 0;
      for (std::size_t i = 0; i < taps(0).size(); ++i, ++z)
        for (const AxisTap& y : taps(1)) {
          const int64_t from = (z * rows + row + y.at - taps(1).front().at) * span_ * left_;
          k_.copy(to, tail_pitch_, others + from, left_, run, p.columns), to += run;
        }
    }
  }
}

std::vector<MatrixSegment> MatrixRun::segments(const char* panel) const {
  std::vector<MatrixSegment> all;
  const int64_t rows = most_in_rows();
  int64_t plane = 0;
  for (std::size_t i = 0; i < taps(0).size(); ++i, ++plane)
    for (const AxisTap& y : taps(1))
      for (const AxisTap& x : taps(2)) {
        const int64_t at = (plane * rows + y.at - taps(1).front().at) * span_ + x.at - taps(2).front().at;
        if (chunks_) all.push_back({panel + 2 * at * pitch_, 2 * pitch_ * g_.axis[2].in_step, 2 * main_numbers_, chunks_, 0});
      }
  if (tail_steps_) all.push_back({panel + 4 * (main_numbers_ + left_numbers_), 2 * tail_pitch_, 2 * tail_numbers_, tail_steps_, 1});
  return all;
}

// panel: where the piece's lies, bytes from the first.
void MatrixRun::add_strips(const Piece& p, int64_t panel, std::vector<Strip>& strips) const {
  const auto add = [&](int64_t row, int64_t x, int64_t lanes) {
    const int64_t from = row * g_.axis[1].in_step * span_ + x * g_.axis[2].in_step, at = row * span_ + x;
    strips.push_back({{{panel + 2 * from * pitch_, panel + 2 * at * tail_pitch_}}, at, lanes, &p});
  };
  if (flat_) {
    const int64_t positions = (p.rows - 1) * span_ + p.columns;
    for (int64_t at = 0; at < positions; at += kTileSide) add(0, at, std::min(kTileSide, positions - at));
  } else {
    for (int64_t row = 0; row < p.rows; ++row)
      for (int64_t x = 0; x < p.columns; x += kTileSide) add(row, x, std::min(kTileSide, p.columns - x));
  }
}

// Sums of four strips, and what becomes of them. Strips beyond the last have no voxels.
void MatrixRun::multiply(const Block& block, const std::vector<MatrixSegment>& segments, const Strip* four, const char* weights, const Room& room,
                         Ahead& ahead) const {
  const auto count = static_cast<int>(segments.size());
  if (block.width == kTileSide) {
    const StripPlace* const places[4] = {&four[0].place, &four[1].place, &four[2].place, &four[3].place};
    k_.fours(segments.data(), count, places, weights, bias_ + block.bias, room.sums, ahead);
    for (int i = 0; i < 4; ++i) finish(block, four[i], room.sums + i * kTileSide * kTileSide, room);
    return;
  }
  for (int i = 0; i < 4 && four[i].lanes; i += 2) {
    const StripPlace* const places[2] = {&four[i].place, &four[i + 1].place};
    k_.pairs(segments.data(), count, places, weights, bias_ + block.bias, room.sums, ahead);
    for (int j = 0; j < 2; ++j) finish(block, four[i + j], room.sums + j * 2 * kTileSide * kTileSide, room);
  }
}

void MatrixRun::finish(const Block& block, const Strip& strip, const float* sums, const Room& room) const {
  const Piece& p = *strip.piece;
  for (int64_t lane = 0; lane < strip.lanes;) {
    const int64_t x = (strip.at + lane) % span_, run = std::min(strip.lanes - lane, p.columns - x);
    if (run <= 0) {  // between rows
      lane += span_ - x;
      continue;
    }
    const int64_t voxel = voxel_of(strip, lane);
    float* const y = room.stage ? room.stage + (voxel - room.first) * block.y_channels : block.y + voxel * block.y_channels;
    tile_kernels().finish(y + block.y_first, block.y_channels, sums + lane * block.width, block.width, static_cast<int>(run),
                          block.channels, block.beta, g_.activation);
    lane += run;
  }
}

int64_t MatrixRun::voxel_of(const Strip& strip, int64_t lane) const {
  const Piece& p = *strip.piece;
  const int64_t row = (strip.at + lane) / span_, x = std::min(p.columns - 1, (strip.at + lane) % span_);
  return ((p.n * g_.axis[0].out + p.z) * g_.axis[1].out + p.y + row) * g_.axis[2].out + p.x + x;
}

// The results of some strips, which follow each other in memory, around the caches.
void MatrixRun::stream(const Strip* four, const Room& room) const {
  const Block& b = blocks_[0];
  const Strip* last = four;
  while (last < four + 3 && last[1].lanes) ++last;
  k_.stream(b.y + room.first * b.y_channels, room.stage, (voxel_of(*last, last->lanes - 1) + 1 - room.first) * b.y_channels);
}

void MatrixRun::run(const Exec& ex) {
  bias_ = ex.scratch->reserve<float>(floats());
  for (const Block& b : blocks_)
    for (int64_t c = 0; c < 2 * kTileSide; ++c) bias_[b.bias + c] = g_.weights.bias && c < b.channels ? g_.weights.bias[b.first + c] : 0.0f;
  char* const weights = reinterpret_cast<char*>(bias_ + ceil_div(bias_floats_, 64) * 64);
  char* const panels = weights + weight_bytes_;
  few_ ? run_few(panels, panels + panels_ * panel_bytes_) : run_pieces(weights, panels);
}

void MatrixRun::run_pieces(char* weights, char* panels) const {
  const int64_t groups = chunks_ + (left_ ? 1 : 0), depth = g_.axis[0].out;
  parallel_for(static_cast<int64_t>(blocks_.size()) * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Block& b = blocks_[static_cast<std::size_t>(i / groups)];
      const int64_t first = i % groups * kTileDepth, tile = 2 * b.width / kTileSide * kTileBytes;
      char* const to = weights + b.weights;
      if (first < whole_)
        pack(b, first, std::min(whole_, first + kTileDepth), to);
      else
        pack(b, whole_, channels_, to + taps_ * chunks_ * tile);
    }
  });
  std::vector<int64_t> done(static_cast<std::size_t>(threads()), -2);  // a worker's last piece
  parallel_for_worker(g_.samples * depth * down_ * across_, 1, [&](int worker, int64_t first, int64_t last) {
    char* const panel = panels + worker * panel_bytes_;
    Room room{reinterpret_cast<float*>(panels + panels_ * panel_bytes_ + worker * own_bytes_)};
    if (streamed_) room.stage = room.sums + 4 * kTileSide * kTileSide;
    const std::vector<MatrixSegment> all = segments(panel);
    std::vector<Strip> strips;
    k_.begin();
    for (int64_t i = first; i < last; ++i) {
      const int64_t x = i / down_ % across_ * piece_columns_, y = i % down_ * piece_rows_, plane = i / down_ / across_;
      const Piece p{plane / depth, plane % depth, y, std::min(piece_rows_, g_.axis[1].out - y), x, std::min(piece_columns_, g_.axis[2].out - x)};
      const bool below = i % down_ && done[static_cast<std::size_t>(worker)] == i - 1;
      const int64_t known = below ? std::max<int64_t>(0, most_in_rows() - piece_rows_ * g_.axis[1].in_step) : 0;
      if (below) keep_rows(panel);
      done[static_cast<std::size_t>(worker)] = i;
      if (p.rows <= 0 || p.columns <= 0) continue;
      for (int64_t t = 0; t < static_cast<int64_t>(taps(0).size()); ++t) fill(p, panel, t * most_in_rows() + known, (t + 1) * most_in_rows());
      fill_tail(p, panel);
      strips.clear();
      add_strips(p, 0, strips);
      const std::size_t count = strips.size();
      while (strips.size() % 4) strips.push_back(strips.back()), strips.back().lanes = 0;
      Ahead ahead{{{}, input_rows(p)}};
      if (near_) {
        for (std::size_t s = 0; s < count; s += 4) {
          const std::size_t next = std::min(s + 4, count - 1);
          if (!streamed_) ahead.range[0] = output_rows(strips[next], strips[std::min(next + 3, count - 1)]);
          room.first = voxel_of(strips[s], 0);
          for (const Block& b : blocks_) multiply(b, all, strips.data() + s, weights + b.weights, room, ahead);
          if (streamed_) stream(strips.data() + s, room);
        }
      } else {
        for (const Block& b : blocks_)
          for (std::size_t s = 0; s < count; s += 4) multiply(b, all, strips.data() + s, weights + b.weights, room, ahead);
      }
    }
    k_.end();
  });
}

void MatrixRun::run_few(char* panels, char* rooms) const {
  const int64_t depth = g_.axis[0].out, rows = static_cast<int64_t>(taps(0).size()) * most_in_rows();
  std::vector<Piece> pieces;
  std::vector<Strip> strips;
  for (int64_t i = 0; i < panels_; ++i) pieces.push_back({i / depth, i % depth, 0, g_.axis[1].out, 0, g_.axis[2].out});
  for (int64_t i = 0; i < panels_; ++i) add_strips(pieces[static_cast<std::size_t>(i)], i * panel_bytes_, strips);
  const std::size_t count = strips.size();
  while (strips.size() % 4) strips.push_back(strips.back()), strips.back().lanes = 0;
  parallel_for(panels_ * rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) fill(pieces[static_cast<std::size_t>(i / rows)], panels + i / rows * panel_bytes_, i % rows, i % rows + 1);
  });
  for (int64_t i = 0; i < panels_; ++i) fill_tail(pieces[static_cast<std::size_t>(i)], panels + i * panel_bytes_);
  const std::vector<MatrixSegment> all = segments(panels);
  parallel_for_worker(static_cast<int64_t>(blocks_.size()), 1, [&](int worker, int64_t begin, int64_t end) {
    const Room room{reinterpret_cast<float*>(rooms + worker * own_bytes_)};
    char* const weights = rooms + worker * own_bytes_ + 4 * kTileSide * kTileSide * 4;
    k_.begin();
    for (int64_t i = begin; i < end; ++i) {
      const Block& b = blocks_[static_cast<std::size_t>(i)];
      for (int64_t c = 0; c < whole_; c += kTileDepth) pack(b, c, std::min(whole_, c + kTileDepth), weights);
      if (left_) pack(b, whole_, channels_, weights + taps_ * chunks_ * 2 * b.width / kTileSide * kTileBytes);
      Ahead none;
      for (std::size_t s = 0; s < count; s += 4) multiply(b, all, strips.data() + s, weights, room, none);
    }
    k_.end();
  });
}

// One phase, all taps in use, tensors that lie as one.
bool possible(const Gather& g) {
  if (!matrix_unit() || g.wanted || g.packed) return false;
  int64_t taps = 1, channels = 0;
  for (int a = 0; a < 3; ++a) {
    if (g.axis[a].phases.size() != 1 || static_cast<int64_t>(g.axis[a].phases[0].taps.size()) != g.weights.kernel[a] || !g.axis[a].out) return false;
    taps *= g.weights.kernel[a];
  }
  for (const GatherInput& input : g.inputs) {
    if (channels % kTileSide || input.data.table || input.tap || input.first != g.inputs[0].first + channels) return false;
    channels += input.channels;
  }
  for (const GatherOutput& output : g.outputs)
    if (output.data.table || !output.channels) return false;
  return taps <= kMostTaps && channels > 0;
}

}  // namespace

bool choose_matrix(const ConvAlgorithm& algorithm, const Gather& g) {
  if (algorithm.allow != ConvAlgorithm::Allow::fast || algorithm.tile[2] > 0 || !possible(g)) return false;
  if (algorithm.tile[2] < 0) return true;
  const WinogradTile tile = choose_winograd(algorithm, g);
  const double least = conv_cycles(g, tile);
  return least > 3e5 && MatrixRun(g).cycles() < 0.92 * least;
}

void run_matrix(const Exec& ex, const Gather& gather) { MatrixRun(gather).run(ex); }
std::size_t matrix_scratch(const Gather& gather) { return static_cast<std::size_t>(MatrixRun(gather).floats()) * sizeof(float); }

}  // namespace vg::cpu

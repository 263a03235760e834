// The weight gradient on the matrix unit: for every tap dW[o][i] = sum over voxels of dy[v][o] x[v + tap][i], with voxels as the depth of the tiles.
//
// A piece is some rows of dy, one behind the other with zeros between them, so that a tap is one distance in x, whatever the row. dy is turned
// over (tiles of 16 outputs by 32 voxels); x lies as pairs of voxels, beginning at even voxels and again at odd ones, so that every tap finds its
// pairs. 8 steps of depth at a time: what they take of dy stays in the first-level cache while all taps and input channels pass.
//
// Narrow layers: threads share out chunks of pieces, each with a sum of its own. Wide ones (`by_weights_`): all threads lay out whole samples, then
// share out tiles of dW. Pieces and chunks depend on one sample's shape alone; chunks are added in order, samples in a binary tree, as everywhere.
#include <algorithm>
#include <cstring>

#include "kernels/blocks.h"
#include "kernels/conv_cpu_matrix.h"

namespace vg::cpu {
namespace {

using std::int64_t;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kTileFloats = kTileSide * kTileSide;
constexpr int64_t kMostTaps = 27;
constexpr int64_t kPanelBytes = 3 << 19;       // of a piece
constexpr int64_t kOwnSum = 768 << 10;         // bytes of dW that a thread may sum for itself
constexpr int64_t kSampleBytes = 10 << 20;     // of a whole sample, laid out
constexpr int64_t kAllBytes = 128 << 20;       // of all samples, which then are laid out together
constexpr int64_t kSteps = 8;                  // of depth together
constexpr int64_t kChunks = 8;                 // of a sample
constexpr int64_t kMemory = 4 << 20;           // floats of sums alive at a time, unless one sample needs more

class MatrixWeights {
 public:
  explicit MatrixWeights(const WinogradWeights& shape);
  void run(const Exec& ex, const Grad& dw) { by_weights_ ? share_weights(ex, dw) : share_voxels(ex, dw); }
  double cycles() const;
  bool possible() const;

 private:
  struct Piece {
    int64_t n, z, y, rows;
  };
  struct InTile {  // 16 channels of an input
    std::size_t input;
    int64_t first, count, line;  // line: of the first among all input channels
  };

  void plan();
  void lay_x(const Piece& p, int64_t first, int64_t last, char* panel) const;
  void lay_dy(const Piece& p, int64_t first, int64_t last, int64_t slot, char* panel) const;
  void keep_rows(char* panel) const;
  void multiply(const char* panel, int64_t o, int64_t outs, int64_t c, int64_t ins, int64_t step, int64_t slot, int64_t steps, bool fresh, float* sum,
                int64_t o_step, int64_t tap_step) const;
  void multiply_range(const char* panel, int64_t o, int64_t outs, int64_t c, int64_t ins, int64_t steps, bool fresh, float* sum, int64_t o_step,
                      int64_t tap_step) const;
  void write(const float* sum, int64_t o, int64_t outs, int64_t c, int64_t ins, int64_t o_step, int64_t tap_step, const Grad& dw) const;
  void share_voxels(const Exec& ex, const Grad& dw);
  void share_weights(const Exec& ex, const Grad& dw);
  int64_t steps_of(int64_t rows) const { return ceil_div((rows - 1) * span_ + width_, kTileDepth); }
  const char* dy_tile(const char* panel, int64_t o, int64_t step) const { return panel + dy_at_ + (o * dy_steps_ + step) * 2 * kTileBytes; }
  int64_t sum_floats() const { return taps_ * outs_ * static_cast<int64_t>(ins_.size()) * kTileFloats; }

  const WinogradWeights& s_;
  const MatrixKernels& k_;
  int64_t out_[3], in_[3], width_ = 0, span_ = 0, taps_ = 1, outs_ = 0, planes_ = 1;  // extents (one long row where there is one tap); voxels of a row, with zeros
  std::vector<InTile> ins_;
  std::vector<int64_t> distance_;  // of a tap in x, voxels
  int64_t rows_ = 1, steps_ = 1, dy_steps_ = 1, blocks_ = 1, pieces_ = 1, in_chunk_ = 1, chunks_ = 1, down_ = 1;  // of a piece: rows of dy, steps of depth, of them in the panel, steps of x
  int64_t pairs_bytes_ = 0, in_tile_ = 0, dy_at_ = 0, panel_bytes_ = 0;  // pairs of one kind; all kinds of one tile of x
  bool by_weights_ = false;
  std::vector<float> zeros_;
};

MatrixWeights::MatrixWeights(const WinogradWeights& shape) : s_(shape), k_(matrix_kernels()) { plan(); }

bool MatrixWeights::possible() const {
  for (int a = 0; a < 3; ++a)
    if (s_.p.stride[a] != 1 || !s_.out[a]) return false;
  return matrix_unit() && taps_ <= kMostTaps && !ins_.empty() && outs_ > 0;
}

void MatrixWeights::plan() {
  bool points = true;
  for (int a = 0; a < 3; ++a) {
    out_[a] = s_.out[a], in_[a] = s_.in[a], taps_ *= s_.kernel[a];
    points = points && s_.kernel[a] == 1 && s_.p.pad[a] == 0 && s_.out[a] == s_.in[a];
  }
  if (points) out_[2] = in_[2] = out_[0] * out_[1] * out_[2], out_[0] = out_[1] = in_[0] = in_[1] = 1;
  int64_t reach[3];
  for (int a = 0; a < 3; ++a) reach[a] = (s_.kernel[a] - 1) * s_.p.dilation[a];
  planes_ = s_.kernel[0], outs_ = ceil_div(s_.outputs, kTileSide);
  for (std::size_t i = 0; i < s_.inputs.size(); ++i)
    for (int64_t c = 0; c < s_.inputs[i].channels; c += kTileSide)
      ins_.push_back({i, c, std::min(kTileSide, s_.inputs[i].channels - c), s_.inputs[i].first + c});
  const auto ins = static_cast<int64_t>(ins_.size());
  // Rows of dy: of one tap, runs of voxels.
  width_ = points ? std::min<int64_t>(out_[2], 1024) : out_[2];
  span_ = points ? width_ : (width_ + reach[2] + 1) / 2 * 2;
  const int64_t all_rows = points ? ceil_div(out_[2], width_) : out_[1], kinds = points ? 2 : 4;
  const auto lay_out = [&](int64_t rows, bool whole) {
    rows_ = rows, steps_ = steps_of(rows), dy_steps_ = whole ? steps_ : std::min(steps_, kSteps);
    blocks_ = ceil_div(steps_ * kTileDepth + reach[1] * span_ + reach[2] + 1, kTileDepth);
    pairs_bytes_ = (blocks_ * kTileSide + 1) * 64;  // an odd number of lines
    in_tile_ = planes_ * kinds * pairs_bytes_, dy_at_ = ins * in_tile_, panel_bytes_ = dy_at_ + outs_ * dy_steps_ * 2 * kTileBytes;
  };
  if (!points) lay_out(all_rows, true);
  by_weights_ = !points && sum_floats() * 4 > kOwnSum && panel_bytes_ * out_[0] <= kSampleBytes;
  if (points) {
    lay_out(1, true);
    by_weights_ = sum_floats() * 4 > kOwnSum && panel_bytes_ * all_rows <= kSampleBytes;
    if (!by_weights_) lay_out(1, false);
  } else if (!by_weights_) {
    int64_t rows = all_rows;
    for (lay_out(rows, false); rows > 1 && panel_bytes_ > kPanelBytes;) lay_out(--rows, false);
  }
  down_ = points ? all_rows : ceil_div(all_rows, rows_), pieces_ = (points ? 1 : out_[0]) * down_;
  in_chunk_ = ceil_div(pieces_, std::clamp<int64_t>(kMemory / sum_floats(), 1, kChunks)), chunks_ = ceil_div(pieces_, in_chunk_);
  for (int64_t z = 0; z < s_.kernel[0]; ++z)
    for (int64_t y = 0; y < s_.kernel[1]; ++y)
      for (int64_t x = 0; x < s_.kernel[2]; ++x) distance_.push_back(y * s_.p.dilation[1] * span_ + x * s_.p.dilation[2]);
  int64_t most = s_.outputs;
  for (const GatherInput& input : s_.inputs) most = std::max(most, input.channels);
  zeros_.assign(static_cast<std::size_t>(most + kTileSide), 0.0f);
}

double MatrixWeights::cycles() const {
  const double tiles = static_cast<double>(outs_) * static_cast<double>(ins_.size()), steps = static_cast<double>(pieces_ * steps_);
  const double blocks = static_cast<double>(pieces_ * planes_ * (by_weights_ ? blocks_ : steps_ + 1));
  const double product = by_weights_ ? 68 : sum_floats() * 4 > 3 << 19 ? 100 : 80;  // cycles of three products of tiles, with what stops them
  return steps * (tiles * static_cast<double>(taps_) * product + 700) + blocks * static_cast<double>(ins_.size()) * (taps_ > 1 ? 500 : 300) +
         steps * static_cast<double>(outs_) * 500 + tiles * static_cast<double>(taps_) * kTileFloats * (by_weights_ ? 1.0 : 1.0 + static_cast<double>(chunks_));
}

// Steps [first, last) of x; of dy, to the panel's steps from `slot` on.
void MatrixWeights::lay_x(const Piece& p, int64_t first, int64_t last, char* panel) const {
  const bool points = taps_ == 1 && span_ == width_ && out_[1] == 1 && out_[0] == 1;
  const float* at[kTileDepth + 1];
  for (std::size_t i = 0; i < s_.inputs.size(); ++i) {
    const GatherInput& input = s_.inputs[i];
    for (int64_t plane = 0; plane < planes_; ++plane) {
      const int64_t z = points ? 0 : p.z + plane * s_.p.dilation[0] - s_.p.pad[0];
      for (int64_t block = first; block < last; ++block) {
        for (int64_t v = 0; v <= kTileDepth; ++v) {
          const int64_t position = block * kTileDepth + v, row = position / span_, column = position % span_;
          const int64_t y = points ? 0 : p.y + row - s_.p.pad[1], x = points ? p.y * width_ + position : column - s_.p.pad[2];
          const bool inside = z >= 0 && z < in_[0] && y >= 0 && y < in_[1] && x >= 0 && x < in_[2] && (!points || position < width_);
          at[v] = inside ? input.data.data + (((p.n * in_[0] + z) * in_[1] + y) * in_[2] + x) * input.channels : nullptr;
        }
        for (std::size_t t = 0; t < ins_.size(); ++t) {
          if (ins_[t].input != i) continue;
          const float* from[kTileDepth + 1];
          for (int64_t v = 0; v <= kTileDepth; ++v) from[v] = at[v] ? at[v] : zeros_.data();
          char* const to = panel + static_cast<int64_t>(t) * in_tile_ + plane * (points ? 2 : 4) * pairs_bytes_ + block * kTileBytes;
          k_.pair_voxels(to, pairs_bytes_, points ? 0 : 2 * pairs_bytes_, from, ins_[t].first, ins_[t].count, input.channels * kTileDepth);
        }
      }
    }
  }
}

void MatrixWeights::lay_dy(const Piece& p, int64_t first, int64_t last, int64_t slot, char* panel) const {
  const bool points = taps_ == 1 && span_ == width_ && out_[1] == 1 && out_[0] == 1;
  for (int64_t step = first; step < last; ++step) {
    const float* at[kTileDepth];
    for (int64_t v = 0; v < kTileDepth; ++v) {
      const int64_t position = step * kTileDepth + v, row = position / span_, column = position % span_;
      const int64_t x = points ? p.y * width_ + position : column, y = points ? 0 : p.y + row;
      const bool inside = (points ? position < width_ && x < out_[2] : column < width_ && row < p.rows);
      at[v] = inside ? s_.dy + (((p.n * out_[0] + p.z) * out_[1] + y) * out_[2] + x) * s_.outputs : zeros_.data();
    }
    for (int64_t o = 0; o < outs_; ++o)
      k_.turn_voxels(const_cast<char*>(dy_tile(panel, o, slot + step - first)), at, o * kTileSide, std::min(kTileSide, s_.outputs - o * kTileSide), s_.outputs * kTileDepth);
  }
}

// Tiles [o, o + outs) x [c, c + ins), all taps, some steps: four tiles at a time.
void MatrixWeights::multiply(const char* panel, int64_t o, int64_t outs, int64_t c, int64_t ins, int64_t step, int64_t slot, int64_t steps, bool fresh,
                             float* sum, int64_t o_step, int64_t tap_step) const {
  const int64_t kinds = in_tile_ / pairs_bytes_ / planes_, plane_taps = taps_ / planes_;
  float unwanted[kTileFloats];
  const auto tiles = [&](int64_t tap, const auto& kernel, const int64_t (&os)[4], const int64_t (&cs)[4], int a_count, int b_count) {
    const int64_t distance = distance_[static_cast<std::size_t>(tap)];
    const char *a[4], *b[4];
    float* to[4];
    for (int i = 0; i < a_count; ++i) a[i] = dy_tile(panel, o + std::min(os[i], outs - 1), slot);
    for (int i = 0; i < b_count; ++i)
      b[i] = panel + (c + std::min(cs[i], ins - 1)) * in_tile_ + (tap / plane_taps * kinds + distance % 2 * 2) * pairs_bytes_ + distance / 2 * 64 + step * kTileBytes;
    for (int i = 0; i < 4; ++i) {
      const int64_t out = os[a_count == 1 ? 0 : b_count == 1 ? i : i / 2], in = cs[b_count == 1 ? 0 : a_count == 1 ? i : i % 2];
      to[i] = out < outs && in < ins ? sum + tap * tap_step + out * o_step + in * kTileFloats : unwanted;
    }
    kernel(a, b, pairs_bytes_, steps, fresh, to);
  };
  const int64_t even_outs = outs / 2 * 2, even_ins = ins / 2 * 2;
  for (int64_t i = 0; i < even_outs; i += 2)
    for (int64_t j = 0; j < even_ins; j += 2)
      for (int64_t tap = 0; tap < taps_; ++tap) tiles(tap, k_.sums, {i, i + 1, 0, 0}, {j, j + 1, 0, 0}, 2, 2);
  if (ins % 2)
    for (int64_t i = 0; i < outs; i += 4)
      for (int64_t tap = 0; tap < taps_; ++tap) tiles(tap, k_.sums_tall, {i, i + 1, i + 2, i + 3}, {ins - 1, 0, 0, 0}, 4, 1);
  if (outs % 2)
    for (int64_t j = 0; j < even_ins; j += 4)
      for (int64_t tap = 0; tap < taps_; ++tap) tiles(tap, k_.sums_wide, {outs - 1, 0, 0, 0}, {j, j + 1, j + 2 < even_ins ? j + 2 : ins, j + 3 < even_ins ? j + 3 : ins}, 1, 4);
}

void MatrixWeights::multiply_range(const char* panel, int64_t o, int64_t outs, int64_t c, int64_t ins, int64_t steps, bool fresh, float* sum, int64_t o_step,
                                   int64_t tap_step) const {
  const int64_t parts = ceil_div(steps, kSteps);
  for (int64_t i = 0; i < parts; ++i)
    multiply(panel, o, outs, c, ins, steps * i / parts, steps * i / parts, steps * (i + 1) / parts - steps * i / parts, fresh && i == 0, sum, o_step, tap_step);
}

// From tiles [tap][o][c] to dw (O, I, taps).
void MatrixWeights::write(const float* sum, int64_t o, int64_t outs, int64_t c, int64_t ins, int64_t o_step, int64_t tap_step, const Grad& dw) const {
  const int64_t all = dw.shape()[1] * taps_;
  const float* rows[kMostTaps];
  for (int64_t i = 0; i < outs; ++i)
    for (int64_t r = 0; r < std::min(kTileSide, s_.outputs - (o + i) * kTileSide); ++r)
      for (int64_t j = 0; j < ins; ++j) {
        const InTile& tile = ins_[static_cast<std::size_t>(c + j)];
        for (int64_t tap = 0; tap < taps_; ++tap) rows[tap] = sum + tap * tap_step + i * o_step + j * kTileFloats + r * kTileSide;
        float* const to = dw.data() + ((o + i) * kTileSide + r) * all + tile.line * taps_;
        k_.scatter(to, taps_, rows, taps_, tile.count, dw.beta != 0.0f);
      }
}

// The rows of x that the next piece shares with this one.
void MatrixWeights::keep_rows(char* panel) const {
  const int64_t moved = rows_ * span_ / 2 * 64, kept = pairs_bytes_ - moved;
  for (int64_t i = 0; i < dy_at_ / pairs_bytes_; ++i) std::memmove(panel + i * pairs_bytes_, panel + i * pairs_bytes_ + moved, static_cast<std::size_t>(kept));
}

void MatrixWeights::share_voxels(const Exec& ex, const Grad& dw) {
  const int64_t floats = sum_floats(), ins = static_cast<int64_t>(ins_.size()), o_step = ins * kTileFloats, tap_step = outs_ * o_step;
  int64_t group = 1;  // samples whose sums are alive together: a whole subtree
  while (group < s_.samples && 2 * group * chunks_ * floats <= kMemory) group *= 2;
  const int64_t slots = group < s_.samples ? BinaryCounter::slots(s_.samples) : 0;
  float* const sums = ex.scratch->reserve<float>((group * chunks_ + slots) * floats + threads() * panel_bytes_ / 4);
  char* const panels = reinterpret_cast<char*>(sums + (group * chunks_ + slots) * floats);
  const auto sum = [&](int64_t n, int64_t chunk) { return sums + (n * chunks_ + chunk) * floats; };
  const auto slot = [&](int64_t level) { return sums + (group * chunks_ + level) * floats; };
  const auto for_elements = [&](const auto& body) { parallel_for(floats, 4096, body); };
  const auto add_slot = [&](int64_t level) {
    for_elements([&](int64_t begin, int64_t end) { outer_kernels().add(sums + begin, slot(level) + begin, end - begin); });
  };
  const auto copy = [&](float* to, const float* from) { std::memcpy(to, from, static_cast<std::size_t>(floats) * sizeof(float)); };
  BinaryCounter groups;
  for (int64_t start = 0; start < s_.samples; start += group) {
    const int64_t samples = std::min(group, s_.samples - start);
    parallel_for_worker(samples * chunks_, 1, [&](int worker, int64_t first, int64_t last) {
      char* const panel = panels + worker * panel_bytes_;
      k_.begin();
      for (int64_t item = first; item < last; ++item) {
        const int64_t n = item / chunks_, chunk = item % chunks_, end = std::min(pieces_, (chunk + 1) * in_chunk_);
        for (int64_t i = chunk * in_chunk_; i < end; ++i) {
          const int64_t y = i % down_ * rows_;
          const Piece p{start + n, i / down_, y, std::min(rows_, (down_ == 1 ? rows_ : out_[1] > 1 ? out_[1] : down_) - y)};
          const bool below = taps_ > 1 && i > chunk * in_chunk_ && i % down_;
          const int64_t known = below ? std::max<int64_t>(0, blocks_ - ceil_div(rows_ * span_, kTileDepth) - 1) : 0;
          if (known) keep_rows(panel);
          const int64_t parts = ceil_div(steps_, dy_steps_);
          for (int64_t k = 0, laid = known; k < parts; ++k) {  // x just before it is needed
            const int64_t step = steps_ * k / parts, end_step = steps_ * (k + 1) / parts;
            const int64_t needed = k + 1 == parts ? blocks_ : ceil_div(end_step * kTileDepth + distance_.back() + 1, kTileDepth);
            lay_x(p, laid, needed, panel), laid = std::max(laid, needed);
            lay_dy(p, step, end_step, 0, panel);
            multiply(panel, 0, outs_, 0, ins, step, 0, end_step - step, i == chunk * in_chunk_ && k == 0, sum(n, chunk), o_step, tap_step);
          }
        }
      }
      k_.end();
    });
    for_elements([&](int64_t begin, int64_t end) {
      for (int64_t n = 0; n < samples; ++n)
        for (int64_t c = 1; c < chunks_; ++c) outer_kernels().add(sum(n, 0) + begin, sum(n, c) + begin, end - begin);
      for (int64_t step = 1; step < samples; step *= 2)
        for (int64_t n = 0; n + step < samples; n += 2 * step) outer_kernels().add(sum(n, 0) + begin, sum(n + step, 0) + begin, end - begin);
    });
    if (group < s_.samples) groups.push(add_slot, [&](int64_t level) { copy(slot(level), sums); });
  }
  groups.finish([&](int64_t level) { copy(sums, slot(level)); }, add_slot);
  parallel_for(outs_, 1, [&](int64_t begin, int64_t end) { write(sums + begin * o_step, begin, end - begin, 0, ins, o_step, tap_step, dw); });
}

// Whole samples are laid out, as many as fit; then every two by two tiles of dW go through them.
void MatrixWeights::share_weights(const Exec& ex, const Grad& dw) {
  const int64_t ins = static_cast<int64_t>(ins_.size()), sample = pieces_ * panel_bytes_, in_pairs = ceil_div(ins, 2), out_pairs = ceil_div(outs_, 2);
  const int64_t floats = taps_ * 4 * kTileFloats, items = in_pairs * out_pairs;
  int64_t group = 1;
  while (group < s_.samples && 2 * group * sample <= kAllBytes) group *= 2;
  const bool all = group >= s_.samples;
  const int64_t levels = s_.samples > 1 ? BinaryCounter::slots(s_.samples) : 0;
  // All at once: a thread has room for the levels of one item's tree; else every item keeps its own between the groups.
  const int64_t sums = (1 + levels) * floats, rooms = all ? threads() : items;
  float* const room = ex.scratch->reserve<float>(rooms * sums + std::min(group, s_.samples) * sample / 4);
  char* const panels = reinterpret_cast<char*>(room + rooms * sums);
  std::vector<std::vector<float*>> slots(static_cast<std::size_t>(rooms));
  for (int64_t r = 0; r < rooms; ++r)
    for (int64_t level = 0; level <= levels; ++level) slots[static_cast<std::size_t>(r)].push_back(room + r * sums + level * floats);
  std::vector<BinaryCounter> counters(static_cast<std::size_t>(items));
  for (int64_t start = 0; start < s_.samples; start += group) {
    const int64_t samples = std::min(group, s_.samples - start);
    parallel_for(samples * pieces_ * (blocks_ + steps_), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t piece = i / (blocks_ + steps_), k = i % (blocks_ + steps_), n = piece / pieces_;
        const Piece p{start + n, piece % pieces_ / down_, piece % down_ * rows_, rows_};
        k < blocks_ ? lay_x(p, k, k + 1, panels + piece * panel_bytes_) : lay_dy(p, k - blocks_, k - blocks_ + 1, k - blocks_, panels + piece * panel_bytes_);
      }
    });
    parallel_for_worker(items, 1, [&](int worker, int64_t begin, int64_t end) {
      k_.begin();
      for (int64_t item = begin; item < end; ++item) {
        const int64_t c = item / out_pairs * 2, o = item % out_pairs * 2, in = std::min<int64_t>(2, ins - c), out = std::min<int64_t>(2, outs_ - o);
        std::vector<float*>& slot = slots[static_cast<std::size_t>(all ? worker : item)];
        BinaryCounter& counter = counters[static_cast<std::size_t>(item)];
        const auto swap = [&](int64_t level) { std::swap(slot.back(), slot[static_cast<std::size_t>(level)]); };
        const auto add = [&](int64_t level) { outer_kernels().add(slot.back(), slot[static_cast<std::size_t>(level)], floats); };
        for (int64_t n = 0; n < samples; ++n) {
          for (int64_t i = 0; i < pieces_; ++i)
            multiply_range(panels + (n * pieces_ + i) * panel_bytes_, o, out, c, in, steps_, i == 0, slot.back(), 2 * kTileFloats, 4 * kTileFloats);
          if (levels) counter.push(add, swap);
        }
        if (start + samples < s_.samples) continue;
        counter.finish(swap, add);
        write(slot.back(), o, out, c, in, 2 * kTileFloats, 4 * kTileFloats, dw);
      }
      k_.end();
    });
  }
}

}  // namespace

bool choose_matrix(const ConvAlgorithm& algorithm, const WinogradWeights& shape) {
  if (algorithm.allow != ConvAlgorithm::Allow::fast || algorithm.tile[2] > 0 || !matrix_unit()) return false;
  const MatrixWeights run(shape);
  if (!run.possible()) return false;
  if (algorithm.tile[2] < 0) return true;
  const double least = weight_cycles(shape, choose_winograd(algorithm, shape));
  return least > 3e5 && run.cycles() < 0.92 * least;
}

void run_matrix(const Exec& ex, const WinogradWeights& shape, const Grad& dw) { MatrixWeights(shape).run(ex, dw); }

}  // namespace vg::cpu

// Private to the cpu convolutions: what the drivers (conv_cpu.cpp, conv_cpu_weight.cpp) and the vector kernels (conv_cpu_tile.cpp,
// conv_cpu_outer.cpp) say to each other. The drivers know tensors, borders and threads; the vector kernels know registers.
#pragma once
#include "kernels/conv.h"

namespace vg::cpu {

// ---- y tile = init + sum of segments: forward and data gradient ----------------------------------------------------------

// A run of input floats that meets a run of packed weights. Output voxel j of a row takes `length` consecutive floats at byte address
// x + 4 j step; float i of them multiplies the packed weight vectors number line + i.
// With dilation 1 the taps of one kernel row are neighbours in memory (channels last), so one segment holds all kW * I products of the row.
struct Segment {
  std::intptr_t x;      // address for j = 0, which may lie outside the tensor: only those of the j asked for are read
  std::int64_t line;    // in units of one weight line: `vectors` vectors of output channels
  std::int64_t length;  // floats
  std::int64_t step;    // floats between neighbouring output voxels
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kMostRegisters = 8;  // sanitizers take minutes to instrument the unrolled tiles
#else
inline constexpr int kMostRegisters = 32;
#endif

inline constexpr int kMaxVectors = 3;     // of output channels in one tile
inline constexpr int kMaxVoxels = 27;     // of a tile
inline constexpr int kMaxTile = 28 * 16;  // floats in a tile

// Addresses that will be needed soon, fetched a cache line at a time between multiplications: memory works while the multipliers do. Worth
// 10 % where tensors exceed the caches and channels are few.
struct Ahead {
  struct Range {
    std::intptr_t next = 0, end = 0;
  };
  Range range[2];
  void fetch(int lines) {
    constexpr int kLine = 64;
    for (; lines > 0; --lines) {
      Range& r = range[range[0].next < range[0].end ? 0 : 1];
      if (r.next >= r.end) return;
      __builtin_prefetch(reinterpret_cast<const void*>(r.next), 0, 2);
      r.next += kLine;
    }
  }
};

// out[v][c] = init[v][c] + sum over segments, i of x[v, i] * w[line + i][c]        v < voxels, c < vectors * lanes
using TileFn = void(const Segment* segments, int count, std::int64_t j, const float* w, const float* init, std::int64_t init_step,
                    float* out, std::int64_t out_step, Ahead& ahead);
// y[v][c] = beta * y[v][c] + activation(tile[v][c]), c < channels; tile rows are readable up to a whole number of vectors.
using FinishFn = void(float* y, std::int64_t y_step, const float* tile, std::int64_t tile_step, int voxels, int channels, float beta,
                      const Activation& activation);

struct TileKernels {
  int lanes;                                      // floats in a vector
  int max_voxels[kMaxVectors + 1];                // by vectors 1..3: what the registers hold
  TileFn* tile[kMaxVectors + 1][kMaxVoxels + 1];  // [vectors][voxels]
  FinishFn* finish;
  // to[l][c] = from[c step + l] for c < channels, zeros up to width, which is a whole number of vectors; l < lines.
  // next: `from` of the call that follows, to be fetched
  void (*gather_lines)(float* const* to, std::int64_t lines, const float* from, std::int64_t step, int channels, int width, const float* next);
};
const TileKernels& tile_kernels();  // of this machine's best target

// ---- sums of outer products over voxels: weight gradient -----------------------------------------------------------------

// `count` voxels: a moves by a_step floats from voxel to voxel, b by b_step.
struct Run {
  const float* a;
  const float* b;
  std::int64_t count;
};

// out[m][c] (fresh ? = : +=) sum over runs and their voxels t of a[t * a_step + m] * b[t * b_step + c]    m < rows, c < vectors * lanes
using OuterFn = void(const Run* runs, int count, std::int64_t a_offset, std::int64_t b_offset, std::int64_t a_step, std::int64_t b_step,
                     bool fresh, float* out, std::int64_t out_step, Ahead& ahead);

inline constexpr std::int64_t kMostLines = 160;

struct OuterKernels {
  int lanes;
  int max_rows[kMaxVectors + 1];
  OuterFn* outer[kMaxVectors + 1][kMaxVoxels + 1];  // [vectors][rows]
  void (*add)(float* to, const float* from, std::int64_t count);
  // `count` of `channels` channels of `voxels` voxels, `pitch` floats each in the copy. `pad`: zeros up to the pitch (whole vectors).
  void (*copy_channels)(float* to, std::int64_t pitch, bool pad, const float* from, std::int64_t channels, std::int64_t count,
                        std::int64_t voxels);
  // A matrix turned over: to[c step + r] = or += rows[r][c], r < count <= kMostLines, c < columns.
  void (*transpose_lines)(float* to, std::int64_t step, const float* const* rows, std::int64_t count, std::int64_t columns, bool add);
  // sum[i mod period] += x[i], i < count; period is a multiple of the lanes
  void (*add_periods)(float* sum, std::int64_t period, const float* x, std::int64_t count);
};
const OuterKernels& outer_kernels();

}  // namespace vg::cpu

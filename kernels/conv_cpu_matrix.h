// Private to the cpu convolutions: sums by the processor's matrix unit (AMX), which multiplies tiles of bf16 numbers sixteen times as fast as
// vectors multiply f32. A f32 number is the sum of two bf16 numbers to 2^-17, so three products stand for one:
//
//   a b = a_hi b_hi + a_hi b_lo + a_lo b_hi        a_hi = bf16(a), a_lo = bf16(a - a_hi); what is left out is 2^-17 of the product
//
// all added in f32. That is 5 times the rounding error of the plain sum, as F(4,4) has it, with a fifth of the time on wide layers.
// (Henry, Tang & Heinecke 2019, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations")
#pragma once
#include "kernels/conv_cpu_winograd.h"

namespace vg::cpu {

bool matrix_unit();                   // there, and allowed
void allow_matrix_unit(bool allowed);  // kernels/vector_path.h

// Is a convolution to be computed in this way? By the cost model for one sample, or by request (ConvAlgorithm::tile).
bool choose_matrix(const ConvAlgorithm& algorithm, const Gather& gather);
bool choose_matrix(const ConvAlgorithm& algorithm, const WinogradWeights& shape);
void run_matrix(const Exec& ex, const Gather& gather);
void run_matrix(const Exec& ex, const WinogradWeights& shape, const Grad& dw);
std::size_t matrix_scratch(const Gather& gather);  // bytes

// ---- kernels (conv_cpu_amx.cpp) -------------------------------------------------------------------------------------------
// A tile has 16 rows of 64 bytes. Of a: 16 voxels (rows) of 32 bf16 channels; of b: 16 pairs of channels x 16 outputs x 2; of the sum: 16 voxels
// x 16 outputs in f32. A row that crosses a cache line halves the speed: rows are 64-byte aligned.

constexpr std::int64_t kTileBytes = 1024, kTileDepth = 32, kTileSide = 16;

// `steps` tiles of depth: a at `a` + off[kind] of a strip, 64 bytes from step to step, `row` bytes from voxel to voxel, the low halves `low` bytes on.
struct MatrixSegment {
  const char* a;
  std::int64_t row, low, steps;
  int kind;
};
struct StripPlace {
  std::int64_t off[2];
};

struct MatrixKernels {
  void (*begin)();  // before the first use in a thread, and after its last
  void (*end)();
  // to[v pitch + c] = high half of from[v step + c], c < count, the low one `low` numbers on; then zeros up to `padded` (whole vectors, or 0: none).
  void (*split)(std::uint16_t* to, std::int64_t pitch, std::int64_t low, const float* from, std::int64_t step, std::int64_t count, std::int64_t padded,
                std::int64_t voxels);
  // Tiles of b: lines[32][width] to the high halves' tiles, one for every 16 outputs, and those of the low halves. width: 16 or 32
  void (*pack)(char* to, const float* lines, std::int64_t width);
  // to[l][c] = from[c step + l], l < lines, c < channels; zeros up to width. next: `from` of the call that follows, to be fetched
  void (*gather)(float* const* to, std::int64_t lines, const float* from, std::int64_t step, int channels, int width, const float* next);
  // out[32][32] = init[32] (of every voxel) + a b for two strips and two tiles of outputs; b: [step][high 0, high 1, low 0, low 1].
  void (*pairs)(const MatrixSegment* segments, int count, const StripPlace* const* strips, const char* b, const float* init, float* out,
                Ahead& ahead);
  // out[64][16]: four strips, one tile of outputs; b: [step][high, low].
  void (*fours)(const MatrixSegment* segments, int count, const StripPlace* const* strips, const char* b, const float* init, float* out,
                Ahead& ahead);
  // to[v to_step + c] = from[v from_step + c], c < count <= 16; bf16 numbers
  void (*copy)(std::uint16_t* to, std::int64_t to_step, const std::uint16_t* from, std::int64_t from_step, std::int64_t count, std::int64_t voxels);
  void (*stream)(float* to, const float* from, std::int64_t count);  // a copy around the caches

  // The weight gradient: sums over voxels, so that voxels are the depth. 16 channels from at[v] + first on, of which `count` are there.
  // What lies `ahead` floats on is fetched.
  // Tiles of b: pair j is voxels (2 j, 2 j + 1), 64 bytes of high halves at `to` + 64 j, the low ones `low` bytes on; `odd` bytes on the pairs
  // (2 j + 1, 2 j + 2), unless odd is 0. 33 voxels.
  void (*pair_voxels)(char* to, std::int64_t low, std::int64_t odd, const float* const* at, std::int64_t first, std::int64_t count,
                      std::int64_t ahead);
  // Tiles of a, turned over: rows are channels; a tile of high halves and one of low halves. 32 voxels.
  void (*turn_voxels)(char* to, const float* const* at, std::int64_t first, std::int64_t count,
                      std::int64_t ahead);
  // out[i][j] (fresh ? = : +=) a[i] b[j], a tile each: 2 x 2, 4 x 1 and 1 x 4. a: high tile, low tile, step by step; b: high tiles, the low ones `low` on.
  void (*sums)(const char* const* a, const char* const* b, std::int64_t low, std::int64_t steps, bool fresh, float* const* out);
  void (*sums_tall)(const char* const* a, const char* const* b, std::int64_t low, std::int64_t steps, bool fresh, float* const* out);
  void (*sums_wide)(const char* const* a, const char* const* b, std::int64_t low, std::int64_t steps, bool fresh, float* const* out);
  // to[c step + r] = or += rows[r][c], r < count, c < columns <= 16; rows are readable up to 16
  void (*scatter)(float* to, std::int64_t step, const float* const* rows, std::int64_t count, std::int64_t columns, bool add);
};
const MatrixKernels& matrix_kernels();

}  // namespace vg::cpu

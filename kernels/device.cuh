// What the device code of all families shares: 128-bit loads, the split of channels-last data over the threads of a block, voxel coordinates, and
// launching. Everything here is read twice: by nvcc (namespace gpu) and by the host compiler (namespace sim).
#pragma once
#include "kernels/kernel.h"
#include "kernels/simt.h"
#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
#include "kernels/cuda/streams.h"
#endif

// Starts a kernel on the device and stream of `EX`. CUDA has a current device per thread; a null stream means that device's own.
#define VG_LAUNCH(EX, KERNEL, GRID, BLOCK, SHARED_BYTES, ...) \
  (::vg::VG_NS::use_device(EX), SIMT_LAUNCH(KERNEL, GRID, BLOCK, SHARED_BYTES, ::vg::VG_NS::stream_of(EX), __VA_ARGS__))

namespace vg {
namespace VG_NS {

inline constexpr int kThreads = 256;      // of most blocks: 8 warps, so that a multiprocessor holds up to 8 blocks
inline constexpr int kRowsPerThread = 8;  // rows that one thread of a column kernel walks
#if defined(VG_HOOKS)
inline constexpr int kMaxGridYZ = 1;  // so that the hooks build sees a block go on to its next sample
#else
inline constexpr int kMaxGridYZ = 65535;
#endif

#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
inline void* stream_of(const Exec& ex) { return stream_of(ex.device.index, ex.stream); }
#else
inline void* stream_of(const Exec& ex) { return ex.stream; }
#endif

inline void use_device(const Exec& ex) {
#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
  static_cast<void>(cudaSetDevice(ex.device.index));  // what is wrong with the device, the launch says
#else
  static_cast<void>(ex);
#endif
}

// V neighbouring floats that move as one: V = 4 is one 128-bit load or store per thread, 512 bytes per warp.
template <int V>
struct alignas(4 * V) Pack {
  float v[V];
};
template <int V>
__device__ inline Pack<V> load(const float* p) {
  return *reinterpret_cast<const Pack<V>*>(p);
}
template <int V>
__device__ inline void store(float* p, const Pack<V>& x) {
  *reinterpret_cast<Pack<V>*>(p) = x;
}
// The gradient convention: p = beta p + x; with beta 0 the old contents, which may be NaN, are not read.
template <int V>
__device__ inline void store(float* p, Pack<V> x, float beta) {
  if (beta != 0.0f) {
    const Pack<V> old = load<V>(p);
    SIMT_UNROLL for (int j = 0; j < V; ++j) x.v[j] += beta * old.v[j];
  }
  store<V>(p, x);
}

inline const float* data_or_null(const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; }
inline float* data_or_null(const Grad& g) { return g.wanted() ? g.data() : nullptr; }

inline bool aligned16(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }  // null too
// May vectors of four be used, where `extent` is what each row (or the whole) is long?
template <class... P>
bool in_fours(std::int64_t extent, const P*... pointers) {
  return extent % 4 == 0 && (aligned16(pointers) && ...);
}

// Flat data. Each thread takes V elements, then the ones a whole grid further on.
template <int V>
__device__ inline std::int64_t flat_begin() {
  return (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * V;
}
template <int V>
__device__ inline std::int64_t flat_step() {
  return static_cast<std::int64_t>(gridDim.x) * kThreads * V;
}
inline unsigned flat_blocks(std::int64_t n, bool fours) {
  const unsigned blocks = simt::blocks_for(n, static_cast<std::int64_t>(kThreads) * (fours ? 4 : 1));
  return blocks < 8192 ? blocks : 8192;
}

// Channels-last data as a matrix: a row is a voxel, a column V neighbouring channels. A thread stays in its column, so whatever depends on the channel
// alone is loaded once, and neighbouring threads touch neighbouring addresses for any number of channels. grid: (chunks of rows, groups of columns,
// samples).
struct Column {
  std::int64_t first;  // channel
  int row, rows;       // this thread's first row in the block's chunk, and how far it is to its next
  int width;           // columns of the block
  bool active;         // threads beyond the last whole row, or beyond the last column, have none
};
template <int V>
__device__ inline Column column_of_thread(std::int64_t channels) {
  const int columns = static_cast<int>(channels / V), width = columns < kThreads ? columns : kThreads,
            thread = static_cast<int>(threadIdx.x);
  const int column = static_cast<int>(blockIdx.y) * width + thread % width;
  const int row = thread / width, rows = kThreads / width;
  return {static_cast<std::int64_t>(column) * V, row, rows, width, row < rows && column < columns};
}

// The same split as the host sees it.
struct ColumnGrid {
  int width, rows;     // of a block
  unsigned groups;     // of columns: grid.y
  std::int64_t chunk;  // rows per block
  unsigned chunks;     // grid.x
  dim3 grid(std::int64_t samples) const { return dim3(chunks, groups, static_cast<unsigned>(samples < kMaxGridYZ ? samples : kMaxGridYZ)); }
};
// `most`: upper bound for the number of chunks (reductions keep a partial sum of each). Depends on the shape alone, so sums keep their order.
inline ColumnGrid column_grid(std::int64_t rows, std::int64_t channels, bool fours, std::int64_t most = 0) {
  const std::int64_t columns = channels / (fours ? 4 : 1);
  ColumnGrid g{};
  g.width = static_cast<int>(columns < kThreads ? (columns > 0 ? columns : 1) : kThreads);
  g.rows = kThreads / g.width;
  g.groups = simt::blocks_for(columns, g.width);
  g.chunk = static_cast<std::int64_t>(g.rows) * kRowsPerThread;
  if (most > 0 && rows > g.chunk * most) g.chunk = (rows + most - 1) / most;
  g.chunks = simt::blocks_for(rows, g.chunk);
  return g;
}

struct Extent {
  int d, h, w;
  __host__ __device__ std::int64_t voxels() const { return static_cast<std::int64_t>(d) * h * w; }
};
inline Extent extent_of(const Shape& s) { return {static_cast<int>(s.d()), static_cast<int>(s.h()), static_cast<int>(s.w())}; }

struct Voxel {
  int d, h, w;
};
// Row number -> coordinates. 64-bit division costs a GPU about five times a 32-bit one, and is rarely needed.
__device__ inline Voxel voxel_at(std::int64_t row, const Extent& e) {
  if (row <= 0x7fffffff) {
    const unsigned r = static_cast<unsigned>(row), line = r / static_cast<unsigned>(e.w), slice = line / static_cast<unsigned>(e.h);
    return {static_cast<int>(slice), static_cast<int>(line - slice * e.h), static_cast<int>(r - line * e.w)};
  }
  const std::int64_t line = row / e.w, slice = line / e.h;
  return {static_cast<int>(slice), static_cast<int>(line - slice * e.h), static_cast<int>(row - line * e.w)};
}
__device__ inline std::int64_t row_at(int d, int h, int w, const Extent& e) { return (static_cast<std::int64_t>(d) * e.h + h) * e.w + w; }

}  // namespace VG_NS
}  // namespace vg

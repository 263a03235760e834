// Voxels with their classes, as a block of threads reads them: a tile of neighbouring voxels is copied into shared memory in the order of global memory, so
// that every line is fetched once; then one thread works on one voxel.
#pragma once
#include "kernels/half.cuh"

namespace vg {
namespace VG_NS {

inline constexpr int kTileThreads = 128;
inline constexpr std::int64_t kTileBytes = 32 << 10;

// Rows of the tile have an odd pitch: 32 threads that read one class of 32 voxels meet 32 different banks.
__host__ __device__ inline int pitch_of(int classes) { return classes | 1; }

// Voxels per tile: as many as there are threads, fewer where the classes are many.
inline int tile_voxels(int classes) {
  int voxels = kTileThreads;
  while (voxels > 1 && voxels * pitch_of(classes) * std::int64_t{sizeof(float)} > kTileBytes) voxels /= 2;
  return voxels;
}
inline std::size_t tile_bytes(int classes, std::int64_t more_floats) {
  const std::size_t bytes = (static_cast<std::size_t>(tile_voxels(classes)) * pitch_of(classes) + more_floats) * sizeof(float);
  if (bytes > simt::kStaticSharedBytes - 512)  // kernels have a little static shared memory, too
    throw Error(ErrorCode::unsupported, std::to_string(classes) + " classes do not fit the shared memory of a GPU block (about 3000 do)");
  return bytes;
}

// Visits the tile's elements in the order of global memory: visit(global index, place in the tile). One division per thread, not one per element.
template <class Visit>
__device__ inline void for_tile(int voxels, int classes, Visit visit) {
  const int pitch = pitch_of(classes), rows = kTileThreads / classes, columns = kTileThreads % classes;
  int row = static_cast<int>(threadIdx.x) / classes, column = static_cast<int>(threadIdx.x) % classes;
  for (int i = static_cast<int>(threadIdx.x); row < voxels; i += kTileThreads) {
    visit(i, row * pitch + column);
    row += rows;
    column += columns;
    if (column >= classes) column -= classes, ++row;
  }
}
template <class T>
struct CopyIn {
  float* tile;
  const T* from;
  __device__ void operator()(int i, int place) const { tile[place] = to_float(from[i]); }
};
template <class T>
struct CopyOut {
  T* to;
  const float* tile;
  float beta;
  __device__ void operator()(int i, int place) const {
    to[i] = from_float<T>(beta != 0.0f ? beta * to_float(to[i]) + tile[place] : tile[place]);
  }
};

}  // namespace VG_NS
}  // namespace vg

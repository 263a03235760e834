// The weight gradient: a matrix product whose long side is the sum. Rows r = (tap, channel) of dw, columns output channels o, and
//
//   dw[r, o] = sum over samples n, output voxels z of  A[z, r] dy[z, o],     A[z, (tap, i)] = x[z stride - pad + tap dilation, i]
//
// A sample's voxels are cut into chunks, one block each; their partial sums go through memory and are added in a fixed order. Also channel_sum, the
// gradient of a bias.
#include "kernels/conv.h"
#include "kernels/conv_gather.cuh"
#include "kernels/conv_library.cuh"
#include "kernels/conv_weight_tensor.cuh"
#include "kernels/half.cuh"
#include "kernels/reduce.cuh"

namespace vg {
namespace VG_NS {

inline constexpr int kVoxelStep = 16;  // voxels that a block multiplies between two barriers

// Output voxel numbers advance by a fixed count at a time; coordinates follow by carries, without a division.
struct Advance {
  int d, h, w;
};
__device__ inline void advance(Voxel& v, const Advance& by, const Extent& e) {
  v.w += by.w;
  const int carry_w = v.w >= e.w ? 1 : 0;
  v.w -= carry_w ? e.w : 0;
  v.h += by.h + carry_w;
  const int carry_h = v.h >= e.h ? 1 : 0;
  v.h -= carry_h ? e.h : 0;
  v.d += by.d + carry_h;
}

// partial[n, chunk, r, padded columns]. grid: (tiles of r x tiles of o, chunks, samples). Block: BR rows x BN columns; thread: TR x 4 of them.
// V, how x is read: 4: four neighbouring channels are one load; 1: neighbouring lanes read neighbouring rows r; 0: neighbouring voxels of an image with so
// few channels that these are what lies side by side. dy_fours: four neighbouring columns of dy are one load.
template <class T, int BR, int BN, int TR, int V, int kBlock = BR / TR*(BN / 4)>
__global__ __launch_bounds__(kBlock, kBlock == 256 ? 2 : kBlock == 64 ? 4 : 384 / kBlock) void conv_weight_kernel(
    Gather g, const T* __restrict__ x0, const T* __restrict__ x1, const Tap* __restrict__ taps, const T* __restrict__ dy, int columns,
    bool dy_fours, int padded, float* __restrict__ partial, std::int64_t chunk) {
  constexpr int kNeighbours = V == 4 ? 4 : 1;  // channels of one load
  constexpr int kApart = kBlock / (BR / 4), kLoadsA = kVoxelStep / kApart;
  constexpr int kNumbersB = kVoxelStep * BN, kLoadsB = (kNumbersB - 1) / (4 * kBlock) + 1;
  constexpr int kGroups = TR / 4;
  static_assert(BR == 128 && kVoxelStep % kApart == 0 && TR % 4 == 0 && kVoxelStep == 16 && kNumbersB % kBlock == 0);
  SIMT_SHARED(Pack<4>, tile_a, [2][kVoxelStep][BR / 4 + (V == 0 ? 1 : 0)]);  // V = 0: lanes with 8 voxels, and one row of each, write at once
  SIMT_SHARED(Pack<4>, tile_b, [2][kVoxelStep][BN / 4]);
  SIMT_SHARED(Tap, tap_of, [BR / kNeighbours]);

  const Extent in{g.axis[0].in, g.axis[1].in, g.axis[2].in}, out{g.axis[0].out, g.axis[1].out, g.axis[2].out};
  const std::int64_t voxels = out.voxels(), begin = blockIdx.y * chunk, end = begin + chunk < voxels ? begin + chunk : voxels;
  const int column_tiles = padded / BN, thread = static_cast<int>(threadIdx.x), depth = static_cast<int>(g.class_rows);
  const int first_row = static_cast<int>(blockIdx.x) / column_tiles * BR, first_column = static_cast<int>(blockIdx.x) % column_tiles * BN;
  const int row_tiles = static_cast<int>(gridDim.x) / column_tiles;

  for (int i = thread; i < BR / kNeighbours; i += kBlock) {
    const int entry = first_row / kNeighbours + i;
    Tap t{0, kNoTap, 0, 0};
    if (entry * kNeighbours < depth) t = taps[entry];
    tap_of[i] = t;
  }
  __syncthreads();

  // With q = t mod BR/4, thread t gathers rows 4 q .. 4 q + 3 (V = 4), or q, q + 32, q + 64, q + 96 (V = 1), of voxels t / (BR/4), then kApart further on, ...
  // V = 0: always the same voxel t mod 16, of every kBlock/32-th octet of rows its even ones (lanes below 16) or its odd ones.
  const int lane = thread % 32, upper = lane / 16, my_word = V == 0 ? thread / 32 : thread % (BR / 4);
  const int my_voxel = V == 0 ? lane % 16 : thread / (BR / 4);
  constexpr int kAdvance = V == 0 ? kVoxelStep : kApart;
  const Advance apart{kAdvance / out.w / out.h, kAdvance / out.w % out.h, kAdvance % out.w};
  // Of dy, four columns at number 4 t of the tile, then 4 kBlock further on; or one column at number t, then kBlock further on: lanes side by side.
  const int first_b = dy_fours ? 4 * thread : thread, row_b = first_b / BN, column_b = first_column + first_b % BN;
  const TilePart part = tile_part<BN / 4>(thread);
  const int my_column = part.column, my_row = part.row * 4;

  for (int n = static_cast<int>(blockIdx.z); n < g.samples; n += static_cast<int>(gridDim.z)) {
    Voxel z = voxel_at(begin + my_voxel, out);
    const T* my_dy = dy + (n * voxels + row_b) * columns + column_b;
    const std::int64_t dy_end = first_b < kNumbersB && column_b < columns ? end - row_b : 0;
    Pack<4> next_a[kLoadsA], next_b[kLoadsB];
    const auto gather = [&](const Tap& t, const Voxel& at, bool real) {
      const int d = at.d * g.axis[0].stride, h = at.h * g.axis[1].stride, w = at.w * g.axis[2].stride;
      const bool inside = real && static_cast<unsigned>(d + t.d) < static_cast<unsigned>(in.d) &&
                          static_cast<unsigned>(h + t.h) < static_cast<unsigned>(in.h) &&
                          static_cast<unsigned>(w + t.w) < static_cast<unsigned>(in.w);
      const bool second = V != 0 && t.source();
      const T* source = second ? x1 : x0;
      const int channels = second ? g.channels1 : g.channels0;
      return inside ? load<kNeighbours>(source + (n * in.voxels() + row_at(d, h, w, in)) * channels + t.offset()) : Pack<kNeighbours>{};
    };
    const auto fetch = [&](std::int64_t first) {  // voxels first .. first + 15 of the sample; called in ascending order
      if constexpr (V == 0) {
        SIMT_UNROLL for (int i = 0; i < kLoadsA; ++i) SIMT_UNROLL for (int e = 0; e < 4; ++e) next_a[i].v[e] =
            gather(tap_of[8 * (my_word + i * (kBlock / 32)) + 2 * e + upper], z, first + my_voxel < end).v[0];
        advance(z, apart, out);
      } else {
        Voxel at = z;
        SIMT_UNROLL for (int e = 0; e < 4 / kNeighbours; ++e) {
          const Tap t = tap_of[my_word + e * (BR / 4)];
          at = z;
          SIMT_UNROLL for (int i = 0; i < kLoadsA; ++i) {
            const Pack<kNeighbours> value = gather(t, at, first + my_voxel + i * kApart < end);
            SIMT_UNROLL for (int j = 0; j < kNeighbours; ++j) next_a[i].v[e * kNeighbours + j] = value.v[j];
            advance(at, apart, out);
          }
        }
        z = at;
      }
      SIMT_UNROLL for (int i = 0; i < kLoadsB; ++i) {
        next_b[i] = Pack<4>{};
        if (dy_fours) {
          const std::int64_t row = first + i * (4 * kBlock / BN);
          if (row < dy_end) next_b[i] = load<4>(my_dy + row * columns);
        } else {
          SIMT_UNROLL for (int j = 0; j < 4; ++j) {
            const std::int64_t row = first + (4 * i + j) * (kBlock / BN);
            if ((4 * i + j) * kBlock < kNumbersB && row < dy_end) next_b[i].v[j] = to_float(my_dy[row * columns]);
          }
        }
      }
    };
    const auto deposit = [&](int buffer) {
      SIMT_UNROLL for (int i = 0; i < kLoadsA; ++i) {
        const Pack<4>& v = next_a[i];
        if constexpr (V == 4) tile_a[buffer][my_voxel + i * kApart][my_word] = v;
        if constexpr (V == 1) {
          float* row = tile_a[buffer][my_voxel + i * kApart][0].v;
          SIMT_UNROLL for (int e = 0; e < 4; ++e) row[my_word + e * (BR / 4)] = v.v[e];
        }
        if constexpr (V == 0) {  // lanes 16 apart exchange what makes four neighbouring rows: rows 0 .. 3 of the octet below, 4 .. 7 above
          const float one = __shfl_xor_sync(0xffffffffu, upper ? v.v[0] : v.v[2], 16),
                      two = __shfl_xor_sync(0xffffffffu, upper ? v.v[1] : v.v[3], 16);
          const Pack<4> rows{{upper ? one : v.v[0], upper ? v.v[2] : one, upper ? two : v.v[1], upper ? v.v[3] : two}};
          tile_a[buffer][my_voxel][2 * (my_word + i * (kBlock / 32)) + upper] = rows;
        }
      }
      float* own = tile_b[buffer][0][0].v + first_b;
      SIMT_UNROLL for (int i = 0; i < kLoadsB; ++i) {
        if (dy_fours) {
          if (first_b < kNumbersB) store<4>(own + 4 * i * kBlock, next_b[i]);
        } else {
          SIMT_UNROLL for (int j = 0; j < 4; ++j) if ((4 * i + j) * kBlock < kNumbersB) own[(4 * i + j) * kBlock] = next_b[i].v[j];
        }
      }
    };

    float sum[TR][4] = {};
    fetch(begin);
    deposit(0);
    __syncthreads();
    int buffer = 0;
    for (std::int64_t first = begin; first < end; first += kVoxelStep, buffer = 1 - buffer) {
      const bool more = first + kVoxelStep < end;
      if (more) fetch(first + kVoxelStep);
      SIMT_UNROLL for (int k = 0; k < kVoxelStep; ++k) {
        const Pack<4> b = tile_b[buffer][k][my_column];
        SIMT_UNROLL for (int group = 0; group < kGroups; ++group) {
          const Pack<4> a = tile_a[buffer][k][(my_row + group * (BR / kGroups)) / 4];
          SIMT_UNROLL for (int i = 0; i < 4; ++i) SIMT_UNROLL for (int j = 0; j < 4; ++j) sum[group * 4 + i][j] += a.v[i] * b.v[j];
        }
      }
      if (more) deposit(1 - buffer);
      __syncthreads();
    }

    float* tile = partial + (n * static_cast<std::int64_t>(gridDim.y) + blockIdx.y) * row_tiles * BR * padded;
    SIMT_UNROLL for (int i = 0; i < TR; ++i) {
      const std::int64_t r = first_row + my_row + i / 4 * (BR / kGroups) + i % 4;
      store<4>(tile + r * padded + first_column + my_column * 4, Pack<4>{{sum[i][0], sum[i][1], sum[i][2], sum[i][3]}});
    }
  }
}

// Chunks per sample: enough blocks to fill a GPU, chunks short enough that rounding does not build up along them. The shape of one sample decides.
std::int64_t weight_chunks(std::int64_t voxels, std::int64_t tiles, std::int64_t elements) {
  constexpr std::int64_t kWantedBlocks = 512, kLeast = 256, kLongest = 8192, kMostFloats = 1 << 24, kMost = 32768;
  std::int64_t chunks = (kWantedBlocks + tiles - 1) / tiles;
  const std::int64_t exact = (voxels + kLongest - 1) / kLongest, fit = kMostFloats / elements;
  if (chunks < exact) chunks = exact < fit ? exact : fit > chunks ? fit : chunks;
  const std::int64_t most = (voxels + kLeast - 1) / kLeast;
  if (chunks > most) chunks = most;
  return chunks < kMost ? chunks : kMost;
}

void conv_backward_weight(const Exec& ex, const Grad& dw, const Tensor& dy, const Tensor& x0, const Tensor& x1, const ConvParams& p) {
  for_float_type(dy.dtype(), "conv_backward_weight", [&](auto zero) {
    using T = decltype(zero);
    if (!dw.wanted()) return;
    const int channels1 = x1.defined() ? static_cast<int>(x1.shape().c()) : 0, columns = static_cast<int>(dy.shape().c());
    const Gather g = make_gather(x0.shape(), channels1, dy.shape(), dw.shape(), p, false);
    assert(dw.shape()[0] == columns && dw.shape()[1] == g.channels());
    if (library_backward_weight(ex, dw, dy, x0, x1, p)) return;
    if constexpr (kIsHalf<T>)  // but for the rarest shapes, for which one of the kernels below must do
      if (multiply_halves_weight<T>(ex, g, dw, dy, x0, x1)) return;
    const int tile_n = kIsHalf<T> ? 64 : columns <= 8 ? 8 : columns <= 16 ? 16 : columns <= 32 ? 32 : 64, tile_r = 128;
    const int padded = (columns + tile_n - 1) / tile_n * tile_n;
    const std::int64_t row_tiles = (g.class_rows + tile_r - 1) / tile_r, tiles = row_tiles * (padded / tile_n);
    const std::int64_t elements = row_tiles * tile_r * padded, voxels = dy.shape().voxels();
    const std::int64_t wanted = weight_chunks(voxels, tiles, elements);
    const std::int64_t chunk = ((voxels + wanted - 1) / wanted + kVoxelStep - 1) / kVoxelStep * kVoxelStep;
    const std::int64_t chunks = (voxels + chunk - 1) / chunk, floats = g.samples * chunks * elements;
    float* partial = reinterpret_cast<float*>(
        ex.scratch->reserve<char>(floats * std::int64_t{sizeof(float)} + g.class_rows * std::int64_t{sizeof(Tap)}));
    Tap* taps = reinterpret_cast<Tap*>(partial + floats);
    const T *a0 = x0.data<T>(), *a1 = data_or_null_of<T>(x1), *b = dy.data<T>();
    const bool fours = !kIsHalf<T> && g.channels0 % 4 == 0 && in_fours(g.channels1, a0, a1), dy_fours = in_fours(columns, b);
    const bool few = few_channels(g);
    gather_taps(ex, g, fours ? 4 : 1, taps);
    const dim3 grid(simt::blocks_for(tiles, 1), static_cast<unsigned>(chunks),
                    static_cast<unsigned>(g.samples < kMaxGridYZ ? g.samples : kMaxGridYZ));
    const auto launch = [&](auto width) {
      constexpr int kWidth = decltype(width)::value, kRows = kWidth == 64 ? 8 : 4;
      auto conv_weight_any = conv_weight_kernel<T, 128, kWidth, kRows, 1>;
      if constexpr (!kIsHalf<T>) {
        if (fours) conv_weight_any = conv_weight_kernel<T, 128, kWidth, kRows, 4>;
        if (few && !fours) conv_weight_any = conv_weight_kernel<T, 128, kWidth, kRows, 0>;
      }
      VG_LAUNCH(ex, conv_weight_any, grid, 128 / kRows * (kWidth / 4), 0, g, a0, a1, taps, b, columns, dy_fours, padded, partial, chunk);
    };
    if constexpr (kIsHalf<T>)
      launch(number<64>);
    else
      switch (tile_n) {
        case 8: launch(number<8>); break;
        case 16: launch(number<16>); break;
        case 32: launch(number<32>); break;
        default: launch(number<64>); break;
      }
    VG_LAUNCH(ex, conv_weight_sum_kernel<8>, simt::blocks_for(elements, 32), 256, 0, dw.data(), dw.beta, partial, g.samples,
              static_cast<int>(chunks), elements, padded, static_cast<int>(g.class_rows), g.channels(), columns);
  });
}

// ---- bias ----------------------------------------------------------------------------------------------------------------------------------------

// partial[n, chunk, c] = sum of dy over the chunk's voxels. grid: (chunks, groups of channels, samples).
template <int V, class T>
__global__ __launch_bounds__(kThreads) void channel_sum_kernel(float* __restrict__ partial, const T* __restrict__ dy, int samples,
                                                               std::int64_t channels, std::int64_t voxels, std::int64_t chunk) {
  const Column c = column_of_thread<V>(channels);
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < voxels ? begin + chunk : voxels;
  for (int n = blockIdx.z; n < samples; n += gridDim.z) {
    Sums<V> sum{};
    if (c.active)
      for (std::int64_t r = begin + c.row; r < end; r += c.rows) {
        const Pack<V> a = load<V>(dy + (n * voxels + r) * channels + c.first);
        SIMT_UNROLL for (int j = 0; j < V; ++j) sum.v[j] += a.v[j];
      }
    add_rows(sum, c);
    if (c.active && c.row == 0) store_sums<V>(partial + (static_cast<std::int64_t>(n) * gridDim.x + blockIdx.x) * channels + c.first, sum.v);
  }
}

void channel_sum(const Exec& ex, const Grad& db, const Tensor& dy) {
  for_float_type(dy.dtype(), "channel_sum", [&](auto zero) {
    using T = decltype(zero);
    if (!db.wanted()) return;
    const std::int64_t channels = dy.shape().c(), voxels = dy.shape().voxels(), samples = dy.shape().n();
    assert(db.tensor.elements() == channels);
    const bool fours = in_fours(channels, dy.data<T>());
    const ColumnGrid g = column_grid(voxels, channels, fours, kMaxChunks);
    float* partial = ex.scratch->reserve<float>(samples * channels * g.chunks);
    const auto channel_sum_any = fours ? channel_sum_kernel<4, T> : channel_sum_kernel<1, T>;
    VG_LAUNCH(ex, channel_sum_any, g.grid(samples), kThreads, 0, partial, dy.data<T>(), static_cast<int>(samples), channels, voxels,
              g.chunk);
    sum_partials(ex, partial, samples, channels, g.chunks, nullptr, nullptr, db.data(), db.beta);
  });
}

}  // namespace VG_NS

VG_DEVICE_IMPL(conv_backward_weight);
VG_DEVICE_IMPL(channel_sum);

}  // namespace vg

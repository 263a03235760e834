// Convolution, its data gradient and transposed convolution as one computation: every output voxel gathers from inputs at fixed offsets.
//
//   forward   y[q]         needs x[q stride + (k dilation - pad)]                              for every tap k
//   backward  dx[u]        needs dy[(u + pad - k dilation) / stride]                           for the taps k where the division leaves no rest
//
// For stride s the second line sorts the output voxels into s^3 classes (s = 2: even and odd per axis). With u = q s + f, class f has its own taps, and
//   dx[q s + f]            needs dy[q + (f + pad - k dilation) / s]                            for every tap k of class f
// is a convolution of stride 1 again: nothing is multiplied by zero and no two threads write the same voxel. Forward is the case of one class.
#pragma once
#include "kernels/conv.h"
#include "kernels/device.cuh"

namespace vg {
namespace VG_NS {

struct GatherAxis {
  int in, out, kernel;  // extents of source, destination, kernel
  int stride, dilation, pad;
  int classes;   // stride, or 1 for forward
  int tap_step;  // from one tap of a class to the next: classes / gcd(classes, dilation)
};

struct Gather {
  GatherAxis axis[3];        // D, H, W
  bool transposed;           // backward
  int samples, classes;      // classes of all axes together
  int channels0, channels1;  // of the two sources; the second may be 0
  std::int64_t class_rows;   // taps x channels of the largest class: the rows that each class has in the tables below
  __host__ __device__ int channels() const { return channels0 + channels1; }
};

// One axis of one class: taps first, first + tap_step, ... (`taps` of them); tap j reads the source at q in_step + delta + j delta_step.
struct AxisClass {
  int first, taps, delta, delta_step, in_step;
  int lattice;              // how many outputs the class has
  int out_first, out_step;  // output q is voxel q out_step + out_first
};
__host__ __device__ inline AxisClass axis_class(const GatherAxis& a, bool transposed, int f) {
  if (!transposed) return {0, a.kernel, -a.pad, a.dilation, a.stride, a.out, 0, 1};
  int first = 0;
  while (first < a.tap_step && (f + a.pad - first * a.dilation) % a.stride != 0) ++first;
  const bool any = first < a.tap_step && first < a.kernel;
  return {first,
          any ? (a.kernel - 1 - first) / a.tap_step + 1 : 0,
          any ? (f + a.pad - first * a.dilation) / a.stride : 0,
          -a.tap_step * a.dilation / a.stride,
          1,
          f < a.out ? (a.out - 1 - f) / a.stride + 1 : 0,
          f,
          a.stride};
}

struct GatherClass {
  AxisClass d, h, w;
  __host__ __device__ int taps() const { return d.taps * h.taps * w.taps; }
  __host__ __device__ Extent lattice() const { return {d.lattice, h.lattice, w.lattice}; }
};
__host__ __device__ inline GatherClass gather_class(const Gather& g, int number) {
  const int w = number % g.axis[2].classes, dh = number / g.axis[2].classes;
  return {axis_class(g.axis[0], g.transposed, dh / g.axis[1].classes), axis_class(g.axis[1], g.transposed, dh % g.axis[1].classes),
          axis_class(g.axis[2], g.transposed, w)};
}

// Row (tap, channel) of the matrix product: which number a voxel contributes to it. At q = (qd, qh, qw) of sample n the source's element is
// (voxel number of (n, q in_step)) * channels + offset(), and it is zero unless q in_step + (d, h, w) lies inside the source. One 128-bit load.
struct alignas(16) Tap {
  std::int64_t place;  // 2 offset + source
  std::int32_t d;      // kNoTap: no row of the product; always outside
  std::int16_t h, w;
  __device__ int source() const { return static_cast<int>(place & 1); }  // 0 or 1
  __device__ std::int64_t offset() const { return place >> 1; }
};
inline constexpr int kNoTap = -(1 << 30);
inline constexpr int kFarthest = 0x7fff;  // voxels that a tap may be away from its output: what Tap has room for

// taps[class, row / V] for every V-th row: V neighbouring channels of one tap move as one. grid: (rows / V, classes). Made on the device: no host memory
// has to outlive the call, and a captured graph can replay it.
template <int kBlock>
__global__ __launch_bounds__(kBlock) void gather_taps_kernel(Tap* __restrict__ taps, Gather g, int neighbours) {
  const GatherClass c = gather_class(g, static_cast<int>(blockIdx.y));
  const std::int64_t entry = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x, row = entry * neighbours;
  const int tap = static_cast<int>(row / g.channels()), channel = static_cast<int>(row % g.channels());
  if (tap >= c.taps()) return;
  const int jw = tap % c.w.taps, jh = tap / c.w.taps % c.h.taps, jd = tap / c.w.taps / c.h.taps;
  const int d = c.d.delta + jd * c.d.delta_step, h = c.h.delta + jh * c.h.delta_step, w = c.w.delta + jw * c.w.delta_step;
  const bool second = channel >= g.channels0;
  const std::int64_t voxels = (static_cast<std::int64_t>(d) * g.axis[1].in + h) * g.axis[2].in + w;
  const std::int64_t offset = voxels * (second ? g.channels1 : g.channels0) + (second ? channel - g.channels0 : channel);
  taps[blockIdx.y * (g.class_rows / neighbours) + entry] = {2 * offset + (second ? 1 : 0), d, static_cast<std::int16_t>(h),
                                                            static_cast<std::int16_t>(w)};
}

inline void gather_taps(const Exec& ex, const Gather& g, int neighbours, Tap* taps) {
  VG_LAUNCH(ex, gather_taps_kernel<kThreads>, dim3(simt::blocks_for(g.class_rows / neighbours, kThreads), static_cast<unsigned>(g.classes)),
            kThreads, 0, taps, g, neighbours);
}

// Do neighbouring voxels of the only source share sectors of 32 bytes, rather than neighbouring channels? Then the lanes of a warp gather along W.
inline bool few_channels(const Gather& g) {
  return g.channels1 == 0 && std::int64_t{g.channels0} * (g.transposed ? 1 : g.axis[2].stride) <= 2;
}

template <int N>
inline constexpr std::integral_constant<int, N> number{};  // a template argument as an argument

// Which part of a block's tile (rows x kColumns groups of four columns) thread `thread` multiplies. A warp is 4 rows x 8 columns, or as near as the tile
// allows: what its lanes read of the two matrices then is one wavefront each (128 bytes of B; 4 rows of A, which 8 lanes share).
struct TilePart {
  int row, column;  // the thread's row, counted in what one thread owns, and group of columns
};
template <int kColumns>
__device__ inline TilePart tile_part(int thread) {
  constexpr int kAcross = kColumns < 8 ? kColumns : 8, kDown = 32 / kAcross, kWarps = kColumns / kAcross;
  const int warp = thread / 32, lane = thread % 32;
  return {warp / kWarps * kDown + lane / kAcross, warp % kWarps * kAcross + lane % kAcross};
}

// source: (N, D, H, W, channels0) and perhaps a second one; destination: the extents of the output.
inline Gather make_gather(const Shape& source, int channels1, const Shape& destination, const Shape& w, const ConvParams& p,
                          bool transposed) {
  Gather g{};
  g.transposed = transposed;
  g.samples = static_cast<int>(source.n());
  g.channels0 = static_cast<int>(source.c());
  g.channels1 = channels1;
  g.classes = 1;
  g.class_rows = g.channels();
  for (int i = 0; i < 3; ++i) {
    GatherAxis& a = g.axis[i];
    a = {static_cast<int>(source[1 + i]),
         static_cast<int>(destination[1 + i]),
         static_cast<int>(w[2 + i]),
         p.stride[i],
         p.dilation[i],
         p.pad[i],
         transposed ? p.stride[i] : 1,
         1};
    if (std::int64_t{a.kernel - 1} * a.dilation > kFarthest || a.pad > kFarthest)
      throw Error(ErrorCode::unsupported, "convolution: a kernel of " + std::to_string(a.kernel) + " with dilation " +
                                              std::to_string(a.dilation) + " and padding " + std::to_string(a.pad) + " (at most " +
                                              std::to_string(kFarthest) + " voxels away on this device)");
    int common = a.classes, rest = a.dilation;  // Euclid
    while (rest != 0) {
      const int next = common % rest;
      common = rest;
      rest = next;
    }
    a.tap_step = a.classes / common;
    g.classes *= a.classes;
    g.class_rows *= (a.kernel - 1) / a.tap_step + 1;
  }
  return g;
}

}  // namespace VG_NS
}  // namespace vg

// Convolution of bf16 and f16 tensors, called by conv.cu: weights (f32) are packed for the tensor cores, inputs with a number of channels that is no
// multiple of 8 are padded in scratch memory, and one launch of conv_tensor.cuh does the rest.
#pragma once
#include "kernels/conv_tensor.cuh"

namespace vg {
namespace VG_NS {

// packed, as conv_tensor_kernel reads it. A thread owns 8 channels of one column in one chunk and walks their taps, which are neighbours in w.
template <class H>
__global__ __launch_bounds__(kThreads) void conv_half_pack_kernel(H* __restrict__ packed, const float* __restrict__ w, Gather g,
                                                                  TileShape shape, int inputs, int first_column, int columns, int padded,
                                                                  int bn, int kc, int chunks0, int chunks, int class_taps) {
  const int planes = kc / 8, pair = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const int column = pair % padded, plane = pair / padded % planes, chunk = pair / padded / planes;
  if (chunk >= chunks) return;
  const HaloClass c = halo_class(g, static_cast<int>(blockIdx.y), shape);
  const bool second = chunk >= chunks0;
  const int channel = (chunk - (second ? chunks0 : 0)) * kc + plane * 8, left = (second ? g.channels1 : g.channels0) - channel;
  const int row = channel + (second ? g.channels0 : 0);  // of the product; forward: input channel, backward: output channel
  const int per_channel = g.axis[0].kernel * g.axis[1].kernel * g.axis[2].kernel;
  const std::int64_t apart = (g.transposed ? std::int64_t{inputs} : 1) * per_channel;  // from one of the 8 channels to the next
  const float* own = w + (g.transposed ? static_cast<std::int64_t>(row) * inputs + first_column + column
                                       : static_cast<std::int64_t>(column) * inputs + row) *
                             per_channel;
  const std::int64_t slab = (blockIdx.y * static_cast<std::int64_t>(padded / bn) + column / bn) * chunks * class_taps +
                            static_cast<std::int64_t>(chunk) * c.taps();
  H* to = packed + ((slab * planes + plane) * bn + column % bn) * 8;
  for (int d = 0; d < c.d.taps; ++d)
    for (int h = 0; h < c.h.taps; ++h)
      for (int k = 0; k < c.w.taps; ++k) {
        const int tap = ((c.d.first_tap + d * c.d.tap_step) * g.axis[1].kernel + c.h.first_tap + h * c.h.tap_step) * g.axis[2].kernel +
                        c.w.first_tap + k * c.w.tap_step;
        Pack<8> eight{};
        if (column < columns) SIMT_UNROLL for (int j = 0; j < 8; ++j) if (j < left) eight.v[j] = own[j * apart + tap];
        store<8>(to, eight);
        to += static_cast<std::int64_t>(planes) * bn * 8;
      }
}

// to: rows of `pitch` channels; the last pitch - channels of each are zero.
template <class H>
__global__ __launch_bounds__(kThreads) void pad_channels_kernel(H* __restrict__ to, const H* __restrict__ from, int channels, int pitch,
                                                                std::int64_t elements) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements; i += step) {
    const std::int64_t row = i / pitch;
    const int channel = static_cast<int>(i - row * pitch);
    to[i] = channel < channels ? from[row * channels + channel] : H{0};
  }
}

// How the product is cut; by the shape of one sample alone.
struct TensorCut {
  TileShape shape;
  int bn, kc, row, mt, buffers;
  int padded, chunks[2], class_taps, boxes, splits;
  std::size_t shared_bytes;
};
inline constexpr int kTensorShared = 96 << 10;  // what every GPU since sm_80 gives a block

// Fills in what follows from bn, kc, mt and shape. Returns the cost in cycles of an H100 multiprocessor for each channel chunk of 32 and column tile, or 0 if
// shared memory does not suffice: a tap of 256 voxels and 32 channels is 206 cycles of its tensor cores (at 62 % of their peak), a position 2.7 of its
// share of the L2 cache.
inline double cost_of_cut(const Gather& g, TensorCut& cut) {
  cut.chunks[0] = (g.channels0 + cut.kc - 1) / cut.kc;
  cut.chunks[1] = (g.channels1 + cut.kc - 1) / cut.kc;
  cut.row = 3;
  cut.boxes = cut.class_taps = 0;
  double cost = 0.0;
  HaloClass largest{};
  for (int number = 0; number < g.classes; ++number) {
    const HaloClass c = halo_class(g, number, cut.shape);
    if (static_cast<double>(c.d.extent) * c.h.extent * c.pitch > kTensorShared) return 0.0;
    if (c.w.taps != 3 || c.w.step != 1) cut.row = 1;
    if (number == 0 || c.positions() > largest.positions()) largest = c;
    cut.boxes = c.tiles() > cut.boxes ? c.tiles() : cut.boxes;
    cut.class_taps = c.taps() > cut.class_taps ? c.taps() : cut.class_taps;
    cost += static_cast<double>(c.tiles()) * (51.5 * cut.mt * c.taps() + 2.7 * c.positions());
  }
  if (cut.row == 3 && cut.mt != 4) return 0.0;
  largest.d.taps = cut.class_taps, largest.h.taps = largest.w.taps = 1;  // the table of taps is that of the class that has most
  for (cut.buffers = cut.chunks[0] + cut.chunks[1] > 1 ? 2 : 1; cut.buffers > 0; --cut.buffers) {
    cut.shared_bytes = static_cast<std::size_t>(tensor_shared_bytes(largest, cut.bn, cut.kc, cut.row, cut.mt, cut.buffers));
    if (cut.shared_bytes <= kTensorShared) return cut.buffers == 1 && cut.chunks[0] + cut.chunks[1] > 1 ? 1.25 * cost : cost;
  }
  return 0.0;
}

inline TensorCut cut_tensor_product(const Gather& g, int columns, const char* who) {
  TensorCut best{};
  double least = 0.0;
  const int bn = columns <= 16 ? 16 : columns <= 32 ? 32 : 64;
  for (int kc = g.channels0 > 16 || g.channels1 > 16 ? 32 : 16; kc >= 16; kc /= 2)
    for (int log = 8; log >= 7; --log)
      for (int log_w = 3; log_w <= log; ++log_w)
        for (int log_h = 0; log_w + log_h <= log; ++log_h) {
          TensorCut cut{};
          cut.shape = {log - log_w - log_h, log_h, log_w};
          cut.bn = bn;
          cut.kc = kc;
          cut.mt = log == 8 ? 4 : 2;
          const double cost = cost_of_cut(g, cut);
          if (cost == 0.0 || (least != 0.0 && cost >= least)) continue;
          least = cost;
          best = cut;
        }
  if (least == 0.0)
    throw Error(ErrorCode::unsupported, std::string(who) + ": a kernel of " + std::to_string(g.axis[0].kernel) + " x " +
                                            std::to_string(g.axis[1].kernel) + " x " + std::to_string(g.axis[2].kernel) +
                                            " with these strides needs more shared memory than a block has (in half precision)");
  best.padded = (columns + bn - 1) / bn * bn;
  // Few voxels and many channels make too few blocks to fill a GPU: then the chunks are shared out, too.
  const std::int64_t blocks = std::int64_t{best.boxes} * (best.padded / bn) * g.classes, wanted = blocks > 0 ? 264 / blocks : 1;
  const int chunks = best.chunks[0] + best.chunks[1];
  best.splits = static_cast<int>(wanted < 1 ? 1 : wanted < 16 ? wanted : 16);
  best.splits = best.splits < chunks ? best.splits : chunks;
  return best;
}

template <class H>
using TensorKernel = void (*)(Gather, TileShape, HalfSources<H>, const H*, int, int, int, HalfSink<H>, float*, std::int64_t);
template <class H, int BN>
TensorKernel<H> tensor_kernel(const TensorCut& cut) {
  if (cut.row == 3) return cut.kc == 16 ? conv_tensor_kernel<H, BN, 16, 3, 4> : conv_tensor_kernel<H, BN, 32, 3, 4>;
  if (cut.mt == 4) return cut.kc == 16 ? conv_tensor_kernel<H, BN, 16, 1, 4> : conv_tensor_kernel<H, BN, 32, 1, 4>;
  return cut.kc == 16 ? conv_tensor_kernel<H, BN, 16, 1, 2> : conv_tensor_kernel<H, BN, 32, 1, 2>;
}

// x0, x1: the sources, of type H; w: f32.
template <class H>
void multiply_halves(const Exec& ex, const char* who, const Gather& g, const Tensor& x0, const Tensor& x1, const float* w, int inputs,
                     int first_column, HalfSink<H> sink) {
  const int columns = sink.columns();
  const TensorCut cut = cut_tensor_product(g, columns, who);
  const int chunks = cut.chunks[0] + cut.chunks[1];
  const std::int64_t outputs = static_cast<std::int64_t>(g.samples) * g.axis[0].out * g.axis[1].out * g.axis[2].out;
  if (outputs == 0) return;
  const std::int64_t inner = static_cast<std::int64_t>(g.axis[0].in) * g.axis[1].in * g.axis[2].in;
  if (inner >= kOutside)
    throw Error(ErrorCode::unsupported,
                std::string(who) + ": " + std::to_string(inner) + " voxels a sample (fewer than 2^32 in half precision)");

  // [packed weights][partial sums][padded x0][padded x1], each on 256 bytes
  const Tensor* x[2] = {&x0, &x1};
  const std::int64_t packed_bytes = std::int64_t{g.classes} * cut.padded * chunks * cut.kc * cut.class_taps * 2;
  const std::int64_t partial_stride = outputs * cut.padded;
  const auto whole = [](std::int64_t bytes) { return (bytes + 255) / 256 * 256; };
  std::int64_t bytes = whole(packed_bytes) + (cut.splits > 1 ? whole(cut.splits * partial_stride * 4) : 0), at[2] = {};
  HalfSources<H> source{};
  for (int i = 0; i < 2; ++i) {
    if (!x[i]->defined()) continue;
    const int channels = static_cast<int>(x[i]->shape().c());
    source.pitch[i] = (channels + 7) / 8 * 8;
    source.chunks[i] = cut.chunks[i];
    source.data[i] = x[i]->data<H>();
    if (source.pitch[i] == channels && aligned16(source.data[i])) continue;
    at[i] = bytes;
    bytes += whole(g.samples * inner * source.pitch[i] * 2);
  }
  char* memory = ex.scratch->reserve<char>(bytes);
  H* packed = reinterpret_cast<H*>(memory);
  float* partial = reinterpret_cast<float*>(memory + whole(packed_bytes));
  for (int i = 0; i < 2; ++i) {
    if (at[i] == 0) continue;
    H* to = reinterpret_cast<H*>(memory + at[i]);
    const std::int64_t elements = g.samples * inner * source.pitch[i];
    VG_LAUNCH(ex, pad_channels_kernel<H>, flat_blocks(elements, false), kThreads, 0, to, source.data[i],
              static_cast<int>(x[i]->shape().c()), source.pitch[i], elements);
    source.data[i] = to;
  }
  VG_LAUNCH(ex, conv_half_pack_kernel<H>,
            dim3(simt::blocks_for(std::int64_t{cut.padded} * (cut.kc / 8) * chunks, kThreads), static_cast<unsigned>(g.classes)), kThreads,
            0, packed, w, g, cut.shape, inputs, first_column, columns, cut.padded, cut.bn, cut.kc, cut.chunks[0], chunks, cut.class_taps);

  const TensorKernel<H> conv_tensor_any = cut.bn == 16   ? tensor_kernel<H, 16>(cut)
                                          : cut.bn == 32 ? tensor_kernel<H, 32>(cut)
                                                         : tensor_kernel<H, 64>(cut);
  const dim3 grid(simt::blocks_for(std::int64_t{cut.boxes} * g.samples * (cut.padded / cut.bn), 1), static_cast<unsigned>(cut.splits),
                  static_cast<unsigned>(g.classes));
  VG_LAUNCH(ex, conv_tensor_any, grid, cut.bn == 64 ? 256 : 128, cut.shared_bytes, g, cut.shape, source, packed, cut.padded,
            chunks * cut.class_taps / cut.row, cut.buffers, sink, partial, partial_stride);
  if (cut.splits > 1)
    VG_LAUNCH(ex, conv_tensor_splits_kernel<H>, simt::blocks_for(partial_stride / 8, kThreads), kThreads, 0, sink, partial, partial_stride,
              cut.splits, cut.padded);
}

}  // namespace VG_NS
}  // namespace vg

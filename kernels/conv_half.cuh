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
                                                                  int bn, int row, TensorStage stage, int planes, int chunks0, int chunks,
                                                                  int class_slabs) {
  const int pair = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const int column = pair % padded, plane = pair / padded % planes, chunk = pair / padded / planes;
  if (chunk >= chunks) return;
  const HaloClass c = halo_class(g, static_cast<int>(blockIdx.y), shape);
  const bool second = chunk >= chunks0;
  const int channel = ((chunk - (second ? chunks0 : 0)) * planes + plane) * 8, left = (second ? g.channels1 : g.channels0) - channel;
  const int depth = channel + (second ? g.channels0 : 0);  // of the product; forward: input channel, backward: output channel
  const int per_channel = g.axis[0].kernel * g.axis[1].kernel * g.axis[2].kernel;
  const std::int64_t apart = (g.transposed ? std::int64_t{inputs} : 1) * per_channel;  // from one of the 8 channels to the next
  const float* own = w + (g.transposed ? static_cast<std::int64_t>(depth) * inputs + first_column + column
                                       : static_cast<std::int64_t>(column) * inputs + depth) *
                             per_channel;
  const int slices = planes / 2, rows = c.taps() / row, stages = (rows * slices + stage.entries - 1) / stage.entries;
  const std::int64_t slab = (blockIdx.y * static_cast<std::int64_t>(padded / bn) + column / bn) * class_slabs + chunk * stages;
  H* to = packed + (slab * stage.slab + plane % 2 * bn + column % bn) * 8;
  for (int r = 0, entry = plane / 2; entry < stages * stage.entries; ++r, entry += slices)
    for (int j = 0; j < row; ++j) {
      Pack<8> eight{};
      if (r < rows && column < columns) {
        const int dh = row == 1 ? r / c.w.taps : r, jw = row == 1 ? r % c.w.taps : j, d = dh / c.h.taps, h = dh % c.h.taps;
        const int tap = ((c.d.first_tap + d * c.d.tap_step) * g.axis[1].kernel + c.h.first_tap + h * c.h.tap_step) * g.axis[2].kernel +
                        c.w.first_tap + jw * c.w.tap_step;
        SIMT_UNROLL for (int i = 0; i < 8; ++i) if (i < left) eight.v[i] = own[i * apart + tap];
      }
      store<8>(to + (static_cast<std::int64_t>(entry) * row + j) * 2 * bn * 8, eight);
    }
}

// How the product is cut; by the shape of one sample alone.
struct TensorCut {
  TileShape shape;
  int bn, row, planes, buffers;
  int padded, chunks[2], class_stages, boxes, splits;
  std::size_t shared_bytes;
};

// Fills in what follows from bn, row, planes and shape. Returns the cost in cycles of an H100 multiprocessor, or 0 if shared memory does not suffice.
inline double cost_of_cut(const Gather& g, TensorCut& cut) {
  const TensorStage stage = tensor_stage(cut.bn, cut.row);
  cut.chunks[0] = (g.channels0 + cut.planes * 8 - 1) / (cut.planes * 8);
  cut.chunks[1] = (g.channels1 + cut.planes * 8 - 1) / (cut.planes * 8);
  cut.boxes = cut.class_stages = 0;
  const int mma = stage.warps * stage.mt * cut.bn / 8, fragments = stage.warps * (stage.mt + cut.bn / 16);  // of a tap and 16 channels
  double cost = 0.0;
  int positions = 0;
  for (int number = 0; number < g.classes; ++number) {
    const HaloClass c = halo_class(g, number, cut.shape);
    if (static_cast<double>(c.d.extent) * c.h.extent * c.pitch > kTensorShared) return 0.0;
    if (cut.row == 3 && (c.w.taps != 3 || c.w.step != 1)) return 0.0;
    const int stages = (c.taps() / cut.row * (cut.planes / 2) + stage.entries - 1) / stage.entries;
    positions = c.positions() > positions ? c.positions() : positions;
    cut.boxes = c.tiles() > cut.boxes ? c.tiles() : cut.boxes;
    cut.class_stages = stages > cut.class_stages ? stages : cut.class_stages;
    // 1.61 cycles an mma (62 % of the peak), 4 an ldmatrix, 24 bytes a cycle from the L2 cache
    const double products = 1.61 * mma > 4.0 * fragments ? 1.61 * mma : 4.0 * fragments;
    cost += static_cast<double>(c.tiles()) * (stages * stage.entries * cut.row * products +
                                              (c.positions() * cut.planes + stages * stage.slab) * 16 / 24.0);
  }
  cost *= cut.chunks[0] + cut.chunks[1];
  const int sums = ((stage.voxels + 1 + 2 * stage.warps) * cut.bn + stage.warps) * 4;  // afterwards, in the same place: sums, bias, moments of warps
  for (cut.buffers = cut.chunks[0] + cut.chunks[1] > 1 ? 2 : 1; cut.buffers > 0; --cut.buffers) {
    const int main = (cut.buffers * plane_length(positions, cut.planes) * cut.planes + kRing * stage.slab) * 16 +
                     (cut.class_stages * stage.shifts + positions) * 4;
    cut.shared_bytes = static_cast<std::size_t>(main > sums ? main : sums);
    if (cut.shared_bytes <= kTensorShared) return cut.buffers == 1 && cut.chunks[0] + cut.chunks[1] > 1 ? 1.25 * cost : cost;
  }
  return 0.0;
}

inline TensorCut cut_tensor_product(const Gather& g, int columns, const char* who) {
  TensorCut best{};
  double least = 0.0;
  for (const int row : {3, 1})
    for (const int planes : {2, 4, 8})
      for (int log = row == 3 ? 8 : 7, log_w = 3; log_w <= log; ++log_w)
        for (int log_h = 0; log_w + log_h <= log; ++log_h) {
          TensorCut cut{};
          cut.shape = {log - log_w - log_h, log_h, log_w};
          cut.bn = row == 1 || columns > 32 ? 64 : columns > 16 ? 32 : 16;
          cut.row = row;
          cut.planes = planes;
          const double cost = cost_of_cut(g, cut);
          if (cost == 0.0 || (least != 0.0 && cost >= least)) continue;
          least = cost;
          best = cut;
        }
  if (least == 0.0)
    throw Error(ErrorCode::unsupported, std::string(who) + ": a kernel of " + std::to_string(g.axis[0].kernel) + " x " +
                                            std::to_string(g.axis[1].kernel) + " x " + std::to_string(g.axis[2].kernel) +
                                            " with these strides needs more shared memory than a block has (in half precision)");
  best.padded = (columns + best.bn - 1) / best.bn * best.bn;
  // Few voxels and many channels make too few blocks to fill a GPU: then the chunks are shared out, too.
  const std::int64_t blocks = std::int64_t{best.boxes} * (best.padded / best.bn) * g.classes, wanted = blocks > 0 ? 264 / blocks : 1;
  const int chunks = best.chunks[0] + best.chunks[1];
  best.splits = static_cast<int>(wanted < 1 ? 1 : wanted < 16 ? wanted : 16);
  best.splits = best.splits < chunks ? best.splits : chunks;
  return best;
}

struct WantedStatistics {
  Tensor *mean = nullptr, *rstd = nullptr;
  float eps = 0.0f;
};

// x0, x1: the sources, of type H; w: f32. `statistics`: of the result, for the norm that follows; false if they were not made: where splits are added
// later, which is where there are few voxels to read again.
template <class H>
bool multiply_halves(const Exec& ex, const char* who, const Gather& g, const Tensor& x0, const Tensor& x1, const float* w, int inputs,
                     int first_column, HalfSink<H> sink, const WantedStatistics& statistics = {}) {
  const int columns = sink.columns();
  const TensorCut cut = cut_tensor_product(g, columns, who);
  const TensorStage stage = tensor_stage(cut.bn, cut.row);
  const int chunks = cut.chunks[0] + cut.chunks[1];
  const std::int64_t outputs = static_cast<std::int64_t>(g.samples) * g.axis[0].out * g.axis[1].out * g.axis[2].out;
  if (outputs == 0) return false;
  const std::int64_t inner = static_cast<std::int64_t>(g.axis[0].in) * g.axis[1].in * g.axis[2].in;
  if (inner >= kOutside)
    throw Error(ErrorCode::unsupported,
                std::string(who) + ": " + std::to_string(inner) + " voxels a sample (fewer than 2^32 in half precision)");

  const bool with_moments = statistics.mean && cut.splits == 1;
  assert(!with_moments || (g.classes == 1 && sink.activation.kind == ActivationKind::identity));

  // [packed weights][partial sums, or moments][padded x0][padded x1]
  const std::int64_t packed_bytes = whole_piece(std::int64_t{g.classes} * (cut.padded / cut.bn) * chunks * cut.class_stages * stage.slab * 16);
  const std::int64_t partial_stride = outputs * cut.padded, partial_bytes = cut.splits > 1 ? whole_piece(cut.splits * partial_stride * 4)
                                                                            : with_moments ? whole_piece(moments_floats(g.samples, columns, cut.boxes) * 4)
                                                                                           : 0;
  char* memory = ex.scratch->reserve<char>(packed_bytes + partial_bytes + padded_bytes(x0) + padded_bytes(x1));
  H* packed = reinterpret_cast<H*>(memory);
  float* partial = reinterpret_cast<float*>(memory + packed_bytes);
  const PartialMoments moments = with_moments ? moments_in(partial, g.samples, columns, cut.boxes) : PartialMoments{};
  memory += packed_bytes + partial_bytes;
  HalfSources<H> source{{in_eights<H>(ex, x0, memory), in_eights<H>(ex, x1, memory)},
                        {pitch_of(x0), x1.defined() ? pitch_of(x1) : 0},
                        {cut.chunks[0], cut.chunks[1]}};
  const int class_slabs = chunks * cut.class_stages;
  VG_LAUNCH(ex, conv_half_pack_kernel<H>,
            dim3(simt::blocks_for(std::int64_t{cut.padded} * cut.planes * chunks, kThreads), static_cast<unsigned>(g.classes)), kThreads, 0,
            packed, w, g, cut.shape, inputs, first_column, columns, cut.padded, cut.bn, cut.row, stage, cut.planes, cut.chunks[0], chunks,
            class_slabs);

  const auto conv_tensor_any = cut.row == 1    ? conv_tensor_kernel<H, 64, 1>
                               : cut.bn == 16 ? conv_tensor_kernel<H, 16, 3>
                               : cut.bn == 32 ? conv_tensor_kernel<H, 32, 3>
                                              : conv_tensor_kernel<H, 64, 3>;
  const dim3 grid(simt::blocks_for(std::int64_t{cut.boxes} * g.samples * (cut.padded / cut.bn), 1), static_cast<unsigned>(cut.splits),
                  static_cast<unsigned>(g.classes));
  VG_LAUNCH(ex, conv_tensor_any, grid, 32 * stage.warps, cut.shared_bytes, g, cut.shape, source, packed, cut.padded, class_slabs, cut.planes,
            cut.buffers, sink, partial, partial_stride, moments);
  if (cut.splits > 1)
    VG_LAUNCH(ex, conv_tensor_splits_kernel<H>, simt::blocks_for(partial_stride / 8, kThreads), kThreads, 0, sink, partial, partial_stride,
              cut.splits, cut.padded);
  if (with_moments) finish_statistics(ex, *statistics.mean, *statistics.rstd, moments, outputs / g.samples, statistics.eps);
  return with_moments;
}

}  // namespace VG_NS
}  // namespace vg

// Convolution and its data gradient (which is transposed convolution's forward pass): weights and tap offsets are laid out for the matrix product of
// conv_gemm.cuh, then one launch does all samples, voxels and channels. The weight gradient is in conv_weight.cu.
#include "kernels/conv.h"

#include "kernels/conv_gemm.cuh"
#include "kernels/conv_half.cuh"
#include "kernels/conv_library.cuh"

namespace vg {
namespace VG_NS {

// packed[class, (tap, channel), column] = w[o, i, tap]; forward: channel = i, column = o; backward: channel = o, column = i - first_column. Columns
// beyond the last are zero. A thread owns one (channel, column) and walks its taps, which are neighbours in w.
__global__ __launch_bounds__(kThreads) void conv_pack_kernel(float* __restrict__ packed, const float* __restrict__ w, Gather g, int inputs,
                                                             int first_column, int columns, int padded) {
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int channel = static_cast<int>(pair / padded), column = static_cast<int>(pair % padded);
  if (channel >= g.channels()) return;
  const GatherAxis &ad = g.axis[0], &ah = g.axis[1], &aw = g.axis[2];
  const std::int64_t o = g.transposed ? channel : column, i = g.transposed ? first_column + column : channel;
  const float* own = w + (o * inputs + i) * ad.kernel * ah.kernel * aw.kernel;
  for (int number = 0; number < g.classes; ++number) {
    const GatherClass c = gather_class(g, number);
    float* row = packed + (number * g.class_rows + channel) * padded + column;
    for (int d = 0; d < c.d.taps; ++d)
      for (int h = 0; h < c.h.taps; ++h)
        for (int k = 0; k < c.w.taps; ++k) {
          const int tap =
              ((c.d.first + d * ad.tap_step) * ah.kernel + c.h.first + h * ah.tap_step) * aw.kernel + c.w.first + k * aw.tap_step;
          *row = column < columns ? own[tap] : 0.0f;
          row += static_cast<std::int64_t>(g.channels()) * padded;
        }
  }
}

// How the product is cut. All of it depends on the shape of one sample alone, so a sample's bits do not depend on the batch around it.
struct Cut {
  int tile_m, tile_n, padded, splits;
};
Cut cut_product(const Gather& g, int columns) {
  Cut c{};
  c.tile_n = columns <= 8 ? 8 : columns <= 16 ? 16 : columns <= 32 ? 32 : 64;
  c.tile_m = c.tile_n == 16 ? 256 : 128;
  c.padded = (columns + c.tile_n - 1) / c.tile_n * c.tile_n;
  // Few voxels and many channels (the bottom of a U-Net) make too few blocks to fill a GPU: then k is cut, too, into parts of at least 128.
  constexpr std::int64_t kWantedBlocks = 264, kLeastSteps = 8, kMostSplits = 16;  // two for each of the 132 multiprocessors of an H100
  const Extent lattice = gather_class(g, 0).lattice();
  const std::int64_t blocks = (lattice.voxels() + c.tile_m - 1) / c.tile_m * (c.padded / c.tile_n) * g.classes;
  std::int64_t splits = blocks > 0 ? kWantedBlocks / blocks : 1;
  splits = splits < g.class_rows / kStep / kLeastSteps ? splits : g.class_rows / kStep / kLeastSteps;
  c.splits = static_cast<int>(splits < 1 ? 1 : splits > kMostSplits ? kMostSplits : splits);
  return c;
}

void multiply(const Exec& ex, const Gather& g, const float* x0, const float* x1, const float* w, int inputs, int first_column,
              const Sink& sink) {
  const int columns = sink.first.channels + sink.second.channels;
  const Cut cut = cut_product(g, columns);
  const std::int64_t rows = g.classes * g.class_rows,
                     outputs = static_cast<std::int64_t>(g.samples) * g.axis[0].out * g.axis[1].out * g.axis[2].out;
  const std::int64_t partial_stride = outputs * cut.padded;
  // [packed weights][partial sums][taps], in bytes; the first two have rows of 8 floats at least, so all are aligned.
  const std::int64_t floats = rows * cut.padded + (cut.splits > 1 ? cut.splits * partial_stride : 0);
  float* packed =
      reinterpret_cast<float*>(ex.scratch->reserve<char>(floats * std::int64_t{sizeof(float)} + rows * std::int64_t{sizeof(Tap)}));
  float* partial = packed + rows * cut.padded;
  Tap* taps = reinterpret_cast<Tap*>(packed + floats);

  VG_LAUNCH(ex, conv_pack_kernel, simt::blocks_for(std::int64_t{g.channels()} * cut.padded, kThreads), kThreads, 0, packed, w, g, inputs,
            first_column, columns, cut.padded);
  const bool fours = g.channels0 % 4 == 0 && in_fours(g.channels1, x0, x1);
  const bool few = few_channels(g);
  gather_taps(ex, g, fours ? 4 : 1, taps);
  const std::int64_t lattice = gather_class(g, 0).lattice().voxels();  // class 0 is the largest
  const std::int64_t tiles = (lattice * g.samples + cut.tile_m - 1) / cut.tile_m;
  const dim3 grid(simt::blocks_for(tiles * (cut.padded / cut.tile_n), 1), static_cast<unsigned>(cut.splits),
                  static_cast<unsigned>(g.classes));
  const auto launch = [&](auto m, auto n, auto rows) {
    constexpr int kM = decltype(m)::value, kN = decltype(n)::value, kRows = decltype(rows)::value;
    const auto conv_gemm_any = fours ? conv_gemm_kernel<kM, kN, kRows, 4>
                               : few ? conv_gemm_kernel<kM, kN, kRows, 0>
                                     : conv_gemm_kernel<kM, kN, kRows, 1>;
    VG_LAUNCH(ex, conv_gemm_any, grid, kM / kRows * (kN / 4), 0, g, x0, x1, taps, packed, cut.padded, sink, partial, partial_stride);
  };
  switch (cut.tile_n) {
    case 8: launch(number<128>, number<8>, number<2>); break;
    case 16: launch(number<256>, number<16>, number<4>); break;
    case 32: launch(number<128>, number<32>, number<4>); break;
    default: launch(number<128>, number<64>, number<8>); break;
  }
  if (cut.splits > 1)
    VG_LAUNCH(ex, conv_splits_kernel<kThreads>, simt::blocks_for(partial_stride / 4, kThreads), kThreads, 0, sink, partial, partial_stride,
              cut.splits, cut.padded);
}

// Were the statistics made, too?
bool forward(const Exec& ex, Tensor& y, const Tensor& x0, const Tensor& x1, const Tensor& w, const Tensor& b, const ConvParams& p,
             const WantedStatistics& statistics) {
  const int channels1 = x1.defined() ? static_cast<int>(x1.shape().c()) : 0, outputs = static_cast<int>(w.shape()[0]);
  assert(x0.shape().c() + channels1 == w.shape()[1] && y.shape().c() == outputs && p.activation.kind != ActivationKind::prelu);
  if (library_forward(ex, y, x0, x1, w, b, p)) return false;
  const Gather g = make_gather(x0.shape(), channels1, y.shape(), w.shape(), p, false);
  if (y.dtype() != DType::f32) {
    bool made = false;
    for_half_type(y.dtype(), "conv_forward", [&](auto zero) {
      using H = decltype(zero);
      require_tensor_cores<H>(ex, "conv_forward");
      H* out = y.data<H>();
      made = multiply_halves<H>(ex, "conv_forward", g, x0, x1, w.data<float>(), g.channels(), 0,
                                {{out, nullptr}, {outputs, 0}, {0.0f, 0.0f}, data_or_null(b), p.activation, outputs % 8 == 0 && aligned16(out)},
                                statistics);
    });
    return made;
  }
  float* out = y.data<float>();
  multiply(ex, g, x0.data<float>(), data_or_null(x1), w.data<float>(), g.channels(), 0,
           {{out, outputs, 0.0f}, {nullptr, 0, 0.0f}, data_or_null(b), p.activation, in_fours(outputs, out)});
  return false;
}

void conv_forward(const Exec& ex, Tensor& y, const Tensor& x0, const Tensor& x1, const Tensor& w, const Tensor& b, const ConvParams& p) {
  forward(ex, y, x0, x1, w, b, p, {});
}

void conv_forward_statistics(const Exec& ex, Tensor& y, Tensor& mean, Tensor& rstd, const Tensor& x0, const Tensor& x1, const Tensor& w,
                             const Tensor& b, const ConvParams& p, const NormParams& norm) {
  if (!forward(ex, y, x0, x1, w, b, p, {&mean, &rstd, norm.eps})) norm_statistics(ex, mean, rstd, y, norm);
}

void conv_backward_data(const Exec& ex, const Grad& dx0, const Grad& dx1, const Tensor& dy, const Tensor& w, const Tensor& b,
                        const ConvParams& p) {
  if (!dx0.wanted() && !dx1.wanted()) return;
  const Shape& destination = dx0.wanted() ? dx0.shape() : dx1.shape();
  const int inputs = static_cast<int>(w.shape()[1]);
  const int second = dx1.wanted() ? static_cast<int>(dx1.shape().c()) : 0, first = dx0.wanted() ? static_cast<int>(dx0.shape().c()) : 0;
  const int first_column = dx0.wanted() ? 0 : inputs - second;
  assert(dy.shape().c() == w.shape()[0] && first_column + first + second <= inputs);
  if (library_backward_data(ex, dx0, dx1, dy, w, b, p)) return;
  const Gather g = make_gather(dy.shape(), 0, destination, w.shape(), p, true);
  if (dy.dtype() != DType::f32)
    return for_half_type(dy.dtype(), "conv_backward_data", [&](auto zero) {
      using H = decltype(zero);
      require_tensor_cores<H>(ex, "conv_backward_data");
      H *out0 = data_or_null_of<H>(dx0), *out1 = data_or_null_of<H>(dx1);
      multiply_halves<H>(ex, "conv_backward_data", g, dy, Tensor(), w.data<float>(), inputs, first_column,
                         {{out0, out1},
                          {first, second},
                          {dx0.beta, dx1.beta},
                          b.defined() ? b.data<float>() + first_column : nullptr,
                          Activation{},
                          first % 8 == 0 && second % 8 == 0 && aligned16(out0) && aligned16(out1)});
    });
  float *out0 = data_or_null(dx0), *out1 = data_or_null(dx1);
  const float* bias = b.defined() ? b.data<float>() + first_column : nullptr;
  multiply(ex, g, dy.data<float>(), nullptr, w.data<float>(), inputs, first_column,
           {{out0, first, dx0.beta}, {out1, second, dx1.beta}, bias, Activation{}, first % 4 == 0 && in_fours(second, out0, out1)});
}

}  // namespace VG_NS

VG_DEVICE_IMPL(conv_forward);
VG_DEVICE_IMPL(conv_forward_statistics);
VG_DEVICE_IMPL(conv_backward_data);

}  // namespace vg

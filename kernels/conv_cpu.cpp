// Convolution and its data gradient on the cpu: which input position each tap reads, and where the weights lie. conv_cpu_gather.cpp
// sums as the formula says, conv_cpu_winograd.cpp with fewer multiplications.
#include <algorithm>
#include <cassert>

#include "kernels/conv_cpu_matrix.h"
#include "kernels/conv_plan.h"

namespace vg {

VG_KERNEL_HOME(conv_forward);
VG_KERNEL_HOME(conv_forward_statistics);
VG_KERNEL_HOME(conv_backward_data);

namespace cpu {
namespace {

using std::int64_t;

Axis backward_axis(int64_t out, int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  Axis axis{stride, 1, out, in, {}};
  for (int64_t first = 0; first < stride; ++first) {
    AxisPhase phase{first, first < out ? (out - first + stride - 1) / stride : 0, {}};
    for (int64_t k = kernel - 1; k >= 0; --k)
      if ((first + pad - k * dilation) % stride == 0) phase.taps.push_back({k, (first + pad - k * dilation) / stride});
    axis.phases.push_back(phase);
  }
  return axis;
}

void find_axes(Gather& g, const Shape& out, const Shape& in, const ConvParams& p, bool backward) {
  bool pointwise = true;
  for (int a = 0; a < 3; ++a)
    pointwise = pointwise && g.weights.kernel[a] == 1 && p.stride[a] == 1 && p.pad[a] == 0 && out[1 + a] == in[1 + a];
  if (pointwise) {  // rows do not matter: one long row
    for (int a = 0; a < 2; ++a) g.axis[a] = forward_axis(1, 1, 1, 1, 1, 0);
    g.axis[2] = forward_axis(out.voxels(), in.voxels(), 1, 1, 1, 0);
  } else {
    for (int a = 0; a < 3; ++a)
      g.axis[a] =
          (backward ? backward_axis : forward_axis)(out[1 + a], in[1 + a], g.weights.kernel[a], p.stride[a], p.dilation[a], p.pad[a]);
  }
}

void run(const Exec& ex, const Gather& g) {
  if (choose_matrix(ex.convolution, g))
    run_matrix(ex, g);
  else if (const WinogradTile tile = choose_winograd(ex.convolution, g); tile.used())
    run_winograd(ex, g, tile);
  else
    run_gather(ex, g);
}

// Without tensors: what planning needs.
WinogradTile plan(Gather& g, const Shape& out, const Shape& in, const Shape& w, std::int64_t from, std::int64_t to, const ConvParams& p, const ConvAlgorithm& how,
                  bool backward) {
  g.samples = out.n();
  g.inputs.push_back({{}, from, 0}), g.outputs.push_back({{}, to, 0, 0.0f});
  for (int a = 0; a < 3; ++a) g.weights.kernel[a] = w[2 + a];
  find_axes(g, out, in, p, backward);
  return choose_winograd(how, g);
}

std::size_t scratch(Gather& g, const Shape& out, const Shape& in, const Shape& w, std::int64_t from, std::int64_t to, const ConvParams& p, const ConvAlgorithm& how,
                    bool backward) {
  const WinogradTile tile = plan(g, out, in, w, from, to, p, how, backward);
  if (choose_matrix(how, g)) return matrix_scratch(g);
  return tile.used() ? winograd_scratch(g, tile) : gather_scratch(g);
}

}  // namespace

void conv_forward(const Exec& ex, Tensor& y, const Tensor& x0, const Tensor& x1, const Tensor& w, const Tensor& b, const ConvParams& p) {
  const Shape &ws = w.shape(), &xs = x0.shape();
  assert(ws[0] == y.shape().c() && ws[1] == xs.c() + (x1.defined() ? x1.shape().c() : 0) && xs.n() == y.shape().n());
  assert(p.activation.kind != ActivationKind::prelu);
  if (y.elements() == 0) return;
  const int64_t taps = ws[2] * ws[3] * ws[4];
  Gather g{};
  g.samples = xs.n();
  g.inputs.push_back({x0.data<float>(), xs.c(), 0});
  if (x1.defined()) g.inputs.push_back({x1.data<float>(), x1.shape().c(), xs.c()});
  g.outputs.push_back({y.data<float>(), ws[0], 0, 0.0f});
  g.weights = {w.data<float>(), ws[1] * taps, taps, {ws[2], ws[3], ws[4]}, b.defined() ? b.data<float>() : nullptr};
  g.activation = p.activation;
  find_axes(g, y.shape(), xs, p, false);
  run(ex, g);
}

void conv_forward_statistics(const Exec& ex, Tensor& y, Tensor& mean, Tensor& rstd, const Tensor& x0, const Tensor& x1, const Tensor& w,
                             const Tensor& b, const ConvParams& p, const NormParams& norm) {
  ::vg::conv_forward(ex, y, x0, x1, w, b, p);  // the kernels, not this device's functions: who observes kernels sees both
  ::vg::norm_statistics(ex, mean, rstd, y, norm);
}

void conv_backward_data(const Exec& ex, const Grad& dx0, const Grad& dx1, const Tensor& dy, const Tensor& w, const Tensor& b,
                        const ConvParams& p) {
  const Shape &ws = w.shape(), &ds = dy.shape();
  assert(ws[0] == ds.c());
  if (!dx0.wanted() && !dx1.wanted()) return;
  const Shape& out = (dx0.wanted() ? dx0 : dx1).shape();
  if (out.n() * out.voxels() == 0) return;
  const int64_t taps = ws[2] * ws[3] * ws[4];
  Gather g{};
  g.samples = out.n();
  g.inputs.push_back({dy.data<float>(), ws[0], 0});
  if (dx0.wanted()) g.outputs.push_back({dx0.data(), dx0.shape().c(), 0, dx0.beta});
  if (dx1.wanted()) g.outputs.push_back({dx1.data(), dx1.shape().c(), ws[1] - dx1.shape().c(), dx1.beta});
  g.weights = {w.data<float>(), taps, ws[1] * taps, {ws[2], ws[3], ws[4]}, b.defined() ? b.data<float>() : nullptr};
  find_axes(g, out, ds, p, true);
  run(ex, g);
}

}  // namespace cpu

std::size_t conv_forward_scratch(const Shape& y, const Shape& x, const Shape& w, const ConvParams& p, const ConvAlgorithm& algorithm) {
  cpu::Gather g{};
  return cpu::scratch(g, y, x, w, w[1], w[0], p, algorithm, false);
}

std::size_t conv_backward_data_scratch(const Shape& dx, const Shape& dy, const Shape& w, const ConvParams& p, const ConvAlgorithm& algorithm) {
  cpu::Gather g{};
  return cpu::scratch(g, dx, dy, w, w[0], w[1], p, algorithm, true);
}

std::string conv_algorithm(ConvPass pass, const Shape& y, const Shape& x, const Shape& w, const ConvParams& p, const ConvAlgorithm& allowed) {
  cpu::Gather g{};
  cpu::WinogradTile tile;
  bool matrix = false;
  if (pass == ConvPass::weight) {
    cpu::WinogradWeights shape{nullptr, y.n(), w[0], {}, {}, {}, {{{}, w[1], 0}}, p};
    for (int a = 0; a < 3; ++a) shape.out[a] = y[1 + a], shape.in[a] = x[1 + a], shape.kernel[a] = w[2 + a];
    tile = choose_winograd(allowed, shape), matrix = choose_matrix(allowed, shape);
  } else if (pass == ConvPass::data) {
    tile = cpu::plan(g, x, y, w, w[0], w[1], p, allowed, true);
  } else {
    tile = cpu::plan(g, y, x, w, w[1], w[0], p, allowed, false);
  }
  if (pass != ConvPass::weight) matrix = choose_matrix(allowed, g);
  if (matrix) return "AMX";
  if (!tile.used()) return "direct";
  std::string text;
  for (const int m : tile.m)
    if (m > 1) text += (text.empty() ? "F(" : ",") + std::to_string(m);
  return text + ")";
}

double conv_speed(const std::string& algorithm, ConvPass pass, const Shape& w) {
  const auto lanes = [](std::int64_t c) { return static_cast<double>(c) / static_cast<double>((c + 15) / 16 * 16); };
  const double in = static_cast<double>(w[1]), out = static_cast<double>(w[0]), least = std::min(in, out);
  // Broadcasts are the channels that are summed over, vectors those of the result.
  const double filled = pass == ConvPass::weight ? std::max(lanes(w[0]), lanes(w[1])) : lanes(w[pass == ConvPass::data ? 1 : 0]);
  const double direct = filled * least / (least + 3.0) * (pass == ConvPass::weight ? 0.9 : 1.0);
  if (algorithm == "direct") return direct;
  if (algorithm == "AMX") return filled * least / (least + 16.0) * (pass == ConvPass::weight ? 2.2 : 2.9);
  const std::size_t axes = static_cast<std::size_t>(std::count(algorithm.begin(), algorithm.end(), ',')) + 1;
  const std::size_t fours = static_cast<std::size_t>(std::count(algorithm.begin(), algorithm.end(), '4'));
  // Products saved (of 27 / 3.375 with twos), transforms by channels.
  const double most = axes == 3 ? (fours == 3 ? 3.7 : fours == 2 ? 2.9 : 1.9) : axes == 2 ? (fours ? 3.2 : 1.7) : 1.2;
  return filled / (1.0 / most + (axes == 3 ? 1.2 : 5.0) / least) * (pass == ConvPass::weight ? 0.8 : 1.0);
}

VG_IMPL(cpu, cpu, conv_forward);
VG_IMPL(cpu, cpu, conv_forward_statistics);
VG_IMPL(cpu, cpu, conv_backward_data);

}  // namespace vg

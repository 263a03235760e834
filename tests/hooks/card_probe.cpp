// What the kernels of a training step of the 3-D U-Net (segbench's unet3d: 96^3 voxels, 16 to 256 channels, 33 classes) do to memory: each is launched as in
// the step on the simulator of the hooks build, a few of its blocks run, and their accesses are counted. Prints JSON for cards.py:
//
//   {"case", "times": how often the step has it, "flops", "bytes", "kernels": [...blocks, blocks_run...], "traffic": of the blocks that ran}
//
// flops: of the plain sum, 2 for each multiplication. bytes: every input read once, every output written once.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "kernels/conv.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "kernels/optim.h"
#include "kernels/scratch.h"
#include "kernels/sim/hooks/hooks.h"
#include "tensor/parallel.h"
#include "tests/hooks/seen.h"

namespace vg {
namespace {

Tensor some_tensor(Shape shape, DType type = DType::f32) {
  return zeros(shape, type, kSim);  // what is counted does not depend on values
}

class Probe {
 public:
  template <class Work>
  void measure(const std::string& name, int times, double flops, double bytes, Work&& work) {
    const Exec ex{kSim, &scratch_, nullptr};
    simt::hooks::forget_counts();
    work(ex);
    nlohmann::json one = test::seen();
    one["case"] = name, one["times"] = times, one["flops"] = flops, one["bytes"] = bytes;
    all_.push_back(std::move(one));
  }
  const nlohmann::json& all() const { return all_; }

 private:
  ScratchOwner scratch_{kSim};
  nlohmann::json all_ = nlohmann::json::array();
};

struct Layer {
  std::string name;
  std::int64_t extent;  // of the output, along each axis
  std::int64_t in, out, kernel, stride;
  int times;
};

void convolution(Probe& p, const Layer& l, DType type) {
  const auto cube = [](std::int64_t n) { return n * n * n; };
  const std::int64_t real = cube(l.extent), taps = cube(l.kernel), from = l.extent * l.stride;
  ConvParams params;
  for (int a = 0; a < 3; ++a)
    params.stride[a] = static_cast<std::int32_t>(l.stride), params.pad[a] = static_cast<std::int32_t>(l.kernel / 2);
  if (l.kernel == 2) params.pad[0] = params.pad[1] = params.pad[2] = 0;
  const Shape in{1, from, from, from, l.in}, out{1, l.extent, l.extent, l.extent, l.out},
      weights{l.out, l.in, l.kernel, l.kernel, l.kernel};
  const Tensor x = some_tensor(in, type), w = some_tensor(weights), dy = some_tensor(out, type);
  Tensor y(out, type, kSim), dx(in, type, kSim), dw(weights, DType::f32, kSim);
  const double flops = 2.0 * static_cast<double>(real * taps * l.in * l.out), size = static_cast<double>(size_of(type)),
               bytes =
                   size * static_cast<double>(real * l.out + real * cube(l.stride) * l.in) + 4.0 * static_cast<double>(weights.elements());
  const std::string kind = std::string(name_of(type)) + " " + l.name;
  p.measure(kind + " forward", l.times, flops, bytes, [&](const Exec& ex) { conv_forward(ex, y, x, Tensor(), w, Tensor(), params); });
  if (l.kernel == 3 && type != DType::f32 && l.times > 0) {  // as the norms behind them have it done; not counted in the step a second time
    Tensor mean({1, l.out}, DType::f32, kSim), rstd({1, l.out}, DType::f32, kSim);
    p.measure(kind + " forward with statistics", 0, flops, bytes,
              [&](const Exec& ex) { conv_forward_statistics(ex, y, mean, rstd, x, Tensor(), w, Tensor(), params, NormParams{}); });
  }
  if (l.in > 1)
    p.measure(kind + " data gradient", l.times, flops, bytes, [&](const Exec& ex) {
      conv_backward_data(ex, Grad{dx, 0.0f}, Grad{}, dy, w, Tensor(), params);
    });
  p.measure(kind + " weight gradient", l.times, flops, bytes, [&](const Exec& ex) {
    conv_backward_weight(ex, Grad{dw, 0.0f}, dy, x, Tensor(), params);
  });
}

void norms(Probe& p, std::int64_t extent, std::int64_t channels, int times, DType type) {
  const std::int64_t real = extent * extent * extent;
  const Shape shape{1, extent, extent, extent, channels}, per_channel{1, channels};
  const Tensor x = some_tensor(shape, type), dy = some_tensor(shape, type), gamma = some_tensor({channels}), beta = some_tensor({channels});
  Tensor mean(per_channel, DType::f32, kSim), rstd(per_channel, DType::f32, kSim), y(shape, type, kSim), dx(shape, type, kSim),
      dgamma({channels}, DType::f32, kSim), dbeta({channels}, DType::f32, kSim);
  NormParams params;
  params.activation = {ActivationKind::leaky_relu, 0.01f};
  const double numbers = static_cast<double>(real * channels), one = numbers * static_cast<double>(size_of(type));
  const std::string at = fmt::format("{} norm {} channels, {}^3", name_of(type), channels, extent);
  p.measure(at + " statistics", times, 4 * numbers, one, [&](const Exec& ex) { norm_statistics(ex, mean, rstd, x, params); });
  p.measure(at + " apply", times, 4 * numbers, 2 * one, [&](const Exec& ex) { norm_apply(ex, y, x, mean, rstd, gamma, beta, params); });
  p.measure(at + " backward", times, 12 * numbers, 5 * one, [&](const Exec& ex) {
    norm_backward(ex, Grad{dx, 0.0f}, Grad{dgamma, 0.0f}, Grad{dbeta, 0.0f}, dy, x, mean, rstd, gamma, beta, params);
  });
}

void loss(Probe& p) {
  constexpr std::int64_t kClasses = 33, kReal = 96 * 96 * 96;
  const Shape shape{1, 96, 96, 96, kClasses}, one{1, 96, 96, 96, 1};
  const Tensor logits = some_tensor(shape), scale = from_host(std::vector<float>{1.0f}, {1}, kSim);
  std::vector<std::int32_t> values(kReal);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::int32_t>(i % kClasses);
  const Tensor labels = from_host(values, one, kSim);
  Tensor result({4}, DType::f32, kSim), sums({1, kClasses, 3}, DType::f32, kSim), d(shape, DType::f32, kSim);
  const double bytes = 4.0 * static_cast<double>(kReal * kClasses);
  p.measure("f32 Dice + CE forward", 1, 10 * bytes / 4, bytes + 4.0 * kReal,
            [&](const Exec& ex) { dice_ce_forward(ex, result, sums, logits, labels, DiceCeParams{}); });
  p.measure("f32 Dice + CE backward", 1, 10 * bytes / 4, 2 * bytes + 4.0 * kReal, [&](const Exec& ex) {
    dice_ce_backward(ex, Grad{d, 0.0f}, logits, labels, sums, result, scale, DiceCeParams{});
  });
}

void optimizer(Probe& p) {
  constexpr std::int64_t kReal = 5'600'000;  // parameters of the step's network
  const Tensor g = some_tensor({kReal});
  Tensor w = some_tensor({kReal}), m = some_tensor({kReal}), v = zeros({kReal}, DType::f32, kSim);
  const Tensor scalars = from_host(std::vector<float>{1e-3f, 0.1f, 0.1f, 1.0f, 0.9f, 0.0f, 1.0f}, {kOptimScalars}, kSim);
  p.measure("f32 Adam", 1, 12.0 * kReal, 7 * 4.0 * kReal, [&](const Exec& ex) { adam_step(ex, w, m, v, g, scalars, AdamParams{}); });
}

void run() {
  set_threads(1);
  simt::hooks::sample_blocks(8);
  Probe p;
  const std::vector<Layer> layers = {{"conv 3^3 1 -> 16, 96^3", 96, 1, 16, 3, 1, 1},
                                     {"conv 3^3 16 -> 16, 96^3", 96, 16, 16, 3, 1, 2},
                                     {"conv 3^3 32 -> 16, 96^3", 96, 32, 16, 3, 1, 1},
                                     {"conv 3^3 16 -> 32 stride 2, 48^3", 48, 16, 32, 3, 2, 1},
                                     {"conv 3^3 32 -> 32, 48^3", 48, 32, 32, 3, 1, 2},
                                     {"conv 3^3 64 -> 32, 48^3", 48, 64, 32, 3, 1, 1},
                                     {"conv 3^3 32 -> 64 stride 2, 24^3", 24, 32, 64, 3, 2, 1},
                                     {"conv 3^3 64 -> 64, 24^3", 24, 64, 64, 3, 1, 2},
                                     {"conv 3^3 128 -> 64, 24^3", 24, 128, 64, 3, 1, 1},
                                     {"conv 3^3 128 -> 128, 12^3", 12, 128, 128, 3, 1, 2},
                                     {"conv 2^3 16 -> 32 stride 2, 48^3", 48, 16, 32, 2, 2, 1},  // its data gradient is the way up
                                     {"conv 1^3 16 -> 33, 96^3", 96, 16, 33, 1, 1, 1}};
  for (const Layer& l : layers) {
    convolution(p, l, DType::f32);
    if (l.in >= 8) convolution(p, l, DType::bf16);
  }
  convolution(p, {"conv 3^3 32 -> 32, 64^3", 64, 32, 32, 3, 1, 0}, DType::bf16);  // the bar of the project; no layer of this step
  for (const DType type : {DType::f32, DType::bf16}) {
    norms(p, 96, 16, 4, type);
    norms(p, 48, 32, 4, type);
    norms(p, 24, 64, 4, type);
  }
  loss(p);
  optimizer(p);
  fmt::print("{}\n", p.all().dump(1));
}

}  // namespace
}  // namespace vg

int main() { vg::run(); }

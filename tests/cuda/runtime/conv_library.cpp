// A library of convolutions for the fake runtime: six nested loops in double precision, queued on a stream like everything else. It refuses what would
// leave the choice untested: kernels wider than 5, odd numbers of input channels, most activations, f32 gradients of f16 tensors. tf32 factors are rounded to
// their 10 bits. VG_FAKE_CONV_LIBRARY=absent: it is not installed.
#include "kernels/cuda/conv_library.h"

#include <bit>
#include <cmath>

#include "tensor/error.h"
#include "tensor/os.h"
#include "tests/cuda/runtime/handles.h"

namespace vg::gpu {
namespace {

// visit(output voxel, input voxel, tap) for all that meet, voxels numbered within a sample.
template <class Visit>
void walk(const ConvProblem& p, const Visit& visit) {
  std::int64_t z[3], k[3];
  for (z[0] = 0; z[0] < p.out[0]; ++z[0])
    for (z[1] = 0; z[1] < p.out[1]; ++z[1])
      for (z[2] = 0; z[2] < p.out[2]; ++z[2])
        for (k[0] = 0; k[0] < p.kernel[0]; ++k[0])
          for (k[1] = 0; k[1] < p.kernel[1]; ++k[1])
            for (k[2] = 0; k[2] < p.kernel[2]; ++k[2]) {
              std::int64_t from[3];
              bool inside = true;
              for (int a = 0; a < 3; ++a) {
                from[a] = z[a] * p.stride[a] - p.pad[a] + k[a] * p.dilation[a];
                inside = inside && from[a] >= 0 && from[a] < p.in[a];
              }
              if (inside)
                visit((z[0] * p.out[1] + z[1]) * p.out[2] + z[2], (from[0] * p.in[1] + from[1]) * p.in[2] + from[2],
                      (k[0] * p.kernel[1] + k[1]) * p.kernel[2] + k[2]);
            }
}

std::int64_t volume(const std::int64_t (&e)[3]) { return e[0] * e[1] * e[2]; }

float to_tf32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits + 0xfffu + (bits >> 13 & 1)) & ~0x1fffu);  // to the nearest, ties to even
}

double activate(const ConvProblem& p, double x) {
  switch (p.activation) {
    case ActivationKind::relu: return x < 0 ? 0 : x;
    case ActivationKind::leaky_relu: return x < 0 ? static_cast<double>(p.alpha) * x : x;
    case ActivationKind::sigmoid: return 1 / (1 + std::exp(-x));
    default: return x;
  }
}

// T: of x and y; W: of w.
template <class T, class W>
void compute_as(const ConvProblem& p, T* x, W* w, T* y, const float* bias) {
  const std::int64_t taps = std::int64_t{p.kernel[0]} * p.kernel[1] * p.kernel[2];
  const std::int64_t sizes[] = {p.samples * volume(p.out) * p.outputs, p.samples * volume(p.in) * p.inputs, p.outputs * taps * p.inputs};
  const auto factor = [&](float v) { return static_cast<double>(p.tf32 ? to_tf32(v) : v); };
  std::vector<double> sum(static_cast<std::size_t>(sizes[static_cast<int>(p.pass)]));
  for (std::int64_t n = 0; n < p.samples; ++n)
    walk(p, [&](std::int64_t to, std::int64_t from, std::int64_t tap) {
      const std::int64_t ys = (n * volume(p.out) + to) * p.outputs, xs = (n * volume(p.in) + from) * p.inputs;
      for (std::int64_t o = 0; o < p.outputs; ++o)
        for (std::int64_t i = 0; i < p.inputs; ++i) {
          const std::int64_t ws = (o * taps + tap) * p.inputs + i;
          switch (p.pass) {
            case ConvProblem::Pass::forward: sum[static_cast<std::size_t>(ys + o)] += factor(static_cast<float>(x[xs + i])) * factor(static_cast<float>(w[ws])); break;
            case ConvProblem::Pass::data: sum[static_cast<std::size_t>(xs + i)] += factor(static_cast<float>(y[ys + o])) * factor(static_cast<float>(w[ws])); break;
            case ConvProblem::Pass::weight: sum[static_cast<std::size_t>(ws)] += factor(static_cast<float>(y[ys + o])) * factor(static_cast<float>(x[xs + i])); break;
          }
        }
    });
  const auto finish = [&](auto* at, std::int64_t channels) {
    using R = std::remove_reference_t<decltype(*at)>;
    for (std::size_t i = 0; i < sum.size(); ++i) {
      double v = sum[i];
      if (bias) v += static_cast<double>(bias[static_cast<std::int64_t>(i) % channels]);
      v = activate(p, v);
      if (p.add) v += static_cast<double>(static_cast<float>(at[i]));
      if constexpr (std::is_same_v<R, float>)
        at[i] = static_cast<float>(v);
      else
        at[i] = R::from(static_cast<float>(v));
    }
  };
  switch (p.pass) {
    case ConvProblem::Pass::forward: return finish(y, p.outputs);
    case ConvProblem::Pass::data: return finish(x, p.inputs);
    case ConvProblem::Pass::weight: return finish(w, p.inputs);
  }
}

void compute(const ConvProblem& p, void* x, void* w, void* y, const float* bias) {
  const auto as = [&](auto zero) {
    using T = decltype(zero);
    if (p.w_type == DType::f32)
      compute_as(p, static_cast<T*>(x), static_cast<float*>(w), static_cast<T*>(y), bias);
    else
      compute_as(p, static_cast<T*>(x), static_cast<T*>(w), static_cast<T*>(y), bias);
  };
  if (p.type == DType::bf16) return as(bf16{});
  if (p.type == DType::f16) return as(f16{});
  as(0.0f);
}

struct LoopPlan : ConvPlan {
  explicit LoopPlan(const ConvProblem& p) : problem(p) {
    name = "loops";
    workspace = 1000;  // written from end to end: a workspace that is too small, or shared too early, shows
  }
  const char* run(void* x, void* w, void* y, const float* bias, void* space, void* stream) override {
    const auto queue = static_cast<cudaStream_t>(stream);
    if (problem.bias != (bias != nullptr)) return "a bias that was not planned, or none that was";
    for (const void* p : {static_cast<const void*>(x), static_cast<const void*>(y), static_cast<const void*>(w), static_cast<const void*>(bias)})
      if (problem.type != DType::f32 && reinterpret_cast<std::uintptr_t>(p) % 16) return "a tensor of halves does not begin on 16 bytes";
    if (cudaMemsetAsync(space, 0xFF, workspace, queue) != cudaSuccess) return "the workspace cannot be written";
    const std::lock_guard guard(fake_cuda::lock());
    const cudaError_t e = fake_cuda::enqueue(queue, {to_string(problem), [=, p = problem] { compute(p, x, w, y, bias); }, {}, {}});
    return e == cudaSuccess ? nullptr : cudaGetErrorString(fake_cuda::remember(e));
  }
  ConvProblem problem;
};

bool can(const ConvProblem& p) {
  const bool half = p.type != DType::f32;
  if (half) require(p.inputs % 8 == 0 && p.outputs % 8 == 0, "fake library of convolutions: {}: rows of halves are not padded", to_string(p));
  require(!fused(p) || !p.add, "fake library of convolutions: {}: a bias in the middle of a sum", to_string(p));
  require(p.w_type == p.type || (p.w_type == DType::f32 && p.pass == ConvProblem::Pass::weight), "fake library of convolutions: {}: weights are {}",
          to_string(p), name_of(p.w_type));
  using K = ActivationKind;
  if (p.activation != K::identity && p.activation != K::relu && p.activation != K::leaky_relu && p.activation != K::sigmoid) return false;
  if (p.type == DType::f16 && p.w_type == DType::f32) return false;
  return p.kernel[0] <= 5 && p.kernel[1] <= 5 && p.kernel[2] <= 5 && p.inputs % 2 == 0;
}

struct LoopLibrary : ConvLibrary {
  std::string name() const override { return "fake library of convolutions"; }
  std::unique_ptr<ConvPlan> plan(const ConvProblem& p, std::size_t most_workspace) override {
    require(most_workspace >= 1000, "fake library of convolutions: {} bytes of workspace", most_workspace);
    return can(p) ? std::make_unique<LoopPlan>(p) : nullptr;
  }
};

}  // namespace

std::unique_ptr<ConvLibrary> open_conv_library(std::string* why_not) {
  if (os::environment("VG_FAKE_CONV_LIBRARY") != "absent") return std::make_unique<LoopLibrary>();
  *why_not = "no fake library of convolutions: VG_FAKE_CONV_LIBRARY says so";
  return nullptr;
}

}  // namespace vg::gpu

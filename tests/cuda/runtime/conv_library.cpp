// A library of convolutions for the fake runtime: six nested loops in double precision, queued on a stream like everything else. It refuses what would
// leave the choice untested: kernels wider than 5, and odd numbers of input channels. VG_FAKE_CONV_LIBRARY=absent: it is not installed.
#include "kernels/cuda/conv_library.h"

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

void compute(const ConvProblem& p, float* x, float* w, float* y) {
  const std::int64_t taps = std::int64_t{p.kernel[0]} * p.kernel[1] * p.kernel[2];
  const std::int64_t sizes[] = {p.samples * volume(p.out) * p.outputs, p.samples * volume(p.in) * p.inputs, p.outputs * taps * p.inputs};
  std::vector<double> sum(static_cast<std::size_t>(sizes[static_cast<int>(p.pass)]));
  for (std::int64_t n = 0; n < p.samples; ++n)
    walk(p, [&](std::int64_t to, std::int64_t from, std::int64_t tap) {
      const std::int64_t ys = (n * volume(p.out) + to) * p.outputs, xs = (n * volume(p.in) + from) * p.inputs;
      for (std::int64_t o = 0; o < p.outputs; ++o)
        for (std::int64_t i = 0; i < p.inputs; ++i) {
          const std::int64_t ws = (o * taps + tap) * p.inputs + i;
          switch (p.pass) {
            case ConvProblem::Pass::forward: sum[static_cast<std::size_t>(ys + o)] += static_cast<double>(x[xs + i]) * w[ws]; break;
            case ConvProblem::Pass::data: sum[static_cast<std::size_t>(xs + i)] += static_cast<double>(y[ys + o]) * w[ws]; break;
            case ConvProblem::Pass::weight: sum[static_cast<std::size_t>(ws)] += static_cast<double>(y[ys + o]) * x[xs + i]; break;
          }
        }
    });
  float* const result[] = {y, x, w};
  float* at = result[static_cast<int>(p.pass)];
  for (const double s : sum) *at = static_cast<float>(p.add ? *at + s : s), ++at;
}

struct LoopPlan : ConvPlan {
  explicit LoopPlan(const ConvProblem& p) : problem(p) {
    name = "loops";
    workspace = 1000;  // written from end to end: a workspace that is too small, or shared too early, shows
  }
  const char* run(float* x, float* w, float* y, void* space, void* stream) override {
    const auto queue = static_cast<cudaStream_t>(stream);
    if (cudaMemsetAsync(space, 0xFF, workspace, queue) != cudaSuccess) return "the workspace cannot be written";
    const std::lock_guard guard(fake_cuda::lock());
    const cudaError_t e = fake_cuda::enqueue(queue, {to_string(problem), [=, p = problem] { compute(p, x, w, y); }, {}, {}});
    return e == cudaSuccess ? nullptr : cudaGetErrorString(fake_cuda::remember(e));
  }
  ConvProblem problem;
};

struct LoopLibrary : ConvLibrary {
  std::string name() const override { return "fake library of convolutions"; }
  std::unique_ptr<ConvPlan> plan(const ConvProblem& p, std::size_t most_workspace) override {
    require(most_workspace >= 1000, "fake library of convolutions: {} bytes of workspace", most_workspace);
    if (p.kernel[0] > 5 || p.kernel[1] > 5 || p.kernel[2] > 5 || p.inputs % 2) return nullptr;
    return std::make_unique<LoopPlan>(p);
  }
};

}  // namespace

std::unique_ptr<ConvLibrary> open_conv_library(std::string* why_not) {
  if (os::environment("VG_FAKE_CONV_LIBRARY") != "absent") return std::make_unique<LoopLibrary>();
  *why_not = "no fake library of convolutions: VG_FAKE_CONV_LIBRARY says so";
  return nullptr;
}

}  // namespace vg::gpu

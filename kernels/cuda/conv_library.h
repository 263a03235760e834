// Convolution by a library, behind an interface of our own that is narrow enough to stand in for: one problem in, one plan out, or none. cudnn.cpp
// and cublaslt.cpp implement it, tests/cuda/runtime with plain loops. Which problems go there, and the cache of plans, are the same for both.
#pragma once
#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/conv.h"

namespace vg::gpu {

// One pass of one convolution with one input. x: (N, in, I), y: (N, out, O), channels last and dense; w: (O, kD, kH, kW, I). All float.
struct ConvProblem {
  enum class Pass : std::uint8_t { forward, data, weight } pass = Pass::forward;  // writes y, x, w
  bool add = false;             // to what is there already
  bool nondeterministic = false;  // sums in any order are good enough
  bool exact = false;           // no arithmetic that rounds more coarsely than the plain sum
  int device = 0;
  std::int64_t samples = 0, inputs = 0, outputs = 0;
  std::int64_t in[3] = {}, out[3] = {};
  std::int32_t kernel[3] = {}, stride[3] = {}, dilation[3] = {}, pad[3] = {};  // D, H, W; pad on the low side
  friend auto operator<=>(const ConvProblem&, const ConvProblem&) = default;
};
std::string to_string(const ConvProblem& p);

// How to compute one problem, for any data.
class ConvPlan {
 public:
  virtual ~ConvPlan() = default;
  std::size_t workspace = 0;  // bytes
  std::string name;           // which of the library's algorithms
  // Queues the work on the stream. nullptr, or what went wrong.
  virtual const char* run(float* x, float* w, float* y, void* workspace, void* stream) = 0;
};

class ConvLibrary {
 public:
  virtual ~ConvLibrary() = default;
  virtual std::string name() const = 0;  // "cuDNN 9.13.0 (/usr/lib/libcudnn.so.9)"
  // On the current device. nullptr: the library has no algorithm for this within the rules and the limit.
  virtual std::unique_ptr<ConvPlan> plan(const ConvProblem& p, std::size_t most_workspace) = 0;
};
// The one that this build knows, opened: by nvidia.cpp, or by the fake. nullptr and the reason where there is none.
std::unique_ptr<ConvLibrary> open_conv_library(std::string* why_not);

// Opened on first use; the outcome stays.
ConvLibrary* conv_library(std::string* why_not = nullptr);
// Who computes this problem: a plan, made once per problem and kept, or nullptr: our own kernels. Throws no_device if the library is demanded and absent.
std::shared_ptr<ConvPlan> find_plan(const ConvProblem& p, ConvAlgorithm::Engine engine);

struct PlanStatistics {
  std::int64_t found = 0, made = 0, refused = 0;
};
PlanStatistics plan_statistics();

}  // namespace vg::gpu

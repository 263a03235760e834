// Convolution by a library, behind an interface of our own that is narrow enough to stand in for: one problem in, one plan out, or none. cudnn.cpp
// and cublaslt.cpp implement it, tests/cuda/runtime with plain loops. Which problems go there, and the cache of plans, are the same for both.
#pragma once
#include <compare>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/conv.h"

namespace vg::gpu {

// One pass of one convolution with one input. x: (N, in, I), y: (N, out, O), channels last and dense; w: (O, kD, kH, kW, I). Factors are rounded to their
// types, sums are floats. All tensors begin on 16 bytes; halves (bf16, f16) come in rows of a multiple of 8 channels: conv_library.cu pads what does not.
struct ConvProblem {
  enum class Pass : std::uint8_t { forward, data, weight } pass = Pass::forward;  // writes y, x, w
  DType type = DType::f32;  // of x and y
  DType w_type = DType::f32;  // of w: `type`; of a weight gradient of halves f32 or `type`
  bool add = false;             // to what is there already
  bool nondeterministic = false;  // sums in any order are good enough
  bool exact = false;           // no arithmetic that rounds more coarsely than the plain sum
  bool tf32 = false;            // f32 factors may be rounded to 10 bits of mantissa
  bool bias = false;            // the result is f(sum + b); b: f32, one for each channel of y (forward) or x (data); not with `add`
  ActivationKind activation = ActivationKind::identity;  // f, of forward
  float alpha = 0.0f;                                    // of leaky_relu and elu, else 0
  int device = 0;
  std::int64_t samples = 0, inputs = 0, outputs = 0;  // I, O
  std::int64_t in[3] = {}, out[3] = {};
  std::int32_t kernel[3] = {}, stride[3] = {}, dilation[3] = {}, pad[3] = {};  // D, H, W; pad on the low side
  friend auto operator<=>(const ConvProblem&, const ConvProblem&) = default;
};
inline bool fused(const ConvProblem& p) { return p.bias || p.activation != ActivationKind::identity; }
std::string to_string(const ConvProblem& p);

// How to compute one problem, for any data.
class ConvPlan {
 public:
  virtual ~ConvPlan() = default;
  std::size_t workspace = 0;  // bytes
  std::string name;           // which of the library's algorithms
  // Queues the work on the stream. `bias`: on 16 bytes; null where the problem has none. nullptr, or what went wrong.
  virtual const char* run(void* x, void* w, void* y, const float* bias, void* workspace, void* stream) = 0;
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
// May the library compute a convolution of so many channels (before padding)?
bool library_may(ConvAlgorithm::Engine engine, std::int64_t inputs, std::int64_t outputs);
// A plan, made once per problem and kept, or nullptr: the library cannot, or is absent. Throws no_device if it is demanded and absent.
std::shared_ptr<ConvPlan> find_plan(const ConvProblem& p, ConvAlgorithm::Engine engine);

struct PlanStatistics {
  std::int64_t found = 0, made = 0, refused = 0;
};
PlanStatistics plan_statistics();

}  // namespace vg::gpu

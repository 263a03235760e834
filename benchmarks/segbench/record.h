// The kernel calls of a real run, kept so that each can be run again by itself. While a Recording lives, the cpu slots of the kernel registry hold
// functions that note their arguments and call the real ones; before and after, nothing is there and nothing is paid.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernel.h"

namespace vg::bench {

// A tensor argument: what is needed to make one like it.
struct TensorNote {
  bool defined = false, output = false;
  float beta = 0.0f;  // of a Grad output
  int alias = -1;     // an earlier argument with the same memory
  Shape shape;
  DType dtype = DType::f32;
  float low = -1.0f, high = 1.0f;    // range of the values that were there
  std::vector<std::byte> content;    // of small tensors, and of whole numbers of any size
  double bytes() const { return defined ? static_cast<double>(shape.elements()) * static_cast<double>(size_of(dtype)) : 0.0; }
};

struct Call {
  const char* kernel = "";
  std::vector<TensorNote> arguments;  // parameter structs are undefined ones
  std::string parameters;             // "stride 2", "leaky_relu"
  int taps = 1;                       // of a convolution's kernel
  int count = 1;                      // equal calls
  std::function<void(const Exec&, std::vector<Tensor>&)> run;  // on tensors like `arguments`

  std::string shapes() const;  // "1x96x96x96x16 <- 1x96x96x96x1": first output, inputs
  std::vector<Tensor> tensors(std::uint64_t seed) const;
};

class Recording {
 public:
  Recording();  // one at a time
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  std::vector<Call> calls;                // in order of first appearance
  static std::vector<std::string> blind();  // kernels of the registry that it does not know how to record

  void add(Call call);

 private:
  std::vector<std::string> keys_;
};

}  // namespace vg::bench

// Named parameters and buffers in one flat piece of memory each: optimizer, model file, averaging and data-parallel training meet here only.
#pragma once
#include <string>
#include <vector>

#include "kernels/kernel.h"
#include "tensor/random.h"

namespace vg {

// How a parameter begins. fan_in is that of PyTorch: (channels of axis 1) * (taps).
struct Init {
  enum class Kind { constant, kaiming_normal, kaiming_uniform, fan_in_uniform } kind = Kind::constant;
  float value = 0.0f;  // constant: the value; kaiming: the slope `a` of the leaky relu that follows (He et al., arXiv:1502.01852)
  std::int64_t fan_in = 0;  // or fan_out: (channels of axis 0) * (taps)
  std::int64_t equal = 1;   // so many neighbours along axis 0 begin equal (ICNR, Aitken et al., arXiv:1707.02937)
  // kaiming_normal: N(0, 2 / ((1 + a^2) fan_in))   kaiming_uniform: the uniform of the same variance   fan_in_uniform: U(+-1/sqrt(fan_in))
};

struct ParamSpec {
  std::string name;  // PyTorch's name, e.g. "encoder.0.conv1.weight"
  Shape shape;
  Init init;
  bool trainable = true;  // false: a buffer (running statistics), saved but not optimised
};

struct Param {
  std::string name;
  Tensor value;           // a range of the flat buffer
  Tensor grad;            // a range of the flat gradient; undefined for buffers
  bool has_grad = false;  // has anything been written to grad since zero_grad()?
  bool trainable = true;
  Init init;
};

class ParamList {
 public:
  ParamList() = default;
  // Memory for all of them on `device`, zero. Names must be unique. `with_grad`: also the gradient buffer (training).
  ParamList(const std::vector<ParamSpec>& specs, Device device, bool with_grad);
  ParamList(ParamList&&) = default;
  ParamList& operator=(ParamList&&) = default;

  // Fills values by their Init: parameter i draws from stream i of the seed, so adding a layer does not change the others.
  void initialise(std::uint64_t seed);

  std::vector<Param>& all() { return params_; }
  const std::vector<Param>& all() const { return params_; }
  Param& at(const std::string& name);  // throws invalid_argument naming it
  const Param& at(const std::string& name) const;
  const Param* find(const std::string& name) const;
  std::int64_t trainable_elements() const;  // without alignment gaps: "the number of parameters"

  // The flat vectors that optimizers work on: trainable values, their gradients; (P) f32. Gaps between parameters are zero and stay zero.
  Tensor& flat() { return flat_; }
  Tensor& flat_grad() { return flat_grad_; }

  void zero_grad();                     // forgets gradients (no memory is touched)
  void finish_grad(const Exec& exec);   // parameters that took no part get a zero gradient

 private:
  std::vector<Param> params_;
  Tensor flat_, flat_grad_, buffers_;
};

}  // namespace vg

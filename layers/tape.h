// Reverse-mode differentiation in one idea: every operation on recorded values leaves a closure that turns the gradient of its output into
// gradients of its inputs; backward() runs the closures in reverse. Who writes a gradient first overwrites, who comes later adds: only the
// tape knows which, so kernels take a `beta` (kernels/kernel.h, Grad).
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "kernels/kernel.h"

namespace vg {

struct Context;
struct Param;

// Mean and 1 / sqrt(variance + eps) of each channel, as norm_statistics makes them (kernels/norm.h).
struct Statistics {
  Tensor mean, rstd;
  float eps = 0.0f;
};

// A tensor in a computation. id < 0: no gradient flows through it.
struct Value {
  Tensor data;
  int id = -1;
  std::shared_ptr<const Statistics> statistics = nullptr;  // of data, from a convolution that was told of the norm behind it
  const Shape& shape() const { return data.shape(); }
};

class Tape {
 public:
  // Gradient of the output in, gradients of the inputs out through grad_for(). Takes `dy` by value: it may reuse its memory.
  using Backward = std::function<void(Tape&, Tensor dy)>;

  // A recorded value without a past: an input whose gradient somebody wants to read with gradient().
  Value leaf(Tensor data);
  // A parameter: its gradient goes to param.grad (added when param.has_grad is already true).
  Value parameter(Param& param);
  // The result of an operation.
  Value record(Tensor data, Backward backward);

  // Where the gradient of `x` is to be written, and whether to add. Not wanted (undefined) when no gradient flows through x.
  // `reuse`: memory that the caller no longer needs; taken when it fits, nobody else holds it and nothing has been written for x yet.
  Grad grad_for(const Value& x, Tensor* reuse = nullptr);
  // The same when the gradient of x already exists as a tensor: adopted as it stands if nobody else holds it, or added.
  void give(Context& ctx, const Value& x, Tensor dx);

  // Runs all closures from `loss` back to the start, with `seed` as the gradient of `loss` (same shape). Clears the tape, apart from the
  // gradients of leaves.
  void backward(const Value& loss, Tensor seed);
  // After backward(): the gradient of a leaf; undefined if it took no part.
  const Tensor& gradient(const Value& leaf) const { return entries_.at(static_cast<std::size_t>(leaf.id)).grad; }

  void clear() { entries_.clear(); }
  std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Shape shape;
    DType type = DType::f32;
    Device device;
    Backward backward;   // empty for leaves and parameters
    Tensor grad;         // defined once something was written
    Param* param = nullptr;
  };
  Value add(Tensor data, Entry entry);
  std::vector<Entry> entries_;
};

}  // namespace vg

// The tape: closures in order of recording, gradients beside them.
#include "layers/tape.h"

#include "kernels/elementwise.h"
#include "layers/context.h"
#include "layers/params.h"

namespace vg {

Value Tape::add(Tensor data, Entry entry) {
  entry.shape = data.shape(), entry.type = data.dtype(), entry.device = data.device();
  entries_.push_back(std::move(entry));
  return Value{std::move(data), static_cast<int>(entries_.size()) - 1};
}

Value Tape::leaf(Tensor data) { return add(std::move(data), {}); }

Value Tape::parameter(Param& param) {
  Entry entry;
  entry.param = &param;
  return add(param.value, std::move(entry));
}

Value Tape::record(Tensor data, Backward backward) {
  Entry entry;
  entry.backward = std::move(backward);
  return add(std::move(data), std::move(entry));
}

Grad Tape::grad_for(const Value& x, Tensor* reuse) {
  if (x.id < 0) return {};
  Entry& e = entries_[static_cast<std::size_t>(x.id)];
  if (e.param) {
    const float beta = e.param->has_grad ? 1.0f : 0.0f;
    e.param->has_grad = true;
    return {e.param->grad, beta};
  }
  if (e.grad.defined()) return {e.grad, 1.0f};
  e.grad = reuse && reuse->shape() == e.shape && reuse->dtype() == e.type && reuse->unique() ? *reuse : Tensor(e.shape, e.type, e.device);
  return {e.grad, 0.0f};
}

void Tape::give(Context& ctx, const Value& x, Tensor dx) {
  if (x.id < 0) return;
  Entry& e = entries_[static_cast<std::size_t>(x.id)];
  if (!e.param && !e.grad.defined() && dx.shape() == e.shape && dx.dtype() == e.type && dx.unique()) {  // what somebody else holds is copied: more may be added to it
    e.grad = std::move(dx);
    return;
  }
  accumulate(ctx.exec(), grad_for(x), dx, ScaleParams{});
}

void Tape::backward(const Value& loss, Tensor seed) {
  require(loss.id >= 0, "backward: the value was not recorded on this tape");
  require(seed.shape() == loss.shape(), "backward: the seed has shape {}, the loss {}", to_string(seed.shape()), to_string(loss.shape()));
  entries_[static_cast<std::size_t>(loss.id)].grad = std::move(seed);
  for (std::size_t i = static_cast<std::size_t>(loss.id) + 1; i-- > 0;) {
    // Moved out, so that the activations that the closure holds, and its output's gradient, are freed as soon as it has run.
    if (!entries_[i].backward) continue;
    const Backward closure = std::move(entries_[i].backward);
    Tensor dy = std::move(entries_[i].grad);
    entries_[i].backward = nullptr, entries_[i].grad = Tensor();
    if (dy.defined()) closure(*this, std::move(dy));
  }
}

}  // namespace vg

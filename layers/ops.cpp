// The differentiable operations: forward, and beside it the closure that is its gradient.
#include "layers/ops.h"

#include <algorithm>
#include <cmath>

#include "kernels/elementwise.h"

namespace vg {
namespace {

// Is the operation to be recorded? Then its inputs are kept, and nothing is overwritten.
bool recording(const Context& ctx, std::initializer_list<int> ids) {
  return ctx.tape && std::any_of(ids.begin(), ids.end(), [](int id) { return id >= 0; });
}

Value track(Context& ctx, Param* p) {
  if (!p) return {};
  return ctx.tape && p->trainable && p->grad.defined() ? ctx.tape->parameter(*p) : Value{p->value, -1};
}

// The memory of an elementwise result: x's own when x dies here.
Tensor result_like(const Context& ctx, const Value& x, bool recorded) {
  return !recorded && !ctx.tape && x.data.unique() ? x.data : Tensor(x.shape(), x.data.dtype(), x.data.device());
}

void require_activation(const char* op, const Value& x) {
  const DType type = x.data.dtype();
  require(x.data.defined() && x.shape().rank() == 5 && (type == DType::f32 || type == DType::bf16 || type == DType::f16),
          "{}: wants a f32, bf16 or f16 tensor (N, D, H, W, C), got {} {}", op, name_of(type), to_string(x.shape()));
  if (type != DType::f32 && x.data.device() == kCpu) fail(ErrorCode::unsupported, "{}: {} is computed on cuda and sim, not on the cpu", op, name_of(type));
}

void require_same_type(const char* op, const Value& a, const Value& b) {
  require(a.data.dtype() == b.data.dtype(), "{}: wants numbers of one type, got {} and {}", op, name_of(a.data.dtype()), name_of(b.data.dtype()));
}

// Room for the statistics of x: of each sample, or of the batch.
Statistics statistics_for(const Context& ctx, const Shape& x, bool batch, float eps) {
  const Shape s = {batch ? 1 : x.n(), x.c()};
  return {Tensor(s, DType::f32, ctx.device), Tensor(s, DType::f32, ctx.device), eps};
}

constexpr char kAxis[] = "DHW";

}  // namespace

// ---------------------------------------------------------------------------------------------------------------- convolution

Shape conv_shape(const Shape& x, const Shape& w, const ConvOptions& o) {
  require(w.rank() == 5, "conv: the weight has shape {}, wanted (O, I, kD, kH, kW)", to_string(w));
  require(x.c() == w[1], "conv: the input has {} channels, the weight {} wants {}", x.c(), to_string(w), w[1]);
  Shape y = x;
  for (int a = 0; a < 3; ++a) {
    const std::int64_t reach = std::int64_t{o.dilation[a]} * (w[2 + a] - 1) + 1, padded = x[1 + a] + o.pad_low[a] + o.pad_high[a];
    require(o.stride[a] >= 1 && o.dilation[a] >= 1 && o.pad_low[a] >= 0 && o.pad_high[a] >= 0, "conv: stride, dilation and padding along {} are {}, {}, {}",
            kAxis[a], o.stride[a], o.dilation[a], o.pad_low[a]);
    require(padded >= reach, "conv: the kernel reaches over {} voxels along {}, but the padded input has {}", reach, kAxis[a], padded);
    y[1 + a] = (padded - reach) / o.stride[a] + 1;
  }
  y[4] = w[0];
  return y;
}

static ConvParams kernel_params(const ConvOptions& o) {
  ConvParams p;
  std::copy_n(o.stride, 3, p.stride), std::copy_n(o.dilation, 3, p.dilation), std::copy_n(o.pad_low, 3, p.pad);
  p.activation = o.activation;
  return p;
}

bool recorded_in_conv(const Activation& f) {
  return f.kind == ActivationKind::identity || f.kind == ActivationKind::relu || (f.kind == ActivationKind::leaky_relu && f.alpha > 0.0f);
}

Value conv(Context& ctx, Value x0, Value x1, Param& weight, Param* bias, const ConvOptions& o) {
  require_activation("conv", x0);
  Shape whole = x0.shape();
  if (x1.data.defined()) {
    require_activation("conv", x1), require_same_type("conv", x0, x1);
    for (int a = 0; a < 4; ++a)
      require(x0.shape()[a] == x1.shape()[a], "conv: the two inputs are {} and {}; only channels may differ", to_string(x0.shape()), to_string(x1.shape()));
    whole[4] += x1.shape().c();
  }
  const Value w = track(ctx, &weight), b = track(ctx, bias);
  ConvParams p = kernel_params(o);
  Tensor y(conv_shape(whole, w.shape(), o), x0.data.dtype(), ctx.device);
  std::shared_ptr<Statistics> statistics;
  if (o.norm == ConvOptions::Norm::none) {
    conv_forward(ctx.exec(), y, x0.data, x1.data, w.data, b.data, p);
  } else {
    require(o.activation.kind == ActivationKind::identity, "conv: statistics are of what an activation has not changed yet");
    statistics = std::make_shared<Statistics>(statistics_for(ctx, y.shape(), o.norm == ConvOptions::Norm::batch, o.norm_eps));
    NormParams norm;
    norm.eps = o.norm_eps;
    conv_forward_statistics(ctx.exec(), y, statistics->mean, statistics->rstd, x0.data, x1.data, w.data, b.data, p, norm);
  }
  if (!recording(ctx, {x0.id, x1.id, w.id, b.id})) return {y, -1, statistics};
  require(recorded_in_conv(o.activation), "conv: activation number {} cannot be recorded on a tape within a convolution", static_cast<int>(o.activation.kind));
  p.activation = {};
  const Activation f = o.activation;
  Tensor after = f.kind == ActivationKind::identity ? Tensor() : y;
  Value result = ctx.tape->record(y, [&ctx, x0, x1, w, b, p, f, after](Tape& tape, Tensor dy) mutable {
    const Exec ex = ctx.exec();
    if (after.defined()) {  // f' of the value after tells f' of the value before: both have one sign
      const Tensor before = dy.unique() ? dy : Tensor(dy.shape(), dy.dtype(), ctx.device);
      activation_backward(ex, Grad{before}, Grad{}, dy, after, Tensor(), f);
      dy = before, after = Tensor();
    }
    if (b.id >= 0) channel_sum(ex, tape.grad_for(b), dy);
    if (w.id >= 0) conv_backward_weight(ex, tape.grad_for(w), dy, x0.data, x1.data, p);
    x0.data = x1.data = Tensor();  // where nobody else needs them their memory serves the gradients
    if (x0.id >= 0 || x1.id >= 0) {
      const Grad dx0 = tape.grad_for(x0), dx1 = tape.grad_for(x1);
      conv_backward_data(ex, dx0, dx1, dy, w.data, Tensor(), p);
    }
  });
  result.statistics = statistics;
  return result;
}

Shape conv_transpose_shape(const Shape& x, const Shape& w, const ConvOptions& o) {
  require(w.rank() == 5, "conv_transpose: the weight has shape {}, wanted (I, O, kD, kH, kW)", to_string(w));
  require(x.c() == w[0], "conv_transpose: the input has {} channels, the weight {} wants {}", x.c(), to_string(w), w[0]);
  Shape y = x;
  for (int a = 0; a < 3; ++a) {
    y[1 + a] = (x[1 + a] - 1) * o.stride[a] - o.pad_low[a] - o.pad_high[a] + std::int64_t{o.dilation[a]} * (w[2 + a] - 1) + 1;
    require(y[1 + a] > 0, "conv_transpose: the output would have {} voxels along {}", y[1 + a], kAxis[a]);
  }
  y[4] = w[1];
  return y;
}

// A transposed convolution runs the convolution's data gradient forward, and the convolution itself backward: dy takes the part of the input.
Value conv_transpose(Context& ctx, Value x, Param& weight, Param* bias, const ConvOptions& o) {
  require_activation("conv_transpose", x);
  const Value w = track(ctx, &weight), b = track(ctx, bias);
  const ConvParams p = kernel_params(o);
  Tensor y(conv_transpose_shape(x.shape(), w.shape(), o), x.data.dtype(), ctx.device);
  conv_backward_data(ctx.exec(), Grad{y}, Grad{}, x.data, w.data, b.data, p);
  if (!recording(ctx, {x.id, w.id, b.id})) return {y};
  return ctx.tape->record(y, [&ctx, x, w, b, p](Tape& tape, Tensor dy) mutable {
    const Exec ex = ctx.exec();
    if (b.id >= 0) channel_sum(ex, tape.grad_for(b), dy);
    if (w.id >= 0) conv_backward_weight(ex, tape.grad_for(w), x.data, dy, Tensor(), p);
    x.data = Tensor();
    if (x.id >= 0) {
      Grad dx = tape.grad_for(x);
      if (dx.beta == 0.0f) {
        conv_forward(ex, dx.tensor, dy, Tensor(), w.data, Tensor(), p);
      } else {
        Tensor part(dx.shape(), dy.dtype(), ctx.device);
        conv_forward(ex, part, dy, Tensor(), w.data, Tensor(), p);
        accumulate(ex, dx, part, ScaleParams{});
      }
    }
  });
}

// --------------------------------------------------------------------------------------------------------------- normalisation

namespace {

// May backward find z and h again from y = f(h gamma + beta)? Then y takes x's memory, and one tensor is kept instead of two. Each h carries
// y's rounding error times |z / gamma|; within these bounds it stays below 1e-5. On a GPU gamma is not looked at: that would wait for it; nor on sim, which stands for one.
bool found_again(const Context& ctx, const Tensor& gamma, const Tensor& beta, const Activation& f) {
  if (f.kind != ActivationKind::identity && !(f.kind == ActivationKind::leaky_relu && f.alpha >= 1e-3f)) return false;
  if (!gamma.defined()) return true;
  if (!(ctx.device == kCpu)) return false;
  const float *g = gamma.data<float>(), *b = beta.data<float>();
  for (std::int64_t c = 0; c < gamma.elements(); ++c)
    if (!(std::fabs(g[c]) >= 0.0625f) || !(std::fabs(b[c]) <= 16 * std::fabs(g[c]))) return false;
  return true;
}

// Those that came with x, or made now.
Statistics statistics_of(Context& ctx, Value& x, bool batch, const NormParams& p) {
  const std::shared_ptr<const Statistics> known = std::move(x.statistics);
  if (known && known->eps == p.eps && known->mean.shape()[0] == (batch ? 1 : x.shape().n())) return *known;
  Statistics s = statistics_for(ctx, x.shape(), batch, p.eps);
  norm_statistics(ctx.exec(), s.mean, s.rstd, x.data, p);
  return s;
}

Value normalise(Context& ctx, Value x, const Value& gamma, const Value& beta, Tensor mean, Tensor rstd, const NormParams& given) {
  require((gamma.data.defined() && beta.data.defined()) || (!gamma.data.defined() && !beta.data.defined()), "norm: gamma and beta come together");
  const bool recorded = recording(ctx, {x.id, gamma.id, beta.id});
  NormParams p = given;
  p.from_output = recorded && x.data.unique() && found_again(ctx, gamma.data, beta.data, p.activation);
  Tensor y = p.from_output ? x.data : result_like(ctx, x, recorded);
  norm_apply(ctx.exec(), y, x.data, mean, rstd, gamma.data, beta.data, p);
  if (!recorded) return {y};
  return ctx.tape->record(y, [&ctx, x, gamma, beta, mean, rstd, p](Tape& tape, Tensor dy) {  // x.data is y, or what it was
    const Grad dx = tape.grad_for(x, &dy), dgamma = tape.grad_for(gamma), dbeta = tape.grad_for(beta);
    norm_backward(ctx.exec(), dx, dgamma, dbeta, dy, x.data, mean, rstd, gamma.data, beta.data, p);
  });
}

}  // namespace

Value instance_norm(Context& ctx, Value x, Param* gamma, Param* beta, const NormParams& p) {
  require_activation("instance_norm", x);
  const Value g = track(ctx, gamma), b = track(ctx, beta);
  const Statistics s = statistics_of(ctx, x, false, p);
  return normalise(ctx, std::move(x), g, b, s.mean, s.rstd, p);
}

Value batch_norm(Context& ctx, Value x, Param* gamma, Param* beta, Param& running_mean, Param& running_var, float momentum, const NormParams& p) {
  require_activation("batch_norm", x);
  const Value g = track(ctx, gamma), b = track(ctx, beta);
  const std::int64_t channels = x.shape().c();
  RunningParams running{.momentum = momentum, .eps = p.eps, .count = x.data.elements() / channels};
  if (ctx.training) {
    require(running.count > 1, "batch_norm: {} has one value per channel; training wants more", to_string(x.shape()));
    const Statistics s = statistics_of(ctx, x, true, p);
    norm_update_running(ctx.exec(), running_mean.value, running_var.value, s.mean, s.rstd, running);
    return normalise(ctx, std::move(x), g, b, s.mean, s.rstd, p);
  }
  Statistics s = statistics_for(ctx, x.shape(), true, p.eps);
  copy(s.mean, running_mean.value.reshaped({1, channels}), ctx.stream);
  Tensor flat = s.rstd.reshaped({channels});
  norm_rstd(ctx.exec(), flat, running_var.value, running);
  NormParams q = p;
  q.constant = true;
  return normalise(ctx, std::move(x), g, b, s.mean, s.rstd, q);
}

// ------------------------------------------------------------------------------------------------------ elementwise and spatial

Value activation(Context& ctx, Value x, Param* slope, const Activation& p) {
  require_activation("activation", x);
  const Value s = track(ctx, slope);
  require((p.kind == ActivationKind::prelu) == s.data.defined(), "activation: prelu has a slope, the others have none");
  const bool recorded = recording(ctx, {x.id, s.id});
  Tensor y = result_like(ctx, x, recorded);
  activation_forward(ctx.exec(), y, x.data, s.data, p);
  if (!recorded) return {y};
  return ctx.tape->record(y, [&ctx, x, s, p](Tape& tape, Tensor dy) {
    const Grad dx = tape.grad_for(x, &dy), dslope = tape.grad_for(s);
    activation_backward(ctx.exec(), dx, dslope, dy, x.data, s.data, p);
  });
}

Shape max_pool_shape(const Shape& x, const PoolParams& p, const std::int32_t (&pad_high)[3]) {
  Shape shape = x;
  for (int a = 0; a < 3; ++a) {
    const std::int64_t padded = shape[1 + a] + p.pad[a] + pad_high[a];
    require(p.kernel[a] >= 1 && p.stride[a] >= 1 && p.pad[a] < p.kernel[a] && padded >= p.kernel[a], "max_pool: window {} with padding {} along {}, input {}",
            p.kernel[a], p.pad[a], kAxis[a], shape[1 + a]);
    shape[1 + a] = (padded - p.kernel[a]) / p.stride[a] + 1;
  }
  return shape;
}

Value max_pool(Context& ctx, Value x, const PoolParams& p, const std::int32_t (&pad_high)[3]) {
  require_activation("max_pool", x);
  Tensor y(max_pool_shape(x.shape(), p, pad_high), x.data.dtype(), ctx.device);
  maxpool_forward(ctx.exec(), y, x.data, p);
  if (!recording(ctx, {x.id})) return {y};
  return ctx.tape->record(y, [&ctx, x, p](Tape& tape, Tensor dy) { maxpool_backward(ctx.exec(), tape.grad_for(x), dy, x.data, p); });
}

Shape upsample_shape(const Shape& x, const UpsampleParams& p) {
  Shape shape = x;
  for (int a = 0; a < 3; ++a) {
    require(p.factor[a] >= 1, "upsample: the factor along {} is {}", kAxis[a], p.factor[a]);
    shape[1 + a] *= p.factor[a];
  }
  return shape;
}

Value upsample(Context& ctx, Value x, const UpsampleParams& p) {
  require_activation("upsample", x);
  Tensor y(upsample_shape(x.shape(), p), x.data.dtype(), ctx.device);
  upsample_forward(ctx.exec(), y, x.data, p);
  if (!recording(ctx, {x.id})) return {y};
  return ctx.tape->record(y, [&ctx, x, p](Tape& tape, Tensor dy) { upsample_backward(ctx.exec(), tape.grad_for(x), dy, p); });
}

Shape pixel_shuffle_shape(const Shape& x, const PixelShuffleParams& p, const Shape* like) {
  Shape shape = x;
  std::int64_t taps = 1;
  for (int a = 0; a < 3; ++a) {
    const std::int64_t f = p.factor[a], whole = x[1 + a] * f;
    require(f >= 1, "pixel_shuffle: the factor along {} is {}", kAxis[a], f);
    shape[1 + a] = like ? (*like)[1 + a] : whole;
    require(shape[1 + a] <= whole && shape[1 + a] > whole - f, "pixel_shuffle: {} voxels along {} become {}, which cannot be cut to {}", x[1 + a], kAxis[a], whole,
            shape[1 + a]);
    taps *= f;
  }
  require(x.c() % taps == 0, "pixel_shuffle: {} channels are not a multiple of {}", x.c(), taps);
  shape[4] = x.c() / taps;
  return shape;
}

Value pixel_shuffle(Context& ctx, Value x, const PixelShuffleParams& p, const Shape* like) {
  require_activation("pixel_shuffle", x);
  Tensor y(pixel_shuffle_shape(x.shape(), p, like), x.data.dtype(), ctx.device);
  pixel_shuffle_forward(ctx.exec(), y, x.data, p);
  if (!recording(ctx, {x.id})) return {y};
  x.data = Tensor();
  return ctx.tape->record(y, [&ctx, x, p](Tape& tape, Tensor dy) { pixel_shuffle_backward(ctx.exec(), tape.grad_for(x), dy, p); });
}

Value blur(Context& ctx, Value x, const BlurParams& p) {
  require_activation("blur", x);
  for (int a = 0; a < 3; ++a) require(p.kernel[a] >= 1, "blur: the window along {} is {}", kAxis[a], p.kernel[a]);
  Tensor y(x.shape(), x.data.dtype(), ctx.device);
  blur_forward(ctx.exec(), y, x.data, p);
  if (!recording(ctx, {x.id})) return {y};
  x.data = Tensor();
  return ctx.tape->record(y, [&ctx, x, p](Tape& tape, Tensor dy) { blur_backward(ctx.exec(), tape.grad_for(x), dy, p); });
}

Value cast_to(Context& ctx, Value x, DType type) {
  if (x.data.dtype() == type) return x;
  Tensor y(x.shape(), type, ctx.device);
  cast(ctx.exec(), y, x.data);
  if (!recording(ctx, {x.id})) return {y};
  const DType before = x.data.dtype();
  x.data = Tensor();
  return ctx.tape->record(y, [&ctx, x, before](Tape& tape, Tensor dy) {
    Tensor dx(dy.shape(), before, ctx.device);
    cast(ctx.exec(), dx, dy);
    tape.give(ctx, x, std::move(dx));
  });
}

Value sum(Context& ctx, Value a, Value b) {
  require_same_type("sum", a, b);
  require(a.shape() == b.shape(), "sum: shapes {} and {} differ", to_string(a.shape()), to_string(b.shape()));
  const bool recorded = recording(ctx, {a.id, b.id});
  Tensor y = result_like(ctx, a, recorded);
  add(ctx.exec(), y, a.data, b.data);
  if (!recorded) return {y};
  a.data = Tensor(), b.data = Tensor();  // the gradient needs no values
  return ctx.tape->record(y, [&ctx, a, b](Tape& tape, Tensor dy) {
    if (a.id >= 0 && b.id >= 0) accumulate(ctx.exec(), tape.grad_for(b), dy, ScaleParams{});
    tape.give(ctx, a.id >= 0 ? a : b, std::move(dy));
  });
}

Value concat(Context& ctx, Value a, Value b) {
  require_activation("concat", a), require_activation("concat", b), require_same_type("concat", a, b);
  for (int i = 0; i < 4; ++i)
    require(a.shape()[i] == b.shape()[i], "concat: {} and {}; only channels may differ", to_string(a.shape()), to_string(b.shape()));
  const auto ca = static_cast<std::int32_t>(a.shape().c()), cb = static_cast<std::int32_t>(b.shape().c());
  Shape shape = a.shape();
  shape[4] = ca + cb;
  Tensor y(shape, a.data.dtype(), ctx.device);
  copy_channels(ctx.exec(), Grad{y}, a.data, ChannelParams{0, 0, ca});
  copy_channels(ctx.exec(), Grad{y}, b.data, ChannelParams{ca, 0, cb});
  if (!recording(ctx, {a.id, b.id})) return {y};
  a.data = Tensor(), b.data = Tensor();
  return ctx.tape->record(y, [&ctx, a, b, ca, cb](Tape& tape, Tensor dy) {
    if (a.id >= 0) copy_channels(ctx.exec(), tape.grad_for(a), dy, ChannelParams{0, 0, ca});
    if (b.id >= 0) copy_channels(ctx.exec(), tape.grad_for(b), dy, ChannelParams{0, ca, cb});
  });
}

// ------------------------------------------------------------------------------------------------------------------------ loss

DiceCe dice_ce(Context& ctx, Value logits, Tensor labels, const DiceCeParams& p) {
  require_activation("dice_ce", logits);
  Shape wanted = logits.shape();
  wanted[4] = 1;
  require(labels.shape() == wanted && (labels.dtype() == DType::u8 || labels.dtype() == DType::i32), "dice_ce: labels are {} {}, wanted u8 or i32 {}",
          name_of(labels.dtype()), to_string(labels.shape()), to_string(wanted));
  DiceCe r;
  r.result = Tensor({4}, DType::f32, ctx.device);
  r.sums = Tensor({logits.shape().n(), logits.shape().c(), 3}, DType::f32, ctx.device);
  dice_ce_forward(ctx.exec(), r.result, r.sums, logits.data, labels, p);
  r.loss = Value{r.result.range(0, {1})};
  if (recording(ctx, {logits.id}))
    r.loss = ctx.tape->record(r.loss.data, [&ctx, logits, labels, p, result = r.result, sums = r.sums](Tape& tape, Tensor dy) mutable {
      const Grad dlogits = tape.grad_for(logits, &logits.data);
      dice_ce_backward(ctx.exec(), dlogits, logits.data, labels, sums, result, dy, p);
    });
  return r;
}

}  // namespace vg

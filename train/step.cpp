// What a step queues, and when it is recorded.
#include "train/step.h"

#include <cmath>

#include "kernels/optim.h"
#include "kernels/resample.h"
#include "layers/tape.h"
#include "tensor/error.h"

namespace vg {
namespace {

// Labels of a coarser head: of each block of voxels the one in the middle.
void coarsen(const Exec& ex, Tensor& to, const Tensor& labels) {
  ResampleParams p;
  for (int a = 0; a < 3; ++a) {
    const std::int64_t factor = labels.shape()[a + 1] / to.shape()[a + 1];
    p.matrix[a][a] = static_cast<double>(factor);
    p.centre[a] = static_cast<double>(to.shape()[a + 1] - 1) / 2.0 * static_cast<double>(factor) + static_cast<double>(factor / 2);
  }
  Tensor none;
  resample(ex, none, to, none, labels, none, none, p);
}

}  // namespace

TrainStep::TrainStep(Context& ctx, Network& net, Optimizer& optimizer, const DiceCeParams& loss, DType precision)
    : ctx_(ctx), net_(net), optimizer_(optimizer), loss_(loss), precision_(precision), seed_(from_host(std::vector<float>{1.0f}, {1}, ctx.device)),
      parts_({3}, DType::f32, ctx.device), step_(ctx.device, [this] { compute(); }) {}

void TrainStep::run(const Feeder::Fed& batch, const Rates& rates) {
  const bool fits = images_.defined() && images_.shape() == batch.images.shape();
  if (!fits) {
    step_.start_over();
    labels_.clear();
    for (Shape s : plan(net_.graph, batch.images.shape()).outputs) {
      s[4] = 1;
      labels_.emplace_back(s, DType::u8, ctx_.device);
    }
  }
  if (ctx_.device.on_host()) {
    images_ = batch.images, labels_[0] = batch.labels;
  } else {
    if (!fits) images_ = Tensor(batch.images.shape(), DType::f32, ctx_.device);
    copy(images_, batch.images), copy(labels_[0], batch.labels);
  }
  optimizer_.begin_step(rates);
  step_.run();
}

void TrainStep::compute() {
  Tape tape;
  ctx_.tape = &tape, ctx_.training = true, ctx_.precision = precision_;
  net_.params.zero_grad();
  for (std::size_t i = 1; i < labels_.size(); ++i) coarsen(ctx_.exec(), labels_[i], labels_[0]);
  const std::vector<Value> heads = vg::run(ctx_, net_, Value{images_});
  Value total;
  Tensor finest;  // (4): loss, ce, 1 - Dice, voxels
  const double norm = 2.0 - std::pow(0.5, static_cast<double>(heads.size()) - 1.0);  // 1 + 1/2 + 1/4 + ...
  for (std::size_t i = 0; i < heads.size(); ++i) {
    DiceCeParams q = loss_;
    const auto share = static_cast<float>(std::pow(0.5, static_cast<double>(i)) / norm);
    q.ce_weight *= share, q.dice_weight *= share;
    const DiceCe one = dice_ce(ctx_, heads[i], labels_[i], q);
    total = i == 0 ? one.loss : sum(ctx_, total, one.loss);
    if (i == 0) finest = one.result;
  }
  Tensor whole = parts_.range(0, {1}), shares = parts_.range(1, {2});
  copy(whole, total.data);
  copy(shares, finest.range(1, {2}));
  tape.backward(total, copy_to(optimizer_.scales_losses() ? optimizer_.loss_scale().range(kScale, {1}) : seed_, ctx_.device));
  ctx_.tape = nullptr, ctx_.training = false, ctx_.precision = DType::f32;
  net_.params.finish_grad(ctx_.exec());
  optimizer_.apply(ctx_);
}

TrainStep::Losses TrainStep::losses() const {
  const std::vector<float> p = to_host<float>(parts_);
  return {p[0], p[1], p[2]};
}

}  // namespace vg

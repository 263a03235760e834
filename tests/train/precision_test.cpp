// Training in half precision (on sim, as a GPU would): the loss stays with that of f32, an overflow skips the step and halves the scale, a run that was
// stopped goes on with the same bits.
#include <gtest/gtest.h>

#include "layers/graph.h"
#include "layers/model_file.h"
#include "tests/layers/files.h"
#include "tests/train/data_sets.h"
#include "train/trainer.h"

namespace vg {
namespace {

const Dataset& slices() {
  static const Dataset d = test::heads(4, 0, {1, 16, 16}, 1);
  return d;
}

TrainConfig tiny(const std::string& precision, std::int64_t steps) {
  TrainConfig c;
  c.network.features = {8, 8}, c.network.strides = {{1}, {2}};
  c.batch = 2, c.epochs = 0, c.steps = steps, c.steps_per_epoch = steps, c.seed = 3;
  c.schedule.kind = "constant", c.schedule.rate = 3e-3;
  c.precision = precision;
  return c;
}

struct Trained {
  std::vector<double> losses;
  Model last;
  Tensor extra(const std::string& name) const {
    for (const auto& [key, tensor] : last.extra)
      if (key == name) return tensor;
    return Tensor();
  }
};

Trained run(const TrainConfig& c, std::int64_t stop_at = -1, Device device = kSim) {
  test::Folder folder;
  Trained r;
  TrainOptions o;
  o.folder = folder / "run";
  o.on_step = [&](const StepInfo& s) { r.losses.push_back(s.loss); };
  o.stop = [&] { return static_cast<std::int64_t>(r.losses.size()) == stop_at; };
  Context ctx(device);
  train(ctx, slices(), c, o);
  if (stop_at > 0) {
    o.resume = true;
    train(ctx, slices(), c, o);
  }
  r.last = read_model(o.folder + "/last.safetensors");
  return r;
}

void expect_same(const std::vector<std::pair<std::string, Tensor>>& a, const std::vector<std::pair<std::string, Tensor>>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(to_host<float>(a[i].second), to_host<float>(b[i].second)) << a[i].first;
}

TEST(Precision, HalfStaysWithinTwoHundredthsOfTheLossForFiftySteps) {
  const Trained full = run(tiny("fp32", 50), -1, kCpu), brain = run(tiny("bf16", 50)), half = run(tiny("fp16", 50));
  ASSERT_EQ(full.losses.size(), 50u);
  EXPECT_LT(full.losses.back(), 0.8 * full.losses.front()) << "nothing was learnt: the comparison would prove nothing";
  bool differs = false;
  for (std::size_t i = 0; i < 50; ++i) {
    EXPECT_NEAR(brain.losses[i], full.losses[i], 2e-2) << "step " << i + 1;
    EXPECT_NEAR(half.losses[i], full.losses[i], 2e-2) << "step " << i + 1;
    differs = differs || (brain.losses[i] != full.losses[i] && half.losses[i] != full.losses[i]);
  }
  EXPECT_TRUE(differs) << "half precision that rounds nothing was not half precision";
  EXPECT_EQ(to_host<float>(half.extra("state.loss_scale")), std::vector<float>({65536, 50, 0}));
}

TEST(Precision, AnOverflowSkipsTheStepAndHalvesTheScale) {
  TrainConfig c = tiny("fp16", 3);
  c.loss_scale = 0x1p60;  // no gradient of this fits f16
  const Trained r = run(c);
  EXPECT_EQ(to_host<float>(r.extra("state.loss_scale")), std::vector<float>({0x1p57f, 0, 3}));
  for (float m : to_host<float>(r.extra("state.first"))) ASSERT_EQ(m, 0.0f);
  Network initial(
      network_for(c, slices().spatial_dims, static_cast<int>(slices().channels.size()), static_cast<int>(slices().classes.size())), kCpu,
      true);
  initial.params.initialise(c.seed);
  expect_same(r.last.weights, save_weights(initial));
}

TEST(Precision, TheScaleGrowsAfterGoodSteps) {
  TrainConfig c = tiny("fp16", 5);
  c.loss_scale = 256, c.scale_interval = 2;
  EXPECT_EQ(to_host<float>(run(c).extra("state.loss_scale")), std::vector<float>({1024, 1, 0}));
}

TEST(Precision, StoppedAndResumedItEndsWithTheSameBits) {
  TrainConfig c = tiny("fp16", 5);
  c.loss_scale = 0x1p24, c.scale_interval = 2, c.optimizer.clip_norm = 1.0;
  const Trained straight = run(c), resumed = run(c, 2);
  expect_same(straight.last.weights, resumed.last.weights);
  expect_same(straight.last.extra, resumed.last.extra);
}

TEST(Precision, TheCpuRefuses) {
  test::Folder folder;
  TrainOptions o;
  o.folder = folder / "run";
  Context ctx(kCpu);
  EXPECT_NE(test::message_of(ErrorCode::unsupported, [&] { train(ctx, slices(), tiny("bf16", 1), o); })
                .find("precision bf16 is computed on a GPU (and on sim)"),
            std::string::npos);
}

}  // namespace
}  // namespace vg

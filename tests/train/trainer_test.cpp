// Training as a whole: the same bits for any number of threads and after any interruption, refusals that lose nothing, checkpoints that infer.
#include "train/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "infer/metrics.h"
#include "infer/predict.h"
#include "layers/json.h"
#include "tensor/parallel.h"
#include "tests/layers/files.h"
#include "tests/train/data_sets.h"
#include "train/batches.h"
#include "train/run_folder.h"

namespace vg {
namespace {

using test::bytes_of;
using test::message_of;

const Dataset& slices() {
  static const Dataset d = test::heads(8, 2, {1, 32, 32}, 1);
  return d;
}
const Dataset& volumes() {
  static const Dataset d = test::heads(3, 1, {16, 18, 14}, 2);
  return d;
}

TrainConfig small() {
  TrainConfig c;
  c.network.features = {4, 6, 6}, c.network.strides = {{1}, {2}, {2}};
  c.batch = 4, c.epochs = 4, c.seed = 3;
  return c;
}

// Everything that could go wrong on resuming: running statistics, deep supervision, patches, every augmentation, momentum, clipping.
TrainConfig rich() {
  TrainConfig c = small();
  c.network.norm = "batch", c.network.deep_supervision = 1;
  c.optimizer.clip_norm = 1.0;
  c.augment = {.flip = true, .intensity = 0.5, .noise = 0.5, .affine = 0.5, .elastic = 0.5, .elastic_spacing = 5, .elastic_magnitude = 2};
  c.batch = 2, c.patch = {8, 8, 8}, c.epochs = 0, c.steps = 7, c.steps_per_epoch = 3;
  return c;
}

TrainOptions into(const std::string& folder) {
  TrainOptions o;
  o.folder = folder;
  return o;
}

TrainResult run(const Dataset& data, const TrainConfig& c, TrainOptions o, Device device = kCpu) {
  Context ctx(device);
  return train(ctx, data, c, o);
}

struct Files {
  std::string last, best;
  friend bool operator==(const Files& a, const Files& b) { return a.last == b.last && a.best == b.best; }
};
Files files(const std::string& folder) { return {bytes_of(folder + "/last.safetensors"), bytes_of(folder + "/best.safetensors")}; }

// One run from beginning to end.
Files straight(const Dataset& data, const TrainConfig& c) {
  test::Folder folder;
  EXPECT_TRUE(run(data, c, into(folder / "run")).finished);
  return files(folder / "run");
}

// Large enough that every kernel splits its work.
TEST(Trainer, TheSameBitsForAnyNumberOfThreads) {
  const Dataset large = test::heads(6, 1, {1, 96, 80}, 1);
  TrainConfig flat = small();
  flat.network.features = {8, 16, 24}, flat.batch = 3, flat.epochs = 1;
  flat.augment = {.flip = true, .intensity = 0.5, .noise = 0.5, .affine = 0.5, .elastic = 0.5};
  for (const bool three_d : {false, true}) {
    std::vector<Files> all;
    for (const int threads : {1, 2, 3}) {
      set_threads(threads);
      all.push_back(straight(three_d ? volumes() : large, three_d ? rich() : flat));
    }
    set_threads(0);
    ASSERT_GT(all[0].last.size(), 1000u);
    EXPECT_TRUE(all[0] == all[1] && all[0] == all[2]) << three_d;
  }
}

TEST(Trainer, AnotherSeedGivesOtherBits) {
  TrainConfig c = small(), other = small();
  other.seed = 4;
  EXPECT_FALSE(straight(slices(), c) == straight(slices(), other));
}

TEST(Trainer, StoppedAnywhereAndResumedItEndsWithTheSameBits) {
  for (const bool three_d : {false, true}) {
    const Dataset& data = three_d ? volumes() : slices();
    const TrainConfig c = three_d ? rich() : small();
    const Files want = straight(data, c);
    for (const std::int64_t stop_at : {1, 3, 6}) {
      test::Folder folder;
      std::int64_t step = 0;
      TrainOptions o = into(folder / "run");
      o.on_step = [&](const StepInfo& s) { step = s.step; };
      o.stop = [&] { return step == stop_at; };
      TrainResult r = run(data, c, o);
      EXPECT_FALSE(r.finished);
      EXPECT_EQ(r.step, stop_at);
      o.resume = true, o.stop = nullptr;
      r = run(data, c, o);
      EXPECT_TRUE(r.finished);
      EXPECT_EQ(r.step, r.total);
      EXPECT_TRUE(files(folder / "run") == want) << three_d << ", stopped after " << stop_at;
    }
  }
}

// An exception from a callback ends the run as a crash would: what was not saved is lost, the rest is enough.
TEST(Trainer, CrashedBetweenCheckpointsItEndsWithTheSameBits) {
  const TrainConfig c = rich();
  const Files want = straight(volumes(), c);
  for (const double save_every : {0.0, 1e9}) {  // after each step; at the end of epochs
    test::Folder folder;
    TrainOptions o = into(folder / "run");
    o.save_every = save_every;
    std::vector<double> steps_seen;
    for (const std::int64_t crash_at : {4, 5, 7}) {
      o.on_step = [&](const StepInfo& s) {
        if (s.step == crash_at) throw std::runtime_error("crash");
      };
      EXPECT_THROW(run(volumes(), c, o), std::runtime_error);
      o.resume = true;
    }
    o.on_step = [&](const StepInfo& s) { steps_seen.push_back(static_cast<double>(s.step)); };
    EXPECT_TRUE(run(volumes(), c, o).finished);
    EXPECT_EQ(steps_seen, std::vector<double>({7}));
    EXPECT_TRUE(files(folder / "run") == want);
  }
}

TEST(Trainer, ATimeLimitSavesAndTheRestFollows) {
  const TrainConfig c = small();
  test::Folder folder;
  TrainOptions o = into(folder / "run");
  o.time_limit = 1e-9;
  int runs = 0;
  for (bool finished = false; !finished && runs < 20; ++runs) {
    const TrainResult r = run(slices(), c, o);
    EXPECT_EQ(r.step, runs + 1);
    finished = r.finished, o.resume = true;
  }
  EXPECT_EQ(runs, 8);
  EXPECT_TRUE(files(folder / "run") == straight(slices(), c));
  // A finished run has nothing left to do, and stays as it is.
  EXPECT_TRUE(run(slices(), c, o).finished);
  EXPECT_TRUE(files(folder / "run") == straight(slices(), c));
}

TEST(Trainer, ResumingRefusesAnotherConfigurationOtherDataAndNothing) {
  test::Folder folder;
  const TrainConfig c = small();
  run(slices(), c, into(folder / "run"));
  const Files before = files(folder / "run");
  TrainOptions resume = into(folder / "run");
  resume.resume = true;
  TrainConfig other = c;
  other.schedule.rate = 1e-3;
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { run(slices(), other, resume); }).find("schedule"), std::string::npos);
  other = c, other.network.features = {4, 6, 8};
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { run(slices(), other, resume); }).find("network"), std::string::npos);
  const Dataset fewer = test::heads(7, 2, {1, 32, 32}, 1);
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { run(fewer, c, resume); }).find("data"), std::string::npos);

  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { run(slices(), c, into(folder / "run")); }).find("--resume"), std::string::npos);
  resume.folder = folder / "empty";
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { run(slices(), c, resume); }).find("last.safetensors"), std::string::npos);
  EXPECT_TRUE(files(folder / "run") == before);

  // A model is no checkpoint; a damaged checkpoint is no checkpoint.
  std::filesystem::create_directories(folder / "model");
  std::filesystem::copy(folder / "run/best.safetensors", folder / "model/last.safetensors");
  resume.folder = folder / "model";
  EXPECT_NE(message_of(ErrorCode::bad_file, [&] { run(slices(), c, resume); }).find("training state"), std::string::npos);
  std::string damaged = before.last;
  damaged[damaged.size() / 2] ^= 1;
  test::put_bytes(folder / "model/last.safetensors", damaged);
  EXPECT_NE(message_of(ErrorCode::bad_file, [&] { run(slices(), c, resume); }).find("SHA-256"), std::string::npos);
}

// A checkpoint of a program that knew fewer settings: those that it lacks have their defaults.
TEST(Trainer, ResumesWhatAnEarlierProgramStarted) {
  test::Folder folder;
  TrainConfig c = small();
  run(slices(), c, into(folder / "run"));
  Model m = read_model(folder / "run/last.safetensors");
  for (const char* key : {"elastic", "elastic_spacing", "elastic_magnitude"}) EXPECT_EQ(m.provenance["config"]["augment"].erase(key), 1u);
  write_model(folder / "run/last.safetensors", m);
  TrainOptions resume = into(folder / "run");
  resume.resume = true;
  EXPECT_TRUE(run(slices(), c, resume).finished);
  c.augment.elastic = 0.5;
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { run(slices(), c, resume); }).find("augment"), std::string::npos);
}

TEST(Trainer, OneFolderHasOneTrainer) {
  test::Folder folder;
  const RunFolder first(folder / "run", false);
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { RunFolder(folder / "run", false); }).find("another"), std::string::npos);
  EXPECT_NO_THROW(RunFolder(folder / "other", false));
}

TEST(Trainer, WhatAKilledRunWasWritingIsRemoved) {
  test::Folder folder;
  std::filesystem::create_directories(folder / "run");
  test::put_bytes(folder / "run/last.safetensors.tmp-123-0", "half");
  test::put_bytes(folder / "run/notes.txt", "mine");
  RunFolder(folder / "run", false);
  EXPECT_FALSE(std::filesystem::exists(folder / "run/last.safetensors.tmp-123-0"));
  EXPECT_TRUE(std::filesystem::exists(folder / "run/notes.txt"));
}

TEST(Trainer, ALossThatIsNoNumberNamesItsStepAndKeepsTheLastCheckpoint) {
  // The rate rises along a cosine to something absurd: weights of 1e10 after the second step, products of six of them in the third.
  TrainConfig c = small();
  c.network.norm = "none", c.schedule.kind = "cosine", c.schedule.rate = 1e-3, c.schedule.final_rate = 1e12, c.epochs = 8;
  test::Folder folder;
  Files before;
  std::int64_t last_step = 0;
  TrainOptions o = into(folder / "run");
  o.on_epoch = [&](const EpochInfo&) { before = files(folder / "run"); };  // before last.safetensors is written
  o.on_step = [&](const StepInfo& s) { last_step = s.step; };
  const std::string message = message_of(ErrorCode::numeric, [&] { run(slices(), c, o); });
  EXPECT_EQ(last_step, 2);
  EXPECT_NE(message.find("the loss is"), std::string::npos) << message;
  EXPECT_NE(message.find("step 3"), std::string::npos) << message;
  EXPECT_NE(message.find(folder / "run/last.safetensors"), std::string::npos) << message;
  EXPECT_EQ(files(folder / "run").best, before.best);
  for (const auto& [name, t] : read_model(folder / "run/last.safetensors").weights)
    for (float w : to_host<float>(t)) ASSERT_TRUE(std::isfinite(w)) << name;
}

// Each checkpoint that is ever written can be read and holds numbers: a step that ruins the weights is noticed before they replace good ones.
TEST(Trainer, RuinedWeightsNeverReachACheckpoint) {
  for (const double rate : {1e20, 1e38}) {
    TrainConfig c = small();
    c.schedule.kind = "constant", c.schedule.rate = rate, c.epochs = 4;
    test::Folder folder;
    TrainOptions o = into(folder / "run");
    o.save_every = 0;
    EXPECT_EQ(message_of(ErrorCode::numeric, [&] { run(slices(), c, o); }).rfind("training: ", 0), 0u);
    EXPECT_FALSE(std::filesystem::exists(folder / "run/last.safetensors"));
  }
}

TEST(Trainer, TwoStepsOnTheSimulatorAreThoseOfTheCpu) {
  TrainConfig c = small();
  c.steps = 2, c.batch = 2, c.network.features = {3, 4}, c.network.strides = {};
  std::vector<double> losses[2];
  std::vector<float> weights[2];
  for (const bool sim : {false, true}) {
    test::Folder folder;
    TrainOptions o = into(folder / "run");
    o.on_step = [&](const StepInfo& s) { losses[sim].push_back(s.loss); };
    EXPECT_TRUE(run(slices(), c, o, sim ? kSim : kCpu).finished);
    for (const auto& [name, t] : read_model(folder / "run/last.safetensors").weights)
      for (float w : to_host<float>(t)) weights[sim].push_back(w);
  }
  ASSERT_EQ(losses[0].size(), 2u);
  for (int i = 0; i < 2; ++i) EXPECT_NEAR(losses[0][static_cast<std::size_t>(i)], losses[1][static_cast<std::size_t>(i)], 1e-5);
  ASSERT_EQ(weights[0].size(), weights[1].size());
  // Where a gradient is rounding noise Adam moves by the sign of the noise: at most the two rates.
  int apart = 0;
  for (std::size_t i = 0; i < weights[0].size(); ++i) apart += std::abs(weights[0][i] - weights[1][i]) > 1e-5;
  EXPECT_LT(apart, static_cast<int>(weights[0].size()) / 20);
}

// ------------------------------------------------------------------------------------------------------------- what is reported

TEST(Trainer, LogAndCallbacksTellTheSameStory) {
  TrainConfig c = small();
  c.epochs = 3;
  test::Folder folder;
  std::vector<StepInfo> steps;
  std::vector<EpochInfo> epochs;
  TrainOptions o = into(folder / "run");
  o.on_step = [&](const StepInfo& s) { steps.push_back(s); };
  o.on_epoch = [&](const EpochInfo& e) { epochs.push_back(e); };
  const TrainResult r = run(slices(), c, o);
  ASSERT_EQ(steps.size(), 6u);
  ASSERT_EQ(epochs.size(), 3u);
  EXPECT_EQ(r.total, 6);
  for (std::size_t e = 0; e < 3; ++e) {
    EXPECT_EQ(epochs[e].step, static_cast<std::int64_t>(2 * e + 2));
    EXPECT_NEAR(epochs[e].loss, (steps[2 * e].loss + steps[2 * e + 1].loss) / 2, 1e-12);
    EXPECT_NEAR(epochs[e].loss, epochs[e].ce + epochs[e].dice_loss, 1e-6);
    EXPECT_EQ(epochs[e].rate, rates_at(c.schedule, static_cast<std::int64_t>(2 * e + 1), 6).rate);
    EXPECT_TRUE(epochs[e].dice >= 0 && epochs[e].dice <= 1);
  }
  EXPECT_EQ(r.best_dice, std::max({epochs[0].dice, epochs[1].dice, epochs[2].dice}));

  RunFolder again(folder / "run", true);
  again.read_log(4);  // rows up to step 4
  again.add_row(epochs[2]);
  const std::string log = os::read_text(folder / "run/log.csv");
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 4);
  EXPECT_EQ(log.rfind("epoch,step,rate,loss", 0), 0u);
  EXPECT_NE(log.find("\n3,6,"), std::string::npos);
  EXPECT_NE(os::read_text(folder / "run/curves.svg").find("polyline"), std::string::npos);
  EXPECT_EQ(parse_json(os::read_text(folder / "run/config.json"), "config")["seed"], 3);
}

// The best model, read back and run as inference does, scores what the log says.
TEST(Trainer, TheBestModelScoresWhatTheLogSays) {
  TrainConfig c = rich();
  c.overlap = 0.25;
  test::Folder folder;
  double best = -1;
  TrainOptions o = into(folder / "run");
  o.on_epoch = [&](const EpochInfo& e) { best = e.best ? e.dice : best; };
  run(volumes(), c, o);
  const Model m = read_model(folder / "run/best.safetensors");
  Network net(m.graph, kCpu, false);
  load_weights(net, m.weights, "best");
  const Recipe recipe = recipe_from_json(m.recipe, "best");
  EXPECT_EQ(recipe.window, (std::vector<int>{8, 8, 8}));
  EXPECT_EQ(recipe.overlap, 0.25);
  EXPECT_EQ(m.labels.size(), volumes().classes.size());
  Context ctx(kCpu);
  PredictOptions p;
  std::copy(recipe.window.begin(), recipe.window.end(), p.window);
  p.overlap = recipe.overlap;
  DiceAccumulator score;
  const Sample& s = volumes().validation[0];
  score.add(s.labels, predict(ctx, net, s.image, p).labels);
  EXPECT_EQ(score.mean_pooled(score.foreground()), best);
  // Optimizer state belongs into checkpoints, not into models.
  EXPECT_TRUE(m.extra.empty());
  EXPECT_EQ(read_model(folder / "run/last.safetensors").extra.size(), 2u);
}

// Heads weigh 1, 1/2, ... normalised; the coarser one is compared with the middle voxel of each block.
TEST(Trainer, DeepSupervisionIsTheWeightedMeanOfTheHeads) {
  TrainConfig c = rich();
  c.augment = {}, c.steps = 1, c.network.norm = "instance";
  test::Folder folder;
  double loss = 0;
  TrainOptions o = into(folder / "run");
  o.on_step = [&](const StepInfo& s) { loss = s.loss; };
  run(volumes(), c, o);

  c.network.spatial_dims = 3, c.network.in_channels = 1, c.network.classes = static_cast<int>(volumes().classes.size());
  Network net(unet(c.network), kCpu, true);
  net.params.initialise(c.seed);
  const Batch b = BatchSource(volumes(), c, {8, 8, 8}).at(0);
  Context ctx(kCpu);
  const std::vector<Value> heads = run(ctx, net, Value{b.images});
  ASSERT_EQ(heads.size(), 2u);
  ASSERT_EQ(heads[1].shape(), (Shape{2, 4, 4, 4, c.network.classes}));
  Tensor half({2, 4, 4, 4, 1}, DType::u8, kCpu);
  for (std::int64_t i = 0; i < 128; ++i) {
    const std::int64_t n = i / 64, z = i / 16 % 4, y = i / 4 % 4, x = i % 4;
    half.data<std::uint8_t>()[i] = b.labels.data<std::uint8_t>()[((n * 8 + 2 * z + 1) * 8 + 2 * y + 1) * 8 + 2 * x + 1];
  }
  const double fine = to_host<float>(dice_ce(ctx, heads[0], b.labels, c.loss).result)[0],
               coarse = to_host<float>(dice_ce(ctx, heads[1], half, c.loss).result)[0];
  EXPECT_NEAR(loss, (fine + coarse / 2) / 1.5, 1e-5 * fine);
}

TEST(Trainer, StartsFromGivenWeights) {
  test::Folder folder;
  TrainConfig c = small();
  run(slices(), c, into(folder / "first"));
  c.seed = 77, c.steps = 1, c.schedule.rate = 0.0, c.optimizer.weight_decay = 0.0;
  TrainOptions o = into(folder / "second");
  o.initial_weights = folder / "first/last.safetensors";
  run(slices(), c, o);
  const auto a = read_model(folder / "first/last.safetensors").weights, b = read_model(folder / "second/last.safetensors").weights;
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(to_host<float>(a[i].second), to_host<float>(b[i].second)) << a[i].first;
  c.network.features = {4, 6, 8};
  o.folder = folder / "third";
  EXPECT_THROW(run(slices(), c, o), Error);
}

TEST(Trainer, RefusesPatchesThatDoNotFit) {
  test::Folder folder;
  TrainConfig c = small();
  c.patch = {30, 32};
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { run(slices(), c, into(folder / "run")); }).find("30"), std::string::npos);
  c.patch = {8, 8, 8};
  EXPECT_THROW(run(slices(), c, into(folder / "run")), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
}

}  // namespace
}  // namespace vg

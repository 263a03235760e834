// The training loop: batches -> network -> loss -> gradients -> optimizer; after each epoch validation (which is inference) and a checkpoint.
// A run can be stopped anywhere, also by kill -9: resumed, it ends with the same bits as if it had never stopped.
#pragma once
#include <functional>
#include <map>
#include <string>

#include "train/config.h"
#include "train/dataset.h"

namespace vg {

struct StepInfo {
  std::int64_t step = 0, total = 0;  // steps done, steps planned
  double loss = 0, ce = 0, dice_loss = 0, rate = 0;
  double seconds = 0;                // of this step
};

struct EpochInfo {
  std::int64_t epoch = 0, step = 0, total = 0;
  double loss = 0, ce = 0, dice_loss = 0, rate = 0;  // means over the epoch's steps; the last rate
  // Validation, voxels of all cases pooled: mean foreground Dice over all labels that occur, over those in at least three cases (present), and over
  // those in more than half of the cases (common). NaN without validation data.
  double dice = 0, dice_present = 0, dice_common = 0;
  std::map<std::int32_t, double> label_dice;  // class index -> pooled Dice
  double train_seconds = 0, train_cpu_seconds = 0, validation_seconds = 0;  // of this run so far, of this epoch's validation
  bool best = false;
};

struct TrainOptions {
  std::string folder;           // RUN: last.safetensors, best.safetensors, log.csv, curves.svg, config.json
  bool resume = false;          // continue from RUN/last.safetensors
  std::string initial_weights;  // a model or plain safetensors file to start from
  std::vector<std::int32_t> order;  // samples of each batch (train/batches.h)
  double time_limit = 0;        // seconds; 0: none
  double save_every = 300;      // seconds between checkpoints inside an epoch
  std::function<void(const StepInfo&)> on_step;
  std::function<void(const EpochInfo&)> on_epoch;
  std::function<bool()> stop;   // asked after each step: true saves and ends the run
};

struct TrainResult {
  bool finished = false;  // false: stopped by `stop` or the time limit, after saving
  std::int64_t step = 0, total = 0;
  double best_dice = 0;
  std::int64_t parameters = 0;
};

// Throws invalid_argument (configuration against data), numeric (the loss is not a number: says at which step, nothing is overwritten), io, bad_file.
TrainResult train(Context& ctx, const Dataset& data, TrainConfig config, const TrainOptions& options);

}  // namespace vg

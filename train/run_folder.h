// What a training run leaves on disk, and how it is read back: checkpoints, the log, its curves.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "train/trainer.h"

namespace vg {

// The running sums of an unfinished epoch, and what the log remembers: everything that a resumed run needs besides weights and moments.
struct TrainState {
  std::int64_t step = 0, optimizer_steps = 0;
  double loss_sum = 0, ce_sum = 0, dice_sum = 0;  // of the epoch so far
  double best = -1;                               // best validation Dice
};

class RunFolder {
 public:
  // Makes the folder if it is missing, locks it for this process, and removes what a killed run left half written. Throws io; invalid_argument if
  // another trainer runs there, or if it holds a run already and `resume` is false.
  RunFolder(const std::string& folder, bool resume);

  std::string last() const { return folder_ + "/last.safetensors"; }
  std::string best() const { return folder_ + "/best.safetensors"; }

  // The log: one row an epoch. On resume rows after the checkpoint's step are dropped.
  void read_log(std::int64_t up_to_step);
  void add_row(const EpochInfo& e);  // rewrites log.csv and curves.svg
  void write_config(const Json& config) const;

 private:
  std::string folder_;
  std::shared_ptr<void> lock_;
  std::vector<std::vector<double>> rows_;
};

// Columns of log.csv.
const std::vector<std::string>& log_columns();
// Loss and Dice over steps as one SVG picture.
std::string curves_svg(const std::vector<std::vector<double>>& rows);

}  // namespace vg

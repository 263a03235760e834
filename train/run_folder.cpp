// Log and curves of a run. The log is rewritten whole and atomically each time: it is short, and a run that is resumed must be able to drop the rows
// after its checkpoint.
#include "train/run_folder.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "tensor/os.h"

namespace vg {

const std::vector<std::string>& log_columns() {
  static const std::vector<std::string> columns = {"epoch", "step", "rate", "loss", "ce", "dice_loss", "dice", "dice_present", "dice_common",
                                                   "train_seconds", "train_cpu_seconds", "validation_seconds"};
  return columns;
}

RunFolder::RunFolder(const std::string& folder, bool resume) : folder_(folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail(ErrorCode::io, "{}: {}", folder, error.message());
  lock_ = os::try_lock(folder + "/.lock");
  require(lock_ != nullptr, "{}: another training run is writing there", folder);
  // What a killed run was writing: nobody else writes here now.
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (entry.path().filename().string().find(".tmp-") != std::string::npos) std::filesystem::remove(entry.path(), error);
  const bool exists = std::filesystem::exists(last());
  require(!exists || resume, "{}: holds a run already; continue it with --resume, or choose another folder", folder);
  require(exists || !resume, "{}: there is no last.safetensors to resume from", folder);
}

void RunFolder::read_log(std::int64_t up_to_step) {
  rows_.clear();
  if (!std::filesystem::exists(folder_ + "/log.csv")) return;
  std::istringstream lines(os::read_text(folder_ + "/log.csv"));
  std::string line;
  std::getline(lines, line);  // the columns' names
  while (std::getline(lines, line)) {
    std::vector<double> row;
    std::istringstream cells(line);
    for (std::string cell; std::getline(cells, cell, ',');) row.push_back(cell.empty() ? NAN : std::strtod(cell.c_str(), nullptr));
    row.resize(log_columns().size(), NAN);
    if (row[1] <= static_cast<double>(up_to_step)) rows_.push_back(std::move(row));
  }
}

void RunFolder::add_row(const EpochInfo& e) {
  rows_.push_back({static_cast<double>(e.epoch), static_cast<double>(e.step), e.rate, e.loss, e.ce, e.dice_loss, e.dice, e.dice_present, e.dice_common,
                   e.train_seconds, e.train_cpu_seconds, e.validation_seconds});
  std::string text;
  for (std::size_t i = 0; i < log_columns().size(); ++i) text += (i ? "," : "") + log_columns()[i];
  text += "\n";
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) text += (i ? "," : "") + (std::isnan(row[i]) ? std::string() : fmt::format("{:.7g}", row[i]));
    text += "\n";
  }
  os::write_file_atomic(folder_ + "/log.csv", text);
  os::write_file_atomic(folder_ + "/curves.svg", curves_svg(rows_));
}

void RunFolder::write_config(const Json& config) const { os::write_file_atomic(folder_ + "/config.json", config.dump(1) + "\n"); }

namespace {

struct Curve {
  std::size_t column;
  const char *name, *colour;
};

// One panel: axes, grid lines with numbers, one polyline per curve, a legend. x: the step column.
std::string panel(const std::vector<std::vector<double>>& rows, const std::vector<Curve>& curves, const char* title, double top, double low, double high) {
  constexpr double kLeft = 70, kWidth = 640, kHeight = 220;
  const double steps = std::max(1.0, rows.empty() ? 1.0 : rows.back()[1]);
  const auto x = [&](double step) { return kLeft + kWidth * step / steps; };
  const auto y = [&](double v) { return top + kHeight * (1.0 - (v - low) / (high - low)); };
  std::string s = fmt::format("<text x='{}' y='{}' font-weight='bold'>{}</text>\n", kLeft, top - 12, title);
  for (int i = 0; i <= 4; ++i) {
    const double v = low + (high - low) * i / 4.0, step = steps * i / 4.0;
    s += fmt::format("<line x1='{0}' x2='{1}' y1='{2:.1f}' y2='{2:.1f}' stroke='#ddd'/><text x='{3}' y='{4:.1f}' text-anchor='end'>{5:.3g}</text>\n", kLeft,
                     kLeft + kWidth, y(v), kLeft - 8, y(v) + 4, v);
    s += fmt::format("<text x='{:.1f}' y='{}' text-anchor='middle'>{:.0f}</text>\n", x(step), top + kHeight + 18, step);
  }
  double legend = kLeft + kWidth - 10;
  for (const Curve& c : curves) {
    std::string points;
    for (const auto& row : rows)
      if (!std::isnan(row[c.column])) points += fmt::format("{:.1f},{:.1f} ", x(row[1]), y(std::clamp(row[c.column], low, high)));
    s += fmt::format("<polyline points='{}' fill='none' stroke='{}' stroke-width='2'/>\n", points, c.colour);
    s += fmt::format("<text x='{:.0f}' y='{}' text-anchor='end' fill='{}'>{}</text>\n", legend, top - 12, c.colour, c.name);
    legend -= 12.0 + 7.5 * static_cast<double>(std::string(c.name).size());
  }
  return s;
}

}  // namespace

std::string curves_svg(const std::vector<std::vector<double>>& rows) {
  double high = 0.1;
  for (const auto& row : rows)
    if (!std::isnan(row[3])) high = std::max(high, row[3]);
  std::string s = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 740 600' font-family='sans-serif' font-size='12'>\n<rect width='740' height='600' fill='white'/>\n";
  s += panel(rows, {{3, "loss", "#1f77b4"}, {4, "cross-entropy", "#ff7f0e"}, {5, "1 - Dice", "#2ca02c"}}, "Training loss, mean of each epoch", 50, 0.0, high);
  s += panel(rows, {{8, "common labels", "#d62728"}, {7, "present labels", "#9467bd"}, {6, "all labels", "#8c564b"}}, "Validation Dice", 340, 0.0, 1.0);
  return s + "</svg>\n";
}

}  // namespace vg

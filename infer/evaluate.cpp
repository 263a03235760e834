// Matching, checking and reporting; the arithmetic is in metrics.cpp.
#include "infer/evaluate.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "nifti/volume.h"
#include "tensor/error.h"

namespace vg {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr double kAffineTolerance = 1e-3;
constexpr const char* kEndings[] = {".nii.gz", ".nii", ".mgz", ".mgh", ".png"};

bool is_mask_file(const std::string& path) {
  return std::any_of(std::begin(kEndings), std::end(kEndings), [&](const char* e) { return path.ends_with(e); });
}

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (is_mask_file(it->path().filename().string()) && it->path().filename().string()[0] != '.') files.push_back(it->path().string());
  if (error) fail(ErrorCode::io, "{}: {}", folder, error.message());
  std::sort(files.begin(), files.end());
  return files;
}

// Is `name` the `stem` with something added after a separator?
bool extends(const std::string& name, const std::string& stem) {
  return name.size() > stem.size() && name.starts_with(stem) && std::string_view("_-.").find(name[stem.size()]) != std::string_view::npos;
}

// The prediction for a reference; "" if none. Throws where several would do.
std::string match(const std::string& reference, const std::vector<std::string>& predictions) {
  const std::string name = case_name(reference);
  std::vector<std::string> equal, similar;
  for (const std::string& p : predictions) {
    const std::string other = case_name(p);
    if (other == name) equal.push_back(p);
    if (extends(other, name) || extends(name, other)) similar.push_back(p);
  }
  const std::vector<std::string>& found = equal.empty() ? similar : equal;
  if (found.size() > 1) fail(ErrorCode::invalid_argument, "{}: {} and {} both match it", reference, found[0], found[1]);
  return found.empty() ? "" : found[0];
}

double affine_difference(const Affine& a, const Affine& b) {
  double largest = 0;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j) largest = std::max(largest, std::fabs(a.m[i][j] - b.m[i][j]));
  return largest;
}

std::string size_text(const Volume& v) {
  const Size3 s = v.size();
  return fmt::format("{} x {} x {}{}", s[0], s[1], s[2], v.channels() > 1 ? fmt::format(" x {}", v.channels()) : "");
}

ScoredCase score(const std::string& reference, const std::string& prediction, const EvaluateOptions& options) {
  ScoredCase result;
  result.name = case_name(reference);
  result.reference = reference;
  result.prediction = prediction;
  try {
    const Volume r = read_labels(reference), p = read_labels(prediction);
    if (!(r.voxels.shape() == p.voxels.shape()))
      fail(ErrorCode::invalid_argument, "{}: {} voxels, but its reference {} has {}", prediction, size_text(p), reference, size_text(r));
    const double difference = affine_difference(r.place.affine, p.place.affine);
    if (!options.ignore_geometry && difference > kAffineTolerance)
      fail(ErrorCode::invalid_argument,
           "{}: its affine ({}) differs from that of its reference {} ({}) by up to {:.3g} mm (wanted at most {}; --ignore-geometry "
           "compares all the same)",
           prediction, orientation_of(p.place.affine), reference, orientation_of(r.place.affine), difference, kAffineTolerance);
    result.voxel_volume = std::fabs(determinant(r.place.affine));
    result.predicted_volume = std::fabs(determinant(p.place.affine));
    result.overlaps = overlaps(r.voxels, p.voxels);
    for (const Volume* v : {&r, &p})
      for (const Warning& w : v->warnings)
        if (w.name != "no_orientation") result.warnings.push_back(fmt::format("{}: {}", v->name, w.text));
  } catch (const std::exception& e) {  // no memory for one case is no reason to lose the others
    result.error = e.what();
  }
  return result;
}

struct Volumes {
  double reference = 0, predicted = 0;  // mm^3, means over scored cases
};
Volumes volumes_of(const Evaluation& evaluation, std::int32_t label) {
  Volumes v;
  for (const ScoredCase& c : evaluation.cases)
    for (const Overlap& o : c.overlaps)
      if (o.label == label) {
        v.reference += static_cast<double>(o.reference) * c.voxel_volume;
        v.predicted += static_cast<double>(o.predicted) * c.predicted_volume;
      }
  const double n = std::max(evaluation.scored(), 1);
  return {v.reference / n, v.predicted / n};
}

ordered_json counts_json(const Overlap& o, double dice, std::int64_t voxels) {
  const std::int64_t fp = o.predicted - o.both, fn = o.reference - o.both, all = o.both + fp + fn;
  return {{"Dice", dice},
          {"IoU", all ? static_cast<double>(o.both) / static_cast<double>(all) : std::nan("")},
          {"TP", o.both},
          {"FP", fp},
          {"FN", fn},
          {"TN", voxels - all},
          {"n_ref", o.reference},
          {"n_pred", o.predicted}};
}

}  // namespace

int Evaluation::scored() const {
  return static_cast<int>(std::count_if(cases.begin(), cases.end(), [](const ScoredCase& c) { return c.error.empty(); }));
}
int Evaluation::failed() const { return static_cast<int>(cases.size()) - scored(); }

std::string case_name(const std::string& path) {
  std::string name = fs::path(path).filename().string();
  for (const char* ending : kEndings)
    if (name.ends_with(ending)) return name.substr(0, name.size() - std::string_view(ending).size());
  return name;
}

Evaluation evaluate(const std::string& reference, const std::string& predicted, const EvaluateOptions& options) {
  const auto is_folder = [](const std::string& path) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (!fs::exists(status)) fail(ErrorCode::io, "{}: No such file or directory", path);
    return fs::is_directory(status);
  };
  const bool folders = is_folder(reference);
  require(folders == is_folder(predicted), "{} and {}: one is a folder and the other a file (wanted two files or two folders)", reference,
          predicted);
  Evaluation result;
  if (!folders) {
    result.cases.push_back(score(reference, predicted, options));
  } else {
    const std::vector<std::string> references = files_in(reference), predictions = files_in(predicted);
    require(!references.empty(), "{}: no .nii, .nii.gz, .mgz, .mgh or .png file in it", reference);
    for (const std::string& r : references) {
      ScoredCase scored;
      try {
        const std::string p = match(r, predictions);
        if (!p.empty()) {
          scored = score(r, p, options);
        } else {
          result.missing.push_back(r);
          if (options.skip_missing) continue;
          fail(ErrorCode::invalid_argument, "{}: no prediction of that name in {}", r, predicted);
        }
      } catch (const Error& e) {
        scored.name = case_name(r);
        scored.reference = r;
        scored.error = e.what();
      }
      result.cases.push_back(std::move(scored));
    }
    require(!result.cases.empty(), "{}: none of the {} references in {} has a prediction", predicted, references.size(), reference);
  }
  for (const ScoredCase& c : result.cases)
    if (c.error.empty()) result.dice.add(c.overlaps);
  return result;
}

std::string to_table(const Evaluation& evaluation, const Lut& lut) {
  const std::vector<std::int32_t> labels = evaluation.dice.foreground();
  std::size_t width = 4;
  for (const std::int32_t label : labels) width = std::max(width, lut.name(label).size());
  const bool many = evaluation.scored() > 1;
  std::string text = fmt::format("{:>6}  {:<{}}  {:>6}  {:>12}  {:>12}", "label", "name", width, "Dice", "ref mm3", "pred mm3");
  text += many ? fmt::format("  {:>5}\n", "cases") : "\n";
  for (const std::int32_t label : labels) {
    const DiceAccumulator::Entry& e = evaluation.dice.entries().at(label);
    const Volumes v = volumes_of(evaluation, label);
    text += fmt::format("{:>6}  {:<{}}  {:>6.4f}  {:>12.1f}  {:>12.1f}", label, lut.name(label), width, e.case_mean(), v.reference,
                        v.predicted);
    text += many ? fmt::format("  {:>5}\n", e.scored) : "\n";
  }
  const auto count = [](std::size_t n, const char* what) { return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s"); };
  return text + fmt::format("mean foreground Dice {:.4f} ({}, {})\n", evaluation.mean_foreground(), count(labels.size(), "label"),
                            count(static_cast<std::size_t>(evaluation.scored()), "case"));
}

std::string to_json(const Evaluation& evaluation, const Lut& lut) {
  ordered_json mean = ordered_json::object(), per_case = ordered_json::array();
  for (const std::int32_t label : evaluation.dice.foreground()) {
    const DiceAccumulator::Entry& e = evaluation.dice.entries().at(label);
    const Volumes v = volumes_of(evaluation, label);
    mean[std::to_string(label)] = {{"name", lut.name(label)}, {"Dice", e.case_mean()},         {"Dice_pooled", e.pooled()},
                                   {"cases", e.scored},       {"volume_ref_mm3", v.reference}, {"volume_pred_mm3", v.predicted}};
  }
  for (const ScoredCase& c : evaluation.cases) {
    ordered_json entry = {{"reference_file", c.reference}, {"prediction_file", c.prediction}};
    if (!c.error.empty()) entry["error"] = c.error;
    ordered_json metrics = ordered_json::object();
    std::int64_t voxels = 0;
    for (const Overlap& o : c.overlaps) voxels += o.reference;
    for (const Overlap& o : c.overlaps) {
      if (o.label == 0) continue;
      ordered_json m = counts_json(o, o.dice(), voxels);
      m["volume_ref_mm3"] = static_cast<double>(o.reference) * c.voxel_volume;
      m["volume_pred_mm3"] = static_cast<double>(o.predicted) * c.predicted_volume;
      metrics[std::to_string(o.label)] = m;
    }
    if (c.error.empty()) {
      entry["mean_dice"] = mean_foreground_dice(c.overlaps);
      entry["metrics"] = metrics;
    }
    per_case.push_back(entry);
  }
  const ordered_json all = {
      {"foreground_mean",
       {{"Dice", evaluation.mean_foreground()}, {"Dice_pooled", evaluation.dice.mean_pooled(evaluation.dice.foreground())}}},
      {"labels", evaluation.dice.foreground().size()},
      {"cases", evaluation.scored()},
      {"failed", evaluation.failed()},
      {"missing", evaluation.missing},
      {"mean", mean},
      {"metric_per_case", per_case}};
  // File names may hold any bytes; NaN becomes null.
  return all.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace vg

// Facts about one file, gathered once and shown as text or JSON.
#include "nifti/describe.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "nifti/conform.h"
#include "nifti/dicom.h"
#include "nifti/png.h"
#include "tensor/error.h"
#include "tensor/os.h"

namespace vg {
namespace {

FileReport::Values values_of(const Tensor& t) {
  std::vector<float> v(t.data<float>(), t.data<float>() + t.elements());
  v.erase(std::remove_if(v.begin(), v.end(), [](float x) { return !std::isfinite(x); }), v.end());
  FileReport::Values out;
  out.finite = static_cast<std::int64_t>(v.size());
  out.non_finite = t.elements() - out.finite;
  if (v.empty()) return out;
  double sum = 0;
  for (float x : v) sum += x;
  out.mean = sum / static_cast<double>(v.size());
  auto from = v.begin();
  auto quantile = [&](double q) {  // the element of that rank; what lies before stays in front, so the next one searches the rest alone
    const auto at = v.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(v.size() - 1));
    std::nth_element(from, at, v.end());
    from = at;
    return static_cast<double>(*at);
  };
  out.low = quantile(0), out.quantile_02 = quantile(0.02), out.median = quantile(0.5), out.quantile_98 = quantile(0.98),
  out.high = quantile(1);
  return out;
}

// Counts per value; empty where the voxels are no whole numbers or of more than `most` kinds.
std::vector<LabelCount> count_labels(const Tensor& t, std::size_t most) {
  std::map<std::int32_t, std::int64_t> counts;
  const float* v = t.data<float>();
  std::int64_t run = 0;
  for (std::int64_t n = 0; n < t.elements(); n += run) {
    for (run = 1; n + run < t.elements() && v[n + run] == v[n]; ++run) {
    }
    if (!(std::abs(v[n]) < 0x1p24f) || v[n] != std::nearbyint(v[n])) return {};  // floats hold whole numbers to 2^24
    counts[static_cast<std::int32_t>(v[n])] += run;
    if (counts.size() > most) return {};
  }
  std::vector<LabelCount> out;
  for (const auto& [id, voxels] : counts) out.push_back({id, voxels});
  return out;
}

std::vector<LabelCount> guess_labels(const Tensor& t, bool surely, bool integers, const Lut& lut) {
  constexpr std::size_t kFew = 64, kMany = 2000;
  if (!surely && !integers) return {};
  std::vector<LabelCount> counts = count_labels(t, surely ? 100'000 : kMany);
  if (surely || counts.size() <= kFew) return counts;
  const bool all_named = std::all_of(counts.begin(), counts.end(), [&](const LabelCount& c) { return lut.contains(c.id); });
  return all_named ? counts : std::vector<LabelCount>{};
}

void take_image(const Image& image, FileReport& report) {
  report.format = image.format;
  report.dim = image.dim;
  report.type = image.type;
  report.place = image.place;
  report.slope = image.slope, report.inter = image.inter;
  report.intent_code = image.intent_code, report.intent_name = image.intent_name, report.description = image.description;
  report.extensions = image.extensions.size();
  report.warnings = image.warnings;
}

std::string joined(const std::vector<std::int64_t>& dim) {
  std::string text;
  for (std::int64_t e : dim) text += (text.empty() ? "" : " x ") + std::to_string(e);
  return text;
}

double voxel_volume(const FileReport& r) { return std::abs(determinant(r.place.affine)); }  // mm^3

}  // namespace

Size3 FileReport::size() const {
  Size3 s{1, 1, 1};
  for (std::size_t a = 0; a < 3 && a < dim.size(); ++a) s[a] = dim[a];
  return s;
}

FileReport inspect(const std::string& name, const Lut& lut, const InspectOptions& options) {
  const Pick pick = pick_of(name);
  const std::string& path = pick.path;
  FileReport report;
  report.path = name;
  constexpr int kIntentLabel = 1002;
  constexpr PixelOptions kAnyPixel{.luminance = true, .magnitude = true};
  bool palette = false;
  Volume volume;
  const bool stack = is_png_stack(path), dicom = !stack && is_dicom(path);
  if (!std::filesystem::is_directory(path)) {
    os::InputFile file(path);
    report.file_bytes = file.size();
    std::byte start[8];
    palette = file.read(start, sizeof start) == sizeof start && has_png_signature(start);
  }
  if (palette) {
    const PngPicture picture = read_png(path);
    palette = !picture.palette.empty();
    report.format = fmt::format("PNG, {} bit {}", picture.depth, palette ? "palette" : picture.channels == 3 ? "colour" : "grey");
    report.dim = {picture.width, picture.height};
    volume = palette || options.labels == LabelGuess::yes ? png_to_labels(picture) : png_to_volume(picture);
    report.type = volume.stored;
    report.warnings = volume.warnings;
    if (volume.voxels.dtype() == DType::i32) {
      Tensor real(volume.voxels.shape(), DType::f32, kCpu);
      std::copy(volume.voxels.data<std::int32_t>(), volume.voxels.data<std::int32_t>() + real.elements(), real.data<float>());
      volume.voxels = real;
    }
  } else if (stack) {
    volume = png_stack_to_volume(path);
    const Size3 size = volume.size();
    report.format = "PNG, a folder of slices";
    report.dim = {size[0], size[1], size[2]};
    report.type = volume.stored;
    report.warnings = volume.warnings;
  } else if (options.header_only) {
    take_image(dicom ? read_dicom_header(path, pick.series) : read_image_header(path, kAnyPixel), report);
  } else {
    const Image image = dicom ? read_dicom(path, pick.series) : read_image(path, kAnyPixel);
    take_image(image, report);
    Image flat = image;  // shares the voxels
    if (!pick.frame) flat.dim = {image.elements()};  // all frames in a row: places do not matter here
    const Volume values = to_volume(flat, {.frame = pick.frame});
    volume.voxels = values.voxels;
    report.warnings = values.warnings;
  }
  report.spacing = spacing_of(report.place.affine);
  report.conformed = has_conformed_grid({report.size(), report.place.affine});
  if (options.header_only) return report;
  report.values = values_of(volume.voxels);
  const bool integers = report.type < Number::f32 && report.slope == 1 && report.inter == 0;
  const bool surely = options.labels == LabelGuess::yes || palette || report.intent_code == kIntentLabel;
  if (options.labels != LabelGuess::no) report.labels = guess_labels(volume.voxels, surely, integers, lut);
  return report;
}

std::string to_text(const FileReport& r, const Lut& lut) {
  std::string out = r.path + "\n";
  auto line = [&](const char* key, const std::string& text) { out += fmt::format("  {:<12} {}\n", key, text); };
  line("format", r.file_bytes > 0 ? fmt::format("{}, {} bytes", r.format, r.file_bytes) : r.format);
  line("voxels", fmt::format("{}, {}{}", joined(r.dim), name_of(r.type),
                             r.slope != 1 || r.inter != 0 ? fmt::format(", x {:g} + {:g}", r.slope, r.inter) : ""));
  line("spacing", fmt::format("{:.4g} x {:.4g} x {:.4g} mm{}", r.spacing[0], r.spacing[1], r.spacing[2],
                              r.conformed ? ", conformed (256^3, 1 mm, LIA)" : ""));
  line("orientation", fmt::format("{} from {}", orientation_of(r.place.affine),
                                  r.place.source == TransformSource::none
                                      ? "nothing: a guess"
                                      : fmt::format("{} ({})", name_of(r.place.source), transform_code_name(r.place.code))));
  for (int row = 0; row < 3; ++row) {
    const double* m = r.place.affine.m[row];
    line(row == 0 ? "affine" : "", fmt::format("{:10.5g} {:10.5g} {:10.5g} {:10.5g}", m[0], m[1], m[2], m[3]));
  }
  if (r.intent_code != 0 || !r.intent_name.empty())
    line("intent", fmt::format("{}{}{}", r.intent_code, r.intent_name.empty() ? "" : " ", r.intent_name));
  if (!r.description.empty()) line("description", r.description);
  if (r.extensions > 0) line("extensions", std::to_string(r.extensions));
  if (r.values) {
    const auto& v = *r.values;
    line("values",
         fmt::format("{:.6g} .. {:.6g}, mean {:.6g}, quantiles 2 % {:.6g}, 50 % {:.6g}, 98 % {:.6g}{}", v.low, v.high, v.mean,
                     v.quantile_02, v.median, v.quantile_98, v.non_finite > 0 ? fmt::format(", {} not finite", v.non_finite) : ""));
  }
  if (!r.labels.empty()) {
    line("labels", fmt::format("{:>6}  {:<34} {:>12} {:>12}", "id", "name", "voxels", "ml"));
    for (const LabelCount& c : r.labels)
      line("", fmt::format("{:>6}  {:<34} {:>12} {:>12.3f}", c.id, lut.name(c.id), c.voxels,
                           static_cast<double>(c.voxels) * voxel_volume(r) / 1000));
  }
  for (const Warning& w : r.warnings) line("warning", w.name + ": " + w.text);
  return out;
}

nlohmann::json to_json(const FileReport& r, const Lut& lut) {
  nlohmann::json affine = nlohmann::json::array(), labels = nlohmann::json::array(), warnings = nlohmann::json::array();
  for (const auto& row : r.place.affine.m) affine.push_back({row[0], row[1], row[2], row[3]});
  for (const LabelCount& c : r.labels)
    labels.push_back(
        {{"id", c.id}, {"name", lut.name(c.id)}, {"voxels", c.voxels}, {"ml", static_cast<double>(c.voxels) * voxel_volume(r) / 1000}});
  for (const Warning& w : r.warnings) warnings.push_back({{"name", w.name}, {"text", w.text}});
  nlohmann::json out = {
      {"path", r.path},
      {"format", r.format},
      {"file_bytes", r.file_bytes},
      {"shape", r.dim},
      {"type", name_of(r.type)},
      {"spacing_mm", r.spacing},
      {"orientation", orientation_of(r.place.affine)},
      {"transform", {{"source", name_of(r.place.source)}, {"code", r.place.code}, {"code_name", transform_code_name(r.place.code)}}},
      {"affine", affine},
      {"slope", r.slope},
      {"intercept", r.inter},
      {"intent_code", r.intent_code},
      {"intent_name", r.intent_name},
      {"description", r.description},
      {"extensions", r.extensions},
      {"conformed", r.conformed},
      {"warnings", warnings}};
  if (r.values) {
    const auto& v = *r.values;
    out["values"] = {{"min", v.low},       {"max", v.high},
                     {"mean", v.mean},     {"quantile_02", v.quantile_02},
                     {"median", v.median}, {"quantile_98", v.quantile_98},
                     {"finite", v.finite}, {"not_finite", v.non_finite}};
  }
  if (!r.labels.empty()) out["labels"] = labels;
  return out;
}

}  // namespace vg

// segprep: makes and checks data sets: slices for 2-D training, conforming, conversion between formats, reports, splits.
#include "infer/prepare.h"

#include "nifti/conform.h"
#include "nifti/png.h"
#include "nifti/resample.h"
#include "tools/program.h"

namespace {

using namespace vg;

struct Arguments {
  std::string input, masks, output, view = "coronal", orientation;
  SliceOptions slices;
  double validation = 0.2;
  int folds = 1;
  std::uint64_t seed = 0;
  std::int64_t volume = -1;
  int series = -1;
  std::vector<double> spacing;
  std::string interpolation = "linear";
  bool labels = false, json = false, quiet = false;
};

int slices(Arguments& a) {
  const std::vector<std::string> left_out = write_slices(find_pairs(a.input, a.masks), a.output, a.slices, [&](const std::string& path) {
    if (!a.quiet) std::printf("%s\n", path.c_str());
  });
  for (const std::string& reason : left_out) std::fprintf(stderr, "segprep: left out %s\n", reason.c_str());
  return left_out.empty() ? 0 : 1;
}

ReadOptions frame_of(const Arguments& a) {
  ReadOptions o;
  if (a.volume >= 0) o.frame = a.volume;
  if (a.series >= 0) o.series = a.series;
  return o;
}

int conform_file(const Arguments& a) {
  if (!a.labels) {
    write_volume(a.output, conform(read_volume(a.input, frame_of(a))).volume, {.type = Number::u8, .labels = false, .description = "conformed", .gzip_level = 1});
    return 0;
  }
  Volume v = read_labels(a.input, frame_of(a));
  const Grid target = conformed_grid(v.grid());
  v.voxels = resample_nearest(v.voxels, v.grid(), target);
  v.place.affine = target.affine;
  write_volume(a.output, v, {.type = {}, .labels = true, .description = "conformed", .gzip_level = 1});
  return 0;
}

void write_picture(const std::string& path, const Volume& v) {
  const Size3 s = v.size();
  require(s[2] == 1 && v.channels() == 1, "{}: a volume of {} planes does not fit a PNG (segprep slices cuts them)", path, s[2] * v.channels());
  if (v.voxels.dtype() == DType::i32) return write_png_labels(path, v.voxels.data<std::int32_t>(), s[0], s[1], builtin_freesurfer());
  std::vector<std::uint16_t> grey(static_cast<std::size_t>(s[0] * s[1]));
  for (std::size_t n = 0; n < grey.size(); ++n) {
    const float x = v.voxels.data<float>()[n];
    require(x >= 0 && x <= 65535, "{}: the value {} does not fit a PNG (wanted 0 .. 65535)", path, x);
    grey[n] = static_cast<std::uint16_t>(x + 0.5f);
  }
  write_png(path, grey.data(), s[0], s[1]);
}

int convert(const Arguments& a) {
  Volume v = a.labels ? read_labels(a.input, frame_of(a)) : read_volume(a.input, frame_of(a));
  if (!a.orientation.empty()) v = reorient(v, a.orientation);
  if (!a.spacing.empty()) {
    const Grid target = grid_with_spacing(v.grid(), {a.spacing[0], a.spacing[a.spacing.size() / 3], a.spacing[a.spacing.size() - 1]});
    v.voxels = a.labels                       ? resample_nearest(v.voxels, v.grid(), target)
               : a.interpolation == "linear" ? resample_linear(v.voxels, v.grid(), target)
                                             : resample_cubic(v.voxels, v.grid(), target);
    v.place.affine = target.affine;
    v.stored = Number::f32;  // what is between two numbers
  }
  if (a.output.ends_with(".png")) return write_picture(a.output, v), 0;
  WriteOptions o;
  o.labels = a.labels;
  // The stored type where the format has it and no scaling was applied.
  const bool mgh = a.output.ends_with(".mgh") || a.output.ends_with(".mgz");
  const bool fits = !mgh || v.stored == Number::u8 || v.stored == Number::i16 || v.stored == Number::i32 || v.stored == Number::f32;
  const bool exact = v.stored < Number::u32 || v.stored == Number::f32;  // through f32
  if (!a.labels && !v.scaled && fits && exact) o.type = v.stored;
  write_volume(a.output, v, o);
  return 0;
}

int check(const Arguments& a) {
  const nlohmann::ordered_json report = check_dataset(find_pairs(a.input, a.masks));
  std::fputs((a.json ? report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n" : check_text(report)).c_str(), stdout);
  return report["problems"].empty() ? 0 : 1;
}

int split(const Arguments& a) {
  os::write_file_atomic(a.output, make_split(dataset_names(a.input, a.view), a.validation, a.folds, a.seed).dump(1) + "\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Makes and checks data sets for training. Research use, not a medical device.", "segprep");
  app.require_subcommand(1);
  const auto view = CLI::IsMember({"axial", "coronal", "sagittal"});
  auto* s = app.add_subcommand("slices", "One slice of every image and its mask as PNG: OUT/VIEW/NAME-2d_VIEW.png and OUT/VIEW-mask/..., which segtrain reads");
  s->add_option("IMAGES", a.input, "Folder of images, FreeSurfer's subjects folder, nnU-Net's data set, or one image")->required();
  s->add_option("MASKS", a.masks, "Folder of masks (the same names), or one mask");
  s->add_option("-o,--output", a.output, "Folder")->required();
  s->add_option("--view", a.slices.view, "axial, coronal or sagittal")->capture_default_str()->check(view);
  s->add_option("--at", a.slices.at, "Place along the axis, 0 to 1")->capture_default_str()->check(CLI::Range(0.0, 1.0));
  s->add_flag("--conform", a.slices.conformed, "Cut from 256^3 voxels of 1 mm, as FreeSurfer conforms");
  s->add_flag("--radiological", a.slices.radiological, "The patient's right on the left of the picture");
  s->add_flag("-q,--quiet", a.quiet, "Print nothing but errors");
  auto* c = app.add_subcommand("conform", "256^3 voxels of 1 mm, axes LIA, grey values 0..255, as FreeSurfer conforms");
  auto* v = app.add_subcommand("convert", "NIfTI, MGH, NRRD, PNG or DICOM (a file, folder or zip) to the format that the output's ending names");
  for (auto* sub : {c, v}) {
    sub->add_option("IN", a.input, "Image")->required();
    sub->add_option("OUT", a.output, ".nii.gz, .nii, .hdr (with its .img), .mgz, .mgh, .png")->required();
    sub->add_flag("--labels", a.labels, "Whole numbers are ids: nothing between them is made up");
    sub->add_option("--series", a.series, "Of a DICOM folder or zip: this series, from 0")->check(CLI::NonNegativeNumber);
    sub->add_option("--volume", a.volume, "Of a 4-D file: this volume, from 0")->check(CLI::NonNegativeNumber);
  }
  v->add_option("--spacing", a.spacing, "Voxels of that many mm: one number or three (i, j, k)")->expected(1, 3)->check([](const std::string& mm) {
    return std::strtod(mm.c_str(), nullptr) > 0 ? std::string() : fmt::format("wanted mm above 0, got {}", mm);
  });
  v->add_option("--interpolation", a.interpolation, "With --spacing: linear or cubic (B-spline); labels take the nearest")->capture_default_str()->check(CLI::IsMember({"linear", "cubic"}));
  v->add_option("--orientation", a.orientation, "Turn the axes, e.g. RAS");
  auto* k = app.add_subcommand("check", "Shapes, spacings, labels, and what does not fit; exit code 1 if there is any");
  k->add_option("IMAGES", a.input, "As for slices")->required();
  k->add_option("MASKS", a.masks, "As for slices");
  k->add_flag("--json", a.json, "For programs");
  auto* p = app.add_subcommand("split", "Who validates, as the JSON that segtrain --split reads");
  p->add_option("DATA", a.input, "Folder that segtrain reads")->required();
  p->add_option("-o,--output", a.output, "JSON file")->required();
  p->add_option("--view", a.view, "Of slices")->capture_default_str();
  p->add_option("--validation", a.validation, "Part that validates")->capture_default_str();
  p->add_option("--folds", a.folds, "That many splits, each subject validates once")->capture_default_str()->check(CLI::PositiveNumber);
  p->add_option("--seed", a.seed, "Another order")->capture_default_str();
  app.callback([&] { usage(a.spacing.size() != 2, "--spacing", "wanted one number or three"); });
  return run_program(app, argc, argv, [&] { return *s ? slices(a) : *c ? conform_file(a) : *v ? convert(a) : *k ? check(a) : split(a); });
}

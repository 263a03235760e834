// Pairs, slices, reports and splits of data sets.
#include "infer/prepare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "infer/cases.h"
#include "layers/sha256.h"
#include "nifti/conform.h"
#include "nifti/png.h"
#include "nifti/resample.h"
#include "tensor/error.h"
#include "tensor/os.h"

namespace vg {
namespace {

namespace fs = std::filesystem;
constexpr double kApart = 0.1;  // mm between the corners of grids that are taken for one

std::vector<Case> scans_in(const std::string& path) { return find_cases(path, "segprep-results"); }

bool cut_end(std::string& name, const std::string& end) {
  if (name.size() <= end.size() || !name.ends_with(end)) return false;
  name.resize(name.size() - end.size());
  return true;
}

std::vector<Pair> freesurfer_subjects(const std::string& folder) {
  std::vector<Pair> pairs;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!fs::is_directory(entry.path() / "mri")) continue;
    Pair p{.name = entry.path().filename().string(), .image = "", .mask = ""};
    const auto first = [&](std::initializer_list<const char*> files) -> std::string {
      for (const char* file : files)
        if (fs::exists(entry.path() / "mri" / file)) return (entry.path() / "mri" / file).string();
      return "";
    };
    p.image = first({"T1.mgz", "orig.mgz", "T1.nii.gz", "orig.nii.gz"}), p.mask = first({"aseg.mgz", "aseg.nii.gz"});
    pairs.push_back(std::move(p));
  }
  return pairs;
}

void make_folder(const fs::path& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail(ErrorCode::io, "{}: {}", path.string(), error.message());
}

// Letters of the directions of a picture's columns, its rows and of the axis that is cut.
std::string code_of(const SliceOptions& o) {
  const std::string side = o.radiological ? "L" : "R";
  if (o.view == "axial") return side + "PS";
  if (o.view == "coronal") return side + "IA";
  require(o.view == "sagittal", "view \"{}\": wanted axial, coronal or sagittal", o.view);
  return "PIR";
}

// Plane `k` of (1, D, H, W, 1).
Volume plane(const Volume& v, std::int64_t k) {
  const Shape& s = v.voxels.shape();
  Volume out = v;
  out.voxels = Tensor({1, 1, s.h(), s.w(), 1}, v.voxels.dtype(), kCpu);
  std::memcpy(out.voxels.raw(), static_cast<const std::byte*>(v.voxels.raw()) + static_cast<std::size_t>(k) * out.voxels.bytes(), out.voxels.bytes());
  return out;
}

void need_one_grid(const Volume& image, const Volume& mask) {
  if (image.size() != mask.size())
    fail(ErrorCode::bad_file, "image {} and mask {} differ in size", to_string(image.voxels.shape()), to_string(mask.voxels.shape()));
  const double apart = corner_distance(image.size(), image.place.affine, mask.place.affine);
  if (apart > kApart) fail(ErrorCode::bad_file, "image and mask lie up to {:.2f} mm apart", apart);
}

}  // namespace

std::vector<Pair> find_pairs(const std::string& images, const std::string& masks) {
  if (!fs::exists(images)) fail(ErrorCode::io, "{}: No such file or directory", images);
  std::vector<Pair> pairs;
  if (masks.empty()) {
    require(fs::is_directory(images), "{}: name its mask too, or a folder of subjects", images);
    if (fs::is_directory(images + "/imagesTr") && fs::is_directory(images + "/labelsTr")) return find_pairs(images + "/imagesTr", images + "/labelsTr");
    pairs = freesurfer_subjects(images);
    if (pairs.empty()) fail(ErrorCode::io, "{}: neither SUBJECT/mri folders of FreeSurfer nor imagesTr and labelsTr; name the masks' folder", images);
  } else if (!fs::is_directory(images)) {
    const std::string name = scans_in(images).at(0).name;
    if (!fs::exists(masks)) fail(ErrorCode::io, "{}: No such file or directory", masks);
    return {{name, images, masks}};
  } else {
    std::map<std::string, Pair> by_name;
    for (const Case& c : scans_in(images)) {
      std::string name = c.name;
      if (name.ends_with("_0001") || name.ends_with("_0002") || name.ends_with("_0003")) continue;  // further channels of nnU-Net
      cut_end(name, "_0000");
      Pair& p = by_name[name];
      require(p.image.empty(), "{} and {} are images of one name", p.image, c.input);
      p.image = c.input;
    }
    for (const Case& c : scans_in(masks)) {
      std::string name = c.name;
      if (!by_name.count(name))
        for (const char* end : {"_seg", "_labels", "_label", "_aseg", "_mask", "-mask", "_dseg"})
          if (cut_end(name, end)) break;
      Pair& p = by_name[name];
      require(p.mask.empty(), "{} and {} are masks of one name", p.mask, c.input);
      p.mask = c.input;
    }
    for (auto& [name, p] : by_name) pairs.push_back({name, p.image, p.mask});
  }
  std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.name < b.name; });
  return pairs;
}

SlicePair cut_slices(const Volume& image, const Volume& mask, const SliceOptions& o) {
  require(o.at >= 0 && o.at <= 1, "place {} of the slice (wanted 0 .. 1)", o.at);
  if (image.channels() != 1 || mask.channels() != 1) fail(ErrorCode::bad_file, "{} and {} volumes in image and mask (wanted one each)", image.channels(), mask.channels());
  const std::string code = code_of(o);
  Volume grey = image, ids = mask;
  if (o.conformed) {
    const Conformed c = conform(image);
    grey = c.volume;
    ids.voxels = resample_nearest(mask.voxels, mask.grid(), grey.grid());
    ids.place = grey.place;
  } else {
    need_one_grid(image, mask);
    if (image.stored != Number::u8 || image.scaled) {
      const GreyScale scale = robust_grey_scale(image.voxels);
      grey.voxels = Tensor(image.voxels.shape(), DType::f32, kCpu);
      for (std::int64_t n = 0; n < grey.voxels.elements(); ++n) {
        const double v = image.voxels.data<float>()[n];
        grey.voxels.data<float>()[n] = std::isfinite(v) ? static_cast<float>(std::clamp(std::nearbyint((v - scale.low) * scale.scale), 0.0, 255.0)) : 0.0f;
      }
    }
    ids.place = grey.place;  // one grid: turned alike whatever their last digits say
  }
  grey = reorient(grey, code), ids = reorient(ids, code);
  const std::int64_t depth = grey.voxels.shape().d();
  const std::int64_t k = std::min(static_cast<std::int64_t>(std::floor(o.at * static_cast<double>(depth))), depth - 1);
  return {plane(grey, k), plane(ids, k)};
}

std::vector<std::string> write_slices(const std::vector<Pair>& pairs, const std::string& folder, const SliceOptions& o, const std::function<void(const std::string&)>& wrote) {
  code_of(o);
  make_folder(fs::path(folder) / o.view), make_folder(fs::path(folder) / (o.view + "-mask"));
  const Lut lut = builtin_freesurfer();
  std::vector<std::string> left_out;
  for (const Pair& p : pairs) {
    try {
      if (p.image.empty() || p.mask.empty()) fail(ErrorCode::bad_file, "no {}", p.image.empty() ? "image" : "mask");
      const SlicePair s = cut_slices(read_volume(p.image), read_labels(p.mask), o);
      const std::int64_t width = s.image.size()[0], height = s.image.size()[1];
      std::vector<std::uint8_t> grey(static_cast<std::size_t>(width * height));
      std::transform(s.image.voxels.data<float>(), s.image.voxels.data<float>() + grey.size(), grey.begin(), [](float v) { return static_cast<std::uint8_t>(v); });
      if (std::all_of(grey.begin(), grey.end(), [&](std::uint8_t v) { return v == grey[0]; })) fail(ErrorCode::bad_file, "the slice holds one value everywhere");
      const std::string stem = p.name + "-2d_" + o.view;
      write_png_labels((fs::path(folder) / (o.view + "-mask") / (stem + "-mask.png")).string(), s.mask.voxels.data<std::int32_t>(), width, height, lut);
      const std::string path = (fs::path(folder) / o.view / (stem + ".png")).string();
      write_png(path, grey.data(), width, height);
      if (wrote) wrote(path);
    } catch (const Error& e) {
      if (e.code() == ErrorCode::io && !fs::is_directory(folder)) throw;
      left_out.push_back(p.name + ": " + e.what());
    }
  }
  if (left_out.size() == pairs.size()) fail(ErrorCode::bad_file, "{}: not one slice of {} subjects{}", folder, pairs.size(), left_out.empty() ? "" : "; " + left_out[0]);
  return left_out;
}

nlohmann::ordered_json check_dataset(const std::vector<Pair>& pairs) {
  using Json = nlohmann::ordered_json;
  std::map<std::string, int> shapes, spacings, orientations;
  std::map<std::int32_t, std::pair<int, std::int64_t>> ids;  // masks that have it, voxels
  std::map<std::string, std::string> seen;                   // hash of voxels -> subject
  Json problems = Json::array();
  int whole = 0;
  for (const Pair& p : pairs) {
    const auto problem = [&](const std::string& text) { problems.push_back({{"subject", p.name}, {"problem", text}}); };
    if (p.image.empty() || p.mask.empty()) {
      problem(p.image.empty() ? "a mask without an image" : "an image without a mask");
      continue;
    }
    try {
      const Volume image = read_volume(p.image), mask = read_labels(p.mask);
      const Vec3 mm = image.spacing();
      const Size3 size = image.size();
      ++shapes[fmt::format("{} x {} x {}", size[0], size[1], size[2])];
      ++spacings[fmt::format("{:.3g} x {:.3g} x {:.3g} mm", mm[0], mm[1], mm[2])];
      ++orientations[orientation_of(image.place.affine)];
      const float* v = image.voxels.data<float>();
      const auto* bytes = static_cast<const std::byte*>(image.voxels.raw());
      if (std::all_of(v, v + image.voxels.elements(), [&](float x) { return x == v[0]; })) problem("the image holds one value everywhere");
      const auto [first, is_new] = seen.emplace(sha256_hex({bytes, image.voxels.bytes()}), p.name);
      if (!is_new) problem("the same voxels as " + first->second);
      std::map<std::int32_t, std::int64_t> own;
      for (const std::int32_t *id = mask.voxels.data<std::int32_t>(), *end = id + mask.voxels.elements(); id < end; ++id) ++own[*id];
      for (const auto& [id, voxels] : own) ++ids[id].first, ids[id].second += voxels;
      if (own.size() == 1) problem("the mask holds one id everywhere");
      need_one_grid(image, mask);
      ++whole;
    } catch (const Error& e) {
      problem(e.what());
    }
  }
  Json labels = Json::array();
  const Lut lut = builtin_freesurfer();
  for (const auto& [id, count] : ids) labels.push_back({{"id", id}, {"name", lut.name(id)}, {"masks", count.first}, {"voxels", count.second}});
  return {{"subjects", pairs.size()}, {"sound", whole}, {"shapes", shapes}, {"spacings", spacings}, {"orientations", orientations}, {"labels", labels}, {"problems", problems}};
}

std::string check_text(const nlohmann::ordered_json& r) {
  std::string text = fmt::format("{} subjects, {} complete and readable\n", r["subjects"].get<int>(), r["sound"].get<int>());
  for (const char* key : {"shapes", "spacings", "orientations"})
    for (const auto& item : r[key].items()) text += fmt::format("  {:<12} {:<28} {:>5}\n", key, item.key(), item.value().get<int>());
  for (const auto& l : r["labels"])
    text += fmt::format("  {:>6}  {:<34} in {:>4} masks {:>12} voxels\n", l["id"].get<int>(), l["name"].get<std::string>(), l["masks"].get<int>(), l["voxels"].get<std::int64_t>());
  for (const auto& p : r["problems"]) text += fmt::format("  problem      {}: {}\n", p["subject"].get<std::string>(), p["problem"].get<std::string>());
  return text;
}

nlohmann::ordered_json make_split(std::vector<std::string> names, double validation, int folds, std::uint64_t seed) {
  require(names.size() >= 2, "split: {} subjects (wanted at least 2)", names.size());
  require(folds >= 1 && static_cast<std::size_t>(folds) <= names.size(), "split: {} folds of {} subjects", folds, names.size());
  require(folds > 1 || (validation > 0 && validation < 1), "split: {} of the subjects to validate (wanted more than 0, less than 1)", validation);
  std::sort(names.begin(), names.end());
  require(std::adjacent_find(names.begin(), names.end()) == names.end(), "split: two subjects of one name");
  std::vector<std::pair<std::string, std::string>> order;
  for (const std::string& name : names) {
    const std::string text = (seed ? fmt::format("split {} ", seed) : "split ") + name;
    order.emplace_back(sha256_hex(std::as_bytes(std::span(text))), name);
  }
  std::sort(order.begin(), order.end());
  const std::size_t n = order.size();
  const auto part = [&](std::size_t first, std::size_t last, const char* training, const char* held_out) {
    std::vector<std::string> train, val;
    for (std::size_t i = 0; i < n; ++i) (i >= first && i < last ? val : train).push_back(order[i].second);
    std::sort(train.begin(), train.end()), std::sort(val.begin(), val.end());
    return nlohmann::ordered_json{{training, train}, {held_out, val}};
  };
  if (folds == 1) return part(0, std::clamp<std::size_t>(static_cast<std::size_t>(std::lround(validation * static_cast<double>(n))), 1, n - 1), "training", "validation");
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  const auto k = static_cast<std::size_t>(folds);
  for (std::size_t f = 0; f < k; ++f) list.push_back(part(n * f / k, n * (f + 1) / k, "train", "val"));
  return list;
}

std::vector<std::string> dataset_names(const std::string& folder, const std::string& view) {
  const bool volumes = fs::is_directory(folder + "/labelsTr");
  if (!volumes && !fs::is_directory(folder + "/" + view)) fail(ErrorCode::io, "{}: neither {} (slices) nor labelsTr (nnU-Net's volumes) is in it", folder, view);
  std::vector<std::string> names;
  for (const Case& c : scans_in(folder + "/" + (volumes ? "labelsTr" : view))) {
    std::string name = c.name;
    if (volumes || cut_end(name, "-2d_" + view)) names.push_back(name);
  }
  return names;
}

}  // namespace vg

// Loading of training data: the three sources, the split, the map from sparse ids to class indices.
#include "train/dataset.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>

#include "layers/json.h"
#include "nifti/lut.h"
#include "nifti/png.h"
#include "nifti/volume.h"
#include "tensor/os.h"
#include "tensor/parallel.h"
#include "train/phantom.h"

namespace vg {
namespace {

namespace fs = std::filesystem;

// A pair as it was read: ids, not yet classes.
struct Raw {
  std::string name;
  Tensor image;  // (1, D, H, W, C), normalised
  Tensor ids;    // (1, D, H, W, 1) i32
  double voxel_mm3 = 0.0;
  std::set<std::int32_t> present;
};

std::set<std::int32_t> ids_of(const Tensor& ids) {
  std::set<std::int32_t> set;
  std::int32_t last = -1;
  bool any = false;
  for (const std::int32_t *p = ids.data<std::int32_t>(), *end = p + ids.elements(); p < end; ++p)
    if (!any || *p != last) set.insert(last = *p), any = true;
  return set;
}

bool constant(const Tensor& t) {
  const float* p = t.data<float>();
  return std::all_of(p, p + t.elements(), [&](float v) { return v == p[0]; });
}

// Reads all `names` in parallel; a subject whose reading throws is skipped with the reason. The order of names is kept.
template <class Read>
std::vector<Raw> read_all(const std::vector<std::string>& names, Dataset& data, Read&& read) {
  std::vector<std::optional<Raw>> slots(names.size());
  std::vector<std::string> reasons(names.size());
  parallel_for(static_cast<std::int64_t>(names.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      try {
        slots[at] = read(names[at]);
        slots[at]->name = names[at];
        slots[at]->present = ids_of(slots[at]->ids);
        if (constant(slots[at]->image)) fail(ErrorCode::bad_file, "the image is constant");
      } catch (const Error& e) {
        slots[at].reset(), reasons[at] = e.what();
      }
    }
  });
  std::vector<Raw> kept;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (slots[i])
      kept.push_back(std::move(*slots[i]));
    else
      data.skipped.push_back(names[i] + ": " + reasons[i]);
  }
  return kept;
}

// Classes in ascending order of id, 0 first; pairs of hemispheres by the table's names.
void set_classes(Dataset& data, const std::set<std::int32_t>& ids, const Lut& lut) {
  std::map<std::int32_t, int> index;
  data.classes.clear();
  for (std::int32_t id : ids) {
    index[id] = static_cast<int>(data.classes.size());
    const Colour rgb = lut.colour(id);
    data.classes.push_back({.id = id, .name = lut.name(id), .rgb = {rgb[0], rgb[1], rgb[2]}, .pair = -1, .merged = {}});
  }
  for (const auto& [left, right] : lut.pairs())
    if (index.count(left) && index.count(right)) {
      data.classes[static_cast<std::size_t>(index[left])].pair = index[right];
      data.classes[static_cast<std::size_t>(index[right])].pair = index[left];
    }
}

// Who validates, and who trains: the others, or those that are named.
struct Split {
  std::set<std::string> validation;
  std::optional<std::set<std::string>> training;
};

// Ids become class indices, subjects go to training or validation.
void finish(Dataset& data, std::vector<Raw> raw, const Split& split, const std::string& where) {
  require(data.classes.size() <= 256, "{}: {} label ids; at most 256 classes fit", where, data.classes.size());
  std::map<std::int32_t, std::uint8_t> index;
  for (std::size_t k = 0; k < data.classes.size(); ++k) index[data.classes[k].id] = static_cast<std::uint8_t>(k);
  for (Raw& r : raw) {
    if (split.training && !split.training->count(r.name) && !split.validation.count(r.name)) {
      data.skipped.push_back(r.name + ": in neither list of the split");
      continue;
    }
    Sample s{.name = r.name, .image = std::move(r.image), .labels = Tensor(r.ids.shape(), DType::u8, kCpu), .voxel_mm3 = r.voxel_mm3};
    const std::int32_t* id = r.ids.data<std::int32_t>();
    auto* k = s.labels.data<std::uint8_t>();
    std::int32_t last = 0;
    std::uint8_t last_index = index.at(0);
    for (std::int64_t v = 0; v < r.ids.elements(); ++v) {
      if (id[v] != last) last = id[v], last_index = index.at(last);
      k[v] = last_index;
    }
    r.ids = Tensor();
    (split.validation.count(s.name) ? data.validation : data.training).push_back(std::move(s));
  }
  data.provenance["training"] = data.training.size(), data.provenance["validation"] = data.validation.size(), data.provenance["skipped"] = data.skipped.size();
  if (data.training.empty())
    fail(ErrorCode::bad_file, "{}: no training pair is left ({} skipped{}{})", where, data.skipped.size(), data.skipped.empty() ? "" : "; the first: ",
         data.skipped.empty() ? "" : data.skipped[0]);
}

std::set<std::string> name_list(const Json& j, const std::string& key, const std::string& file) {
  if (!j.is_object() || !j.contains(key) || !j[key].is_array()) fail(ErrorCode::bad_file, "{}: wanted an object with a list \"{}\"", file, key);
  std::set<std::string> names;
  for (const Json& name : j[key]) {
    if (!name.is_string()) fail(ErrorCode::bad_file, "{}: \"{}\" holds {}, wanted names", file, key, name.dump());
    names.insert(name.get<std::string>());
  }
  return names;
}

Split split_file(const std::vector<std::string>& names, const SplitOptions& o, const std::string& where) {
  Json j = parse_json(os::read_text(o.file), o.file);
  std::string validation = "validation", training = "training";
  if (j.is_array()) {  // nnU-Net's splits_final.json
    require(o.fold >= 0 && static_cast<std::size_t>(o.fold) < j.size(), "{}: fold {} of {}", o.file, o.fold, j.size());
    j = Json(j[static_cast<std::size_t>(o.fold)]);
    validation = "val", training = "train";
  }
  Split s{.validation = name_list(j, validation, o.file), .training = {}};
  if (j.contains(training)) s.training = name_list(j, training, o.file);
  for (const std::string& name : s.validation)
    if (s.training && s.training->count(name)) fail(ErrorCode::bad_file, "{}: {} is to train and to validate", o.file, name);
  // A file for other data is an error, not an empty set.
  const auto known = std::count_if(names.begin(), names.end(), [&](const std::string& n) { return s.validation.count(n) != 0; });
  if (known == 0 && !s.validation.empty()) fail(ErrorCode::bad_file, "{}: none of its {} validation names is in {}", o.file, s.validation.size(), where);
  return s;
}

Split split(const std::vector<std::string>& names, const SplitOptions& o, Dataset& data, const std::string& where) {
  if (!o.file.empty()) {
    data.provenance["split"] = fs::path(o.file).filename().string();
    return split_file(names, o, where);
  }
  Split s;
  require(o.folds >= 1 && o.fold >= 0 && o.fold < o.folds, "fold {}/{}: wanted 0 <= fold < folds", o.fold, o.folds);
  if (o.folds == 1) return s;
  std::vector<std::pair<std::string, std::string>> order;
  for (const std::string& name : names) {
    const std::string text = "split " + name;
    order.emplace_back(sha256_hex(std::as_bytes(std::span(text))), name);
  }
  std::sort(order.begin(), order.end());
  const std::size_t n = order.size(), first = n * static_cast<std::size_t>(o.fold) / static_cast<std::size_t>(o.folds),
                    last = n * (static_cast<std::size_t>(o.fold) + 1) / static_cast<std::size_t>(o.folds);
  for (std::size_t i = first; i < last; ++i) s.validation.insert(order[i].second);
  data.provenance["split"] = fmt::format("fold {}/{}", o.fold, o.folds);
  return s;
}

std::vector<std::string> names_of(const std::vector<Raw>& raw) {
  std::vector<std::string> names;
  for (const Raw& r : raw) names.push_back(r.name);
  return names;
}

bool ends_with(const std::string& s, const std::string& tail) { return s.size() > tail.size() && s.compare(s.size() - tail.size(), tail.size(), tail) == 0; }

// Names of the files in `folder` that end in `tail`, without it, sorted.
std::vector<std::string> stems(const std::string& folder, const std::string& tail) {
  std::error_code error;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string file = entry.path().filename().string();
    if (ends_with(file, tail) && file[0] != '.') names.push_back(file.substr(0, file.size() - tail.size()));
  }
  if (error) fail(ErrorCode::io, "{}: {}", folder, error.message());
  std::sort(names.begin(), names.end());
  return names;
}

Recipe zscore_recipe() {
  Recipe r;
  r.intensity.kind = "zscore";
  return r;
}

}  // namespace

Dataset load_slices(const std::string& folder, const SlicesOptions& o) {
  Dataset data;
  data.spatial_dims = 2;
  data.channels = {"T1"};
  // The horizontal axis of a picture is left-right, except where one looks from the side.
  data.left_right_axis = o.view == "sagittal" ? -1 : 2;
  data.recipe = zscore_recipe();
  data.recipe.slices = "image", data.recipe.per_slice = true;
  const std::string images = folder + "/" + o.view, masks = images + "-mask", tail = "-2d_" + o.view;
  std::string table = o.lut;
  if (table.empty() && fs::exists(folder + "/lut/FreeSurferColorLUT.txt")) table = folder + "/lut/FreeSurferColorLUT.txt";
  const Lut lut = table.empty() ? builtin_freesurfer() : read_lut(table);

  const std::vector<std::string> names = stems(images, tail + ".png");
  if (names.empty()) fail(ErrorCode::bad_file, "{}: no files NAME{}.png", images, tail);
  for (const std::string& orphan : stems(masks, tail + "-mask.png"))
    if (!std::binary_search(names.begin(), names.end(), orphan)) data.skipped.push_back(orphan + ": a mask without an image");
  std::vector<Raw> raw = read_all(names, data, [&](const std::string& name) {
    const std::string mask = masks + "/" + name + tail + "-mask.png";
    if (!fs::exists(mask)) fail(ErrorCode::bad_file, "no mask {}", mask);
    Raw r;
    r.image = read_volume(images + "/" + name + tail + ".png").voxels;
    r.ids = read_labels(mask).voxels;
    if (!(r.image.shape() == r.ids.shape()))
      fail(ErrorCode::bad_file, "image {} and mask {} differ in size", to_string(r.image.shape()), to_string(r.ids.shape()));
    for (std::int32_t id : ids_of(r.ids))
      if (id != 0 && !lut.contains(id)) fail(ErrorCode::bad_file, "the mask holds id {}, which the colour table does not know", id);
    r.image = normalise(r.image, data.recipe);
    r.voxel_mm3 = 1.0;
    return r;
  });
  std::set<std::int32_t> ids = {0};
  for (const Raw& r : raw) ids.insert(r.present.begin(), r.present.end());
  set_classes(data, ids, lut);
  data.provenance = {{"source", "slices"}, {"folder", fs::path(folder).filename().string()}, {"view", o.view}};
  const Split parts = split(names_of(raw), o.split, data, folder);
  finish(data, std::move(raw), parts, folder);
  return data;
}

Dataset load_folder(const std::string& folder, const FolderOptions& o) {
  const std::string file = folder + "/dataset.json";
  const Json j = parse_json(os::read_text(file), file);
  JsonFields f(j, file);
  Dataset data;
  data.spatial_dims = 3;
  const Json& channels = f.json(f.has("channel_names") ? "channel_names" : "modality");
  for (std::size_t c = 0; c < channels.size(); ++c) {
    const std::string key = std::to_string(c);
    if (!channels.is_object() || !channels.contains(key) || !channels[key].is_string())
      fail(ErrorCode::bad_file, "{}: channel_names wants a name for each of \"0\", \"1\", ..., found {}", file, channels.dump());
    data.channels.push_back(channels[key].get<std::string>());
  }
  if (data.channels.empty()) fail(ErrorCode::bad_file, "{}: no channels", file);
  std::string ending = ".nii.gz";
  f.get_to("file_ending", ending);
  // nnU-Net 2: {"Left-Putamen": 12}; nnU-Net 1 and the Decathlon: {"12": "Left-Putamen"}.
  const Lut standard = builtin_freesurfer();
  Lut lut;
  for (const auto& item : f.json("labels").items()) {
    const bool by_name = item.value().is_number_integer();
    if (!by_name && !item.value().is_string()) fail(ErrorCode::unsupported, "{}: label {} is {}; region-based labels are not read", file, item.key(), item.value().dump());
    char* end = nullptr;
    const long id = by_name ? item.value().get<long>() : std::strtol(item.key().c_str(), &end, 10);
    if (id < 0 || id > 1000000 || (end && *end)) fail(ErrorCode::bad_file, "{}: label {}: {} is not an id", file, item.key(), item.value().dump());
    const std::string name = by_name ? item.key() : item.value().get<std::string>();
    lut.entries[static_cast<std::int32_t>(id)] = {name, standard.name(static_cast<std::int32_t>(id)) == name ? standard.colour(static_cast<std::int32_t>(id)) : lut.colour(static_cast<std::int32_t>(id)), 0};
  }
  if (!lut.contains(0)) lut.entries[0] = {"background", {0, 0, 0}, 0};
  data.recipe = zscore_recipe();
  data.recipe.orientation = o.orientation;
  const std::size_t letter = o.orientation.find_first_of("LR");
  require(letter != std::string::npos && o.orientation.size() == 3, "orientation \"{}\": wanted three letters such as RAS", o.orientation);
  data.left_right_axis = 2 - static_cast<int>(letter);  // (i, j, k) are (W, H, D)

  const std::vector<std::string> names = stems(folder + "/labelsTr", ending);
  if (names.empty()) fail(ErrorCode::bad_file, "{}/labelsTr: no files NAME{}", folder, ending);
  std::vector<Raw> raw = read_all(names, data, [&](const std::string& name) {
    Raw r;
    const Volume labels = reorient(read_labels(folder + "/labelsTr/" + name + ending), o.orientation);
    r.ids = labels.voxels;
    for (std::int32_t id : ids_of(r.ids))
      if (!lut.contains(id)) fail(ErrorCode::bad_file, "the labels hold id {}, which dataset.json does not list", id);
    const Shape& s = r.ids.shape();
    const auto count = static_cast<std::int64_t>(data.channels.size());
    r.image = Tensor({1, s.d(), s.h(), s.w(), count}, DType::f32, kCpu);
    for (std::int64_t c = 0; c < count; ++c) {
      const std::string path = fmt::format("{}/imagesTr/{}_{:04d}{}", folder, name, c, ending);
      if (!fs::exists(path)) fail(ErrorCode::bad_file, "no image {}", path);
      const Volume v = reorient(read_volume(path), o.orientation);
      if (!(v.voxels.shape() == s)) fail(ErrorCode::bad_file, "{} has shape {}, the labels {}", path, to_string(v.voxels.shape()), to_string(s));
      const double apart = corner_distance(v.size(), v.place.affine, labels.place.affine);
      if (apart > 0.1) fail(ErrorCode::bad_file, "{} and its labels lie up to {:.2f} mm apart", path, apart);
      const Tensor normal = normalise(v.voxels, data.recipe);
      const float* from = normal.data<float>();
      float* to = r.image.data<float>() + c;
      for (std::int64_t i = 0; i < normal.elements(); ++i) to[i * count] = from[i];
    }
    const Vec3 mm = labels.spacing();
    r.voxel_mm3 = mm[0] * mm[1] * mm[2];
    return r;
  });
  std::set<std::int32_t> ids;
  for (const auto& [id, entry] : lut.entries) ids.insert(id);
  set_classes(data, ids, lut);
  data.provenance = {{"source", "nnunet"}, {"folder", fs::path(folder).filename().string()}};
  const Split parts = split(names_of(raw), o.split, data, folder);
  finish(data, std::move(raw), parts, folder);
  return data;
}

Dataset make_phantom_dataset(const PhantomDatasetOptions& o) {
  require(o.training >= 1 && o.validation >= 0, "phantoms: {} for training, {} for validation", o.training, o.validation);
  Dataset data;
  const bool flat = o.grid[0] == 1 || o.grid[1] == 1 || o.grid[2] == 1;
  require(!flat || o.grid[0] == 1, "phantoms: slices want the extent 1 first (D), got {}", to_string(o.grid));
  data.spatial_dims = flat ? 2 : 3;
  data.channels = {"T1"};
  data.recipe = zscore_recipe();
  const std::string orientation = !o.orientation.empty() ? o.orientation : flat ? "LIP" : "RAS";
  data.recipe.orientation = flat ? "" : orientation;
  const std::size_t letter = orientation.find_first_of("LR");
  require(orientation.size() == 3 && letter != std::string::npos, "orientation \"{}\": wanted three letters such as RAS", orientation);
  data.left_right_axis = 2 - static_cast<int>(letter);
  if (flat) data.recipe.slices = "image", data.recipe.per_slice = true;
  const Lut lut = phantom_labels();
  std::set<std::int32_t> ids;
  for (const auto& [id, entry] : lut.entries) ids.insert(id);
  std::vector<std::string> names;
  Split parts;
  for (int i = 0; i < o.training + o.validation; ++i) {
    names.push_back(fmt::format("phantom_{:03d}", i));
    if (i >= o.training) parts.validation.insert(names.back());
  }
  std::vector<Raw> raw = read_all(names, data, [&](const std::string& name) {
    PhantomParams p;
    p.grid = o.grid, p.spacing = o.spacing, p.orientation = orientation, p.seed = o.seed, p.subject = static_cast<int>(std::strtol(name.c_str() + 8, nullptr, 10));
    const Phantom phantom = make_phantom(p);
    const Vec3 mm = phantom.labels.spacing();
    return Raw{.name = {}, .image = normalise(phantom.image.voxels, data.recipe), .ids = phantom.labels.voxels, .voxel_mm3 = mm[0] * mm[1] * mm[2], .present = {}};
  });
  set_classes(data, ids, lut);
  data.provenance = {{"source", "phantom"}, {"seed", o.seed}, {"grid", {o.grid[0], o.grid[1], o.grid[2]}}, {"spacing", o.spacing}};
  finish(data, std::move(raw), parts, "phantoms");
  return data;
}

}  // namespace vg

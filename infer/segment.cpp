// The way there and back. Each step keeps what its undoing needs; the network in the middle knows no patient.
#include "infer/segment.h"

#include <algorithm>
#include <cmath>

#include "nifti/conform.h"
#include "nifti/resample.h"
#include "tensor/os.h"

namespace vg {
namespace {

constexpr std::uint64_t kProgramBytes = std::uint64_t{40} << 20;  // code, libraries, threads, what reading left behind

// For planes of a volume: the orientation whose third axis is the plane's normal.
std::string plane_orientation(const Recipe& r) {
  if (!r.orientation.empty()) return r.orientation;
  if (r.slices == "axial") return "RAS";
  if (r.slices == "coronal") return "RSA";
  if (r.slices == "sagittal") return "ASR";
  return "";
}

bool takes_planes(const Recipe& r) { return r.slices == "axial" || r.slices == "coronal" || r.slices == "sagittal"; }

// `grid` with voxels of about `spacing` (mm along i, j, k) over the same field of view: a whole number of them, so that both of its edges coincide.
Grid respaced(const Grid& grid, const Vec3& spacing) {
  const Vec3 old = spacing_of(grid.affine);
  Grid g = grid;
  for (std::size_t a = 0; a < 3; ++a) {
    g.size[a] = std::max<std::int64_t>(1, std::llround(static_cast<double>(grid.size[a]) * old[a] / spacing[a]));
    const double factor = static_cast<double>(grid.size[a]) / static_cast<double>(g.size[a]);
    for (int row = 0; row < 3; ++row) g.affine.m[row][a] = grid.affine.m[row][a] * factor;
    for (int row = 0; row < 3; ++row) g.affine.m[row][3] += 0.5 * (factor - 1.0) * grid.affine.m[row][a];
  }
  return g;
}

// Does every voxel hold the same numbers (or none)? There is nothing to segment then, and no scale to normalise by.
bool constant(const Tensor& voxels) {
  const std::int64_t channels = voxels.shape().c();
  std::vector<float> first(static_cast<std::size_t>(channels), NAN);
  const float* v = voxels.data<float>();
  for (std::int64_t i = 0; i < voxels.elements(); ++i) {
    float& f = first[static_cast<std::size_t>(i % channels)];
    if (!std::isfinite(v[i])) continue;
    if (std::isnan(f)) f = v[i];
    if (v[i] != f) return false;
  }
  return true;
}

// A scan on its way: what it is now, and how far it has come from the file.
struct Journey {
  Volume volume;                         // as the network wants it, before normalisation
  std::optional<ConformRecord> conform;  // then nothing below was done
  std::string original_orientation;      // set if the axes were turned
  std::optional<Grid> before_spacing;    // set if voxels were resampled
};

Journey forward(const Recipe& r, const Volume& scan, Warnings& warnings) {
  Journey j;
  if (r.conform == "meshnet") {
    Conformed c = conform(scan);
    warnings.insert(warnings.end(), c.volume.warnings.begin(), c.volume.warnings.end());
    j.volume = std::move(c.volume), j.conform = std::move(c.record);
    return j;
  }
  j.volume = scan;
  const std::string wanted = plane_orientation(r), now = orientation_of(scan.place.affine);
  if (!wanted.empty() && wanted != now) {
    j.volume = reorient(scan, wanted);
    j.original_orientation = now;
  }
  if (!r.spacing.empty()) {
    const Vec3 spacing = {r.spacing[2], r.spacing[1], r.spacing[0]}, have = j.volume.spacing();
    if (std::abs(spacing[0] - have[0]) > 1e-3 || std::abs(spacing[1] - have[1]) > 1e-3 || std::abs(spacing[2] - have[2]) > 1e-3) {
      j.before_spacing = j.volume.grid();
      const Grid target = respaced(j.volume.grid(), spacing);
      j.volume.voxels = resample_linear(j.volume.voxels, j.volume.grid(), target);
      j.volume.place.affine = target.affine;
    }
  }
  return j;
}

// A result on the network's grid (f32 or i32, one channel) back on the scan's.
Volume back(const Journey& j, const Tensor& result, const Volume& scan) {
  if (j.conform) return undo_conform(result, *j.conform);
  Volume v = j.volume;
  v.voxels = result;
  if (j.before_spacing) {
    v.voxels = result.dtype() == DType::i32 ? resample_nearest(result, j.volume.grid(), *j.before_spacing) : resample_linear(result, j.volume.grid(), *j.before_spacing);
    v.place.affine = j.before_spacing->affine;
  }
  if (!j.original_orientation.empty()) v = reorient(v, j.original_orientation);
  v.place = scan.place;  // turned twice: exactly the file's numbers, not nearly
  v.name = scan.name;
  return v;
}

// (1, D, H, W, C) as the network's batch: planes of a volume become samples.
Shape batch_shape(const Recipe& r, const Graph& g, const Volume& v) {
  const Shape& s = v.voxels.shape();
  require(s.c() == g.in_channels, "{}: {} channels, the network wants {}", v.name, s.c(), g.in_channels);
  if (g.spatial_dims == 3) return s;
  if (takes_planes(r)) return {s.d(), 1, s.h(), s.w(), s.c()};
  require(s.d() == 1, "{}: a volume of {} slices, but the model was trained on pictures; give it single slices", v.name, s.d());
  return s;
}

Tensor normalised(const Recipe& r, const Tensor& x) {
  if (!r.per_slice || x.shape().n() == 1) return normalise(x.reshaped({1, x.shape().n() * x.shape().d(), x.shape().h(), x.shape().w(), x.shape().c()}), r).reshaped(x.shape());
  Tensor y(x.shape(), DType::f32, kCpu);
  const Shape one = {1, x.shape().d(), x.shape().h(), x.shape().w(), x.shape().c()};
  for (std::int64_t n = 0; n < x.shape().n(); ++n) {
    Tensor to = y.range(n * one.elements(), one);
    copy(to, normalise(x.range(n * one.elements(), one), r));
  }
  return y;
}

}  // namespace

namespace {
Model prepared(const std::string& path) {
  Model m = read_model(path);
  if (recipe_from_json(m.recipe, path + ": vg.recipe").axes == "ijk") m.weights = permute_axes(m.weights), m.graph = permute_axes(std::move(m.graph));
  return m;
}
}  // namespace

Segmenter::Segmenter(const std::string& file, Device device)
    : path(file), model(prepared(file)), recipe(recipe_from_json(model.recipe, file + ": vg.recipe")), net(model.graph, device, false) {
  load_weights(net, model.weights, file);
  model.weights.clear();
  const auto classes = static_cast<std::size_t>(net.graph.out_channels());
  if (!model.labels.empty() && model.labels.size() != classes)
    fail(ErrorCode::bad_file, "{}: {} labels for {} classes", file, model.labels.size(), classes);
}

std::int32_t Segmenter::id_of(std::int64_t index) const {
  return model.labels.empty() ? static_cast<std::int32_t>(index) : model.labels[static_cast<std::size_t>(index)].id;
}

Lut Segmenter::lut() const {
  Lut lut;
  for (const LabelInfo& l : model.labels)
    lut.entries[l.id] = {l.name, {static_cast<std::uint8_t>(l.rgb[0]), static_cast<std::uint8_t>(l.rgb[1]), static_cast<std::uint8_t>(l.rgb[2])}, 0};
  return lut;
}

PredictOptions predict_options(const Recipe& r) {
  PredictOptions p;
  std::copy(r.window.begin(), r.window.end(), p.window);
  std::copy(r.divisor.begin(), r.divisor.end(), p.divisor);
  p.overlap = r.overlap;
  return p;
}

Shape network_input(const Segmenter& s, const Volume& scan) {
  if (s.recipe.conform == "meshnet") return {1, kConformSize, kConformSize, kConformSize, 1};
  Warnings ignored;
  return batch_shape(s.recipe, s.net.graph, forward(s.recipe, scan, ignored).volume);
}

// The 4-D results, and one candidate's volumes on their way.
static std::uint64_t candidate_bytes(const Volume& scan, const SegmentOptions& o) {
  if (o.candidates <= 1) return 0;
  const std::uint64_t maps = o.confidence ? 2 : 1;
  return static_cast<std::uint64_t>(scan.voxels.shape().voxels()) * 4 * (static_cast<std::uint64_t>(o.candidates) * maps + 3);
}

Segmentation segment(Context& ctx, Segmenter& s, const Volume& scan, const SegmentOptions& options) {
  const double start = os::wall_seconds();
  if (constant(scan.voxels)) fail(ErrorCode::numeric, "{}: every voxel has the same value; there is nothing to segment", scan.name);
  Segmentation out;
  out.warnings = scan.warnings;
  Journey journey = forward(s.recipe, scan, out.warnings);
  const Shape shape = batch_shape(s.recipe, s.net.graph, journey.volume);

  PredictOptions p = predict_options(s.recipe);
  p.candidates = options.candidates;
  p.confidence = options.confidence, p.entropy = options.entropy, p.precision = options.precision, p.head_only = options.head_only, p.progress = options.progress;
  const double before = os::wall_seconds();
  const Tensor input = normalised(s.recipe, journey.volume.voxels.reshaped(shape));
  if (options.max_bytes > 0) {
    release_cache(kCpu);
    const std::uint64_t taken = memory_stats(kCpu).live + kProgramBytes + candidate_bytes(scan, options);
    p.max_bytes = options.max_bytes > taken ? options.max_bytes - taken : 1;
    if (const std::uint64_t need = predict_bytes(s.net.graph, shape, p, ctx.convolution); need > p.max_bytes)
      fail(ErrorCode::out_of_memory, "{}: the network needs {:.2f} GiB for {} voxels beside {:.2f} GiB for the scan, the limit is {:.2f} GiB", scan.name,
           static_cast<double>(need) / 1073741824.0, shape.n() * shape.voxels(), static_cast<double>(taken) / 1073741824.0,
           static_cast<double>(options.max_bytes) / 1073741824.0);
  }
  const Prediction prediction = predict(ctx, s.net, input, p);
  synchronize(ctx.device, ctx.stream);
  if (options.max_bytes > 0) release_cache(kCpu);
  out.network_seconds = os::wall_seconds() - before;

  const Shape grid = {1, journey.volume.voxels.shape().d(), journey.volume.voxels.shape().h(), journey.volume.voxels.shape().w(), 1};
  std::vector<std::int32_t> table;
  for (std::int64_t k = 0; k < s.net.graph.out_channels(); ++k) table.push_back(s.id_of(k));
  const std::int64_t candidates = prediction.labels.shape().c();
  const auto ids = [&](std::int64_t candidate) {
    Tensor t(grid, DType::i32, kCpu);
    for (std::int64_t i = 0, j = candidate; i < t.elements(); ++i, j += candidates)
      t.data<std::int32_t>()[i] = table[prediction.labels.dtype() == DType::u8 ? prediction.labels.data<std::uint8_t>()[j]
                                                                               : static_cast<std::size_t>(prediction.labels.data<std::int32_t>()[j])];
    return t;
  };
  const auto chance = [&](std::int64_t candidate) {
    if (candidates == 1) return prediction.confidence.reshaped(grid);
    Tensor t(grid, DType::f32, kCpu);
    for (std::int64_t i = 0, j = candidate; i < t.elements(); ++i, j += candidates) t.data<float>()[i] = prediction.confidence.data<float>()[j];
    return t;
  };
  const auto placed = [&](const Tensor& result) {
    if (!options.conformed) return back(journey, result, scan);
    Volume v = journey.volume;
    v.voxels = result;
    return v;
  };
  // One volume of many: each candidate goes its way by itself.
  const auto together = [&](auto number, Volume all, const auto& one) {
    using Number = decltype(number);
    const Shape single = all.voxels.shape();
    Shape several = single;
    several[4] = candidates;
    Tensor t(several, all.voxels.dtype(), kCpu);
    for (std::int64_t k = 0; k < candidates; ++k) {
      const Tensor mine = k == 0 ? all.voxels : placed(one(k)).voxels;
      for (std::int64_t i = 0; i < single.elements(); ++i) t.data<Number>()[i * candidates + k] = mine.data<Number>()[i];
    }
    all.voxels = t;
    return all;
  };
  out.image = options.conformed ? journey.volume : scan;
  out.labels = placed(ids(0));
  if (options.confidence) out.confidence = placed(chance(0));
  if (options.candidates > 1) {
    out.candidates = together(std::int32_t{}, out.labels, ids);
    if (options.confidence) out.chances = together(0.0f, *out.confidence, chance);
  }
  if (options.entropy) out.entropy = placed(prediction.entropy.reshaped(grid));
  out.total_seconds = os::wall_seconds() - start;
  return out;
}

}  // namespace vg

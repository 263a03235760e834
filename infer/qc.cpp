// Layout: a heading, one row of slices per plane (and one more for the reference), the legend. All slices share one scale in pixels per mm.
#include "infer/qc.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "infer/metrics.h"
#include "tensor/error.h"

namespace vg {
namespace {

constexpr Colour kBackground{16, 18, 22}, kPanel{0, 0, 0}, kBright{235, 238, 242}, kDim{150, 158, 168}, kWrong{255, 64, 48};
constexpr int kGap = 8, kBorder = 20, kLine = 22, kHeading = 60;  // pixels

// A plane of the display: which axis of the volume looks at us, which run to the right and downwards.
struct Plane {
  int through, right, down;
  bool flip_right, flip_down;  // does the picture run against the axis?
  const char* letters;         // at the left, right, upper and lower edge
};

// Volumes as they are shown: axes towards R, A, S if the file has an orientation, else as stored.
struct Scene {
  Volume image, labels;
  std::optional<Volume> reference;
  bool oriented = false, flat = false;
  std::vector<Plane> planes;
  Size3 low{}, high{};    // box of voxels that is shown, inclusive
  Size3 first{}, last{};  // most of the labels: slices are spread over it
  double black = 0, white = 1;
};

// Shares 0.01 and 0.995 of the voxels that are not zero: a few bright vessels must not darken the rest.
void choose_window(Scene& scene) {
  const float* values = scene.image.voxels.data<float>();
  const std::int64_t channels = scene.image.channels(), n = scene.image.voxels.elements() / channels,
                     step = std::max<std::int64_t>(1, n / 500000);
  std::vector<float> sample;
  for (std::int64_t i = 0; i < n; i += step)
    if (const float v = values[i * channels]; std::isfinite(v) && v != 0) sample.push_back(v);
  if (sample.empty()) return;
  const auto quantile = [&](double share) {
    const auto at = sample.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(sample.size() - 1));
    std::nth_element(sample.begin(), at, sample.end());
    return static_cast<double>(*at);
  };
  scene.black = quantile(0.01);
  scene.white = quantile(0.995);
  if (!(scene.white > scene.black)) scene.white = scene.black + 1;
}

void choose_box(Scene& scene, double margin) {
  const Size3 size = scene.labels.size();
  const Vec3 spacing = scene.labels.spacing();
  std::array<std::vector<std::int64_t>, 3> counts;  // labelled voxels of each plane
  for (int a = 0; a < 3; ++a) counts[a].resize(static_cast<std::size_t>(size[a]));
  std::int64_t total = 0;
  const auto count = [&](const Volume& v) {
    const std::int32_t* id = v.voxels.data<std::int32_t>();
    for (std::int64_t k = 0; k < size[2]; ++k)
      for (std::int64_t j = 0; j < size[1]; ++j) {
        std::int64_t row = 0;
        for (std::int64_t i = 0; i < size[0]; ++i, ++id) {
          if (*id == 0) continue;
          ++row;
          ++counts[0][static_cast<std::size_t>(i)];
        }
        counts[1][static_cast<std::size_t>(j)] += row;
        counts[2][static_cast<std::size_t>(k)] += row;
        total += row;
      }
  };
  count(scene.labels);
  if (scene.reference) count(*scene.reference);
  for (int a = 0; a < 3; ++a) {
    // The first plane up to which more than `share` of the labelled voxels lie; without labels: the first or the last of all.
    const auto plane = [&](double share) {
      std::int64_t sum = 0, at = 0;
      for (; at < size[a] - 1; ++at)
        if ((sum += counts[a][static_cast<std::size_t>(at)]) > static_cast<std::int64_t>(share * static_cast<double>(total))) break;
      return at;
    };
    const auto last = [&] {
      std::int64_t at = size[a] - 1;
      while (at > 0 && counts[a][static_cast<std::size_t>(at)] == 0) --at;
      return at;
    };
    const bool whole = total == 0 || scene.flat;  // a single slice is shown whole
    const auto more = static_cast<std::int64_t>(margin / spacing[a]);
    scene.low[a] = whole ? 0 : std::max<std::int64_t>(0, plane(0) - more);
    scene.high[a] = whole ? size[a] - 1 : std::min(size[a] - 1, last() + more);
    scene.first[a] = total == 0 ? 0 : plane(0.03);
    scene.last[a] = total == 0 ? size[a] - 1 : plane(0.97);
  }
}

Scene make_scene(const Volume& image, const Volume& labels, const QcOptions& options) {
  const auto check = [&](const Volume& v, DType type, const char* what) {
    require(v.voxels.defined() && v.voxels.dtype() == type && v.voxels.shape().rank() == 5 && v.voxels.device().on_host(),
            "qc mosaic: the {} must be a host tensor (1, D, H, W, C) of type {}", what, name_of(type));
    require(v.size() == labels.size(), "qc mosaic: the {} has {} x {} x {} voxels, the labels {} x {} x {}", what, v.size()[0], v.size()[1],
            v.size()[2], labels.size()[0], labels.size()[1], labels.size()[2]);
    require(v.place.source == TransformSource::none || image.place.source == TransformSource::none ||
                corner_distance(v.size(), v.place.affine, image.place.affine) < 0.1,
            "qc mosaic: the {} lies elsewhere than the image ({} against {}, {:.2f} mm apart)", what, orientation_of(v.place.affine),
            orientation_of(image.place.affine), corner_distance(v.size(), v.place.affine, image.place.affine));
    require(type == DType::f32 || v.channels() == 1, "qc mosaic: the {} must have one channel, not {}", what, v.channels());
  };
  check(labels, DType::i32, "labels");
  check(image, DType::f32, "image");
  if (options.reference) check(*options.reference, DType::i32, "reference");
  require(options.columns >= 1 && options.columns <= 24 && options.tile >= 32 && options.tile <= 1024,
          "qc mosaic: {} columns of {} pixels (wanted 1 to 24 of 32 to 1024)", options.columns, options.tile);

  Scene scene;
  scene.oriented = image.place.source != TransformSource::none;
  const auto shown = [&](Volume v) {
    v.place.affine = image.place.affine;
    return scene.oriented ? reorient(v, "RAS") : v;
  };
  scene.image = shown(image);
  scene.labels = shown(labels);
  if (options.reference) scene.reference = shown(*options.reference);

  const Size3 size = scene.labels.size();
  scene.flat = std::count(size.begin(), size.end(), 1) == 1;
  if (!scene.oriented) {
    scene.planes = {{2, 0, 1, false, false, ""}, {1, 0, 2, false, false, ""}, {0, 1, 2, false, false, ""}};
  } else {
    const bool r = options.radiological;
    scene.planes = {
        {2, 0, 1, r, true, r ? "RLAP" : "LRAP"}, {1, 0, 2, r, true, r ? "RLSI" : "LRSI"}, {0, 1, 2, r, true, r ? "APSI" : "PASI"}};
  }
  if (scene.flat) std::erase_if(scene.planes, [&](const Plane& p) { return size[p.through] != 1; });
  choose_box(scene, options.margin);
  choose_window(scene);
  return scene;
}

enum class Content { image, labels, reference, disagreement };

// Where the pixels of one picture axis lie on a voxel axis: nearest voxel for labels, two neighbours and a weight for the image. Offsets in
// voxels.
struct Sampling {
  struct Pixel {
    std::int64_t nearest, before, after;
    float weight;  // of `after`
  };
  std::vector<Pixel> pixels;

  Sampling(const Scene& scene, int axis, bool flip, std::int64_t stride, double pixels_per_mm) {
    const double voxel = pixels_per_mm * scene.labels.spacing()[axis];  // pixels
    const auto low = static_cast<double>(scene.low[axis]), high = static_cast<double>(scene.high[axis]);
    const int count = std::max(1, static_cast<int>(std::lround((high - low + 1) * voxel)));
    for (int p = 0; p < count; ++p) {  // voxel n covers n - 0.5 to n + 0.5
      const double along = (p + 0.5) / voxel, at = std::clamp(flip ? high + 0.5 - along : low - 0.5 + along, low, high);
      const auto n = static_cast<std::int64_t>(at);
      pixels.push_back(
          {std::llround(at) * stride, n * stride, std::min(n + 1, scene.high[axis]) * stride, static_cast<float>(at - std::floor(at))});
    }
  }
  int count() const { return static_cast<int>(pixels.size()); }
};

Colour blend(Colour c, Colour over, double share) {
  for (std::size_t i = 0; i < 3; ++i) c[i] = static_cast<std::uint8_t>(c[i] + share * (over[i] - c[i]) + 0.5);
  return c;
}

// Everything that the page is made of; draw_qc_mosaic() goes through it from top to bottom.
class Page {
 public:
  Page(const Scene& scene, const Lut& lut, const QcOptions& options) : scene_(scene), lut_(lut), options_(options) {
    for (const Plane& plane : scene.planes)
      for (const int axis : {plane.right, plane.down}) longest_mm_ = std::max(longest_mm_, extent_mm(axis));
    pixels_per_mm_ = (scene.flat ? 2 * options.tile : options.tile) / longest_mm_;
    overlaps_ = overlaps(scene.reference ? scene.reference->voxels : scene.labels.voxels, scene.labels.voxels);
    std::erase_if(overlaps_, [](const Overlap& o) { return o.label == 0; });
  }

  // The contents of one row of the mosaic: slices of one plane, or the views of a single slice.
  struct Row {
    const Plane* plane;
    std::vector<std::pair<Content, std::int64_t>> tiles;
  };
  std::vector<Row> rows() const {
    std::vector<Row> rows;
    for (const Plane& plane : scene_.planes) {
      if (scene_.flat) {
        rows.push_back({&plane, {{Content::image, 0}, {Content::labels, 0}}});
        if (scene_.reference) rows.back().tiles.insert(rows.back().tiles.end(), {{Content::reference, 0}, {Content::disagreement, 0}});
        continue;
      }
      const std::int64_t first = scene_.first[plane.through], count = scene_.last[plane.through] - first + 1;
      for (const Content content : {Content::labels, Content::reference}) {
        if (content == Content::reference && !scene_.reference) continue;
        Row row{&plane, {}};
        for (int c = 0; c < options_.columns; ++c) row.tiles.emplace_back(content, first + (2 * c + 1) * count / (2 * options_.columns));
        rows.push_back(row);
      }
    }
    return rows;
  }

  int width_of(const Plane& plane) const { return sampling(plane.right, false).count(); }
  int height_of(const Plane& plane) const { return sampling(plane.down, false).count(); }
  int tile_width() const { return static_cast<int>(std::lround(longest_mm_ * pixels_per_mm_)); }

  void draw_tile(Canvas& canvas, const Plane& plane, Content content, std::int64_t slice, int x0, int y0) const {
    const Sampling right = sampling(plane.right, plane.flip_right), down = sampling(plane.down, plane.flip_down);
    const std::int64_t start = slice * stride(plane.through), channels = scene_.image.channels();
    const float* values = scene_.image.voxels.data<float>() + start * channels;
    const std::int32_t* shown = (content == Content::reference ? *scene_.reference : scene_.labels).voxels.data<std::int32_t>() + start;
    const std::int32_t* other = scene_.reference ? scene_.reference->voxels.data<std::int32_t>() + start : nullptr;
    for (int y = 0; y < down.count(); ++y)
      for (int x = 0; x < right.count(); ++x) {
        const Sampling::Pixel &u = right.pixels[x], &v = down.pixels[y];
        const float above = values[(u.before + v.before) * channels] * (1 - u.weight) + values[(u.after + v.before) * channels] * u.weight;
        const float below = values[(u.before + v.after) * channels] * (1 - u.weight) + values[(u.after + v.after) * channels] * u.weight;
        const double share = (above * (1 - v.weight) + below * v.weight - scene_.black) / (scene_.white - scene_.black);
        Colour c;
        c.fill(share >= 0 ? static_cast<std::uint8_t>(std::min(share, 1.0) * 255 + 0.5) : 0);  // NaN: black
        const auto id_at = [&](int px, int py) { return shown[right.pixels[px].nearest + down.pixels[py].nearest]; };
        const std::int32_t id = id_at(x, y);
        if (content == Content::disagreement) {
          c = blend(c, {0, 0, 0}, 0.3);
          if (id != other[u.nearest + v.nearest]) c = blend(c, kWrong, 0.85);
        } else if (content != Content::image && id != 0) {
          const bool edge = (x > 0 && id_at(x - 1, y) != id) || (y > 0 && id_at(x, y - 1) != id) ||
                            (x + 1 < right.count() && id_at(x + 1, y) != id) || (y + 1 < down.count() && id_at(x, y + 1) != id);
          c = blend(c, lut_.colour(id), edge ? 0.9 : options_.opacity);
        }
        canvas.set(x0 + x, y0 + y, c);
      }
    draw_captions(canvas, plane, content, slice, x0, y0, right.count(), down.count());
  }

  int legend_columns(int width) const { return std::max(1, (width + 2 * kGap) / (legend_width() + 2 * kGap)); }
  int legend_height(int width) const {
    const int columns = legend_columns(width);
    return (static_cast<int>(overlaps_.size()) + columns - 1) / columns * kLine;
  }
  void draw_legend(Canvas& canvas, int x0, int y0, int width) const {
    const int columns = legend_columns(width), rows = legend_height(width) / kLine, step = (width + 2 * kGap) / columns;
    for (std::size_t i = 0; i < overlaps_.size(); ++i) {  // downwards, then to the right
      const int x = x0 + static_cast<int>(i) / rows * step, y = y0 + static_cast<int>(i) % rows * kLine;
      canvas.fill(x, y, 14, 14, kDim);
      canvas.fill(x + 1, y + 1, 12, 12, lut_.colour(overlaps_[i].label));
      canvas.text(x + 22, y, lut_.name(overlaps_[i].label), kBright, 2);
      canvas.text(x + 22 + 12 * (name_letters() + 1), y, measure(overlaps_[i]), kDim, 2);
    }
  }

  std::string subtitle() const {
    const Vec3 mm = scene_.labels.spacing();
    std::string text = !scene_.oriented        ? "orientation unknown: shown as stored"
                       : options_.radiological ? "radiological view: patient's left (L) is on the right"
                                               : "neurological view: patient's left (L) is on the left";
    if (scene_.oriented) text += fmt::format("   voxels {:.3g} x {:.3g} x {:.3g} mm", mm[0], mm[1], mm[2]);
    return text;
  }
  std::string score() const { return scene_.reference ? fmt::format("mean foreground Dice {:.3f}", mean_foreground_dice(overlaps_)) : ""; }

 private:
  double extent_mm(int axis) const { return static_cast<double>(scene_.high[axis] - scene_.low[axis] + 1) * scene_.labels.spacing()[axis]; }
  std::int64_t stride(int axis) const {
    const Size3 size = scene_.labels.size();
    return axis == 0 ? 1 : axis == 1 ? size[0] : size[0] * size[1];
  }
  Sampling sampling(int axis, bool flip) const { return {scene_, axis, flip, stride(axis), pixels_per_mm_}; }

  void draw_captions(Canvas& canvas, const Plane& plane, Content content, std::int64_t slice, int x0, int y0, int width, int height) const {
    const std::string_view letters = plane.letters;
    if (!letters.empty()) {
      canvas.text(x0 + 3, y0 + height / 2 - 7, letters.substr(0, 1), kBright, 2, true);
      canvas.text(x0 + width - 13, y0 + height / 2 - 7, letters.substr(1, 1), kBright, 2, true);
      canvas.text(x0 + width / 2 - 3, y0 + 3, letters.substr(2, 1), kDim, 1, true);
      canvas.text(x0 + width / 2 - 3, y0 + height - 10, letters.substr(3, 1), kDim, 1, true);
    }
    static constexpr const char* kContents[] = {"image", "labels", "reference", "disagreement"};
    std::string words;
    if (scene_.flat) {
      words = kContents[static_cast<int>(content)];
    } else {
      Vec3 at{};
      at[plane.through] = static_cast<double>(slice);
      words = scene_.oriented ? fmt::format("{} {:.0f}", "xyz"[plane.through], scene_.labels.place.affine(at)[plane.through])
                              : fmt::format("{}", slice);
      if (content == Content::reference) words += " reference";
    }
    canvas.text(x0 + 4, y0 + height - 10, words, kBright, 1, true);
  }

  int name_letters() const {
    std::size_t most = 0;
    for (const Overlap& o : overlaps_) most = std::max(most, lut_.name(o.label).size());
    return static_cast<int>(most);
  }
  int legend_width() const {
    std::size_t most = 0;
    for (const Overlap& o : overlaps_) most = std::max(most, measure(o).size());
    return 22 + 12 * (name_letters() + 1 + static_cast<int>(most));
  }
  // The size of a label: ml, mm2 of a slice with a known scale, else pixels; and its Dice.
  std::string measure(const Overlap& o) const {
    const Vec3 mm = scene_.labels.spacing();
    const auto voxels = static_cast<double>(o.predicted);
    std::string text;
    if (!scene_.oriented) {
      text = fmt::format("{:>6} {}", o.predicted, scene_.flat ? "px" : "voxels");
    } else if (scene_.flat) {
      text = fmt::format("{:>6.0f} mm2", voxels * mm[scene_.planes[0].right] * mm[scene_.planes[0].down]);
    } else {
      text = fmt::format("{:>6.{}f} ml", voxels * mm[0] * mm[1] * mm[2] / 1000, voxels * mm[0] * mm[1] * mm[2] < 1e5 ? 2 : 1);
    }
    return scene_.reference ? text + fmt::format("  Dice {:.3f}", o.dice()) : text;
  }

  const Scene& scene_;
  const Lut& lut_;
  const QcOptions& options_;
  double longest_mm_ = 1e-3, pixels_per_mm_ = 1;
  std::vector<Overlap> overlaps_;  // foreground, of reference (or of the labels with themselves) and labels
};

}  // namespace

Canvas draw_qc_mosaic(const Volume& image, const Volume& labels, const Lut& lut, const QcOptions& options) {
  const Scene scene = make_scene(image, labels, options);
  const Page page(scene, lut, options);
  const std::vector<Page::Row> rows = page.rows();

  int tiles = 0, height = kBorder + kHeading;
  for (const Page::Row& row : rows) {
    tiles = std::max(tiles, static_cast<int>(row.tiles.size()));
    height += page.height_of(*row.plane) + kGap;
  }
  const std::string footer = "Research use, not a medical device.", subtitle = page.subtitle(), score = page.score();
  const int words =
      std::max({Canvas::text_width(options.title, 3) + Canvas::text_width(score, 2) + 40, Canvas::text_width(subtitle, 2), 480});
  const int inner = std::max(tiles * (page.tile_width() + kGap) - kGap, words);
  height += 2 * kGap + page.legend_height(inner) + kLine + kBorder;

  Canvas canvas(inner + 2 * kBorder, height, kBackground);
  canvas.text(kBorder, kBorder, options.title.empty() ? "Segmentation" : options.title, kBright, 3);
  canvas.text(kBorder + inner - Canvas::text_width(score, 2), kBorder + 4, score, kBright, 2);
  canvas.text(kBorder, kBorder + kLine + 10, subtitle, kDim, 2);
  int y = kBorder + kHeading;
  for (const Page::Row& row : rows) {
    const int tile = page.tile_width(), indent = (inner + kGap - tiles * (tile + kGap)) / 2;
    for (std::size_t t = 0; t < row.tiles.size(); ++t) {
      const int x = kBorder + indent + static_cast<int>(t) * (tile + kGap);
      canvas.fill(x, y, tile, page.height_of(*row.plane), kPanel);
      page.draw_tile(canvas, *row.plane, row.tiles[t].first, row.tiles[t].second, x + (tile - page.width_of(*row.plane)) / 2, y);
    }
    y += page.height_of(*row.plane) + kGap;
  }
  y += kGap;
  page.draw_legend(canvas, kBorder, y, inner);
  canvas.text(kBorder, canvas.height() - kBorder - 10, footer, kDim, 1);
  return canvas;
}

void write_qc_mosaic(const std::string& path, const Volume& image, const Volume& labels, const Lut& lut, const QcOptions& options) {
  draw_qc_mosaic(image, labels, lut, options).write(path);
}

}  // namespace vg

// Recipes as JSON, and the turning of networks that were trained on (i, j, k).
#include "infer/recipe.h"

#include <algorithm>

#include "layers/json.h"

namespace vg {
namespace {

void one_of(const std::string& where, const char* key, const std::string& value, std::initializer_list<const char*> known) {
  std::string list;
  for (const char* k : known) {
    if (value == k) return;
    list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", k);
  }
  fail(ErrorCode::bad_file, "{}: {} is \"{}\" (known: {})", where, key, value.substr(0, 40), list);
}

// Nothing, or three numbers from `least`.
template <class T>
void three(const std::string& where, const char* key, const std::vector<T>& values, T least, T most) {
  const bool good =
      values.empty() || (values.size() == 3 && std::all_of(values.begin(), values.end(), [&](T v) { return v >= least && v <= most; }));
  if (!good) fail(ErrorCode::bad_file, "{}: {} wants no or three numbers (D, H, W) from {} to {}", where, key, least, most);
}

bool is_orientation(const std::string& text) {
  if (text.size() != 3) return false;
  int seen = 0;
  for (const char c : text) seen |= c == 'R' || c == 'L' ? 1 : c == 'A' || c == 'P' ? 2 : c == 'S' || c == 'I' ? 4 : 8;
  return seen == 7;
}

Intensity intensity_from_json(const Json& j, const std::string& where) {
  JsonFields f(j, where);
  Intensity n;
  n.kind = f.get<std::string>("kind");
  n.low = f.get<double>("low");
  n.high = f.get<double>("high");
  n.clip = f.get<bool>("clip");
  n.mask = f.get<std::string>("mask");
  f.done();
  one_of(where, "kind", n.kind, {"none", "quantile", "minmax", "zscore"});
  one_of(where, "mask", n.mask, {"whole", "nonzero"});
  if (!(n.low >= 0 && n.low < n.high && n.high <= 1))
    fail(ErrorCode::bad_file, "{}: low {}, high {}: wanted 0 <= low < high <= 1", where, n.low, n.high);
  return n;
}

}  // namespace

Json to_json(const Recipe& r) {
  const Intensity& n = r.intensity;
  return {{"axes", r.axes},
          {"conform", r.conform},
          {"orientation", r.orientation},
          {"spacing", r.spacing},
          {"intensity", {{"kind", n.kind}, {"low", n.low}, {"high", n.high}, {"clip", n.clip}, {"mask", n.mask}}},
          {"per_slice", r.per_slice},
          {"slices", r.slices},
          {"window", r.window},
          {"overlap", r.overlap},
          {"divisor", r.divisor}};
}

Recipe recipe_from_json(const Json& j, const std::string& where) {
  JsonFields f(j, where);
  Recipe r;
  r.axes = f.get<std::string>("axes");
  r.conform = f.get<std::string>("conform");
  r.orientation = f.get<std::string>("orientation");
  r.spacing = f.get<std::vector<double>>("spacing");
  r.intensity = intensity_from_json(f.json("intensity"), where + ": intensity");
  r.per_slice = f.get<bool>("per_slice");
  r.slices = f.get<std::string>("slices");
  r.window = f.get<std::vector<int>>("window");
  r.overlap = f.get<double>("overlap");
  r.divisor = f.get<std::vector<int>>("divisor");
  f.done();
  one_of(where, "axes", r.axes, {"kji", "ijk"});
  one_of(where, "conform", r.conform, {"none", "meshnet"});
  one_of(where, "slices", r.slices, {"", "image", "axial", "coronal", "sagittal"});
  three(where, "spacing", r.spacing, 0.01, 100.0);
  three(where, "window", r.window, 1, 1 << 16);
  three(where, "divisor", r.divisor, 1, 1 << 16);
  if (!r.orientation.empty() && !is_orientation(r.orientation))
    fail(ErrorCode::bad_file, "{}: orientation \"{}\" (wanted three letters such as RAS)", where, r.orientation.substr(0, 40));
  if (!(r.overlap >= 0 && r.overlap <= 0.9)) fail(ErrorCode::bad_file, "{}: overlap is {}, wanted 0 .. 0.9", where, r.overlap);
  if (r.conform != "none" && !(r.orientation.empty() && r.spacing.empty()))
    fail(ErrorCode::bad_file, "{}: conform \"{}\" fixes orientation and spacing; they must be empty", where, r.conform);
  if (r.slices == "image" && !(r.orientation.empty() && r.spacing.empty() && r.conform == "none"))
    fail(ErrorCode::bad_file, "{}: pictures have no orientation, spacing or conform", where);
  if (!r.slices.empty() && r.axes != "kji") fail(ErrorCode::bad_file, "{}: axes \"{}\" with 2-D slices", where, r.axes);
  if (r.per_slice && r.slices.empty()) fail(ErrorCode::bad_file, "{}: per_slice without slices", where);
  return r;
}

std::vector<std::pair<std::string, Tensor>> permute_axes(const std::vector<std::pair<std::string, Tensor>>& weights) {
  std::vector<std::pair<std::string, Tensor>> turned;
  for (const auto& [name, from] : weights) {
    if (from.shape().rank() != 5) {
      turned.emplace_back(name, from);
      continue;
    }
    require(from.device().on_host(), "permute_axes: tensor \"{}\" is on {}, wanted the host", name, to_string(from.device()));
    const Shape s = from.shape();
    Tensor to({s[0], s[1], s[4], s[3], s[2]}, from.dtype(), from.device());
    const std::size_t size = size_of(from.dtype());
    auto* out = static_cast<std::byte*>(to.raw());
    const auto* in = static_cast<const std::byte*>(from.raw());
    for (std::int64_t oi = 0; oi < s[0] * s[1]; ++oi)
      for (std::int64_t w = 0; w < s[4]; ++w)
        for (std::int64_t h = 0; h < s[3]; ++h)
          for (std::int64_t d = 0; d < s[2]; ++d, out += size)
            std::copy_n(in + static_cast<std::size_t>(((oi * s[2] + d) * s[3] + h) * s[4] + w) * size, size, out);
    turned.emplace_back(name, std::move(to));
  }
  return turned;
}

Graph permute_axes(Graph graph) {
  require(graph.spatial_dims == 3, "permute_axes: a graph with {} spatial axes, wanted 3", graph.spatial_dims);
  for (Node& node : graph.nodes)
    for (auto& item : node.attributes.items())
      if (Json& list = item.value(); list.is_array() && list.size() == 3) std::reverse(list.begin(), list.end());
  return graph;
}

}  // namespace vg

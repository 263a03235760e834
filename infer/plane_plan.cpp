// Which layers a chain has, what of them must be computed, by which tiles, in which order, and what that holds at its peak.
#include <algorithm>
#include <limits>

#include "infer/planes.h"
#include "layers/attributes.h"

namespace vg {
namespace {

using cpu::PlaneLayer;
using cpu::PlaneTile;
using cpu::RowSpan;

constexpr double kPageSeconds = 1e-9;  // of memory that was not touched before, a byte
constexpr double kStreaming = 1.03;     // planes of all layers take turns in the caches
constexpr std::int64_t kAny = 1 << 20;   // no limit on a dilation

RowSpan hull(RowSpan a, RowSpan b) { return a.empty() ? b : b.empty() ? a : RowSpan{std::min(a.begin, b.begin), std::max(a.end, b.end)}; }
RowSpan common(RowSpan a, RowSpan b) {
  const RowSpan r{std::max(a.begin, b.begin), std::min(a.end, b.end)};
  return r.empty() ? RowSpan{} : r;
}

// What the taps of H and W reach from the rows of a plane.
void reached_rows(const PlaneLayer& l, const RowSpan* from, RowSpan* to) {
  const std::int64_t H = l.extent[1], W = l.extent[2], reach = l.kernel / 2;
  for (std::int64_t y = 0; y < H; ++y) {
    RowSpan r;
    for (std::int64_t k = -reach; k <= reach; ++k)
      if (const std::int64_t v = y + k * l.dilation[1]; v >= 0 && v < H) r = hull(r, from[v]);
    if (!r.empty()) r = {std::max<std::int64_t>(0, r.begin - reach * l.dilation[2]), std::min(W, r.end + reach * l.dilation[2])};
    to[y] = r;
  }
}

// What a layer reaches from a region (the same forward as backward: taps are symmetric).
Region reached(const Region& from, const PlaneLayer& l) {
  Region lines = from, to = from;
  for (std::int64_t z = 0; z < from.depth; ++z) reached_rows(l, from.plane(z), lines.plane(z));
  for (std::int64_t z = 0; z < from.depth; ++z)
    for (std::int64_t y = 0; y < from.height; ++y) {
      RowSpan r;
      for_inputs(l, {}, z, [&](std::int64_t v) { r = hull(r, lines.plane(v)[y]); });
      to.plane(z)[y] = r;
    }
  return to;
}

Region both(Region a, const Region& b) {
  for (std::size_t i = 0; i < a.rows.size(); ++i) a.rows[i] = common(a.rows[i], b.rows[i]);
  return a;
}

// What is computed of a layer so that `wanted` is, and what of its input that reads.
struct Needs {
  Region computed, read;
};
Needs needs_of(const PlaneLayer& l, PlaneTile tile, const Region& wanted) {
  Needs n{wanted, {wanted.depth, wanted.height, std::vector<RowSpan>(wanted.rows.size())}};
  const auto H = static_cast<std::size_t>(l.extent[1]);
  std::vector<RowSpan> rows, window(H);
  for (const std::int64_t start : group_starts(l, tile, true)) {
    rows.assign(H, {});
    for_outputs(l, tile, start, [&](std::int64_t z) {
      for (std::size_t y = 0; y < H; ++y) rows[y] = hull(rows[y], wanted.plane(z)[y]);
    });
    cpu::widen(l, tile, rows.data());
    for_outputs(l, tile, start, [&](std::int64_t z) { std::copy(rows.begin(), rows.end(), n.computed.plane(z)); });
    reached_rows(l, rows.data(), window.data());
    for_inputs(l, tile, start, [&](std::int64_t z) {
      for (std::size_t y = 0; y < H; ++y) n.read.plane(z)[y] = hull(n.read.plane(z)[y], window[y]);
    });
  }
  return n;
}

std::vector<PlaneTile> tiles_for(const PlaneLayer& l, const ConvAlgorithm& algorithm) {
  using Allow = ConvAlgorithm::Allow;
  if (l.kernel == 1 || algorithm.allow == Allow::direct) return {{}};
  if (algorithm.allow == Allow::exact) return {{}, {2, 2}, {1, 2}};
  return {{}, {4, 4}, {2, 4}, {2, 2}, {1, 4}, {1, 2}};
}

// Cuts the work into steps and counts planes.
void schedule(PlanePlan& p) {
  const std::size_t layers = p.layers.size();
  const std::int64_t D = p.layers[0].shape.extent[0];
  std::vector<std::vector<std::int64_t>> starts;
  for (std::size_t l = 0; l < layers; ++l) starts.push_back(group_starts(p.layers[l].shape, p.tiles[l], p.streaming));
  const auto window = [&](std::size_t l, std::int64_t start, auto&& visit) {
    for_inputs(p.layers[l].shape, p.tiles[l], start, [&](std::int64_t z) { visit(static_cast<std::size_t>(z)); });
  };
  std::vector<std::vector<bool>> made(layers, std::vector<bool>(static_cast<std::size_t>(D)));
  std::vector<std::vector<int>> readers(layers, std::vector<int>(static_cast<std::size_t>(D)));
  for (std::size_t l = 1; l < layers; ++l)
    for (const std::int64_t start : starts[l]) window(l, start, [&](std::size_t z) { ++readers[l - 1][z]; });
  std::vector<std::size_t> next(layers);
  std::map<std::int64_t, std::int64_t> live;  // by channels
  std::uint64_t scratch = 0;
  const auto ready = [&](std::size_t l) {
    bool all = next[l] < starts[l].size();
    if (all && l > 0) window(l, starts[l][next[l]], [&](std::size_t z) { all = all && made[l - 1][z]; });
    return all;
  };
  p.steps.clear(), p.planes.clear();
  for (;;) {
    std::size_t l = layers;
    while (l > 0 && !ready(l - 1)) --l;
    if (l-- == 0) break;
    const PlaneLayer& s = p.layers[l].shape;
    const std::int64_t start = starts[l][next[l]++];
    std::int64_t made_now = 0;
    for_outputs(s, p.tiles[l], start, [&](std::int64_t z) { made[l][static_cast<std::size_t>(z)] = true, ++made_now; });
    std::int64_t &out = live[s.out_channels], &most = p.planes[s.out_channels];
    out += made_now, most = std::max(most, out);
    if (l + 1 == layers) out -= made_now;
    if (l > 0) window(l, start, [&](std::size_t z) { live[s.in_channels] -= --readers[l - 1][z] == 0; });
    p.steps.push_back({static_cast<int>(l), start});
  }
  for (std::size_t l = 0; l < layers; ++l) scratch = std::max<std::uint64_t>(scratch, cpu::conv_planes_scratch(p.layers[l].shape, p.tiles[l], 1));
  p.bytes = block_bytes(scratch);
  for (const auto& [channels, count] : p.planes)
    p.bytes += block_bytes(static_cast<std::size_t>(p.layers[0].shape.extent[1] * p.layers[0].shape.extent[2] * channels * count) * 4);
}

std::uint64_t background_voxels(const std::vector<ChainLayer>& chain, const std::vector<PlaneTile>& tiles, std::size_t layers) {
  std::uint64_t voxels = 1;
  for (int a = 0; a < 3; ++a) voxels *= static_cast<std::uint64_t>(background_extent(chain, tiles, layers, a));
  return voxels;
}

// Every layer's share of it, and two layers whole while it is made.
std::uint64_t background_bytes(const std::vector<ChainLayer>& chain, const std::vector<PlaneTile>& tiles) {
  std::uint64_t bytes = 0, most = 0;
  for (std::size_t l = 0; l < chain.size(); ++l) {
    const auto channels = static_cast<std::uint64_t>(chain[l].shape.out_channels);
    bytes += block_bytes(background_voxels(chain, tiles, l + 1) * channels * 4);
    most = std::max(most, block_bytes(background_voxels(chain, tiles, chain.size()) * channels * 4));
  }
  return bytes + 2 * most;
}

double background_share(const std::vector<ChainLayer>& chain, const std::vector<PlaneTile>& tiles) {
  const std::int64_t* e = chain[0].shape.extent;
  return static_cast<double>(background_voxels(chain, tiles, chain.size())) / static_cast<double>(e[0] * e[1] * e[2]);
}

struct Option {
  PlaneTile tile;
  double seconds;
};

// By layer: the tiles there are and what they cost; of the whole layer, or (wanted not empty) of what must be computed so that this is right.
std::vector<std::vector<Option>> options_of(const std::vector<ChainLayer>& chain, const ConvAlgorithm& algorithm, const std::vector<Region>& wanted) {
  std::vector<std::vector<Option>> options(chain.size());
  for (std::size_t l = 0; l < chain.size(); ++l)
    for (const PlaneTile tile : tiles_for(chain[l].shape, algorithm)) {
      const PlaneLayer& s = chain[l].shape;
      const double share = wanted.empty() ? 1.0 : needs_of(s, tile, wanted[l]).computed.share(s.extent[2]);
      options[l].push_back({tile, share * cpu::plane_seconds(s, tile)});
    }
  return options;
}

// What must be right of every layer's output: what the labels need of it, where the data reach it.
std::vector<Region> wanted_of(const std::vector<ChainLayer>& chain, const Region& data, const Region& labels) {
  std::vector<Region> active, wanted(chain.size());
  for (const ChainLayer& l : chain) active.push_back(reached(active.empty() ? data : active.back(), l.shape));
  wanted.back() = both(labels, active.back());
  for (std::size_t l = chain.size() - 1; l > 0; --l) wanted[l - 1] = both(reached(wanted[l], chain[l].shape), active[l - 1]);
  return wanted;
}

}  // namespace

std::vector<std::int64_t> group_starts(const PlaneLayer& l, PlaneTile tile, bool streaming) {
  std::vector<std::int64_t> starts;
  const std::int64_t d = l.dilation[0], step = tile.d * d;
  if (streaming) {
    for (std::int64_t g = 0; g < l.extent[0]; g += step)
      for (std::int64_t r = g; r < std::min(g + d, l.extent[0]); ++r) starts.push_back(r);
  } else {
    for (std::int64_t r = 0; r < d; ++r)
      for (std::int64_t g = r; g < l.extent[0]; g += step) starts.push_back(g);
  }
  return starts;
}

std::int64_t background_extent(const std::vector<ChainLayer>& chain, const std::vector<PlaneTile>& tiles, std::size_t layers, int axis) {
  const bool plain = std::all_of(tiles.begin(), tiles.end(), [](PlaneTile t) { return t == PlaneTile{}; });
  if (plain && axis == 2) return chain[0].shape.extent[axis];
  std::int64_t reach = 0;
  for (std::size_t l = 0; l < layers; ++l) reach += chain[l].shape.kernel / 2 * chain[l].shape.dilation[axis];
  return std::min(chain[0].shape.extent[axis], 2 * reach + 1);
}

double Region::share(std::int64_t width) const {
  double sum = 0;
  for (const RowSpan& r : rows) sum += static_cast<double>(r.end - r.begin);
  return sum / static_cast<double>(depth * height * width);
}

Region everything(std::int64_t depth, std::int64_t height, std::int64_t width) {
  return {depth, height, std::vector<RowSpan>(static_cast<std::size_t>(depth * height), RowSpan{0, width})};
}

Region data_of(const float* image, const Shape& s) {
  Region r{s.d(), s.h(), std::vector<RowSpan>(static_cast<std::size_t>(s.d() * s.h()))};
  const std::int64_t W = s.w(), C = s.c();
  for (std::int64_t row = 0; row < s.d() * s.h(); ++row) {
    const float* x = image + row * W * C;
    std::int64_t first = 0, last = W * C;
    while (first < last && x[first] == image[first % C]) ++first;
    while (last > first && x[last - 1] == image[(last - 1) % C]) --last;
    if (first < last) r.rows[static_cast<std::size_t>(row)] = {first / C, (last - 1) / C + 1};
  }
  return r;
}

std::optional<std::vector<ChainLayer>> plane_chain(const Graph& g, const Shape& image) {
  if (g.spatial_dims != 3 || g.nodes.empty() || g.outputs.size() != 1 || g.outputs[0] != g.nodes.back().name) return {};
  std::vector<ChainLayer> chain;
  std::string before = "input";
  std::int64_t channels = g.in_channels;
  for (std::size_t i = 0; i < g.nodes.size(); ++i) {
    const Node& n = g.nodes[i];
    if (n.op != "conv" || n.inputs != std::vector<std::string>{before}) return {};
    Attributes a(n);
    std::int32_t kernel[3], stride[3], dilation[3], pad[3], pad_high[3];
    a.axes("kernel", kernel, 3), a.axes("stride", stride, 1), a.axes("dilation", dilation, 1), a.axes("pad", pad, 0);
    for (int axis = 0; axis < 3; ++axis) pad_high[axis] = pad[axis];
    if (n.attributes.contains("pad_high")) a.axes("pad_high", pad_high, 0);
    ChainLayer l{i, {}};
    l.shape.kernel = kernel[0];
    for (int axis = 0; axis < 3; ++axis) {
      const std::int32_t reach = kernel[axis] / 2 * dilation[axis];
      if (kernel[axis] != kernel[0] || (kernel[0] != 1 && kernel[0] != 3) || stride[axis] != 1 || pad[axis] != reach || pad_high[axis] != reach) return {};
      l.shape.extent[axis] = image[1 + axis], l.shape.dilation[axis] = kernel[0] == 1 ? 1 : dilation[axis];
    }
    l.shape.activation = a.activation();
    l.shape.in_channels = channels, channels = l.shape.out_channels = static_cast<std::int64_t>(a.number("channels", 0));
    chain.push_back(l);
    before = n.name;
  }
  return chain;
}

PlanePlan plan_planes(const std::vector<ChainLayer>& chain, const ConvAlgorithm& algorithm, std::uint64_t max_bytes, const Region* data, bool head_only) {
  const std::int64_t *extent = chain[0].shape.extent, D = extent[0], H = extent[1], W = extent[2];
  const std::vector<std::vector<Option>> whole = options_of(chain, algorithm, {});
  std::vector<Region> wanted;
  std::vector<std::vector<Option>> part;  // if leaving out the background may pay
  Region labels;
  if (data) {
    labels = head_only ? *data : everything(D, H, W);
    wanted = wanted_of(chain, *data, labels);
    double share = 0;
    for (const Region& r : wanted) share += r.share(W) / static_cast<double>(wanted.size());
    if (share < 0.85) part = options_of(chain, algorithm, wanted);  // tiles at the border of what is wanted take some more
  }
  std::optional<PlanePlan> best;
  bool best_skips = false;
  const auto fits = [&](const PlanePlan& p) { return !max_bytes || p.bytes <= max_bytes; };
  // A deep tile waits for many planes: limits on the dilation of layers with tiles of 4 and of 2 planes.
  const auto consider = [&](std::int64_t most4, std::int64_t most2, bool skip) {
    PlanePlan tiled{.layers = chain, .tiles = {}, .steps = {}, .computed = {}, .read = {}, .planes = {}};
    for (std::size_t l = 0; l < chain.size(); ++l) {
      const std::int64_t d = chain[l].shape.dilation[0], deepest = d <= most4 ? 4 : d <= most2 ? 2 : 1;
      Option least{{}, std::numeric_limits<double>::infinity()};
      for (const Option& o : (skip ? part : whole)[l])
        if (o.tile.d <= deepest && o.seconds < least.seconds) least = o;
      tiled.tiles.push_back(least.tile), tiled.seconds += least.seconds;
    }
    for (const bool streaming : {false, true}) {
      PlanePlan p = tiled;
      p.streaming = streaming;
      schedule(p);
      if (skip) p.bytes += background_bytes(chain, p.tiles), p.seconds += background_share(chain, p.tiles) * p.seconds;
      if (streaming) p.seconds *= kStreaming;
      p.seconds += kPageSeconds * static_cast<double>(p.bytes);
      const bool better = !best || (fits(p) != fits(*best) ? fits(p) : fits(p) ? p.seconds < best->seconds : p.bytes < best->bytes);
      if (better) best = std::move(p), best_skips = skip;
    }
  };
  const auto consider_both = [&](std::int64_t most4, std::int64_t most2) {
    consider(most4, most2, false);
    if (!part.empty()) consider(most4, most2, true);
  };
  for (const std::int64_t most4 : {kAny, std::int64_t{2}, std::int64_t{0}}) consider_both(most4, kAny);
  if (!fits(*best))
    for (const std::int64_t most4 : {kAny, std::int64_t{8}, std::int64_t{4}, std::int64_t{2}, std::int64_t{1}, std::int64_t{0}})
      for (const std::int64_t most2 : {kAny, std::int64_t{8}, std::int64_t{4}, std::int64_t{2}, std::int64_t{1}, std::int64_t{0}})
        if (most2 >= most4) consider_both(most4, most2);
  if (best_skips) {
    for (std::size_t l = 0; l < chain.size(); ++l) {
      Needs n = needs_of(chain[l].shape, best->tiles[l], wanted[l]);
      best->computed.push_back(std::move(n.computed));
      if (l > 0) best->read.push_back(std::move(n.read));
    }
    best->read.push_back(std::move(labels));
  }
  return std::move(*best);
}

std::string to_table(const Graph& g, const PlanePlan& p) {
  std::string text = fmt::format("{:<24} {:<25} {:<13} {:>8} {:>11} {:>10} {:>10} {:>9}\n", "node", "operation", "arithmetic", "computed", "parameters", "GMAC",
                                 "MiB/plane", "s, 1 core");
  std::int64_t parameters = 0;
  double work = 0;
  for (std::size_t l = 0; l < p.layers.size(); ++l) {
    const PlaneLayer& s = p.layers[l].shape;
    const Node& node = g.nodes[p.layers[l].node];
    const std::int64_t taps = s.kernel * s.kernel * s.kernel, weights = s.out_channels * (s.in_channels * taps + (node.params.count("bias") ? 1 : 0));
    const double share = p.computed.empty() ? 1.0 : p.computed[l].share(s.extent[2]);
    const double macs = static_cast<double>(s.extent[0] * s.extent[1] * s.extent[2]) * static_cast<double>(s.in_channels * s.out_channels * taps);
    const PlaneTile t = p.tiles[l];
    const std::string how = !t.hw ? "plain sum" : t.d == 1 ? fmt::format("F({0},{0}) by 3", t.hw) : fmt::format("F({0},{1},{1})", t.d, t.hw);
    text += fmt::format("{:<24} {:<25} {:<13} {:>6.1f} % {:>11} {:>10.3f} {:>10.2f} {:>9.2f}\n", node.name,
                        fmt::format("conv {0}x{0}x{0}, dilation {1}", s.kernel, s.dilation[0]), how, 100 * share, weights, macs / 1e9,
                        static_cast<double>(s.extent[1] * s.extent[2] * s.out_channels) * 4 / 1048576.0, share * cpu::plane_seconds(s, t));
    parameters += weights, work += macs;
  }
  return text + fmt::format("{} parameters, {:.2f} GMAC; planes {}: {:.0f} MiB beside the image, {:.1f} s of one core\n", parameters, work / 1e9,
                            p.streaming ? "stream through all layers" : "layer by layer", static_cast<double>(p.bytes) / 1048576.0, p.seconds);
}

}  // namespace vg

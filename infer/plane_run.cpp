// The executor: steps of a plan over tables of planes.
#include <algorithm>
#include <cassert>

#include "infer/planes.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

using cpu::PlaneLayer;
using cpu::RowSpan;

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// The layers with their weights.
std::vector<PlaneLayer> layers_of(const Network& net, const PlanePlan& plan) {
  std::vector<PlaneLayer> layers;
  for (const ChainLayer& l : plan.layers) {
    const NodeParams& p = net.node_params[l.node];
    layers.push_back(l.shape);
    layers.back().weight = p.at("weight").value.data<float>();
    const Param* bias = p.find("bias");
    layers.back().bias = bias ? bias->value.data<float>() : nullptr;
  }
  return layers;
}

// What every layer makes of a volume that holds one value everywhere, at any position of the whole volume. A layer answers for what it can tell
// from the border (background_extent of the layers up to it).
class Background {
 public:
  Background(Context& ctx, const std::vector<PlaneLayer>& layers, const PlanePlan& plan, const float* value) : layers_(layers) {
    std::int64_t whole[3];
    for (int a = 0; a < 3; ++a) whole[a] = background_extent(plan.layers, plan.tiles, layers.size(), a);
    Tensor x({1, whole[0], whole[1], whole[2], layers[0].in_channels}, DType::f32, kCpu);
    for (std::int64_t i = 0; i < x.elements(); ++i) x.data<float>()[i] = value[i % layers[0].in_channels];
    for (std::size_t l = 0; l < layers.size(); ++l) {
      PlaneLayer s = layers[l];
      std::copy(whole, whole + 3, s.extent);
      x = layer(ctx, s, plan.tiles[l], x);
      std::int64_t part[3];
      for (int a = 0; a < 3; ++a) part[a] = background_extent(plan.layers, plan.tiles, l + 1, a);
      values_.push_back(cropped(x, part));
    }
  }

  // Voxels [begin, end) of row (z, y) of layer l's output.
  void fill(std::size_t l, std::int64_t z, std::int64_t y, std::int64_t begin, std::int64_t end, float* row) const {
    const Shape& s = values_[l].shape();
    const std::int64_t c = s.c(), W = layers_[l].extent[2], reach = (s.w() - 1) / 2;
    const float* from = values_[l].data<float>() + (position(z, layers_[l].extent[0], s.d()) * s.h() + position(y, layers_[l].extent[1], s.h())) * s.w() * c;
    const std::int64_t shift = W - s.w(), middle = shift ? std::clamp(reach, begin, end) : end, right = std::clamp(W - reach, middle, end);
    std::copy(from + begin * c, from + middle * c, row + begin * c);
    for (std::int64_t x = middle; x < right; ++x) std::copy(from + reach * c, from + (reach + 1) * c, row + x * c);
    std::copy(from + (right - shift) * c, from + (end - shift) * c, row + right * c);
  }

 private:
  // Where the small volume answers for position p of an extent.
  static std::int64_t position(std::int64_t p, std::int64_t whole, std::int64_t part) {
    const std::int64_t reach = (part - 1) / 2;
    if (part == whole || p < reach) return p;
    return p >= whole - reach ? p - (whole - part) : reach;
  }

  static Tensor layer(Context& ctx, const PlaneLayer& s, cpu::PlaneTile tile, const Tensor& from) {
    Tensor to({1, s.extent[0], s.extent[1], s.extent[2], s.out_channels}, DType::f32, kCpu);
    std::vector<const float*> in;
    std::vector<float*> out;
    const std::int64_t plane = s.extent[1] * s.extent[2];
    for (std::int64_t z = 0; z < s.extent[0]; ++z) {
      in.push_back(from.data<float>() + z * plane * s.in_channels);
      out.push_back(to.data<float>() + z * plane * s.out_channels);
    }
    cpu::conv_planes(ctx.exec(), s, tile, nullptr, group_starts(s, tile, true), out.data(), in.data(), nullptr);
    return to;
  }

  // Both borders of every axis.
  static Tensor cropped(const Tensor& x, const std::int64_t (&part)[3]) {
    const Shape& s = x.shape();
    Tensor y({1, part[0], part[1], part[2], s.c()}, DType::f32, kCpu);
    const std::int64_t left = (part[2] - 1) / 2, right = part[2] - left;  // `left` and the middle, `right` with it
    for (std::int64_t z = 0; z < part[0]; ++z)
      for (std::int64_t v = 0; v < part[1]; ++v) {
        const std::int64_t fz = z <= (part[0] - 1) / 2 ? z : z + s.d() - part[0], fy = v <= (part[1] - 1) / 2 ? v : v + s.h() - part[1];
        const float* from = x.data<float>() + (fz * s.h() + fy) * s.w() * s.c();
        float* to = y.data<float>() + (z * part[1] + v) * part[2] * s.c();
        std::copy(from, from + (left + 1) * s.c(), to);
        std::copy(from + (s.w() - right + 1) * s.c(), from + s.w() * s.c(), to + (left + 1) * s.c());
      }
    return y;
  }

  const std::vector<PlaneLayer>& layers_;
  std::vector<Tensor> values_;
};

class PlaneRun {
 public:
  PlaneRun(Context& ctx, const Network& net, const PlanePlan& plan, const float* image) : ctx_(ctx), plan_(plan), layers_(layers_of(net, plan)) {
    const PlaneLayer& first = layers_[0];
    depth_ = first.extent[0], height_ = first.extent[1], width_ = first.extent[2];
    for (std::int64_t z = 0; z < depth_; ++z) image_.push_back(image + z * height_ * width_ * first.in_channels);
    tables_.resize(layers_.size()), readers_.resize(layers_.size()), left_.resize(layers_.size());
    for (std::size_t l = 0; l < layers_.size(); ++l)
      tables_[l].resize(index(depth_)), readers_[l].resize(index(depth_));
    for (const auto& [channels, count] : plan.planes) {
      const std::int64_t floats = height_ * width_ * channels;
      arenas_.emplace_back(Shape{count * floats}, DType::f32, kCpu);
      for (std::int64_t i = count; i-- > 0;) free_[channels].push_back(arenas_.back().data<float>() + i * floats);
    }
    for (std::size_t l = 0; l < layers_.size(); ++l) packed_.push_back(cpu::packed_planes(layers_[l], plan.tiles[l]));
    for (const PlaneStep& s : plan.steps) {
      ++left_[index(s.layer)];
      if (s.layer > 0) window(s, [&](std::int64_t z) { ++readers_[index(s.layer - 1)][index(z)]; });
    }
    if (!plan.computed.empty()) background_.emplace(ctx, layers_, plan, image);
  }

  void run(const PlaneScores& scores, const std::function<void(double)>& progress) {
    std::vector<double> cost;
    double total = 0, done = 0;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      cost.push_back(cpu::plane_seconds(layers_[l], plan_.tiles[l]) * (plan_.computed.empty() ? 1 : plan_.computed[l].share(width_)) / static_cast<double>(left_[l]));
      total += cost.back() * static_cast<double>(left_[l]);
    }
    for (const PlaneStep& step : plan_.steps) {
      const std::size_t l = index(step.layer);
      make(step);
      if (l + 1 == layers_.size())
        outputs(step, [&](std::int64_t z) {
          if (tables_[l][index(z)]) scores(z, tables_[l][index(z)]), drop(l, z);
        });
      if (l > 0)
        window(step, [&](std::int64_t z) {
          if (--readers_[l - 1][index(z)] == 0) drop(l - 1, z);
        });
      done += cost[l];
      if (progress) progress(std::min(1.0, done / total));
    }
  }

 private:
  template <class Visit>
  void outputs(const PlaneStep& s, const Visit& visit) const {
    for_outputs(layers_[index(s.layer)], plan_.tiles[index(s.layer)], s.start, visit);
  }
  template <class Visit>
  void window(const PlaneStep& s, const Visit& visit) const {
    for_inputs(layers_[index(s.layer)], plan_.tiles[index(s.layer)], s.start, visit);
  }

  void make(const PlaneStep& step) {
    const std::size_t l = index(step.layer);
    const float* const* in = l ? const_cast<const float* const*>(tables_[l - 1].data()) : image_.data();
    bool any = plan_.computed.empty();
    outputs(step, [&](std::int64_t z) {
      if (!plan_.computed.empty()) {
        const RowSpan *read = plan_.read[l].plane(z), *computed = plan_.computed[l].plane(z);
        const auto empty = [](const RowSpan& r) { return r.empty(); };
        any = any || !std::all_of(computed, computed + height_, empty);
        if (std::all_of(read, read + height_, empty) && std::all_of(computed, computed + height_, empty)) return;
      }
      take(l, z);
      if (!plan_.computed.empty()) fill(l, z);
    });
    if (!any) return;
    const RowSpan* rows = plan_.computed.empty() ? nullptr : plan_.computed[l].plane(step.start);
    cpu::conv_planes(ctx_.exec(), layers_[l], plan_.tiles[l], packed_[l].data(), {&step.start, 1}, tables_[l].data(), in, rows);
  }

  // What is read of a plane but not computed.
  void fill(std::size_t l, std::int64_t z) {
    const RowSpan *read = plan_.read[l].plane(z), *computed = plan_.computed[l].plane(z);
    const std::int64_t step = width_ * layers_[l].out_channels;
    parallel_for(height_, 8, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t y = first; y < last; ++y) {
        const RowSpan r = read[y], c = computed[y].empty() ? RowSpan{r.end, r.end} : computed[y];
        float* row = tables_[l][index(z)] + y * step;
        if (r.begin < std::min(c.begin, r.end)) background_->fill(l, z, y, r.begin, std::min(c.begin, r.end), row);
        if (std::max(c.end, r.begin) < r.end) background_->fill(l, z, y, std::max(c.end, r.begin), r.end, row);
      }
    });
  }

  void take(std::size_t l, std::int64_t z) {
    std::vector<float*>& free = free_.at(layers_[l].out_channels);
    assert(!free.empty());
    tables_[l][index(z)] = free.back();  // the one that was given back last: its bytes may still be in the cache
    free.pop_back();
  }
  void drop(std::size_t l, std::int64_t z) {
    if (float*& plane = tables_[l][index(z)]; plane) free_.at(layers_[l].out_channels).push_back(plane), plane = nullptr;
  }

  Context& ctx_;
  const PlanePlan& plan_;
  std::vector<PlaneLayer> layers_;
  std::vector<std::vector<float>> packed_;  // their weights
  std::int64_t depth_, height_, width_;
  std::vector<const float*> image_;
  std::vector<Tensor> arenas_;               // of planes with as many channels: large blocks have large pages
  std::map<std::int64_t, std::vector<float*>> free_;
  std::vector<std::vector<float*>> tables_;  // [layer][plane] of its output
  std::vector<std::vector<int>> readers_;    // groups to come that read it
  std::vector<int> left_;                    // groups to come, by layer
  std::optional<Background> background_;
};

}  // namespace

void run_planes(Context& ctx, const Network& net, const PlanePlan& plan, const float* image, const PlaneScores& scores,
                const std::function<void(double)>& progress) {
  PlaneRun(ctx, net, plan, image).run(scores, progress);
}

}  // namespace vg

// Whole images and sliding windows. Windows are visited plane by plane along D; planes that no later window will touch are decided and forgotten, so
// that the class scores of a whole volume never exist. Scores stay on the device (kernels/window.h).
#include "infer/predict.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "infer/planes.h"
#include "kernels/elementwise.h"
#include "kernels/window.h"
#include "tensor/parallel.h"
#include "tensor/recording.h"

namespace vg {
namespace {

using Extents = std::array<std::int64_t, 3>;

std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// A tensor on a device: itself, if it is there.
Tensor on_device(const Tensor& t, Device d) { return t.device() == d ? t : copy_to(t, d); }

std::int64_t candidates_of(const PredictOptions& o, std::int64_t classes) { return std::clamp<std::int64_t>(o.candidates, 1, classes); }

// The prediction, in host memory, and how parts of it are decided.
class Output {
 public:
  Output(Context& ctx, const Shape& image, std::int64_t classes, const PredictOptions& o) : ctx_(ctx), classes_(classes), shape_({image.n(), image.d(), image.h(), image.w(), 1}) {
    Shape several = shape_;
    several[4] = candidates_of(o, classes);
    p_.labels = Tensor(several, classes <= 256 ? DType::u8 : DType::i32, kCpu);
    if (o.confidence) p_.confidence = Tensor(several, DType::f32, kCpu);
    if (o.entropy) p_.entropy = Tensor(shape_, DType::f32, kCpu);
  }
  bool only_labels() const { return !p_.confidence.defined() && !p_.entropy.defined(); }

  // Decides `part` (count, planes, H, W, 1), which begins at plane z of sample n, where the scores are. More than one sample: all planes of them.
  // totals: kernels/window.h.
  void decide(std::int64_t n, std::int64_t z, const Shape& part, const Tensor& scores, const Tensor& totals, const DecideParams& p) {
    decide_at((n * shape_.d() + z) * shape_.h() * shape_.w(), part, scores, totals, p);
  }

  // One plane of sample n: of every row y only the part rows[y] has scores, the rest becomes 0. scores: (H, W, C), on the cpu.
  void plane_in_part(std::int64_t n, std::int64_t z, const float* scores, const cpu::RowSpan* rows) {
    const std::int64_t H = shape_.h(), W = shape_.w(), at = (n * shape_.d() + z) * H * W;
    clear(at, H * W);
    for (std::int64_t y = 0; y < H; ++y) {
      const std::int64_t count = rows[y].end - rows[y].begin, from = y * W + rows[y].begin;
      if (rows[y].empty()) continue;
      decide_at(at + from, {1, 1, 1, count, 1}, wrap(const_cast<float*>(scores) + from * classes_, {1, 1, 1, count, classes_}, DType::f32), Tensor(), DecideParams{});
    }
  }
  // No label anywhere in sample n.
  void clear(std::int64_t n) { clear(n * shape_.voxels(), shape_.voxels()); }
  Prediction take() { return std::move(p_); }

 private:
  // Decides `part`, whose first voxel is voxel `offset` of all samples.
  void decide_at(std::int64_t offset, const Shape& part, const Tensor& scores, const Tensor& totals, const DecideParams& p) {
    const Device where = scores.device();
    Tensor to[3], there[3];
    Tensor* const all[3] = {&p_.labels, &p_.confidence, &p_.entropy};
    for (int i = 0; i < 3; ++i) {
      if (!all[i]->defined()) continue;
      Shape mine = part;
      mine[4] = all[i]->shape().c();
      to[i] = all[i]->range(offset * mine[4], mine);
      there[i] = where == kCpu ? to[i] : Tensor(mine, to[i].dtype(), where);
    }
    Exec ex = ctx_.exec();
    ex.device = where;
    vg::decide(ex, there[0], there[1], there[2], scores, totals, p);
    for (int i = 0; i < 3; ++i)
      if (to[i].defined() && where != kCpu) copy(to[i], there[i]);
  }
  void clear(std::int64_t first, std::int64_t voxels) {
    for (Tensor* t : {&p_.labels, &p_.confidence, &p_.entropy})
      if (t->defined()) {
        const std::size_t each = size_of(t->dtype()) * static_cast<std::size_t>(t->shape().c());
        std::memset(static_cast<std::byte*>(t->raw()) + static_cast<std::size_t>(first) * each, 0, static_cast<std::size_t>(voxels) * each);
      }
  }
  Context& ctx_;
  std::int64_t classes_;
  Shape shape_;
  Prediction p_;
};

// Weight of each voxel along one axis of a window: the product of three of these is the window's weight.
std::vector<float> axis_weight(std::int64_t extent, bool gaussian) {
  std::vector<float> w(static_cast<std::size_t>(extent), 1.0f);
  if (!gaussian) return w;
  const double sigma = static_cast<double>(extent) / 8.0, centre = (static_cast<double>(extent) - 1.0) / 2.0;
  for (std::int64_t i = 0; i < extent; ++i) {
    const double t = (static_cast<double>(i) - centre) / sigma;
    w[static_cast<std::size_t>(i)] = static_cast<float>(std::max(std::exp(-0.5 * t * t), 1e-3));
  }
  return w;
}

// For each voxel along one axis, the sum of the weights of the windows over it. Windows form a grid, so the sum over all windows is the product of
// the three axes' sums.
std::vector<float> axis_total(const std::vector<std::int64_t>& starts, std::int64_t shift, const std::vector<float>& weight, std::int64_t extent) {
  std::vector<float> total(static_cast<std::size_t>(extent), 0.0f);
  for (std::int64_t start : starts)
    for (std::size_t i = 0; i < weight.size(); ++i) {
      const std::int64_t at = start + shift + static_cast<std::int64_t>(i);
      if (at >= 0 && at < extent) total[static_cast<std::size_t>(at)] += weight[i];
    }
  return total;
}

// The network on inputs of one shape, again and again (tensor/recording.h).
class RepeatedNetwork {
 public:
  RepeatedNetwork(Context& ctx, Network& net, const Shape& input)
      : ctx_(ctx), net_(net), work_(ctx.device, [this] { scores_ = scores_of(input_); }), input_(input, DType::f32, ctx.device) {}
  // Where an input may be prepared.
  Tensor& input() { return input_; }

  // Scores of an input on the context's device or in host memory, on the input's grid. Valid until the next run.
  const Tensor& run(const Tensor& x) {
    if (ctx_.device.on_host() || !(x.shape() == input_.shape())) {
      others_ = Tensor();
      return others_ = scores_of(on_device(x, ctx_.device));
    }
    if (!work_.replays()) scores_ = Tensor();
    if (x.raw() != input_.raw()) copy(input_, x);
    work_.run();
    return scores_;
  }

 private:
  Tensor scores_of(const Tensor& x) {
    Tensor scores = vg::run(ctx_, net_, Value{x}).at(0).data;  // the input is shared: a network never writes into it
    const Shape &in = x.shape(), &out = scores.shape();
    require(out.n() == in.n() && out.d() == in.d() && out.h() == in.h() && out.w() == in.w(), "predict: the network makes {} of {}: not a score for each voxel",
            to_string(out), to_string(in));
    return scores;
  }

  Context& ctx_;
  Network& net_;
  Repeated work_;  // dies after the tensors that it made
  Tensor input_, scores_, others_;  // scores_: of input_, written by replays; others_: of other inputs
};

// So many samples go through the network together that it has enough to do, but memory stays that of about a million voxels.
std::int64_t group_size(const Shape& image, const Extents& padded) {
  return std::clamp<std::int64_t>((std::int64_t{1} << 20) / (padded[0] * padded[1] * padded[2]), 1, image.n());
}

void whole_image(Context& ctx, Network& net, const Tensor& image, const Extents& padded, Output& out, const PredictOptions& o) {
  const Shape& s = image.shape();
  WindowParams place;
  DecideParams inside;
  for (std::size_t a = 0; a < 3; ++a) inside.from[a] = (padded[a] - s[static_cast<int>(a) + 1]) / 2, place.start[a] = -inside.from[a];
  const bool fits = padded == Extents{s.d(), s.h(), s.w()};
  const std::int64_t group = group_size(s, padded);
  RepeatedNetwork network(ctx, net, {group, padded[0], padded[1], padded[2], s.c()});
  for (std::int64_t n = 0; n < s.n(); n += group) {
    const std::int64_t count = std::min(group, s.n() - n);
    Tensor input = image.range(n * s.voxels() * s.c(), {count, s.d(), s.h(), s.w(), s.c()});
    if (!fits) {
      const Tensor samples = on_device(input, ctx.device);
      const Shape one = {1, padded[0], padded[1], padded[2], s.c()};
      input = count == group ? network.input() : Tensor({count, padded[0], padded[1], padded[2], s.c()}, DType::f32, ctx.device);
      for (std::int64_t i = 0; i < count; ++i) {
        Tensor box = input.range(i * one.elements(), one);
        cut_window(ctx.exec(), box, samples.range(i * s.voxels() * s.c(), {1, s.d(), s.h(), s.w(), s.c()}), place);
      }
    }
    out.decide(n, 0, {count, s.d(), s.h(), s.w(), 1}, network.run(input), Tensor(), inside);
    if (o.progress) o.progress(static_cast<double>(n + count) / static_cast<double>(s.n()));
  }
}

// Where a window's depth of class planes fits: where the network runs, or in host memory.
Tensor class_planes(const Shape& shape, Device device) {
  try {
    return Tensor(shape, DType::f32, device);
  } catch (const Error& e) {
    if (device.on_host() || e.code() != ErrorCode::out_of_memory) throw;
    return Tensor(shape, DType::f32, kCpu);
  }
}

// Sums of weights of the planes [first, first + planes), of rows, of columns.
Tensor totals_of(const std::vector<float> (&totals)[3], std::int64_t first, std::int64_t planes, Device device) {
  std::vector<float> all(totals[0].begin() + first, totals[0].begin() + first + planes);
  for (int a : {1, 2}) all.insert(all.end(), totals[a].begin(), totals[a].end());
  return from_host(all, {static_cast<std::int64_t>(all.size())}, device);
}

void sliding_window(Context& ctx, Network& net, const Tensor& image, const Extents& window, std::int64_t classes, Output& out, const PredictOptions& o) {
  const Shape& s = image.shape();
  const Extents extent = {s.d(), s.h(), s.w()};
  std::vector<std::int64_t> starts[3];
  Extents shift;  // a window larger than the image is centred on it
  std::vector<float> totals[3], weight;
  for (std::size_t a = 0; a < 3; ++a) {
    starts[a] = window_starts(std::max(extent[a], window[a]), window[a], o.overlap);
    shift[a] = -std::max<std::int64_t>(0, (window[a] - extent[a]) / 2);
    const std::vector<float> along = axis_weight(window[a], o.gaussian);
    totals[a] = axis_total(starts[a], shift[a], along, extent[a]);
    weight.insert(weight.end(), along.begin(), along.end());
  }
  // Weighted scores of a window's depth of planes: plane z of the image is plane z mod depth here.
  Tensor sums = class_planes({1, window[0], s.h(), s.w(), classes}, ctx.device);
  Exec ex = ctx.exec();
  ex.device = sums.device();
  const auto clear = [&](std::int64_t first, std::int64_t planes) {  // not across the ring's end
    Tensor part = sums.range(first * s.h() * s.w() * classes, {1, planes, s.h(), s.w(), classes});
    if (planes > 0) fill(ex, part, FillParams{0.0f});
  };
  const Tensor weights = from_host(weight, {static_cast<std::int64_t>(weight.size())}, ex.device);
  RepeatedNetwork network(ctx, net, {1, window[0], window[1], window[2], s.c()});
  const double total = static_cast<double>(s.n()) * static_cast<double>(starts[0].size() * starts[1].size() * starts[2].size());
  double done = 0.0;
  for (std::int64_t n = 0; n < s.n(); ++n) {
    const Tensor sample = on_device(image.range(n * s.voxels() * s.c(), {1, s.d(), s.h(), s.w(), s.c()}), ctx.device);
    clear(0, window[0]);
    for (std::size_t iz = 0; iz < starts[0].size(); ++iz) {
      const std::int64_t z0 = starts[0][iz] + shift[0];
      for (std::int64_t sy : starts[1])
        for (std::int64_t sx : starts[2]) {
          const BlendParams place = {{z0, sy + shift[1], sx + shift[2]}, s.d()};
          cut_window(ctx.exec(), network.input(), sample, WindowParams{{place.start[0], place.start[1], place.start[2]}});
          blend_window(ex, sums, on_device(network.run(network.input()), ex.device), weights, place);
          done += 1.0;
          if (o.progress) o.progress(done / total);
        }
      // All windows that start here are done: planes before the next start are final.
      const bool last = iz + 1 == starts[0].size();
      const std::int64_t first = std::max<std::int64_t>(z0, 0), planes = (last ? s.d() : starts[0][iz + 1] + shift[0]) - first;
      out.decide(n, first, {1, planes, s.h(), s.w(), 1}, sums, out.only_labels() ? Tensor() : totals_of(totals, first, planes, ex.device), {{first, 0, 0}});
      const std::int64_t begin = first % window[0], before_end = std::min(planes, window[0] - begin);
      if (!last) clear(begin, before_end), clear(0, planes - before_end);
    }
  }
}

// Whole volumes through a chain of convolutions on the cpu need not hold a layer at a time. None: another way must be taken.
std::optional<std::vector<ChainLayer>> chain_for(const Graph& graph, const Shape& image, const Extents& window) {
  return window == Extents{image.d(), image.h(), image.w()} ? plane_chain(graph, image) : std::nullopt;
}

std::uint64_t result_bytes(const Graph& graph, const Shape& image, const PredictOptions& o) {
  const auto candidates = static_cast<std::uint64_t>(candidates_of(o, graph.out_channels()));
  return static_cast<std::uint64_t>(image.n() * image.voxels()) * (candidates * ((o.confidence ? 4 : 0) + (graph.out_channels() <= 256 ? 1 : 4)) + (o.entropy ? 4 : 0));
}

// What is left of the limit for the network's values.
std::uint64_t budget(const Graph& graph, const Shape& image, const PredictOptions& o) {
  const std::uint64_t taken = result_bytes(graph, image, o);
  return o.max_bytes == 0 ? 0 : o.max_bytes > taken ? o.max_bytes - taken : 1;
}

void by_planes(Context& ctx, Network& net, const std::vector<ChainLayer>& chain, const Tensor& image, Output& out, const PredictOptions& o) {
  const Shape& s = image.shape();
  for (std::int64_t n = 0; n < s.n(); ++n) {
    const float* sample = image.data<float>() + n * s.voxels() * s.c();
    std::optional<Region> data;
    if (o.skip_background || o.head_only) data = data_of(sample, s);
    if (o.head_only) out.clear(n);
    const PlanePlan plan = plan_planes(chain, ctx.convolution, budget(net.graph, s, o), data ? &*data : nullptr, o.head_only);
    run_planes(
        ctx, net, plan, sample,
        [&](std::int64_t z, const float* scores) {
          if (const cpu::RowSpan* part = o.head_only ? data->plane(z) : nullptr)
            out.plane_in_part(n, z, scores, part);
          else
            out.decide(n, z, {1, 1, s.h(), s.w(), 1}, wrap(const_cast<float*>(scores), {1, 1, s.h(), s.w(), net.graph.out_channels()}, DType::f32), Tensor(), DecideParams{});
        },
        [&](double done) {
          if (o.progress) o.progress((static_cast<double>(n) + done) / static_cast<double>(s.n()));
        });
  }
}

// The window in voxels, and whether it is smaller than the image.
Extents window_of(const Graph& graph, const Shape& image, const PredictOptions& o, bool& slides) {
  const std::vector<int> own = graph.divisor();
  Extents window;
  slides = false;
  for (std::size_t a = 0; a < 3; ++a) {
    const std::int64_t divisor = std::lcm<std::int64_t>(own[a], std::max<std::int64_t>(1, o.divisor[a]));
    const std::int64_t whole = round_up(image[static_cast<int>(a) + 1], divisor);
    window[a] = o.window[a] > 0 ? std::min(round_up(o.window[a], divisor), whole) : whole;
    slides |= window[a] < whole;
  }
  return window;
}

}  // namespace

std::uint64_t predict_bytes(const Graph& graph, const Shape& image, const PredictOptions& options, const ConvAlgorithm& convolution) {
  bool slides = false;
  const Extents w = window_of(graph, image, options, slides);
  std::uint64_t bytes = result_bytes(graph, image, options);
  if (const auto chain = slides ? std::nullopt : chain_for(graph, image, w))
    return bytes + plan_planes(*chain, convolution, budget(graph, image, options), nullptr, false).bytes;
  bytes += plan(graph, {slides ? 1 : group_size(image, w), w[0], w[1], w[2], image.c()}).inference_bytes;
  if (slides) bytes += static_cast<std::uint64_t>(w[0] * image.h() * image.w()) * static_cast<std::uint64_t>(graph.out_channels()) * 4;
  return bytes;
}

std::string predict_table(const Graph& graph, const Shape& image, const PredictOptions& options, const ConvAlgorithm& convolution) {
  bool slides = false;
  const Extents w = window_of(graph, image, options, slides);
  if (const auto chain = slides ? std::nullopt : chain_for(graph, image, w))
    return to_table(graph, plan_planes(*chain, convolution, budget(graph, image, options), nullptr, false));
  return to_table(graph, plan(graph, {slides ? 1 : group_size(image, w), w[0], w[1], w[2], image.c()}, convolution), measure_rates());
}

std::vector<std::int64_t> window_starts(std::int64_t extent, std::int64_t window, double overlap) {
  require(window >= 1 && window <= extent, "window of {} over an extent of {}", window, extent);
  require(overlap >= 0.0 && overlap < 1.0, "window overlap is {}, wanted 0 <= overlap < 1", overlap);
  const double step = std::max(1.0, static_cast<double>(window) * (1.0 - overlap));
  const auto count = static_cast<std::int64_t>(std::ceil(static_cast<double>(extent - window) / step - 1e-9)) + 1;  // 10 * (1 - 0.8) is not quite 2
  std::vector<std::int64_t> starts;
  for (std::int64_t i = 0; i < count; ++i)
    starts.push_back(count == 1 ? 0 : static_cast<std::int64_t>(std::llround(static_cast<double>(i * (extent - window)) / static_cast<double>(count - 1))));
  return starts;
}

Prediction predict(Context& ctx, Network& net, const Tensor& image, const PredictOptions& options) {
  require(!ctx.tape, "predict: the context has a tape; prediction records nothing");
  const Shape& s = image.shape();
  require(s.rank() == 5 && image.dtype() == DType::f32 && image.device().on_host() && s.elements() > 0,
          "predict: wants a f32 image (N, D, H, W, C) on the host, got {} {}", name_of(image.dtype()), to_string(s));
  require(s.c() == net.graph.in_channels, "predict: the image is {}, the network wants {} channels", to_string(s), net.graph.in_channels);
  const std::int64_t classes = net.graph.out_channels();
  bool slides = false;
  const Extents window = window_of(net.graph, s, options, slides);
  if (options.precision != DType::f32 && ctx.device == kCpu)
    fail(ErrorCode::unsupported, "predict: precision {} is computed on a GPU (and on sim), the cpu computes fp32", name_of(options.precision));
  const struct RestorePrecision {  // the caller's
    Context& ctx;
    DType precision;
    ~RestorePrecision() { ctx.precision = precision; }
  } restore{ctx, std::exchange(ctx.precision, options.precision)};
  Output out(ctx, s, classes, options);
  if (slides)
    sliding_window(ctx, net, image, window, classes, out, options);
  else if (const auto chain = ctx.device == kCpu ? chain_for(net.graph, s, window) : std::nullopt)
    by_planes(ctx, net, *chain, image, out, options);
  else
    whole_image(ctx, net, image, window, out, options);
  return out.take();
}

}  // namespace vg

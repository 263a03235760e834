// Whole images and sliding windows. Windows are visited plane by plane along D; planes that no later window will touch are decided and forgotten, so
// that the class scores of a whole volume never exist.
#include "infer/predict.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "infer/planes.h"
#include "tensor/parallel.h"

namespace vg {
namespace {

using Extents = std::array<std::int64_t, 3>;

std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// A box (1, d, h, w, C) of sample n; where it leaves the image it holds zeros.
void cut(const Tensor& image, std::int64_t n, const Extents& start, Tensor box) {
  const Shape& s = image.shape();
  const Extents size = {box.shape().d(), box.shape().h(), box.shape().w()};
  const std::int64_t c = s.c();
  const std::int64_t lo = std::clamp<std::int64_t>(-start[2], 0, size[2]), hi = std::clamp<std::int64_t>(s.w() - start[2], lo, size[2]);
  parallel_for(size[0] * size[1], 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t z = start[0] + row / size[1], y = start[1] + row % size[1];
      float* to = box.data<float>() + row * size[2] * c;
      if (z < 0 || z >= s.d() || y < 0 || y >= s.h()) {
        std::fill_n(to, size[2] * c, 0.0f);
        continue;
      }
      const float* from = image.data<float>() + (((n * s.d() + z) * s.h() + y) * s.w() + start[2]) * c;
      std::fill_n(to, lo * c, 0.0f);
      std::copy(from + lo * c, from + hi * c, to + lo * c);
      std::fill_n(to + hi * c, (size[2] - hi) * c, 0.0f);
    }
  });
}

// The decision for one voxel: the first largest score, and its softmax probability.
struct Decision {
  std::int32_t label = 0;
  float confidence = 0.0f;
};
Decision decide(const float* score, std::int64_t classes, bool confidence) {
  Decision d{0, 0.0f};
  for (std::int64_t c = 1; c < classes; ++c)
    if (score[c] > score[d.label]) d.label = static_cast<std::int32_t>(c);
  if (!confidence) return d;
  float sum = 0.0f;
  for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(score[c] - score[d.label]);
  d.confidence = 1.0f / sum;
  return d;
}

class Output {
 public:
  Output(const Shape& image, std::int64_t classes, bool confidence) : classes_(classes), shape_({image.n(), image.d(), image.h(), image.w(), 1}) {
    p_.labels = Tensor(shape_, classes <= 256 ? DType::u8 : DType::i32, kCpu);
    if (confidence) p_.confidence = Tensor(shape_, DType::f32, kCpu);
  }
  // Decides `count` planes of sample n from plane z on. scores: (count, H', W', C) whose voxel (0, y0, x0) belongs to the image's (z, 0, 0).
  // part: (count, H), or null: of every row the part that has scores; the rest becomes 0.
  void planes(std::int64_t n, std::int64_t z, std::int64_t count, const float* scores, std::int64_t rows, std::int64_t columns, std::int64_t y0,
              std::int64_t x0, const cpu::RowSpan* part = nullptr) {
    const std::int64_t H = shape_.h(), W = shape_.w();
    parallel_for(count * H, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t k = r / H, y = r % H, at = ((n * shape_.d() + z + k) * H + y) * W;
        const float* from = scores + ((k * rows + y + y0) * columns + x0) * classes_;
        for (std::int64_t x = 0; x < W; ++x) {
          const bool scored = !part || (x >= part[r].begin && x < part[r].end);
          const Decision d = !scored ? Decision{} : decide(from + x * classes_, classes_, p_.confidence.defined());
          if (p_.labels.dtype() == DType::u8)
            p_.labels.data<std::uint8_t>()[at + x] = static_cast<std::uint8_t>(d.label);
          else
            p_.labels.data<std::int32_t>()[at + x] = d.label;
          if (p_.confidence.defined()) p_.confidence.data<float>()[at + x] = d.confidence;
        }
      }
    });
  }
  // The same for one whole plane, without confidence, by the kernel.
  void plane(const Exec& ex, std::int64_t n, std::int64_t z, const float* scores) {
    const Shape one = {1, 1, shape_.h(), shape_.w(), 1};
    Tensor to = p_.labels.range((n * shape_.d() + z) * one.voxels(), one);
    argmax(ex, to, wrap(const_cast<float*>(scores), {1, 1, shape_.h(), shape_.w(), classes_}, DType::f32));
  }
  // No label anywhere in sample n.
  void clear(std::int64_t n) {
    for (Tensor* t : {&p_.labels, &p_.confidence}) {
      if (!t->defined()) continue;
      const std::size_t bytes = static_cast<std::size_t>(shape_.voxels()) * size_of(t->dtype());
      std::memset(static_cast<std::byte*>(t->raw()) + static_cast<std::size_t>(n) * bytes, 0, bytes);
    }
  }
  Prediction take() { return std::move(p_); }
  Prediction& get() { return p_; }

 private:
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

// The network on one input; its scores, which must lie on the input's grid.
Tensor scores_of(Context& ctx, Network& net, Tensor input) {
  const Shape in = input.shape();
  Tensor scores = vg::run(ctx, net, Value{std::move(input)}).at(0).data;
  const Shape& out = scores.shape();
  require(out.n() == in.n() && out.d() == in.d() && out.h() == in.h() && out.w() == in.w(), "predict: the network makes {} of {}: not a score for each voxel",
          to_string(out), to_string(in));
  return scores;
}

// So many samples go through the network together that it has enough to do, but memory stays that of about a million voxels.
std::int64_t group_size(const Shape& image, const Extents& padded) {
  return std::clamp<std::int64_t>((std::int64_t{1} << 20) / (padded[0] * padded[1] * padded[2]), 1, image.n());
}

void whole_image(Context& ctx, Network& net, const Tensor& image, const Extents& padded, Output& out, const PredictOptions& o) {
  const Shape& s = image.shape();
  const Extents start = {-((padded[0] - s.d()) / 2), -((padded[1] - s.h()) / 2), -((padded[2] - s.w()) / 2)};
  const bool fits = padded == Extents{s.d(), s.h(), s.w()};
  const std::int64_t group = group_size(s, padded), box = padded[0] * padded[1] * padded[2];
  for (std::int64_t n = 0; n < s.n(); n += group) {
    const std::int64_t count = std::min(group, s.n() - n);
    Tensor input;
    if (fits) {
      const Tensor part = image.range(n * box * s.c(), {count, padded[0], padded[1], padded[2], s.c()});
      input = part.device() == ctx.device ? part : copy_to(part, ctx.device);  // shared: a network never writes into its input
    } else {
      Tensor boxes({count, padded[0], padded[1], padded[2], s.c()}, DType::f32, kCpu);
      for (std::int64_t i = 0; i < count; ++i) cut(image, n + i, start, boxes.range(i * box * s.c(), {1, padded[0], padded[1], padded[2], s.c()}));
      input = ctx.device == kCpu ? std::move(boxes) : copy_to(boxes, ctx.device);
    }
    const Tensor logits = scores_of(ctx, net, std::move(input));
    if (fits && !o.confidence) {
      const Shape part = {count, s.d(), s.h(), s.w(), 1};
      Tensor to = out.get().labels.range(n * s.voxels(), part), labels(part, to.dtype(), ctx.device);
      argmax(ctx.exec(), labels, logits);
      copy(to, labels);
    } else {
      const Tensor host = ctx.device.on_host() ? logits : copy_to(logits, kCpu);
      const std::int64_t sample = host.elements() / count;
      for (std::int64_t m = 0; m < count; ++m)
        out.planes(n + m, 0, s.d(), host.data<float>() + m * sample - start[0] * padded[1] * padded[2] * host.shape().c(), padded[1], padded[2], -start[1],
                   -start[2]);
    }
    if (o.progress) o.progress(static_cast<double>(n + count) / static_cast<double>(s.n()));
  }
}

void sliding_window(Context& ctx, Network& net, const Tensor& image, const Extents& window, std::int64_t classes, Output& out, const PredictOptions& o) {
  const Shape& s = image.shape();
  const std::int64_t H = s.h(), W = s.w(), C = classes;
  const Extents extent = {s.d(), H, W};
  std::vector<std::int64_t> starts[3];
  Extents shift;  // a window larger than the image is centred on it
  std::vector<float> weight[3], totals[3];
  for (std::size_t a = 0; a < 3; ++a) {
    starts[a] = window_starts(std::max(extent[a], window[a]), window[a], o.overlap);
    shift[a] = -std::max<std::int64_t>(0, (window[a] - extent[a]) / 2);
    weight[a] = axis_weight(window[a], o.gaussian);
    totals[a] = axis_total(starts[a], shift[a], weight[a], extent[a]);
  }
  // Weighted scores of the planes [first, first + window depth) of the image.
  const std::int64_t plane = H * W * C;
  Tensor sums({window[0], H, W, C}, DType::f32, kCpu);
  const double total = static_cast<double>(s.n()) * static_cast<double>(starts[0].size() * starts[1].size() * starts[2].size());
  double done = 0.0;
  for (std::int64_t n = 0; n < s.n(); ++n) {
    std::memset(sums.raw(), 0, sums.bytes());
    for (std::size_t iz = 0; iz < starts[0].size(); ++iz) {
      const std::int64_t z0 = starts[0][iz] + shift[0];
      for (std::int64_t sy : starts[1])
        for (std::int64_t sx : starts[2]) {
          const std::int64_t y0 = sy + shift[1], x0 = sx + shift[2];
          Tensor box({1, window[0], window[1], window[2], s.c()}, DType::f32, kCpu);
          cut(image, n, {z0, y0, x0}, box);
          Tensor logits = scores_of(ctx, net, ctx.device == kCpu ? std::move(box) : copy_to(box, ctx.device));
          if (!ctx.device.on_host()) logits = copy_to(logits, kCpu);
          const std::int64_t lo = std::max<std::int64_t>(0, -x0), hi = std::min(window[2], W - x0);
          parallel_for(window[0] * window[1], 16, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t row = begin; row < end; ++row) {
              const std::int64_t kz = row / window[1], ky = row % window[1], z = z0 + kz, y = y0 + ky;
              if (z < 0 || z >= s.d() || y < 0 || y >= H) continue;
              const float wzy = weight[0][static_cast<std::size_t>(kz)] * weight[1][static_cast<std::size_t>(ky)];
              const float* from = logits.data<float>() + row * window[2] * C;
              // Planes are counted from the first that is still open, which is this window's first inside the image.
              float* to = sums.data<float>() + (z - std::max<std::int64_t>(z0, 0)) * plane + (y * W + x0) * C;
              for (std::int64_t i = lo; i < hi; ++i) {
                const float w = wzy * weight[2][static_cast<std::size_t>(i)];
                for (std::int64_t c = 0; c < C; ++c) to[i * C + c] += w * from[i * C + c];
              }
            }
          });
          done += 1.0;
          if (o.progress) o.progress(done / total);
        }
      // All windows that start here are done: planes before the next start are final.
      const std::int64_t first = std::max<std::int64_t>(z0, 0);
      const std::int64_t next = iz + 1 < starts[0].size() ? starts[0][iz + 1] + shift[0] : s.d(), final_planes = next - first;
      if (o.confidence)  // the decision alone does not need the division by the sum of weights
        parallel_for(final_planes * H, 16, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t row = begin; row < end; ++row) {
            const float zy = totals[0][static_cast<std::size_t>(first + row / H)] * totals[1][static_cast<std::size_t>(row % H)];
            float* to = sums.data<float>() + row * W * C;
            for (std::int64_t x = 0; x < W; ++x) {
              const float inverse = 1.0f / (zy * totals[2][static_cast<std::size_t>(x)]);
              for (std::int64_t c = 0; c < C; ++c) to[x * C + c] *= inverse;
            }
          }
        });
      out.planes(n, first, final_planes, sums.data<float>(), H, W, 0, 0);
      if (iz + 1 == starts[0].size()) break;
      const std::int64_t kept = window[0] - final_planes;  // 0 where windows do not overlap
      std::memmove(sums.raw(), sums.data<float>() + final_planes * plane, static_cast<std::size_t>(kept * plane) * sizeof(float));
      std::memset(sums.data<float>() + kept * plane, 0, static_cast<std::size_t>(final_planes * plane) * sizeof(float));
    }
  }
}

// Whole volumes through a chain of convolutions on the cpu need not hold a layer at a time. None: another way must be taken.
std::optional<std::vector<ChainLayer>> chain_for(const Graph& graph, const Shape& image, const Extents& window) {
  return window == Extents{image.d(), image.h(), image.w()} ? plane_chain(graph, image) : std::nullopt;
}

std::uint64_t result_bytes(const Graph& graph, const Shape& image, const PredictOptions& o) {
  return static_cast<std::uint64_t>(image.n() * image.voxels()) * ((o.confidence ? 4 : 0) + (graph.out_channels() <= 256 ? 1 : 4));
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
          const cpu::RowSpan* part = o.head_only ? data->plane(z) : nullptr;
          if (o.confidence || part)
            out.planes(n, z, 1, scores, s.h(), s.w(), 0, 0, part);
          else
            out.plane(ctx.exec(), n, z, scores);
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
  Output out(s, classes, options.confidence);
  if (slides)
    sliding_window(ctx, net, image, window, classes, out, options);
  else if (const auto chain = ctx.device == kCpu ? chain_for(net.graph, s, window) : std::nullopt)
    by_planes(ctx, net, *chain, image, out, options);
  else
    whole_image(ctx, net, image, window, out, options);
  return out.take();
}

}  // namespace vg

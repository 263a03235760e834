// Launch shapes that tests/kernels does not come to: every kernel of the hooks build runs in at least three. What sim computes is held against cpu.
#include "kernels/activation.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/norm.h"
#include "kernels/optim.h"
#include "kernels/pixel_shuffle.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

// Runs `work(run)`, which returns its outputs, on cpu and on sim.
template <class Work>
void same_as_cpu(Work&& work, double relative = 1e-5) {
  const KernelRun cpu("cpu", "cpu", kCpu), sim("sim", "sim", kSim);
  const std::vector<Tensor> want = work(cpu), got = work(sim);
  ASSERT_EQ(want.size(), got.size());
  for (std::size_t i = 0; i < want.size(); ++i)
    expect_close(got[i], doubles(to_host<float>(want[i])), {.relative = relative, .trivial = true});
}

TEST(Shapes, FlatData) {
  for (const std::int64_t n : {4, 1024, 5000, 5003}) {
    SCOPED_TRACE(n);
    const auto a = normals(n, 1), b = normals(n, 2), v = uniforms(n, 3), g = normals(n, 4);
    same_as_cpu([&](const KernelRun& run) {
      Tensor filled = run.blank({n}), sum = run.blank({n}), w = run.put(a), m = run.put(b), second = run.put(v), squares = run.blank({1});
      const Tensor scalars = run.put({0.1f, 0.5f, 0.25f, 2.0f, 0.9f, 0.0f}), gradient = run.put(g);
      fill(run.exec(), filled, FillParams{3.5f});
      add(run.exec(), sum, run.put(a), run.put(b));
      accumulate(run.exec(), Grad{sum, 1.0f}, run.put(g), ScaleParams{0.5f});
      adam_step(run.exec(), w, m, second, gradient, scalars, AdamParams{});
      Tensor w2 = run.put(a), m2 = run.put(b);
      sgd_step(run.exec(), w2, m2, gradient, scalars, SgdParams{});
      sum_squares(run.exec(), squares, gradient);
      return std::vector<Tensor>{filled, sum, w, m, second, w2, m2, squares};
    });
  }
}

TEST(Shapes, Channels) {
  for (const auto& [rows, channels] : {std::pair<std::int64_t, std::int64_t>{5, 4}, {70, 12}, {300, 64}, {3, 1028}}) {
    SCOPED_TRACE(channels);
    const Shape shape{1, 1, 1, rows, channels};
    const auto x = normals(rows * channels, 1), per_channel = normals(channels, 2), positive = uniforms(channels, 3, 0.5, 2.0);
    same_as_cpu([&, r = rows, c = channels](const KernelRun& run) {
      Tensor wide = run.put(normals(r * (c + 8), 4), {1, 1, 1, r, c + 8}), y = run.blank(shape), z = run.blank(shape),
             total = run.blank({c});
      copy_channels(run.exec(), Grad{wide, 0.0f}, run.put(x, shape), ChannelParams{4, 0, static_cast<std::int32_t>(c)});
      activation_forward(run.exec(), y, run.put(x, shape), run.put(per_channel), Activation{ActivationKind::prelu});
      channel_sum(run.exec(), Grad{total, 0.0f}, run.put(x, shape));
      Tensor mean = run.put(per_channel, {1, c}), rstd = run.put(positive, {1, c});
      norm_apply(run.exec(), z, run.put(x, shape), mean, rstd, run.put(per_channel), run.put(positive), NormParams{});
      Tensor running_mean = run.put(per_channel), running_var = run.put(positive), other = run.blank({c});
      norm_update_running(run.exec(), running_mean, running_var, run.put(positive), run.put(positive),
                          RunningParams{.momentum = 0.1f, .eps = 1e-5f, .count = r});
      norm_rstd(run.exec(), other, run.put(positive), RunningParams{.momentum = 0.1f, .eps = 1e-5f, .count = r});
      return std::vector<Tensor>{wide, y, total, z, running_mean, running_var, other};
    });
  }
}

TEST(Shapes, ClippingHasOneThread) {
  for (const float most : {0.0f, 1.0f, 100.0f}) {
    same_as_cpu([&](const KernelRun& run) {
      Tensor scalars = run.put({0.1f, 0.5f, 0.25f, 2.0f, 0.9f, 0.0f});
      clip_scale(run.exec(), scalars, run.put({9.0f}), ClipParams{most, 0.5f});
      return std::vector<Tensor>{scalars};
    });
  }
}

TEST(Shapes, PixelShuffle) {
  for (const std::int64_t w : {3, 7, 40}) {
    same_as_cpu([&](const KernelRun& run) {
      PixelShuffleParams p;
      p.factor[1] = p.factor[2] = 3;
      Tensor y = run.blank({1, 1, 15, 3 * w - 1, 1});  // nine channels: not by fours
      pixel_shuffle_forward(run.exec(), y, run.put(normals(5 * w * 9, 1), {1, 1, 5, w, 9}), p);
      return std::vector<Tensor>{y};
    });
  }
}

// Every width of tile, along W (one channel), by single channels and by fours, in all three directions; 45: rows that begin anywhere, in two parts.
TEST(Shapes, Convolutions) {
  for (const std::int64_t outputs : {8, 16, 32, 48, 45})
    for (const std::int64_t inputs : {1, 3, 8, 12, 40})
      for (const std::int64_t extent : {3, 9, 13}) {
        if (extent == 13 && inputs != 1) continue;
        SCOPED_TRACE(std::to_string(inputs) + " -> " + std::to_string(outputs) + ", " + std::to_string(extent));
        const Shape in{1, 2, extent, extent + 2, inputs}, out{1, 2, extent, extent + 2, outputs}, weights{outputs, inputs, 1, 3, 3};
        ConvParams p;
        p.pad[1] = p.pad[2] = 1;
        same_as_cpu(
            [&](const KernelRun& run) {
              const Tensor x = run.put(normals(in.elements(), 1), in), w = run.put(normals(weights.elements(), 2), weights),
                           dy = run.put(normals(out.elements(), 3), out);
              Tensor y = run.blank(out), dx = run.blank(in), dw = run.blank(weights);
              conv_forward(run.exec(), y, x, Tensor(), w, Tensor(), p);
              conv_backward_data(run.exec(), Grad{dx, 0.0f}, Grad{}, dy, w, Tensor(), p);
              conv_backward_weight(run.exec(), Grad{dw, 0.0f}, dy, x, Tensor(), p);
              return std::vector<Tensor>{y, dx, dw};
            },
            1e-4);
      }
}

// The same for the weight gradient of 2-byte floats.
TEST(Shapes, HalfWeightGradients) {
  for (const DType type : {DType::f16, DType::bf16})
    for (const std::int64_t outputs : {8, 16, 32, 48})
      for (const std::int64_t inputs : {1, 3, 4})
        for (const std::int64_t extent : {3, 7, 9}) {
          SCOPED_TRACE(std::string(name_of(type)) + ", " + std::to_string(inputs) + " -> " + std::to_string(outputs) + ", " + std::to_string(extent));
          const Shape in{1, 1, extent, extent + 2, inputs}, out{1, 1, extent, extent + 2, outputs}, weights{outputs, inputs, 1, 3, 3};
          ConvParams p;
          p.pad[1] = p.pad[2] = 1;
          const auto x = rounded(normals(in.elements(), 1), type), dy = rounded(normals(out.elements(), 2), type);
          same_as_cpu(
              [&](const KernelRun& run) {
                const DType own = run.device == kCpu ? DType::f32 : type;
                Tensor dw = run.blank(weights);
                conv_backward_weight(run.exec(), Grad{dw, 0.0f}, run.put(dy, out, own), run.put(x, in, own), Tensor(), p);
                return std::vector<Tensor>{dw};
              },
              1e-4);
        }
}

// Every width, chunk and tile of the tensor-core kernel: rows of three taps, single taps, and strides whose halo leaves room for the smaller box alone.
TEST(Shapes, HalfConvolutions) {
  struct Layout {
    std::int32_t kernel[3], stride[3];
    std::int64_t extent[3];
  };
  const Layout layouts[] = {{{1, 3, 3}, {1, 1, 1}, {2, 3, 9}},   {{3, 3, 3}, {1, 1, 1}, {4, 5, 12}}, {{1, 1, 3}, {1, 1, 1}, {1, 3, 40}},
                            {{1, 1, 1}, {1, 1, 1}, {3, 5, 20}},  {{1, 2, 2}, {1, 2, 2}, {1, 8, 10}}, {{1, 1, 1}, {1, 1, 1}, {1, 2, 5}}, {{1, 1, 1}, {1, 1, 1}, {2, 17, 33}},
                            {{1, 1, 1}, {1, 1, 1}, {8, 8, 16}},  {{1, 1, 1}, {1, 1, 1}, {4, 8, 40}},
                            {{3, 3, 3}, {2, 2, 2}, {9, 9, 10}},  {{5, 5, 4}, {2, 2, 2}, {5, 7, 10}}, {{4, 4, 4}, {2, 2, 2}, {8, 10, 12}},
                            {{2, 2, 2}, {2, 2, 2}, {9, 12, 40}}, {{2, 3, 2}, {1, 1, 1}, {6, 11, 17}}};
  for (const DType type : {DType::f16, DType::bf16})
    for (const std::int64_t outputs : {16, 32, 48})
      for (const std::int64_t inputs : {8, 24})
        for (const Layout& l : layouts) {
          Shape in{1, l.extent[0], l.extent[1], l.extent[2], inputs}, out{1, 1, 1, 1, outputs};
          ConvParams p;
          std::int64_t y_extent[3];
          for (int a = 0; a < 3; ++a) {
            p.stride[a] = l.stride[a], p.pad[a] = l.kernel[a] / 2;
            y_extent[a] = (l.extent[a] + 2 * p.pad[a] - l.kernel[a]) / p.stride[a] + 1;
          }
          out = Shape{1, y_extent[0], y_extent[1], y_extent[2], outputs};
          const Shape weights{outputs, inputs, l.kernel[0], l.kernel[1], l.kernel[2]};
          SCOPED_TRACE(std::string(name_of(type)) + ", " + std::to_string(inputs) + " -> " + std::to_string(outputs) + ", " +
                       to_string(weights));
          const auto x = rounded(normals(in.elements(), 1), type), w = rounded(normals(weights.elements(), 2), type);
          same_as_cpu(
              [&](const KernelRun& run) {
                const DType own = run.device == kCpu ? DType::f32 : type;
                Tensor y = run.blank(out, own);
                conv_forward(run.exec(), y, run.put(x, in, own), Tensor(), run.put(w, weights), Tensor(), p);
                return std::vector<Tensor>{from_host(floats_of(y), out, kCpu)};
              },
              2 * precision_of(type));
        }
}

}  // namespace
}  // namespace vg::test

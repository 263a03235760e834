// Kernels on bf16 and f16 tensors: the numbers in registers are floats, so a result is that of the same kernel on f32 tensors with the same (rounded) inputs,
// rounded once; what stays f32 (statistics, sums, gradients of parameters) has the same bits. On a GPU two instantiations may contract differently.
#include <cmath>

#include "kernels/activation.h"
#include "kernels/blur.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "kernels/optim.h"
#include "kernels/pixel_shuffle.h"
#include "kernels/pool.h"
#include "kernels/upsample.h"
#include "kernels/window.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

VG_COVERS(cast);
VG_COVERS(loss_scale_step);

// By threes: what is no multiple of 4 in channels, in all, and what is.
const Shape kShapes[] = {{2, 3, 5, 7, 6},   {1, 1, 3, 5, 2}, {3, 3, 3, 3, 10}, {1, 1, 5, 7, 6},
                         {3, 1, 9, 17, 12}, {1, 1, 3, 5, 4}, {2, 2, 3, 4, 8}};

// work(run, put, blank, type) calls kernels on tensors that `put` and `blank` make, and returns its outputs; first with `type`, then with f32.
template <class Work>
void rounds_once(Work&& work) {
  for (const KernelRun& run : runs_of(fill)) {
    if (run.device == kCpu) continue;
    for (const DType type : {DType::bf16, DType::f16})
      for (const Shape& shape : kShapes) {
        SCOPED_TRACE(run.name + ", " + name_of(type) + " " + to_string(shape));
        const auto outputs = [&](DType now) {
          const auto put = [&](std::uint64_t seed, const Shape& s) { return run.put(rounded(normals(s.elements(), seed), type), s, now); };
          return work(run, put, shape, now);
        };
        const std::vector<Tensor> half = outputs(type), full = outputs(DType::f32);
        for (std::size_t i = 0; i < half.size(); ++i) {
          const std::vector<float> got = floats_of(half[i]), want = rounded(floats_of(full[i]), half[i].dtype());
          if (run.device.kind == DeviceKind::sim)
            EXPECT_EQ(got, want) << "output " << i;
          else
            expect_close(got, doubles(want), {.relative = precision_of(half[i].dtype()) + 1e-5, .trivial = true});  // fill's is one number
        }
      }
  }
}

Tensor like(const KernelRun& run, const Shape& s, DType type) { return run.blank(s, type); }

TEST(Half, Elementwise) {
  rounds_once([](const KernelRun& run, auto put, const Shape& s, DType type) {
    Tensor a = put(1, s), b = put(2, s), y = like(run, s, type), z = put(3, s), filled = like(run, s, type);
    add(run.exec(), y, a, b);
    accumulate(run.exec(), Grad{z, 1.0f}, a, ScaleParams{0.375f});
    fill(run.exec(), filled, FillParams{0.1f});
    Shape wide = s;
    wide[4] += 8;
    Tensor joined = put(4, wide);
    copy_channels(run.exec(), Grad{joined, 1.0f}, a, ChannelParams{8, 0, static_cast<std::int32_t>(s.c())});
    return std::vector<Tensor>{y, z, filled, joined};
  });
}

TEST(Half, Activations) {
  for (const ActivationKind kind : {ActivationKind::leaky_relu, ActivationKind::gelu, ActivationKind::prelu})
    rounds_once([&](const KernelRun& run, auto put, const Shape& s, DType type) {
      const Activation f{kind, 0.25f};
      Tensor x = put(1, s), dy = put(2, s), y = like(run, s, type), dx = put(3, s), dslope = run.blank({s.c()});
      const bool slopes = kind == ActivationKind::prelu;
      const Tensor slope = slopes ? run.put(normals(s.c(), 4)) : Tensor();
      activation_forward(run.exec(), y, x, slope, f);
      activation_backward(run.exec(), Grad{dx, 1.0f}, slopes ? Grad{dslope} : Grad{}, dy, x, slope, f);
      return slopes ? std::vector<Tensor>{y, dx, dslope} : std::vector<Tensor>{y, dx};
    });
}

TEST(Half, Normalisation) {
  for (const bool batch : {false, true})
    rounds_once([&](const KernelRun& run, auto put, const Shape& s, DType type) {
      Tensor x = put(1, s), dy = put(2, s), y = like(run, s, type), dx = like(run, s, type);
      const Shape statistics{batch ? 1 : s.n(), s.c()};
      Tensor mean = run.blank(statistics), rstd = run.blank(statistics), dgamma = run.blank({s.c()}), dbeta = run.blank({s.c()});
      const Tensor gamma = run.put(normals(s.c(), 3, 1, 0.2)), beta = run.put(normals(s.c(), 4));
      NormParams p;
      p.activation = {ActivationKind::leaky_relu, 0.01f};
      norm_statistics(run.exec(), mean, rstd, x, p);
      norm_apply(run.exec(), y, x, mean, rstd, gamma, beta, p);
      norm_backward(run.exec(), Grad{dx}, Grad{dgamma}, Grad{dbeta}, dy, x, mean, rstd, gamma, beta, p);
      return std::vector<Tensor>{mean, rstd, y, dx, dgamma, dbeta};
    });
}

TEST(Half, Spatial) {
  rounds_once([](const KernelRun& run, auto put, const Shape& s, DType type) {
    PoolParams pool;
    UpsampleParams up;
    PixelShuffleParams shuffle;
    BlurParams window;
    Shape small = s, large = s, fine = s;
    for (int a = 0; a < 3; ++a) {
      const bool flat = s[1 + a] == 1;
      pool.kernel[a] = pool.stride[a] = up.factor[a] = window.kernel[a] = flat ? 1 : 2;
      pool.pad[a] = 0;
      small[1 + a] = flat ? 1 : s[1 + a] / 2;
      large[1 + a] *= up.factor[a];
    }
    up.linear = true;
    shuffle.factor[0] = shuffle.factor[1] = 1, shuffle.factor[2] = 2;
    fine[3] *= 2, fine[4] /= 2;
    const Tensor x = put(1, s);
    Tensor pooled = like(run, small, type), dx = put(2, s), upsampled = like(run, large, type), du = put(3, s),
           shuffled = like(run, fine, type), ds = put(4, s), blurred = like(run, s, type), db = put(5, s);
    maxpool_forward(run.exec(), pooled, x, pool);
    maxpool_backward(run.exec(), Grad{dx, 1.0f}, put(6, small), x, pool);
    upsample_forward(run.exec(), upsampled, x, up);
    upsample_backward(run.exec(), Grad{du, 1.0f}, put(7, large), up);
    pixel_shuffle_forward(run.exec(), shuffled, x, shuffle);
    pixel_shuffle_backward(run.exec(), Grad{ds, 1.0f}, put(8, fine), shuffle);
    blur_forward(run.exec(), blurred, x, window);
    blur_backward(run.exec(), Grad{db, 1.0f}, put(9, s), window);
    return std::vector<Tensor>{pooled, dx, upsampled, du, shuffled, ds, blurred, db};
  });
}

TEST(Half, Loss) {
  for (const DType label_type : {DType::u8, DType::i32})
    rounds_once([&](const KernelRun& run, auto put, const Shape& s, DType type) {
      const Tensor logits = put(1, s);
      Shape one = s;
      one[4] = 1;
      std::vector<std::int32_t> classes;
      for (float u : uniforms(one.elements(), 2, 0, static_cast<double>(s.c())))
        classes.push_back(static_cast<std::int32_t>(u) % static_cast<std::int32_t>(s.c()));
      const Tensor labels = run.put_labels(classes, one, label_type);
      Tensor result = run.blank({4}), sums = run.blank({s.n(), s.c(), 3}), dlogits = put(3, s), probabilities = like(run, s, type);
      Tensor best(one, label_type, run.device);
      dice_ce_forward(run.exec(), result, sums, logits, labels, DiceCeParams{});
      dice_ce_backward(run.exec(), Grad{dlogits, 1.0f}, logits, labels, sums, result, run.put({1024.0f}), DiceCeParams{});
      softmax(run.exec(), probabilities, logits);
      Tensor none, blended = run.put(normals(s.elements() / s.n(), 8), {1, s.d(), s.h(), s.w(), s.c()});
      decide(run.exec(), best, none, none, logits, Tensor(), DecideParams{});
      blend_window(run.exec(), blended, logits.range(0, blended.shape()), run.put(uniforms(s.d() + s.h() + s.w(), 9)), BlendParams{{0, 0, 0}, s.d()});
      synchronize(run.device);
      std::vector<float> found;
      if (label_type == DType::u8)
        for (std::uint8_t c : to_host<std::uint8_t>(best)) found.push_back(static_cast<float>(c));
      else
        for (std::int32_t c : to_host<std::int32_t>(best)) found.push_back(static_cast<float>(c));
      return std::vector<Tensor>{result, sums, dlogits, probabilities, run.put(found), blended};
    });
}

TEST(Half, GradientOfBias) {  // that of weights is a product on tensor cores: conv_half_test.cpp
  rounds_once([](const KernelRun& run, auto put, const Shape& s, DType) {
    Tensor db = run.blank({5}), of_x = run.blank({s.c()});
    Shape out = s;
    out[4] = 5;
    channel_sum(run.exec(), Grad{db}, put(2, out));
    channel_sum(run.exec(), Grad{of_x}, put(3, s));
    return std::vector<Tensor>{db, of_x};
  });
}

TEST(Cast, EveryPairOfTypes) {
  for (const std::int64_t count : {1, 7, 8, 33, 1028, 4096, 70001}) {
    std::vector<float> x = normals(count, 1, 0, 100);
    x[0] = 1e30f;  // beyond f16
    Bits bits;
    for (const KernelRun& run : runs_of(cast))
      for (const DType from : {DType::f32, DType::bf16, DType::f16})
        for (const DType to : {DType::f32, DType::bf16, DType::f16}) {
          SCOPED_TRACE(run.name + ", " + name_of(from) + " to " + name_of(to));
          Tensor y = run.blank({count}, to);
          cast(run.exec(), y, run.put(x, {count}, from));
          EXPECT_EQ(floats_of(y), rounded(rounded(x, from), to));
          bits.same(run, y, name_of(from) + std::string(name_of(to)));
        }
  }
}

// An overflow halves the scale and says that the step is to be skipped; enough good steps double it.
TEST(LossScale, FollowsTheGradient) {
  const LossScaleParams p{.growth = 2.0f, .backoff = 0.5f, .interval = 3, .max_norm = 4.0f, .beta2 = 0.9f};
  for (const KernelRun& run : runs_of(loss_scale_step)) {
    SCOPED_TRACE(run.name);
    Tensor scalars = run.put({1, 2, 3, 9, 0.5f, 7, 5}), state = run.put({1024.0f, 0.0f, 0.0f});
    const auto step = [&](float norm) {
      loss_scale_step(run.exec(), scalars, state, run.put({norm * norm}), p);
      synchronize(run.device);
    };
    const auto expect = [&](std::vector<float> want_scalars, std::vector<float> want_state) {
      EXPECT_EQ(to_host<float>(state), want_state);
      const std::vector<float> got = to_host<float>(scalars);
      for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want_scalars[i], 1e-6 * std::fabs(want_scalars[i])) << i;
    };
    step(1024.0f);  // norm 1
    expect({1, 2, 3, 1.0f / 1024, 0.5f, 0, 5}, {1024, 1, 0});
    step(INFINITY);
    expect({1, 2, 3, 1.0f / 1024, 0.5f, 1, 5}, {512, 0, 1});
    step(NAN);
    expect({1, 2, 3, 1.0f / 1024, 0.5f, 1, 5}, {256, 0, 2});
    step(2048.0f);  // norm 8: clipped to 4. Two of five steps were skipped: 1 - beta^3
    expect({1, 0.875f, 1.0f - 0.729f, 4.0f / (8 + 1e-6f) / 256, 0.5f, 0, 5}, {256, 1, 2});
    step(1.0f), step(1.0f);
    expect({1, 0.875f, 1.0f - 0.729f, 1.0f / 256, 0.5f, 0, 5}, {512, 0, 2});
  }
}

TEST(LossScale, ASkippedStepChangesNothing) {
  const std::vector<float> w = normals(1000, 1), m = normals(1000, 2), v = uniforms(1000, 3);
  for (const KernelRun& run : runs_of(adam_step)) {
    SCOPED_TRACE(run.name);
    Tensor tw = run.put(w), tm = run.put(m), tv = run.put(v);
    const Tensor g = run.put(std::vector<float>(1000, NAN)), scalars = run.put({0.1f, 0.5f, 0.5f, 1.0f, 0.9f, 1.0f, 1.0f});
    adam_step(run.exec(), tw, tm, tv, g, scalars, AdamParams{});
    sgd_step(run.exec(), tw, tm, g, scalars, SgdParams{});
    synchronize(run.device);
    EXPECT_EQ(to_host<float>(tw), w);
    EXPECT_EQ(to_host<float>(tm), m);
    EXPECT_EQ(to_host<float>(tv), v);
  }
}

}  // namespace
}  // namespace vg::test

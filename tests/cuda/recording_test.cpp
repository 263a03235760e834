// Recorded work on the cuda device (fake runtime, strict): training steps replayed give the bits of steps called, whatever happens to memory in between.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "kernels/elementwise.h"
#include "kernels/optim.h"
#include "layers/graph.h"
#include "layers/ops.h"
#include "layers/tape.h"
#include "layers/unet.h"
#include "tensor/error.h"
#include "tensor/recording.h"

namespace vg::test {
namespace {

const Device kCuda{DeviceKind::cuda, 0};

void bring_up() {
  ::setenv("VG_CUDA_PLUGIN", VG_BIN_DIR "/libvoxgrad_cuda_fake.so", 1);
  ::setenv("VG_CUDA_FAKE", "strict", 1);
  device_api(kCuda);
  ::unsetenv("VG_CUDA_PLUGIN"), ::unsetenv("VG_CUDA_FAKE");
}

UnetConfig small_net() {
  UnetConfig c;
  c.classes = 3, c.features = {4, 6};
  return c;
}

// A tiny U-Net, its optimizer, and one batch, all on a device. What differs from step to step is written to `images` and `scalars`.
struct Training {
  explicit Training(Device d)
      : device(d), ctx(d), net(unet(small_net()), d, true),
        images({2, 1, 8, 12, 1}, DType::f32, d), scalars({kOptimScalars}, DType::f32, d), loss({1}, DType::f32, d),
        seed(from_host(std::vector<float>{1.0f}, {1}, d)) {
    net.params.initialise(3);
    first = zeros(net.params.flat().shape(), DType::f32, d), second = zeros(net.params.flat().shape(), DType::f32, d);
    std::vector<std::int32_t> classes(2 * 8 * 12);
    for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int32_t>(i * i % 3);
    labels = from_host(classes, {2, 1, 8, 12, 1}, d);
  }

  void prepare(int step) {
    std::vector<float> pixels(static_cast<std::size_t>(images.elements()));
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = std::sin(static_cast<float>(i + 1) * static_cast<float>(step + 1) * 0.37f);
    copy(images, wrap(pixels.data(), images.shape(), DType::f32));
    float host[kOptimScalars] = {};
    host[kLearningRate] = 0.01f / static_cast<float>(step), host[kGradScale] = 1.0f, host[kBeta1] = 0.9f;
    host[kBias1] = 1.0f - std::pow(0.9f, static_cast<float>(step)), host[kBias2] = 1.0f - std::pow(0.999f, static_cast<float>(step));
    copy(scalars, wrap(host, {kOptimScalars}, DType::f32));
  }

  void step() {
    Tape tape;
    ctx.tape = &tape, ctx.training = true;
    net.params.zero_grad();
    const DiceCe one = dice_ce(ctx, run(ctx, net, Value{images})[0], labels, DiceCeParams{});
    copy(loss, one.loss.data);
    tape.backward(one.loss, copy_to(seed, device));
    ctx.tape = nullptr, ctx.training = false;
    net.params.finish_grad(ctx.exec());
    adam_step(ctx.exec(), net.params.flat(), first, second, net.params.flat_grad(), scalars, AdamParams{});
  }

  Device device;
  Context ctx;
  Network net;
  Tensor images, labels, scalars, loss, seed, first, second;
};

// Takes memory of many sizes, writes NaN to all of it, and gives it back.
void churn(Device d) {
  std::vector<Tensor> all;
  for (std::int64_t n = 64; n < 20000; n += n / 3) {
    all.emplace_back(Shape{n}, DType::f32, d);
    fill(Exec{d, nullptr, nullptr, {}}, all.back(), FillParams{NAN});
  }
}

TEST(Recordings, ReplayedStepsEqualCalledOnes) {
  bring_up();
  for (const Device d : {kCuda, kSim}) {
    SCOPED_TRACE(to_string(d));
    std::vector<std::vector<float>> losses(2), weights(2);
    for (const bool recorded : {false, true}) {
      Training t(d);
      Recording recording(d);
      for (int step = 1; step <= 4; ++step) {
        t.prepare(step);
        if (recorded && step > 1) {
          if (!recording.recorded()) recording.record([&] { t.step(); });
          churn(d);
          recording.replay();
        } else {
          t.step();
        }
        losses[recorded].push_back(to_host<float>(t.loss)[0]);
      }
      weights[recorded] = to_host<float>(t.net.params.flat());
    }
    EXPECT_EQ(losses[0], losses[1]);
    EXPECT_NE(losses[0][0], losses[0][3]);
    EXPECT_TRUE(weights[0] == weights[1]);
    EXPECT_TRUE(std::isfinite(weights[0][0]));
    EXPECT_EQ(memory_stats(d).live, 0u);
  }
  release_cache(kCuda);
}

// Memory of recorded work goes to nobody else; all of it comes back in the end.
TEST(Recordings, KeepTheirMemory) {
  bring_up();
  const Exec ex{kCuda, nullptr, nullptr, {}};
  Tensor y({1000}, DType::f32, kCuda);
  {
    Recording recording(kCuda);
    recording.record([&] {
      Tensor a({1000}, DType::f32, kCuda), b({1000}, DType::f32, kCuda);
      fill(ex, a, FillParams{2.0f});
      fill(ex, b, FillParams{3.0f});
      add(ex, y, a, b);
    });
    fill(ex, y, FillParams{1.0f});
    EXPECT_EQ(to_host<float>(y)[999], 1.0f) << "recording computes nothing";
    EXPECT_EQ(memory_stats(kCuda).live, 3 * block_bytes(4000));
    const Tensor c({1000}, DType::f32, kCuda), e({1000}, DType::f32, kCuda);
    EXPECT_EQ(memory_stats(kCuda).live, 5 * block_bytes(4000)) << "two blocks are the recording's";
    recording.replay();
    EXPECT_EQ(to_host<float>(y)[999], 5.0f);
  }
  EXPECT_EQ(memory_stats(kCuda).live, block_bytes(4000));
  y = Tensor();
  release_cache(kCuda);
}

TEST(Recordings, HostMemoryTakesNoPart) {
  bring_up();
  Tensor y({10}, DType::f32, kCuda);
  std::vector<float> host(10, 1.0f);
  for (int way = 0; way < 3; ++way) {
    Recording recording(kCuda);
    try {
      recording.record([&] { way == 0 ? copy(y, wrap(host.data(), {10}, DType::f32)) : way == 1 ? static_cast<void>(to_host<float>(y)) : synchronize(kCuda); });
      ADD_FAILURE() << way;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::no_device);
      EXPECT_NE(std::string(e.what()).find("record"), std::string::npos) << e.what();
    }
    EXPECT_FALSE(recording.recorded());
  }
  copy(y, wrap(host.data(), {10}, DType::f32));  // afterwards the device works as before
  EXPECT_EQ(to_host<float>(y), host);
  y = Tensor();
  release_cache(kCuda);
}

}  // namespace
}  // namespace vg::test

// Batches on their way to the cuda device (fake runtime, strict and lazy: queued work is done as late as its order allows). Every step finds the batch that is
// its own, though two places take turns, copies run on another stream, and what the patches are made of outgrows its memory.
#include "train/feeder.h"

#include <gtest/gtest.h>

#include "kernels/elementwise.h"
#include "tests/cuda/device.h"
#include "tests/train/data_sets.h"

namespace vg::test {
namespace {

struct Seen {
  std::vector<std::vector<float>> images;
  std::vector<std::vector<std::uint8_t>> labels;
};

// Takes all batches and uses each in queued work; looks at the results of every third step at once, as training looks at its loss, at the others' in the end.
// Memory that dies with work still queued on it is what the next batch would like to have.
Seen feed(Device device, const BatchSource& source, std::int64_t steps) {
  ScratchOwner scratch(device);
  const Exec ex{device, &scratch};
  std::vector<Tensor> doubled, labels;
  Feeder feeder(device, source, 0, steps);
  for (std::int64_t step = 0; step < steps; ++step) {
    const Feeder::Fed fed = feeder.next();
    Tensor sum(fed.images.shape(), DType::f32, device);
    add(ex, sum, fed.images, fed.images);
    doubled.push_back(sum), labels.push_back(copy_to(fed.labels, device));
    if (step + 1 < steps) {
      Tensor dying({source.drawn(step + 1).reads / 4}, DType::f32, device);
      fill(ex, dying, FillParams{7.0f});
    }
    feeder.prefetch();
    if (step % 3 == 0) to_host<float>(sum);
  }
  Seen seen;
  for (const Tensor& t : doubled) seen.images.push_back(to_host<float>(t));
  for (const Tensor& t : labels) seen.labels.push_back(to_host<std::uint8_t>(t));
  return seen;
}

class CudaFeeder : public CudaDevice {};

TEST_F(CudaFeeder, EveryStepFindsItsBatch) {
  Dataset d = empty_dataset(3, 1);
  for (int i = 0; i < 3; ++i) {
    d.training.push_back(numbered_sample("s", {12, 14, 16}, 1, [i](std::int64_t z, std::int64_t y, std::int64_t x) { return (z + y * 2 + x * 3 + i) % 4; }));
    for (std::int64_t v = 0; v < d.training.back().image.elements(); ++v) d.training.back().image.data<float>()[v] *= 0.001f;
  }
  TrainConfig c;
  c.batch = 2;
  c.augment = {.flip = true, .intensity = 0.5, .noise = 0.5, .affine = 0.3, .rotation = 40, .scaling = 0.5, .elastic = 0.3, .elastic_spacing = 4, .elastic_magnitude = 1.6};
  constexpr std::int64_t kSteps = 140;
  std::int64_t foreseen = 0, later = 0;
  for (c.seed = 1; later <= foreseen; ++c.seed) {  // until more memory is needed than the first steps let expect
    const BatchSource source(d, c, {4, 6, 6});
    foreseen = later = 0;
    for (std::int64_t step = 0; step < kSteps; ++step) {
      std::int64_t& most = step < 64 ? foreseen : later;
      most = std::max(most, source.drawn(step).reads);
    }
    if (later > foreseen) break;
  }
  const BatchSource source(d, c, {4, 6, 6});
  const Seen on_cuda = feed(kCuda, source, kSteps), on_sim = feed(kSim, source, kSteps), on_cpu = feed(kCpu, source, kSteps);
  ASSERT_EQ(on_cuda.images.size(), static_cast<std::size_t>(kSteps));
  for (std::size_t step = 0; step < kSteps; ++step) {
    ASSERT_EQ(on_cuda.images[step], on_sim.images[step]) << step;
    ASSERT_EQ(on_cuda.labels[step], on_sim.labels[step]) << step;
    ASSERT_EQ(on_cpu.labels[step], on_sim.labels[step]) << step;
    for (std::size_t i = 0; i < on_cpu.images[step].size(); ++i) ASSERT_NEAR(on_cpu.images[step][i], on_sim.images[step][i], 1e-4) << step;
  }
  EXPECT_NE(on_cuda.images[0], on_cuda.images[1]);
}

}  // namespace
}  // namespace vg::test

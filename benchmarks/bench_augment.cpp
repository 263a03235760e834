// What the making of a training patch costs on the cpu, 96^3 voxels from a head of 160 x 192 x 160, and what is left of it for the host where a GPU makes the
// patch. These are the figures that train/README.md quotes.
#include <benchmark/benchmark.h>

#include "kernels/scratch.h"
#include "tensor/parallel.h"
#include "train/augment.h"

namespace vg {
namespace {

constexpr std::array<std::int64_t, 3> kPatch = {96, 96, 96};

struct Head {
  Sample sample;
  Dataset data;
  Tensor image{{1, 96, 96, 96, 1}, DType::f32, kCpu}, labels{{1, 96, 96, 96, 1}, DType::u8, kCpu}, swap;

  Head() {
    const Shape voxels = {1, 160, 192, 160, 1};
    sample.image = Tensor(voxels, DType::f32, kCpu), sample.labels = Tensor(voxels, DType::u8, kCpu);
    Random random(1);
    for (std::int64_t v = 0; v < voxels.elements(); ++v)
      sample.image.data<float>()[v] = random.uniform(), sample.labels.data<std::uint8_t>()[v] = static_cast<std::uint8_t>(v / 97 % 33);
    data.left_right_axis = 2;
    swap = swap_table(data);
  }
};

PatchPlan plan_of(const Head& head, const AugmentConfig& c) {
  Random random(7);
  PatchPlan plan = draw_plan(random, c, head.data, {79.5, 95.5, 79.5}, kPatch);
  if (c.flip && !plan.place.mirrored) plan.place.mirrored = true, plan.place.m[2][2] = -1;
  return plan;
}

void make(benchmark::State& state, const AugmentConfig& c) {
  Head head;
  const PatchPlan plan = plan_of(head, c);
  set_threads(1);
  for (auto _ : state) make_patch(head.sample, plan, head.swap, head.image, head.labels);
  set_threads(0);
}
BENCHMARK_CAPTURE(make, copied, {})->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(make, mirrored, {.flip = true})->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(make, turned, {.affine = 1})->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(make, turned_and_bent, {.affine = 1, .elastic = 1})->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(make, brightened, {.intensity = 1})->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(make, noisy, {.noise = 1})->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(make, all, {.intensity = 1, .noise = 1, .affine = 1, .elastic = 1})->Unit(benchmark::kMillisecond);

// The host's share where a GPU makes the patch: draws and rows.
void cut_for_a_gpu(benchmark::State& state) {
  Head head;
  const AugmentConfig c{.intensity = 1, .noise = 1, .affine = 1, .elastic = 1};
  std::vector<float> image(static_cast<std::size_t>(head.sample.image.elements()));
  std::vector<std::uint8_t> labels(image.size());
  std::int64_t bytes = 0;
  for (auto _ : state) {
    const Box box = reach(plan_of(head, c), kPatch, head.sample.image.shape());
    copy_box(head.sample, box, image.data(), labels.data());
    bytes = box.extents[0] * box.extents[1] * box.extents[2] * 5;
  }
  state.counters["MiB up"] = static_cast<double>(bytes) / (1 << 20);
}
BENCHMARK(cut_for_a_gpu)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace vg

BENCHMARK_MAIN();

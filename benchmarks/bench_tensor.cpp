// What memory and threads cost by themselves: touching fresh and cached blocks, taking a tensor from the cache, starting a parallel loop.
// These are the figures that tensor/README.md quotes.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>

#include "tensor/os.h"
#include "tensor/parallel.h"
#include "tensor/tensor.h"

namespace vg {
namespace {

constexpr std::size_t kBytes = std::size_t{256} << 20;

void touch_small_pages(benchmark::State& state) {
  for (auto _ : state) {
    void* block = std::malloc(kBytes);  // beyond malloc's threshold: from the kernel, and back to it
    benchmark::DoNotOptimize(std::memset(block, 1, kBytes));
    std::free(block);
  }
}
BENCHMARK(touch_small_pages)->Unit(benchmark::kMillisecond);

void touch_huge_pages(benchmark::State& state) {
  for (auto _ : state) {
    void* block = os::allocate_pages(kBytes);
    benchmark::DoNotOptimize(std::memset(block, 1, kBytes));
    os::release_pages(block, kBytes);
  }
}
BENCHMARK(touch_huge_pages)->Unit(benchmark::kMillisecond);

void touch_cached_block(benchmark::State& state) {
  for (auto _ : state) {
    Tensor t({static_cast<std::int64_t>(kBytes)}, DType::u8, kCpu);
    benchmark::DoNotOptimize(std::memset(t.raw(), 1, kBytes));
  }
  release_cache(kCpu);
}
BENCHMARK(touch_cached_block)->Unit(benchmark::kMillisecond);

void take_tensor_from_cache(benchmark::State& state) {
  for (auto _ : state) {
    Tensor t({1, 1, 64, 64, 16}, DType::f32, kCpu);
    benchmark::DoNotOptimize(t.raw());
  }
}
BENCHMARK(take_tensor_from_cache);

void start_parallel_loop(benchmark::State& state) {
  for (auto _ : state) parallel_for(state.range(0), 1, [](std::int64_t begin, std::int64_t) { benchmark::DoNotOptimize(begin); });
}
BENCHMARK(start_parallel_loop)->Arg(2)->Arg(64);

}  // namespace
}  // namespace vg

BENCHMARK_MAIN();

// What it costs to read heads into floats, to write labels, and to conform a head that is not conformed: the figures of nifti/README.md.
// Reads t1/*.nii.gz and models/subcortical-t1_crop-reference.nii.gz of the test data (VG_TEST_DATA); peers/nifti_peer.py runs
// the same with nibabel in turn.
#include <benchmark/benchmark.h>

#include <filesystem>
#include <functional>

#include "nifti/conform.h"
#include "nifti/volume.h"
#include "tensor/os.h"

namespace vg {
namespace {

std::string data(const char* name) {
  const std::string given = os::environment("VG_TEST_DATA"), folder = given.empty() ? "../shared/data" : given;
  return folder + "/" + name;
}

void with_file(benchmark::State& state, const char* name, const std::function<void(const std::string&)>& work) {
  const std::string path = data(name);
  if (!std::filesystem::exists(path)) return state.SkipWithError((path + " is not there: set VG_TEST_DATA").c_str());
  for (auto _ : state) work(path);
}

void read_labels_of_a_head(benchmark::State& state) {
  with_file(state, "models/subcortical-t1_crop-reference.nii.gz",
            [](const std::string& path) { benchmark::DoNotOptimize(read_labels(path)); });
}
BENCHMARK(read_labels_of_a_head)->Unit(benchmark::kMillisecond)->UseRealTime();

void read_header_alone(benchmark::State& state) {
  with_file(state, "t1/t1_crop.nii.gz", [](const std::string& path) { benchmark::DoNotOptimize(read_image_header(path)); });
}
BENCHMARK(read_header_alone)->Unit(benchmark::kMicrosecond)->UseRealTime();

void write_labels(benchmark::State& state) {
  const std::string out = (std::filesystem::temp_directory_path() / "voxgrad_bench_nifti.nii.gz").string();
  Volume labels;
  with_file(state, "models/subcortical-t1_crop-reference.nii.gz", [&](const std::string& path) {
    if (!labels.voxels.defined()) labels = read_labels(path);
    write_nifti(out, labels);
  });
  if (std::filesystem::exists(out)) state.counters["bytes"] = static_cast<double>(std::filesystem::file_size(out));
  std::filesystem::remove(out);
}
BENCHMARK(write_labels)->Unit(benchmark::kMillisecond)->UseRealTime();

void conform_a_head(benchmark::State& state) {
  Volume head;
  with_file(state, "t1/ch2.nii.gz", [&](const std::string& path) {
    if (!head.voxels.defined()) head = read_volume(path);
    benchmark::DoNotOptimize(conform(head));
  });
}
BENCHMARK(conform_a_head)->Unit(benchmark::kMillisecond)->UseRealTime();

// read_head/NAME for every scan of t1/.
void register_heads() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(data("t1"), error)) {
    const std::string path = entry.path().string();
    if (path.ends_with(".nii.gz"))
      benchmark::RegisterBenchmark(("read_head/" + entry.path().filename().string()).c_str(), [path](benchmark::State& state) {
        for (auto _ : state) benchmark::DoNotOptimize(read_volume(path));
      })->Unit(benchmark::kMillisecond)->UseRealTime();
  }
}

}  // namespace
}  // namespace vg

int main(int argc, char** argv) {
  vg::register_heads();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}

// segbench peak, train, infer and io: one program alone, against the machine.
#include <filesystem>

#include "benchmarks/segbench/child.h"
#include "benchmarks/segbench/commands.h"
#include "benchmarks/segbench/peak.h"
#include "nifti/volume.h"

namespace vg::bench {
namespace {

std::string size_text(std::int64_t bytes) {
  return bytes >= 1 << 20 ? fmt::format("{} MiB", bytes >> 20) : fmt::format("{} KiB", bytes >> 10);
}

// What train and infer report: wall and CPU seconds of a repetition, the largest resident memory.
Report repeated(const Options& o, const std::string& kind, const std::string& what, const Samples& s) {
  Report r;
  r.title = kind + " " + o.name;
  const double gib = static_cast<double>(os::peak_resident_bytes()) / 1073741824.0;
  r.columns = {"", "wall min", "wall median", "cpu min", "cpu median", "peak memory"};
  r.rows.push_back({what, fmt::format("{:.3f} s", least(s.wall)), fmt::format("{:.3f} s", median(s.wall)), fmt::format("{:.3f} s", least(s.cpu) / threads()),
                    fmt::format("{:.3f} s", median(s.cpu) / threads()), fmt::format("{:.2f} GiB", gib)});
  r.data = {{"case", o.name}, {"wall_seconds", s.wall}, {"cpu_seconds", s.cpu}, {"threads", threads()}, {"peak_resident_bytes", os::peak_resident_bytes()}};
  return r;
}

}  // namespace

Report peak(const Options& o) {
  Report r;
  r.title = "peak";
  r.columns = {"", "1 thread", fmt::format("{} threads", threads())};
  const double seconds = o.quick ? 0.01 : 3 * kWindow;
  Json bandwidths = Json::array();
  const double one = multiply_add_peak(false, seconds), all = multiply_add_peak(true, seconds);
  r.rows.push_back({"multiply-add f32, " + vector_target(), fmt::format("{:.0f} GFLOP/s", one), fmt::format("{:.0f} GFLOP/s", all)});
  std::vector<std::int64_t> sizes = {24 << 10, 1 << 20, 16 << 20};  // a half of usual L1 and L2 caches; beyond L2; memory
  if (!o.quick) sizes.push_back(512 << 20);
  for (const std::int64_t size : sizes)
    for (const Access a : {Access::read, Access::write, Access::stream, Access::copy}) {
      o.say(fmt::format("{} {}", name_of(a), size_text(size)));
      const double single = bandwidth(a, size, false, seconds), together = bandwidth(a, size, true, seconds);
      r.rows.push_back({fmt::format("{} {}", name_of(a), size_text(size)), fmt::format("{:.1f} GB/s", single), fmt::format("{:.1f} GB/s", together)});
      bandwidths.push_back({{"access", name_of(a)}, {"bytes_per_thread", size}, {"one_thread", single}, {"all_threads", together}});
    }
  r.notes.push_back("bytes are those of one thread; rates by CPU time; copy counts what is read and what is written");
  r.data = {{"multiply_add_gflops", {{"one_thread", one}, {"all_threads", all}}}, {"bandwidth_gbytes", bandwidths}};
  return r;
}

Report train_case(const Options& o) {
  TrainCase one(o.name, o);
  float loss = 0;
  const Samples s = measure(0, [&] { o.say(fmt::format("loss {:.5f}", loss = one.step())); }, o.repetitions, {}, 0);
  Report r = repeated(o, "train", "a step", s);
  r.notes.push_back(fmt::format("{}; loss {:.5f} after {} steps", one.describe(), loss, o.repetitions + 1));
  r.data["loss"] = loss;
  return r;
}

Report infer_case(const Options& o) {
  InferCase one(o.name, o);
  std::vector<double> network;
  const Samples s = measure(0, [&] { one.run(), network.push_back(one.network_seconds()), o.say(fmt::format("{:.2f} s", network.back())); }, o.repetitions, {}, 0);
  network.erase(network.begin());
  Report r = repeated(o, "infer", "a volume", s);
  r.notes.push_back(fmt::format("{}; network alone {:.3f} s (wall, median)", one.describe(), median(network)));
  r.data["network_seconds"] = network;
  return r;
}

Report io(const Options& o) {
  Report r;
  r.title = "io";
  r.columns = {"", "wall min", "wall median", "cpu median", "MB/s"};
  const TemporaryFolder folder;
  const std::string head = data_folder(o) + "/t1/t1_crop.nii.gz", map = data_folder(o) + "/models/subcortical-t1_crop-reference.nii.gz", out = folder / "out.nii.gz";
  const Volume image = read_volume(head), labels = read_labels(map);
  Json items = Json::array();
  const auto row = [&](const std::string& name, std::int64_t voxels, const std::function<void()>& work) {
    o.say(name);
    const Samples s = measure(0, work, o.repetitions, {}, 0);
    // Bytes of the voxels as they are in the file before compression.
    const double rate = static_cast<double>(voxels) / median(s.wall) * 1e-6;
    r.rows.push_back({name, fmt::format("{:.1f} ms", 1e3 * least(s.wall)), fmt::format("{:.1f} ms", 1e3 * median(s.wall)), fmt::format("{:.1f} ms", 1e3 * median(s.cpu)),
                      fmt::format("{:.0f}", rate)});
    items.push_back({{"what", name}, {"wall_seconds", s.wall}, {"cpu_seconds", s.cpu}, {"mbytes_per_second", rate}});
  };
  const std::int64_t count = image.voxels.elements();
  row("read a head (.nii.gz)", count, [&] { read_volume(head); });
  row("read its labels", count, [&] { read_labels(map); });
  row("write the head as uint8", count, [&] { write_nifti(out, image, {.type = Number::u8, .gzip_level = 1}); });
  row("write its labels", count, [&] { write_nifti(out, labels); });
  const double share = static_cast<double>(std::filesystem::file_size(out)) / static_cast<double>(count);
  r.notes.push_back(fmt::format("{} voxels of one byte; cpu: of all threads together; the label map shrinks to {:.1f} % (level 1)", count, 100 * share));
  r.data["io"] = items;
  return r;
}

}  // namespace vg::bench

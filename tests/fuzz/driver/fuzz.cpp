// The libFuzzer program: fuzz_files and fuzz_models differ in the targets they link. VG_FUZZ_TARGET chooses one. Besides libFuzzer's own:
//   fuzz_files --targets            their names          fuzz_files --seeds DIR          writes each target's seeds to DIR/NAME/
//   fuzz_files --unpack FILE DIR    a packed corpus as files
//   fuzz_files --pack DIR FILE N    the smallest inputs of DIR as the corpus that is replayed: at most N bytes of accepted ones, N of refused
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "tests/fuzz/corpus.h"

namespace {

using namespace vg::fuzz;
namespace fs = std::filesystem;

const Target& chosen() {
  static const Target* target = [] {
    const std::string name = vg::os::environment("VG_FUZZ_TARGET");
    for (const Target& t : targets())
      if (t.name == name) return &t;
    std::fprintf(stderr, "VG_FUZZ_TARGET=%s: wanted a name that --targets prints\n", name.c_str());
    std::exit(2);
  }();
  return *target;
}

void write_seeds(const fs::path& folder) {
  for (const Target& t : targets()) {
    fs::create_directories(folder / t.name);
    int n = 0;
    for (const Bytes& seed : t.seeds())
      vg::os::write_file_atomic((folder / t.name / ("seed-" + std::to_string(n++))).string(), text_of(seed));
  }
}

void pack(const fs::path& folder, const std::string& file, std::size_t most) {
  std::vector<Bytes> inputs;
  for (const auto& entry : fs::directory_iterator(folder)) inputs.push_back(vg::os::read_file(entry.path().string()));
  std::sort(inputs.begin(), inputs.end(), [](const Bytes& a, const Bytes& b) { return a.size() != b.size() ? a.size() < b.size() : a < b; });
  std::vector<Entry> entries;
  std::size_t accepted_bytes = 0, refused_bytes = 0;
  for (Bytes& b : inputs) {
    const char v = verdict(chosen(), b);
    std::size_t& total = v == 'A' ? accepted_bytes : refused_bytes;
    total += b.size() + 5;
    if (total <= most) entries.push_back({v, std::move(b)});
  }
  write_corpus(file, entries);
  std::printf("%zu of %zu\n", entries.size(), inputs.size());
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* count, char*** values) {
  const std::vector<std::string> words(*values + 1, *values + *count);
  if (!words.empty() && words[0] == "--targets") {
    for (const Target& t : targets()) std::puts(t.name);
    std::exit(0);
  }
  if (words.size() == 2 && words[0] == "--seeds") write_seeds(words[1]), std::exit(0);
  if (words.size() == 4 && words[0] == "--pack") pack(words[1], words[2], std::stoul(words[3])), std::exit(0);
  if (words.size() == 3 && words[0] == "--unpack") {
    int n = 0;
    fs::create_directories(words[2]);
    for (const Entry& e : read_corpus(words[1])) vg::os::write_file_atomic((fs::path(words[2]) / ("kept-" + std::to_string(n++))).string(), text_of(e.bytes));
    std::exit(0);
  }
  chosen();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  verdict(chosen(), {reinterpret_cast<const std::byte*>(data), size});
  return 0;
}

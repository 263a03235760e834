// Options from the environment, complaints, and the report at the end of the process.
#include <unistd.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>

#include "tensor/error.h"
#include "tensor/os.h"
#include "tests/cuda/runtime/handles.h"

namespace vg::fake_cuda {
namespace {

struct Complaints {
  std::vector<std::string> fresh;
  int all = 0;
};
Complaints& complaints() {
  static auto& c = *new Complaints;
  return c;
}

// When the library that holds the runtime is torn down: after everything that was made later, host code's streams and buffers included.
struct AtExit {
  AtExit() { options(); }
  ~AtExit() {
    if (options().report)
      std::fprintf(stderr, "fake CUDA runtime: %lld kernels, %lld copies, %lld of them beside kernels, %lld replays\n", static_cast<long long>(traffic().kernels),
                   static_cast<long long>(traffic().copies), static_cast<long long>(traffic().beside), static_cast<long long>(traffic().replays));
    if (!options().strict) return;
    report_at_exit();
    if (complaints().all == 0) return;
    std::fflush(nullptr);
    ::_exit(kExitCode);
  }
} at_exit;

std::size_t size_of_word(const std::string& word, const std::string& text) {
  char* end = nullptr;
  const unsigned long long n = std::strtoull(text.c_str(), &end, 10);
  const std::string unit = end;
  require(end != text.c_str() && (unit.empty() || unit == "K" || unit == "M" || unit == "G"), "VG_CUDA_FAKE: {} (wanted a size such as 64M)", word);
  return n << (unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : 0);
}

}  // namespace

Options parse_options(const std::string& text) {
  Options o;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, end - at), value = word.substr(std::min(word.find('=') + 1, word.size()));
    at = end + 1;
    if (word == "eager") {
      o.eager = true;
    } else if (word == "strict") {
      o.strict = true;
    } else if (word == "report") {
      o.report = true;
    } else if (word.starts_with("memory=")) {
      o.memory = size_of_word(word, value);
    } else if (word.starts_with("devices=")) {
      o.devices = static_cast<int>(size_of_word(word, value));
      require(o.devices >= 0 && o.devices <= kMostDevices, "VG_CUDA_FAKE: {} (at most {})", word, kMostDevices);
    } else if (word.starts_with("capability=")) {
      o.capability = static_cast<int>(size_of_word(word, value));
    } else if (word.starts_with("fail=")) {
      const std::size_t colon = value.find(':');
      o.fail_kernel = value.substr(0, colon);
      if (colon != std::string::npos) o.fail_run = static_cast<int>(size_of_word(word, value.substr(colon + 1)));
    } else {
      require(word == "lazy", "VG_CUDA_FAKE: {} (wanted lazy, eager, strict, report, memory=SIZE, devices=N, capability=N or fail=KERNEL:N)", word);
    }
  }
  return o;
}

Options& options() {
  static auto& chosen = *new Options([] {
    Options o = parse_options(os::environment("VG_CUDA_FAKE"));
    o.eager = o.eager || os::environment("CUDA_LAUNCH_BLOCKING") == "1";
    return o;
  }());
  return chosen;
}

void complain(const std::string& text) {
  complaints().fresh.push_back(text);
  ++complaints().all;
  std::fprintf(stderr, "fake CUDA runtime: %s\n", text.c_str());
}

std::vector<std::string> take_complaints() {
  complaints().all -= static_cast<int>(complaints().fresh.size());
  return std::exchange(complaints().fresh, {});
}

void report_at_exit() {
  if (sticky() != cudaSuccess) return;  // after a fault nothing can be given back
  for (const std::string& work : waiting_work()) complain("nobody waited for " + work);
  for (const Buffer* b : live_buffers()) complain("never given back: " + describe(b->data));
  if (const std::size_t n = live_streams()) complain(fmt::format("never given back: {} streams", n));
}

}  // namespace vg::fake_cuda

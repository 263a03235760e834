// The options of programs that compute on a GPU: a cap on its memory, and who computes convolutions. On other devices they have nothing to say.
#pragma once
#include "kernels/kernel.h"
#include "tools/program.h"

namespace vg {

struct GpuOptions {
  std::string conv = "auto", max_memory;
  bool nondeterministic = false;
};

inline void add_gpu_options(CLI::App& app, GpuOptions& o) {
  app.add_option("--max-vram", o.max_memory, "GPU memory to stay within, e.g. 4G; more is refused");
  app.add_option("--conv", o.conv, "convolutions on a GPU: auto (cuDNN for wide layers), cudnn wherever it can, native (our kernels)")
      ->check(CLI::IsMember({"auto", "cudnn", "native"}))
      ->capture_default_str();
  app.add_flag("--fast-nondeterministic", o.nondeterministic, "cuDNN may add in any order: faster, other bits in every run");
}

// Before anything is put on the device. Says on stderr who computes convolutions; throws no_device if cudnn is demanded and absent.
inline ConvAlgorithm use_gpu_options(const GpuOptions& o, Device device, bool quiet) {
  using Engine = ConvAlgorithm::Engine;
  ConvAlgorithm how;
  how.engine = o.conv == "cudnn" ? Engine::library : o.conv == "native" ? Engine::native : Engine::automatic;
  how.nondeterministic = o.nondeterministic;
  if (device.kind != DeviceKind::cuda) {
    if (how.engine == Engine::library) fail(ErrorCode::no_device, "--conv cudnn: cuDNN is for GPUs, and the device is {}", to_string(device));
    return how;
  }
  if (!o.max_memory.empty()) set_memory_limit(device, bytes_of(o.max_memory));
  if (how.engine == Engine::native || (how.engine == Engine::automatic && quiet)) return how;
  std::string why_not;
  const std::string library = convolution_library(device, &why_not);
  if (library.empty() && how.engine == Engine::library) fail(ErrorCode::no_device, "--conv cudnn: {}", why_not);
  if (!quiet) std::fprintf(stderr, "convolution: %s\n", library.empty() ? ("our kernels (" + why_not + ")").c_str() : library.c_str());
  return how;
}

// "1.25 GiB", for people.
inline std::string in_gib(std::size_t bytes) { return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / 1073741824.0); }

}  // namespace vg

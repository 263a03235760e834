// Where numbers live, and the one struct of functions that each device offers: memory, copies, order of work. What is computed goes through
// kernels/kernel.h; nothing else crosses to a device.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace vg {

// cpu: the host, vectorised and threaded. sim: the CUDA kernels' source, executed on the host by kernels/sim. cuda: an NVIDIA GPU.
enum class DeviceKind : std::int8_t { cpu, sim, cuda };
inline constexpr int kDeviceKinds = 3;
constexpr const char* name_of(DeviceKind k) {
  constexpr const char* names[] = {"cpu", "sim", "cuda"};
  return names[static_cast<int>(k)];
}

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  std::int8_t index = 0;  // which GPU; 0 for cpu and sim
  friend bool operator==(Device a, Device b) { return a.kind == b.kind && a.index == b.index; }
  bool on_host() const { return kind != DeviceKind::cuda; }  // may the host read its memory?
};
inline constexpr Device kCpu{DeviceKind::cpu, 0};
inline constexpr Device kSim{DeviceKind::sim, 0};

// "cpu", "sim", "cuda:0"
std::string to_string(Device d);
// "cpu" | "sim" | "cuda" | "cuda:N" | "auto" (a GPU if there is one, else cpu). Throws invalid_argument, or no_device with the reason.
// Where "auto" ends on the cpu, `why_not_cuda` receives the reason: programs say it, libraries do not print.
Device parse_device(const std::string& text, std::string* why_not_cuda = nullptr);

struct DeviceProperties {
  std::string name;             // "Intel(R) Xeon(R) ...", "NVIDIA H100"
  std::size_t memory_bytes = 0;  // physical memory of the device
  int units = 0;                // hardware threads, or streaming multiprocessors
  std::string detail;           // vector path, compute capability, driver version: one line for logs
};

// Every function returns nullptr on success or a message that lives until the next call of the same thread: no exception crosses a plug-in.
// allocate: at least 256-byte aligned. copy, clear: queued on `stream`; host memory is read or written before a copy between host devices returns.
struct DeviceApi {
  const char* (*allocate)(Device, std::size_t bytes, void** out);
  const char* (*release)(Device, void* data, std::size_t bytes);
  const char* (*copy)(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes, void* stream);
  const char* (*clear)(Device, void* data, std::size_t bytes, void* stream);  // zero bytes
  const char* (*synchronize)(Device, void* stream);                           // all work queued so far is done
  const char* (*properties)(Device, DeviceProperties* out);
  const char* (*count)(int* devices);
  // Streams beside the default one, which is null, and marks in their work (tensor/stream.h). Null handles on devices that finish each call at once.
  const char* (*make_stream)(Device, void** stream);
  const char* (*drop_stream)(Device, void* stream);
  const char* (*record)(Device, void** mark, void* stream);  // marks the work queued so far; a null mark is made first
  const char* (*wait)(Device, void* mark, void* stream);     // what is queued on `stream` from now on comes after the mark
  const char* (*wait_on_host)(Device, void* mark);           // returns when the marked work is done
  const char* (*drop_mark)(Device, void* mark);
  // Between the two calls, work on the default stream is noted instead of done (tensor/recording.h); replay queues all of it. GPUs only.
  const char* (*begin_recording)(Device);
  const char* (*end_recording)(Device, void** recording);
  const char* (*replay)(Device, void* recording);
  const char* (*drop_recording)(Device, void* recording);
  const char* (*convolution_library)(Device, std::string* name);  // "cuDNN 9.13.0", or why there is none
};

// The table for a device; loads the CUDA plug-in on first use. Throws no_device with the reason where there is none.
const DeviceApi& device_api(Device d);
// Called once by the plug-in loader.
void install_device_api(DeviceKind kind, const DeviceApi* api);
// The loader that device_api() runs once, on the first use of a kind that has no table yet. It calls install_device_api() or throws no_device with
// the reason, which is then repeated to everyone who asks. (The loader lives in kernels/, above this folder.)
void set_device_loader(DeviceKind kind, void (*loader)());

DeviceProperties device_properties(Device d);
// Name and version of the library that may compute a GPU's convolutions, "" where there is none; then `why_not` receives the reason. Loads it.
std::string convolution_library(Device d, std::string* why_not = nullptr);
void synchronize(Device d, void* stream = nullptr);

// Bytes held by tensors. Freed blocks are kept for reuse (training repeats the same shapes; the kernel's page faults cost more than the maths of
// a small layer), so `cached` can be large; release_cache() gives them back.
struct MemoryStats {
  std::size_t live = 0, peak = 0, cached = 0;
};
MemoryStats memory_stats(Device d);
void reset_peak(Device d);
void release_cache(Device d);
void set_memory_limit(Device d, std::size_t bytes);  // 0: none. Passing it throws out_of_memory with both figures

// The bytes that a block of `bytes` really takes: at most 1/8 more (eight sizes between two powers of two), so that blocks find new users.
std::size_t block_bytes(std::size_t bytes);

}  // namespace vg

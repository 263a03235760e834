// The register of devices: one DeviceApi per kind. Those of cpu and sim, which share the host's memory, are written here; that of cuda comes out of
// a plug-in, brought in by the loader that kernels/ registers.
#include "tensor/device.h"

#include <hwy/targets.h>

#include <array>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "tensor/error.h"
#include "tensor/os.h"

namespace vg {
namespace {

constexpr std::size_t kAlignment = 256;                   // as cudaMalloc gives: a vector load never straddles two blocks
constexpr std::size_t kManyPages = std::size_t{4} << 20;  // from here on whole huge pages

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kOwnPages = false;  // only the sanitizer's own allocator puts guards around a block
#else
constexpr bool kOwnPages = true;
#endif

const char* host_allocate(Device, std::size_t bytes, void** out) {
  if (kOwnPages && bytes >= kManyPages)
    *out = os::allocate_pages(bytes);
  else if (posix_memalign(out, kAlignment, bytes) != 0)
    *out = nullptr;
  return *out ? nullptr : "the operating system has no more";
}

const char* host_release(Device, void* data, std::size_t bytes) {
  if (kOwnPages && bytes >= kManyPages)
    os::release_pages(data, bytes);
  else
    std::free(data);
  return nullptr;
}

const char* host_copy(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes, void*) {
  if (!to_device.on_host() || !from_device.on_host()) return "a host device cannot reach a GPU's memory";
  std::memmove(to, from, bytes);
  return nullptr;
}

const char* host_clear(Device, void* data, std::size_t bytes, void*) {
  std::memset(data, 0, bytes);
  return nullptr;
}

const char* host_synchronize(Device, void*) { return nullptr; }

const char* host_properties(Device d, DeviceProperties* out) {
  out->name = os::cpu_name();
  out->memory_bytes = os::physical_memory_bytes();
  out->units = os::hardware_threads();
  if (d.kind == DeviceKind::sim) {
    out->detail = "CUDA kernels executed on the host";
  } else {
    const auto targets = hwy::SupportedTargets() & HWY_TARGETS;  // the best one has the lowest bit
    out->detail = fmt::format("vector path {}", hwy::TargetName(targets & -targets));
  }
  return nullptr;
}

const char* host_count(int* devices) {
  *devices = 1;
  return nullptr;
}

// Work on the host is done when its call returns: one stream, and every mark is passed.
const char* host_make(Device, void** handle) {
  *handle = nullptr;
  return nullptr;
}
const char* host_record(Device, void**, void*) { return nullptr; }
const char* host_wait(Device, void*, void*) { return nullptr; }
const char* host_done(Device, void*) { return nullptr; }
const char* host_no_recording(Device) { return "the host records no work"; }
const char* host_convolution_library(Device, std::string*) { return "libraries of convolutions are for GPUs"; }

constexpr DeviceApi kHostApi = {host_allocate, host_release, host_copy, host_clear, host_synchronize, host_properties, host_count,
                                host_make,     host_done,    host_record, host_wait, host_done,       host_done,       host_no_recording,
                                [](Device d, void**) { return host_no_recording(d); }, host_done, host_done, host_convolution_library};

struct Entry {
  std::atomic<const DeviceApi*> api{nullptr};  // installed
  std::atomic<int> usable{0};                  // how many devices it has; 0 until asked
  std::mutex mutex;                            // guards what follows, and the loading
  void (*loader)() = nullptr;
  bool tried = false;
  std::string reason;  // why there is no device
};

Entry& entry(DeviceKind kind) {
  static auto& entries = *new std::array<Entry, kDeviceKinds>;
  static const bool host = [] {
    for (const DeviceKind k : {DeviceKind::cpu, DeviceKind::sim}) {
      entries[static_cast<std::size_t>(k)].api = &kHostApi;
      entries[static_cast<std::size_t>(k)].usable = 1;
    }
    return true;
  }();
  static_cast<void>(host);
  return entries[static_cast<std::size_t>(kind)];
}

// Loads and counts once; the outcome, good or bad, stays.
void bring_up(DeviceKind kind, Entry& e) {
  const std::lock_guard lock(e.mutex);
  if (e.usable || e.tried) return;
  e.tried = true;
  try {
    if (!e.api && e.loader) e.loader();
    const DeviceApi* api = e.api;
    int devices = 0;
    const char* why = api ? api->count(&devices) : "this build has none";
    if (!why && devices == 0) why = "the driver reports 0 devices";
    if (why)
      e.reason = fmt::format("no {} device: {}", name_of(kind), why);
    else
      e.usable = devices;
  } catch (const Error& error) {
    e.reason = error.what();
  }
}

}  // namespace

std::string to_string(Device d) {
  return d.kind == DeviceKind::cuda ? fmt::format("{}:{}", name_of(d.kind), static_cast<int>(d.index)) : std::string(name_of(d.kind));
}

const DeviceApi& device_api(Device d) {
  Entry& e = entry(d.kind);
  int usable = e.usable.load(std::memory_order_acquire);
  if (usable == 0) {
    bring_up(d.kind, e);
    usable = e.usable;
    if (usable == 0) {
      const std::lock_guard lock(e.mutex);
      throw Error(ErrorCode::no_device, e.reason);
    }
  }
  if (d.index < 0 || d.index >= usable) fail(ErrorCode::no_device, "{}: no such device (this machine has {})", to_string(d), usable);
  return *e.api.load(std::memory_order_acquire);
}

void install_device_api(DeviceKind kind, const DeviceApi* api) { entry(kind).api = api; }

void set_device_loader(DeviceKind kind, void (*loader)()) {
  Entry& e = entry(kind);
  const std::lock_guard lock(e.mutex);
  e.loader = loader;
  e.tried = false;
  e.reason.clear();
}

Device parse_device(const std::string& text, std::string* why_not_cuda) {
  if (text == "cpu") return kCpu;
  if (text == "sim") return kSim;
  Device d{DeviceKind::cuda, 0};
  if (text == "auto") {
    try {
      device_api(d);
      return d;
    } catch (const Error& error) {
      if (why_not_cuda) *why_not_cuda = error.what();
      return kCpu;
    }
  }
  if (text.starts_with("cuda:")) {
    const char *first = text.data() + 5, *last = text.data() + text.size();
    const auto [end, code] = std::from_chars(first, last, d.index);
    require(code == std::errc() && end == last && d.index >= 0, "device \"{}\": wanted a number from 0 to 127 after \"cuda:\"", text);
  } else {
    require(text == "cuda", "device \"{}\": wanted auto, cpu, cuda, cuda:N or sim", text);
  }
  device_api(d);
  return d;
}

DeviceProperties device_properties(Device d) {
  DeviceProperties properties;
  if (const char* why = device_api(d).properties(d, &properties)) fail(ErrorCode::no_device, "{}: {}", to_string(d), why);
  return properties;
}

std::string convolution_library(Device d, std::string* why_not) {
  std::string name;
  const char* why = device_api(d).convolution_library(d, &name);
  if (why_not) *why_not = why ? why : "";
  return why ? "" : name;
}

void synchronize(Device d, void* stream) {
  if (const char* why = device_api(d).synchronize(d, stream)) fail(ErrorCode::no_device, "{}: {}", to_string(d), why);
}

}  // namespace vg

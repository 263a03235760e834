// The words for errors, and the record of launches that lets an error which sticks name its kernel.
#include "kernels/cuda/errors.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace vg::gpu {
namespace {

struct LaunchNote {
  const char* kernel;
  simt::Shape3 grid, block;
  void* stream;
};

// The launches that no synchronisation has shown to be done: of more than a ring's worth, the latest.
struct Flight {
  std::mutex mutex;
  std::array<LaunchNote, 1024> ring;
  std::size_t first = 0, count = 0;
  std::string fault;  // the message of the first error that stuck
};
Flight& flight() {
  static auto& f = *new Flight;  // asked by destructors of static objects, too
  return f;
}

bool sticks(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert: return true;
    default: return false;
  }
}

std::string in_words(const LaunchNote& n) {
  return std::string("kernel ") + n.kernel + ", grid " + simt::to_string(n.grid) + ", block " + simt::to_string(n.block);
}

// The kernels on their way, one of which is at fault.
std::string suspects(const Flight& f) {
  const auto number = [&](std::size_t i) { return in_words(f.ring[(f.first + i) % f.ring.size()]); };
  if (f.count == 0) return "";
  if (f.count == 1) return number(0) + ": ";
  return "one of " + std::to_string(f.count) + " kernels from (" + number(0) + ") to (" + number(f.count - 1) + "): ";
}

// CUDA_LAUNCH_BLOCKING=1 is the CUDA runtime's own switch: each launch then waits for its kernel, and itself returns the kernel's error.
bool launches_block() {
  static const bool block = [] {
    const char* value = std::getenv("CUDA_LAUNCH_BLOCKING");
    return value && std::strcmp(value, "1") == 0;
  }();
  return block;
}

// `launch`: the one that was refused, if it was a launch.
std::string fault_message(cudaError_t error, const LaunchNote* launch) {
  Flight& f = flight();
  const std::lock_guard lock(f.mutex);
  if (f.fault.empty()) {
    const bool known = launches_block() && launch;
    f.fault = (known ? in_words(*launch) + ": " : suspects(f)) + cudaGetErrorString(error) + "; this process can no longer use the GPU";
    if (!known && f.count > 1) f.fault += " (CUDA_LAUNCH_BLOCKING=1 tells which kernel)";
  }
  return f.fault;
}

}  // namespace

const char* say(std::string text) {
  thread_local std::string kept;
  kept = std::move(text);
  return kept.c_str();
}

const char* reason(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // an error that does not stick must not surface again at the next launch
  if (sticks(error)) return say(fault_message(error, nullptr));
  switch (error) {
    case cudaErrorInsufficientDriver: return say("no NVIDIA driver (or too old for CUDA " + std::to_string(CUDART_VERSION / 1000) + ")");
    case cudaErrorNoDevice: return say("the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES set?)");
    case cudaErrorNoKernelImageForDevice: return say("this build has no code for this GPU (CMake option VG_CUDA_ARCHITECTURES)");
    default: return say(std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error));
  }
}

void note_launch(const char* kernel, const simt::Shape3& grid, const simt::Shape3& block, void* stream) noexcept {
  Flight& f = flight();
  const std::lock_guard lock(f.mutex);
  f.ring[(f.first + f.count) % f.ring.size()] = {kernel, grid, block, stream};
  if (f.count < f.ring.size())
    ++f.count;
  else
    f.first = (f.first + 1) % f.ring.size();
}

void note_synchronized(void* stream) noexcept {
  Flight& f = flight();
  const std::lock_guard lock(f.mutex);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < f.count; ++i) {
    const LaunchNote note = f.ring[(f.first + i) % f.ring.size()];
    if (note.stream != stream) f.ring[(f.first + kept++) % f.ring.size()] = note;
  }
  f.count = kept;
}

void launch_failed(const char* kernel, const simt::Shape3& grid, const simt::Shape3& block, std::size_t shared_bytes, cudaError_t error) {
  cudaGetLastError();
  const LaunchNote launch{kernel, grid, block, nullptr};
  if (sticks(error)) throw Error(ErrorCode::no_device, fault_message(error, &launch));
  simt::refuse_launch(kernel, grid, block, shared_bytes, cudaGetErrorString(error));
}

}  // namespace vg::gpu

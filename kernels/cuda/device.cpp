// The CUDA device as the core sees it: memory, copies, order of work, properties, and the plug-in's one export. Host code only.
#include <string>

#include "kernels/cuda/errors.h"
#include "kernels/kernel.h"
#include "tensor/device.h"

namespace vg {

// This binary's list of kernels; the core has its own.
const KernelImpl*& KernelImpl::head() {
  static const KernelImpl* first = nullptr;
  return first;
}

namespace gpu {

const char* allocate(Device d, std::size_t bytes, void** out) {
  *out = nullptr;
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  const cudaError_t error = cudaMalloc(out, bytes);
  if (error != cudaErrorMemoryAllocation) return reason(error);
  cudaGetLastError();
  std::size_t left = 0, total = 0;
  if (cudaMemGetInfo(&left, &total) != cudaSuccess) return say("the GPU has no more");
  return say(std::to_string(left >> 20) + " MiB of the GPU's " + std::to_string(total >> 20) + " MiB are free");
}

const char* release(Device d, void* data, std::size_t) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  return reason(cudaFree(data));  // waits until the GPU is done with it
}

// Host memory here is pageable: cudaMemcpyAsync has taken its bytes when it returns, and the caller synchronises before it reads what came back.
const char* copy(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes, void* stream) {
  const Device owner = to_device.on_host() ? from_device : to_device;
  if (const char* why = reason(cudaSetDevice(owner.index))) return why;
  const auto queue = static_cast<cudaStream_t>(stream);
  if (to_device.on_host()) return reason(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, queue));
  if (from_device.on_host()) return reason(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, queue));
  if (to_device == from_device) return reason(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, queue));
  return reason(cudaMemcpyPeerAsync(to, to_device.index, from, from_device.index, bytes, queue));
}

const char* clear(Device d, void* data, std::size_t bytes, void* stream) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  return reason(cudaMemsetAsync(data, 0, bytes, static_cast<cudaStream_t>(stream)));
}

const char* synchronize(Device d, void* stream) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  const cudaError_t error = cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
  if (error == cudaSuccess) note_synchronized(stream);
  return reason(error);
}

std::string cuda_version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

const char* properties(Device d, DeviceProperties* out) {
  cudaDeviceProp p{};
  if (const char* why = reason(cudaGetDeviceProperties(&p, d.index))) return why;
  int driver = 0;
  if (const char* why = reason(cudaDriverGetVersion(&driver))) return why;
  out->name = p.name;
  out->memory_bytes = p.totalGlobalMem;
  out->units = p.multiProcessorCount;
  out->detail = "compute capability " + std::to_string(p.major) + "." + std::to_string(p.minor) + ", driver for CUDA " +
                cuda_version(driver) + ", built with CUDA " + cuda_version(CUDART_VERSION);
  return nullptr;
}

const char* count(int* devices) {
  *devices = 0;  // without a driver cudaGetDeviceCount leaves it as it is
  return reason(cudaGetDeviceCount(devices));
}

}  // namespace gpu
}  // namespace vg

extern "C" __attribute__((visibility("default"))) const vg::Plugin* vg_plugin(int abi) {
  static constexpr vg::DeviceApi api = {vg::gpu::allocate,    vg::gpu::release,    vg::gpu::copy, vg::gpu::clear,
                                        vg::gpu::synchronize, vg::gpu::properties, vg::gpu::count};
  static const vg::Plugin plugin = {vg::kPluginAbi,         VG_VERSION, sizeof(vg::Tensor), sizeof(vg::Exec), vg::DeviceKind::cuda,
                                    vg::KernelImpl::head(), &api};
  return abi == vg::kPluginAbi ? &plugin : nullptr;
}

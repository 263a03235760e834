// The CUDA device as the core sees it: memory, copies, order of work, properties, and the plug-in's one export. Host code only.
#include <string>

#include "kernels/cuda/conv_library.h"
#include "kernels/cuda/errors.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/streams.h"
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

// Host memory here is pageable. It has been read, or written, when this returns.
const char* copy(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes, void* stream) {
  const Device owner = to_device.on_host() ? from_device : to_device;
  if (const char* why = reason(cudaSetDevice(owner.index))) return why;
  const cudaStream_t queue = stream_of(owner.index, stream);
  if ((to_device.on_host() || from_device.on_host()) && recording(owner.index)) return say("a copy to or from host memory cannot be recorded");
  if (to_device.on_host()) return reason(staging(owner.index, true).down(to, from, bytes, queue));
  if (from_device.on_host()) return reason(staging(owner.index, false).up(to, from, bytes, queue));
  if (to_device == from_device) return reason(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, queue));
  return reason(cudaMemcpyPeerAsync(to, to_device.index, from, from_device.index, bytes, queue));
}

const char* clear(Device d, void* data, std::size_t bytes, void* stream) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  return reason(cudaMemsetAsync(data, 0, bytes, stream_of(d.index, stream)));
}

const char* synchronize(Device d, void* stream) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  if (recording(d.index)) return say("work that is being recorded cannot be waited for");
  const cudaStream_t queue = stream_of(d.index, stream);
  const cudaError_t error = cudaStreamSynchronize(queue);
  if (error == cudaSuccess) note_synchronized(queue);
  return reason(error);
}

// Not ordered with the default stream by themselves: an order that nobody asked for costs overlap, and hides that nobody asked.
const char* make_stream(Device d, void** stream) {
  *stream = nullptr;
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  return reason(cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t*>(stream), cudaStreamNonBlocking));
}

const char* drop_stream(Device d, void* stream) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  return reason(cudaStreamDestroy(static_cast<cudaStream_t>(stream)));
}

const char* record(Device d, void** mark, void* stream) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  if (!*mark)
    if (const char* why = reason(cudaEventCreateWithFlags(reinterpret_cast<cudaEvent_t*>(mark), cudaEventDisableTiming))) return why;
  return reason(cudaEventRecord(static_cast<cudaEvent_t>(*mark), stream_of(d.index, stream)));
}

const char* wait(Device d, void* mark, void* stream) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  return reason(cudaStreamWaitEvent(stream_of(d.index, stream), static_cast<cudaEvent_t>(mark), 0));
}

const char* wait_on_host(Device, void* mark) { return reason(cudaEventSynchronize(static_cast<cudaEvent_t>(mark))); }
const char* drop_mark(Device, void* mark) { return reason(cudaEventDestroy(static_cast<cudaEvent_t>(mark))); }

const char* begin_recording(Device d) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  return begin_recording(d.index);
}
const char* end_recording(Device d, void** graph) { return end_recording(d.index, graph); }
const char* replay(Device d, void* graph) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  return replay(d.index, graph);
}
const char* drop_recording(Device, void* graph) { return drop_recording(graph); }

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

const char* convolution_library(Device d, std::string* name) {
  if (const char* why = reason(cudaSetDevice(d.index))) return why;
  std::string why_not;
  const ConvLibrary* library = conv_library(&why_not);
  if (!library) return say(why_not);
  *name = library->name();
  return nullptr;
}

const char* count(int* devices) {
  *devices = 0;  // without a driver cudaGetDeviceCount leaves it as it is
  return reason(cudaGetDeviceCount(devices));
}

}  // namespace gpu
}  // namespace vg

extern "C" __attribute__((visibility("default"))) const vg::Plugin* vg_plugin(int abi) {
  using namespace vg::gpu;
  static constexpr vg::DeviceApi api = {allocate,    release, copy, clear,        synchronize, properties, count, make_stream,
                                        drop_stream, record,  wait, wait_on_host, drop_mark,
                                        begin_recording, end_recording, replay, drop_recording, convolution_library};
  static const vg::Plugin plugin = {vg::kPluginAbi,         VG_VERSION, sizeof(vg::Tensor), sizeof(vg::Exec), vg::DeviceKind::cuda,
                                    vg::KernelImpl::head(), &api};
  return abi == vg::kPluginAbi ? &plugin : nullptr;
}

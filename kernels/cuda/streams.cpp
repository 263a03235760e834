// Each device's own stream, and CUDA graphs captured from it.
#include "kernels/cuda/streams.h"

#include <array>
#include <atomic>
#include <mutex>

#include "kernels/cuda/errors.h"

namespace vg::gpu {
namespace {

constexpr std::size_t kMostDevices = 128;

struct OwnStream {
  std::once_flag made;
  cudaStream_t stream = nullptr;
  std::atomic<bool> recording{false};
  ~OwnStream() {
    if (stream) cudaStreamDestroy(stream);
  }
};
OwnStream& own(int device) {
  static std::array<OwnStream, kMostDevices> streams;
  return streams[static_cast<std::size_t>(device)];
}

}  // namespace

cudaStream_t stream_of(int device, void* stream) {
  if (stream) return static_cast<cudaStream_t>(stream);
  OwnStream& mine = own(device);
  std::call_once(mine.made, [&] {
    if (cudaStreamCreateWithFlags(&mine.stream, cudaStreamNonBlocking) != cudaSuccess) mine.stream = nullptr;
  });
  return mine.stream;
}

bool recording(int device) { return own(device).recording; }

const char* begin_recording(int device) {
  // Relaxed: the pool may still ask for memory while work is noted.
  if (const char* why = reason(cudaStreamBeginCapture(stream_of(device, nullptr), cudaStreamCaptureModeRelaxed))) return why;
  own(device).recording = true;
  return nullptr;
}

const char* end_recording(int device, void** graph) {
  *graph = nullptr;
  own(device).recording = false;
  cudaGraph_t noted = nullptr;
  if (const char* why = reason(cudaStreamEndCapture(stream_of(device, nullptr), &noted))) return why;
  const char* why = reason(cudaGraphInstantiate(reinterpret_cast<cudaGraphExec_t*>(graph), noted, 0));
  cudaGraphDestroy(noted);
  return why;
}

const char* replay(int device, void* graph) {
  return reason(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(device, nullptr)));
}

const char* drop_recording(void* graph) { return reason(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph))); }

}  // namespace vg::gpu

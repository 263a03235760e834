// The functions of cuda_runtime.h: each checks what a GPU's runtime would not, and queues the rest.
#include <cstdio>
#include <cstring>

#include "tensor/error.h"
#include "tests/cuda/runtime/handles.h"

using namespace vg::fake_cuda;

namespace {

using Guard = std::lock_guard<std::recursive_mutex>;

// Every range of a copy lies within one live buffer, or in no buffer at all where host memory is meant.
bool check_range(const char* call, const char* what, const void* at, std::size_t bytes, bool device) {
  const Buffer* b = find(at);
  const auto* first = static_cast<const char*>(at);
  std::string wrong;
  if (device && (!b || b->space != Space::device))
    wrong = b ? fmt::format("{} is {} (wanted device memory)", what, describe(at)) : fmt::format("{} is no device memory", what);
  else if (!device && b && b->space == Space::device)
    wrong = fmt::format("{} is {} (wanted host memory)", what, describe(at));
  else if (b && (!b->live || first < b->data || bytes > static_cast<std::size_t>(b->data + b->bytes - first)))
    wrong = fmt::format("{}: {} bytes from {}", what, bytes, describe(at));
  if (!wrong.empty()) complain(fmt::format("{} of {} bytes: {}", call, bytes, wrong));
  return wrong.empty();
}

bool pinned(const void* at) {
  const Buffer* b = find(at);
  return b && b->space == Space::pinned;
}

std::uint64_t hash_of(const void* data, std::size_t bytes) {  // FNV-1a (Fowler, Noll, Vo), eight bytes at a time
  std::uint64_t h = 0xcbf29ce484222325u;
  const auto* at = static_cast<const char*>(data);
  for (; bytes >= 8; at += 8, bytes -= 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    h = (h ^ word) * 0x100000001b3u;
    h ^= h >> 29;
  }
  for (; bytes > 0; ++at, --bytes) h = (h ^ static_cast<unsigned char>(*at)) * 0x100000001b3u;
  return h;
}

cudaError_t queue_copy(const char* call, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (sticky() != cudaSuccess) return sticky();
  if (bytes == 0) return cudaSuccess;
  if (kind == cudaMemcpyDefault || kind == cudaMemcpyHostToHost) return cudaErrorInvalidMemcpyDirection;
  const bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
  if (!check_range(call, "the target", to, bytes, to_device) || !check_range(call, "the source", from, bytes, from_device)) return cudaErrorInvalidValue;
  const std::shared_ptr<Queue> queue = queue_of(stream);
  if (!queue) return cudaErrorInvalidResourceHandle;
  static const char* const ways[] = {"", "host to device", "device to host", "device to device"};
  Work work{fmt::format("copy of {} bytes, {}", bytes, ways[kind]), {}, {}, {}};
  if (!from_device && !pinned(from)) {  // pageable memory is read before the call returns
    if (queue->recording) return cudaErrorStreamCaptureUnsupported;
    const auto kept = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    work.run = [=] { std::memcpy(to, kept->data(), bytes); };
    return enqueue(stream, std::move(work));
  }
  if (!from_device && options().strict && !queue->recording && !will_write(from, bytes)) {
    const std::uint64_t hash = hash_of(from, bytes);
    work.run = [=] {
      if (hash_of(from, bytes) != hash)
        complain(fmt::format("pinned memory was changed before its queued copy was done: {} bytes from {}", bytes, describe(from)));
      std::memcpy(to, from, bytes);
    };
    return enqueue(stream, std::move(work));
  }
  work.run = [=] { std::memmove(to, from, bytes); };
  if (to_device) return enqueue(stream, std::move(work));
  work.written = {static_cast<const char*>(to), static_cast<const char*>(to) + bytes};
  const bool waits = !pinned(to);  // a copy into pageable memory has been done when the call returns
  if (waits && queue->recording) return cudaErrorStreamCaptureUnsupported;
  const cudaError_t e = enqueue(stream, std::move(work));
  return e == cudaSuccess && waits ? run_until({queue, queue->queued}) : e;
}

// All work that could use a buffer is done before the buffer goes.
cudaError_t free_buffer(Space space, void* data) {
  if (const cudaError_t e = run_all(current_device()); e != cudaSuccess) return e;
  return release(space, data);
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = options().devices;
  return *count > 0 ? cudaSuccess : remember(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= options().devices) return remember(cudaErrorInvalidDevice);
  set_current_device(device);
  return sticky();
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device();
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device < 0 || device >= options().devices) return remember(cudaErrorInvalidDevice);
  *p = {};
  std::snprintf(p->name, sizeof p->name, "fake GPU");
  p->totalGlobalMem = options().memory;
  p->major = options().capability / 10, p->minor = options().capability % 10, p->multiProcessorCount = 132;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaDeviceSynchronize() {
  const Guard guard(lock());
  return remember(run_all(current_device()));
}

cudaError_t cudaGetLastError() { return take_last_error(false); }
cudaError_t cudaPeekAtLastError() { return take_last_error(true); }

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    default: return "cudaErrorOther";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    default: return "another error of the fake CUDA runtime";
  }
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  const Guard guard(lock());
  return remember(sticky() != cudaSuccess ? sticky() : allocate(Space::device, current_device(), bytes, data));
}
cudaError_t cudaFree(void* data) {
  const Guard guard(lock());
  return remember(free_buffer(Space::device, data));
}
cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  const Guard guard(lock());
  return remember(sticky() != cudaSuccess ? sticky() : allocate(Space::pinned, current_device(), bytes, data));
}
cudaError_t cudaFreeHost(void* data) {
  const Guard guard(lock());
  return remember(free_buffer(Space::pinned, data));
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  const Guard guard(lock());
  *total = options().memory, *free = options().memory - used(current_device());
  return sticky();
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const Guard guard(lock());
  const cudaError_t e = queue_copy("cudaMemcpy", to, from, bytes, kind, nullptr);
  return remember(e == cudaSuccess ? run_until({queue_of(nullptr), queue_of(nullptr)->queued}) : e);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Guard guard(lock());
  return remember(queue_copy("cudaMemcpyAsync", to, from, bytes, kind, stream));
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, std::size_t bytes, cudaStream_t stream) {
  const Guard guard(lock());
  return remember(queue_copy("cudaMemcpyPeerAsync", to, from, bytes, cudaMemcpyDeviceToDevice, stream));
}
cudaError_t cudaMemset(void* data, int value, std::size_t bytes) { return cudaMemsetAsync(data, value, bytes, nullptr); }
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  const Guard guard(lock());
  if (bytes == 0 || sticky() != cudaSuccess) return sticky();
  if (!check_range("cudaMemsetAsync", "the target", data, bytes, true)) return remember(cudaErrorInvalidValue);
  return remember(enqueue(stream, {fmt::format("memset of {} bytes", bytes), [=] { std::memset(data, value, bytes); }, {}, {}}));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const Guard guard(lock());
  if (sticky() != cudaSuccess) return sticky();
  *stream = make_stream((flags & cudaStreamNonBlocking) == 0);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Guard guard(lock());
  if (!stream || !queue_of(stream)) return remember(cudaErrorInvalidResourceHandle);
  drop_stream(stream);
  return sticky();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Guard guard(lock());
  const std::shared_ptr<Queue> queue = queue_of(stream);
  if (!queue) return remember(cudaErrorInvalidResourceHandle);
  if (queue->recording) return remember(cudaErrorStreamCaptureUnsupported);
  // The default stream is done when the blocking streams' earlier work is; waiting for it waits for them.
  if (queue->number == 0)
    if (const cudaError_t e = enqueue(stream, {"synchronisation", {}, {}, {}}); e != cudaSuccess) return remember(e);
  return remember(run_until({queue, queue->queued}));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Guard guard(lock());
  const std::shared_ptr<Queue> queue = queue_of(stream);
  if (!queue) return remember(cudaErrorInvalidResourceHandle);
  if (queue->waiting.empty()) return sticky();
  const cudaError_t e = run_one(*queue);
  return e == cudaSuccess ? cudaErrorNotReady : remember(e);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Guard guard(lock());
  if (sticky() != cudaSuccess) return sticky();
  if (!event) return remember(cudaErrorInvalidResourceHandle);
  if (!event->recorded.queue) return cudaSuccess;  // as in CUDA: an event that was never recorded is no reason to wait
  return remember(enqueue(stream, {"wait for an event", {}, {event->recorded}, {}}));
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return sticky();
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return sticky();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Guard guard(lock());
  const std::shared_ptr<Queue> queue = queue_of(stream);
  if (!event || !queue) return remember(cudaErrorInvalidResourceHandle);
  if (const cudaError_t e = enqueue(stream, {"record of an event", {}, {}, {}}); e != cudaSuccess) return remember(e);
  event->recorded = {queue, queue->queued};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Guard guard(lock());
  if (!event) return remember(cudaErrorInvalidResourceHandle);
  return remember(event->recorded.queue ? run_until(event->recorded) : sticky());
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Guard guard(lock());
  if (!event) return remember(cudaErrorInvalidResourceHandle);
  const Point& p = event->recorded;
  if (!p.queue || p.queue->done >= p.at) return sticky();
  const cudaError_t e = run_one(*p.queue);
  return e == cudaSuccess ? cudaErrorNotReady : remember(e);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Guard guard(lock());
  if (!stream) return remember(cudaErrorStreamCaptureUnsupported);  // the default stream cannot be captured
  const std::shared_ptr<Queue> queue = queue_of(stream);
  if (!queue || queue->recording) return remember(cudaErrorInvalidResourceHandle);
  queue->recording = new std::vector<Work>;
  return sticky();
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Guard guard(lock());
  const std::shared_ptr<Queue> queue = stream ? queue_of(stream) : nullptr;
  if (!queue || !queue->recording) return remember(cudaErrorStreamCaptureInvalidated);
  const std::unique_ptr<std::vector<Work>> work(std::exchange(queue->recording, nullptr));
  *graph = new CUgraph_st{std::move(*work)};
  return sticky();
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return sticky();
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const Guard guard(lock());
  ++traffic().replays;
  for (const Work& work : exec->work)
    if (const cudaError_t e = enqueue(stream, work); e != cudaSuccess) return remember(e);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return sticky();
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return sticky();
}
}

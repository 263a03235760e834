// The stream behind a null handle: one of our own per device, because what CUDA calls the default stream waits for others on its own account and cannot be
// recorded. And recordings: a graph of the work that was queued on it between two calls.
#pragma once
#include <cuda_runtime.h>

namespace vg::gpu {

// `stream`, or the device's own where it is null. The device is the current one. If none can be made: CUDA's, whose calls then say what is wrong.
cudaStream_t stream_of(int device, void* stream);

// Is work on the device's own stream noted instead of done? Host memory takes no part in that.
bool recording(int device);
const char* begin_recording(int device);
const char* end_recording(int device, void** graph);  // null if recording failed
const char* replay(int device, void* graph);
const char* drop_recording(void* graph);

}  // namespace vg::gpu

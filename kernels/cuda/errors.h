// Errors of the CUDA runtime in words that help. Some errors stick: after a kernel has faulted, the driver answers every call of the process with the
// same code. The first time one shows, it is put together with the kernels that were on their way; everybody who asks later gets that same message.
#pragma once
#include <cuda_runtime.h>  // the toolkit's, or that of tests/cuda/runtime

#include <string>

#include "kernels/sim/limits.h"

namespace vg::gpu {

// What a failed call of this thread had to say: DeviceApi promises that the text lives until the thread's next call.
const char* say(std::string text);
// nullptr for success, else the reason.
const char* reason(cudaError_t error);

// Kernels that were launched on a stream and may still be running; a synchronised stream has none. `kernel` is a literal.
void note_launch(const char* kernel, const simt::Shape3& grid, const simt::Shape3& block, void* stream) noexcept;
void note_synchronized(void* stream) noexcept;
// Throws invalid_argument if this launch is at fault, no_device if an earlier one is.
[[noreturn]] void launch_failed(const char* kernel, const simt::Shape3& grid, const simt::Shape3& block, std::size_t shared_bytes,
                                cudaError_t error);

}  // namespace vg::gpu

// Asks once for each device: the answer takes the driver milliseconds.
#include "kernels/cuda/capability.h"

#include <cuda_runtime.h>

#include <array>
#include <mutex>

namespace vg::gpu {

int compute_capability(int device) {
  struct Known {
    std::once_flag asked;
    int value = 0;
  };
  static std::array<Known, 128> all;
  if (device < 0 || device >= static_cast<int>(all.size())) return 0;
  Known& own = all[static_cast<std::size_t>(device)];
  std::call_once(own.asked, [&] {
    cudaDeviceProp p{};
    if (cudaGetDeviceProperties(&p, device) == cudaSuccess) own.value = 10 * p.major + p.minor;
  });
  return own.value;
}

}  // namespace vg::gpu

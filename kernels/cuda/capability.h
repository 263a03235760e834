// What generation a GPU is of, for kernels whose instructions not every one has.
#pragma once

namespace vg::gpu {

int compute_capability(int device);  // 75 for 7.5, 90 for 9.0, 120 for 12.0; 0 where it cannot be asked

}  // namespace vg::gpu

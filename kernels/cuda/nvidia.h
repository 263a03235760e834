// NVIDIA's two libraries behind conv_library.h, each opened by itself. Only the plug-in for real GPUs has them.
#pragma once
#include "kernels/cuda/conv_library.h"

namespace vg::gpu {

std::unique_ptr<ConvLibrary> open_cudnn(std::string* why_not);     // every convolution
std::unique_ptr<ConvLibrary> open_cublaslt(std::string* why_not);  // those of one voxel, which are matrix products

}  // namespace vg::gpu

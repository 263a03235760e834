# The cuda device on a fake CUDA runtime, for tests on machines without a GPU: every kernels/*.cu compiled by the host compiler into the cuda slot, the
# plug-in's own host code, the executor of the sim device, and tests/cuda/runtime in the place of libcudart and cuDNN. No toolkit is needed.
# VG_CUDA_PLUGIN=bin/libvoxgrad_cuda_fake.so makes any program use it.
file(GLOB fake_runtime CONFIGURE_DEPENDS tests/cuda/runtime/*.cpp)
file(GLOB host_sources CONFIGURE_DEPENDS kernels/cuda/*.cpp)
list(FILTER host_sources EXCLUDE REGEX "/(device|cudnn|cublaslt|nvidia)[.]cpp$")  # the plug-in's entry; what NVIDIA's headers are needed for
add_library(vg_cuda_runtime OBJECT ${fake_runtime} ${host_sources})
target_include_directories(vg_cuda_runtime PUBLIC tests/cuda/runtime)
target_link_libraries(vg_cuda_runtime PUBLIC vg_common)

file(GLOB fake_sources CONFIGURE_DEPENDS kernels/*.cu)
add_library(voxgrad_cuda_fake MODULE ${fake_sources} kernels/cuda/device.cpp)
target_link_libraries(voxgrad_cuda_fake PRIVATE vg_cuda_runtime vg_sim vg_tensor vg_common)
target_compile_definitions(voxgrad_cuda_fake PRIVATE VG_SLOT_CUDA=1)
target_link_options(voxgrad_cuda_fake PRIVATE -Wl,--version-script=${CMAKE_SOURCE_DIR}/kernels/cuda/exports.map)
if(NOT VG_SANITIZE)  # whose functions are the program's
  target_link_options(voxgrad_cuda_fake PRIVATE -Wl,-z,defs)
endif()
set_target_properties(voxgrad_cuda_fake PROPERTIES LINK_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/exports.map)

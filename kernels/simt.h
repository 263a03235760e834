// The few spellings in which a kernel that runs on the GPU (nvcc) and on the CPU (host compiler, sim device) differs from plain CUDA:
//
//   SIMT_SHARED(float, tile, [16][17]);                   __shared__ float tile[16][17];
//   SIMT_DYN_SHARED(float, buffer);                       extern __shared__ float buffer[];
//   SIMT_UNROLL for (...)                                 #pragma unroll
//   SIMT_LAUNCH(kernel, grid, block, shared_bytes, stream, args...);     kernel<<<grid, block, shared_bytes, stream>>>(args...), but checked;
//                                                         a template with commas goes into parentheses: (kernel<float, 3>)
//   simt::blocks_for(items, per_block)                    the grid extent that covers `items`
//   simt_tensor.h                                         tensor cores (mma, ldmatrix) and asynchronous copies (cp.async)
//   VG_NS, VG_DEVICE_IMPL(name)                           namespace (sim or gpu) and registration of the slot that this compilation fills
//
// Everything else (threadIdx, __syncthreads, __shfl_down_sync, atomicAdd, float4, __expf, ...) is written as in CUDA. Which slot is filled comes
// from VG_SLOT_CUDA, not from the compiler: a build on a fake CUDA runtime fills the cuda slot with the host compiler.
#pragma once
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/sim/limits.h"
#if !defined(__CUDACC__)
#include "kernels/sim/executor.h"
#include "kernels/sim/words.h"
#endif
#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
#include <memory>

#include "kernels/cuda/errors.h"
#define VG_NS gpu
#define VG_SLOT cuda
#define VG_LAUNCHER gpu_launch
#else
#define VG_NS sim
#define VG_SLOT sim
#define VG_LAUNCHER sim_launch
#endif
#define VG_DEVICE_IMPL_(ns, slot, name) VG_IMPL(ns, slot, name)
#define VG_DEVICE_IMPL(NAME) VG_DEVICE_IMPL_(VG_NS, VG_SLOT, NAME)

#if defined(__CUDACC__)
#define SIMT_SHARED(T, NAME, ...) __shared__ T NAME __VA_ARGS__
#define SIMT_DYN_SHARED(T, NAME)                                \
  extern __shared__ __align__(16) unsigned char simt_dynamic[]; \
  T* NAME = reinterpret_cast<T*>(simt_dynamic)
#define SIMT_UNROLL _Pragma("unroll")
#else
#define SIMT_SHARED(T, NAME, ...)                                                                                                   \
  static constinit ::vg::simt::SharedArray NAME##_shared{#NAME, __FILE__, __LINE__, sizeof(T __VA_ARGS__), alignof(T __VA_ARGS__)}; \
  T(&NAME) __VA_ARGS__ = *static_cast<T(*) __VA_ARGS__>(::vg::simt::shared_array(NAME##_shared))
#define SIMT_DYN_SHARED(T, NAME) T* NAME = static_cast<T*>(::vg::simt::dynamic_shared())
#if defined(__clang__)
#define SIMT_UNROLL _Pragma("unroll")
#else
#define SIMT_UNROLL _Pragma("GCC unroll 16")
#endif
#endif

#define SIMT_LAUNCH(KERNEL, GRID, BLOCK, SHARED_BYTES, STREAM, ...) \
  ::vg::simt::launch(#KERNEL, KERNEL, GRID, BLOCK, SHARED_BYTES, STREAM __VA_OPT__(, ) __VA_ARGS__)

namespace vg::simt {

// How many blocks of `per_block` cover `items`; throws where that does not fit grid.x.
inline unsigned blocks_for(std::int64_t items, std::int64_t per_block) {
  const std::int64_t blocks = items <= 0 ? 0 : (items - 1) / per_block + 1;
  if (blocks > kMaxGridX)
    throw Error(ErrorCode::invalid_argument, std::to_string(items) + " items in blocks of " + std::to_string(per_block) + ": " +
                                                 std::to_string(blocks) + " blocks (a grid has at most " + std::to_string(kMaxGridX) +
                                                 " along x)");
  return static_cast<unsigned>(blocks);
}

#if defined(__CUDACC__)
// More than 48 KiB, static and dynamic together, must be asked for, once per kernel and device. Asks for all there is, so that launches of one kernel
// with different sizes do not undo each other's request.
inline cudaError_t allow_shared(const void* function, std::size_t dynamic_bytes) {
  cudaFuncAttributes now;
  if (const cudaError_t e = cudaFuncGetAttributes(&now, function); e != cudaSuccess) return e;
  if (now.sharedSizeBytes + dynamic_bytes <= kStaticSharedBytes ||
      static_cast<std::size_t>(now.maxDynamicSharedSizeBytes) > kStaticSharedBytes)
    return cudaSuccess;
  int device = 0, most = 0;
  if (const cudaError_t e = cudaGetDevice(&device); e != cudaSuccess) return e;
  if (const cudaError_t e = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device); e != cudaSuccess) return e;
  return cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, most - static_cast<int>(now.sharedSizeBytes));
}
#endif

#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA && !defined(__CUDACC__)
cudaError_t queue_launch(const Launch& launch, std::shared_ptr<const void> arguments, cudaStream_t stream);  // tests/cuda/runtime
#endif

// Launches of both slots may meet in one program: they differ in name, or the linker would take one for the other.
inline namespace VG_LAUNCHER {

// Starts kernel(args...) on every thread of the grid. A grid with a zero extent does nothing. Throws invalid_argument, naming kernel and shape, if
// no GPU could run the shape (both devices), if the GPU's driver refuses it, or (sim) if the kernel itself breaks a rule while it runs.
template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes, void* stream, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "the kernel takes another number of arguments");
  const Shape3 g{grid.x, grid.y, grid.z}, b{block.x, block.y, block.z};
  check_launch(name, g, b, shared_bytes);
  if (g.count() == 0) return;
  std::tuple<std::remove_cv_t<P>...> values(std::forward<A>(args)...);
#if defined(__CUDACC__)
  const void* function = reinterpret_cast<const void*>(kernel);
  cudaError_t error = shared_bytes > 0 ? allow_shared(function, shared_bytes) : cudaSuccess;
  if (error == cudaSuccess) {
    std::apply(
        [&](auto&... value) {
          void* pointers[] = {static_cast<void*>(&value)..., nullptr};
          error = cudaLaunchKernel(function, grid, block, pointers, shared_bytes, static_cast<cudaStream_t>(stream));
        },
        values);
  }
#else
  struct Call {
    void (*kernel)(P...);
    std::tuple<std::remove_cv_t<P>...> values;
  };
  const auto thread = [](const void* p) {
    const Call& c = *static_cast<const Call*>(p);
    std::apply(c.kernel, c.values);
  };
#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
  const auto call = std::make_shared<const Call>(Call{kernel, std::move(values)});
  const cudaError_t error = queue_launch({name, g, b, shared_bytes, call.get(), thread, reinterpret_cast<const void*>(kernel), sizeof(Call)}, call, static_cast<cudaStream_t>(stream));
#else
  static_cast<void>(stream);  // work on the sim device is done when the call returns
  const Call call{kernel, std::move(values)};
  execute({name, g, b, shared_bytes, &call, thread, reinterpret_cast<const void*>(kernel), sizeof(Call)});
#endif
#endif
#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
  if (error != cudaSuccess) gpu::launch_failed(name, g, b, shared_bytes, error);
  gpu::note_launch(name, g, b, stream);
#endif
}

}  // inline namespace
}  // namespace vg::simt

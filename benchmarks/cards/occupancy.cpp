// How many blocks of a kernel one multiprocessor holds, by NVIDIA's own cuda_occupancy.h, which needs neither driver nor device. Reads lines "registers
// shared_bytes threads", prints for each the blocks on an A100, an H100 and an RTX 4090. Compiled by cards.py.
#include <cuda_occupancy.h>
#include <cuda_runtime_api.h>

#include <cstdio>

int main() {
  struct Gpu {
    int major, minor, threads, shared, shared_optin;
  };
  constexpr Gpu kGpus[] = {{8, 0, 2048, 164 << 10, 163 << 10}, {9, 0, 2048, 228 << 10, 227 << 10}, {8, 9, 1536, 100 << 10, 99 << 10}};
  int registers, shared, threads;
  while (std::scanf("%d %d %d", &registers, &shared, &threads) == 3) {
    for (const Gpu& g : kGpus) {
      cudaOccDeviceProp p;
      p.computeMajor = g.major, p.computeMinor = g.minor;
      p.maxThreadsPerBlock = 1024, p.maxThreadsPerMultiprocessor = g.threads;
      p.regsPerBlock = p.regsPerMultiprocessor = 65536, p.warpSize = 32, p.numSms = 1;
      p.sharedMemPerBlock = 48 << 10;
      p.sharedMemPerMultiprocessor = static_cast<std::size_t>(g.shared), p.sharedMemPerBlockOptin = static_cast<std::size_t>(g.shared_optin);
      p.reservedSharedMemPerBlock = 1024;
      cudaOccFuncAttributes f;
      f.maxThreadsPerBlock = threads, f.numRegs = registers, f.sharedSizeBytes = 0;
      f.partitionedGCConfig = PARTITIONED_GC_OFF;
      f.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN, f.maxDynamicSharedSizeBytes = 227 << 10, f.numBlockBarriers = 1;
      cudaOccDeviceState state;
      state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
      cudaOccResult result;
      const cudaOccError e = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &p, &f, &state, threads, static_cast<std::size_t>(shared));
      std::printf("%d %.0f ", e == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : 0,
                  e == CUDA_OCC_SUCCESS ? 100.0 * result.activeBlocksPerMultiprocessor * threads / g.threads : 0.0);
    }
    std::printf("\n");
  }
}

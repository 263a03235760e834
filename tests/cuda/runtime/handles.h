// What the fake runtime's handles point to, and the few functions that api.cpp and report.cpp share with queue.cpp and memory.cpp.
#pragma once
#include "kernels/sim/executor.h"
#include "tests/cuda/runtime/runtime.h"

struct CUstream_st {
  std::shared_ptr<vg::fake_cuda::Queue> queue;
};
struct CUevent_st {
  vg::fake_cuda::Point recorded;  // queue null: never recorded
};
struct CUgraph_st {
  std::vector<vg::fake_cuda::Work> work;
};
struct CUgraphExec_st {
  std::vector<vg::fake_cuda::Work> work;
};

namespace vg::fake_cuda {

void set_current_device(int device);
cudaError_t take_last_error(bool keep);
cudaStream_t make_stream(bool blocking);
void drop_stream(cudaStream_t stream);
std::vector<std::string> waiting_work();
std::size_t live_streams();

}  // namespace vg::fake_cuda

namespace vg::simt {
cudaError_t queue_launch(const Launch& launch, std::shared_ptr<const void> arguments, cudaStream_t stream);
}

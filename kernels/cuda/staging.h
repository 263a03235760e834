// Copies between ordinary host memory and the GPU by way of pinned memory: the driver can move pinned pages while the host goes on, and at full speed.
// A ring of pinned pieces; one is filled or emptied by the host while others are on their way. One ring per device and direction.
#pragma once
#include <cuda_runtime.h>

#include <array>
#include <cstddef>
#include <mutex>

namespace vg::gpu {

class Staging {
 public:
  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Returns when `from` has been read; the copy is done in stream order.
  cudaError_t up(void* to, const void* from, std::size_t bytes, cudaStream_t stream);
  // Returns when `to` has been written.
  cudaError_t down(void* to, const void* from, std::size_t bytes, cudaStream_t stream);

 private:
  static constexpr int kPieces = 4;
  static constexpr std::size_t kPieceBytes = std::size_t{4} << 20;
  struct Piece {
    void* data = nullptr;
    cudaEvent_t done = nullptr;
    bool busy = false;  // its copy may be on the way
    void* owner = nullptr;  // where what has come down goes; null: it went up
    std::size_t bytes = 0;
  };
  bool prepare();  // false: no pinned memory to be had
  cudaError_t empty(Piece& piece);

  std::mutex mutex_;
  std::array<Piece, kPieces> ring_;
  int next_ = 0;
  bool tried_ = false, ready_ = false;
};

// `down`: the ring for copies to the host. The device is the current one.
Staging& staging(int device, bool down);

}  // namespace vg::gpu

// The ring of pinned pieces: who waits for which copy, and where bytes that came down go.
#include "kernels/cuda/staging.h"

#include <algorithm>
#include <cstring>

namespace vg::gpu {

Staging::~Staging() {
  for (Piece& p : ring_) {
    if (p.done) cudaEventDestroy(p.done);
    if (p.data) cudaFreeHost(p.data);
  }
}

bool Staging::prepare() {
  if (tried_) return ready_;
  tried_ = true;
  for (Piece& p : ring_) {
    if (cudaMallocHost(&p.data, kPieceBytes) != cudaSuccess || cudaEventCreateWithFlags(&p.done, cudaEventDisableTiming) != cudaSuccess) {
      cudaGetLastError();  // the driver's own staging serves then
      return false;
    }
  }
  return ready_ = true;
}

// Waits for the piece's copy; what came down goes to its owner.
cudaError_t Staging::empty(Piece& p) {
  if (!p.busy) return cudaSuccess;
  p.busy = false;
  void* owner = p.owner;
  p.owner = nullptr;
  if (const cudaError_t e = cudaEventSynchronize(p.done); e != cudaSuccess) return e;
  if (owner) std::memcpy(owner, p.data, p.bytes);
  return cudaSuccess;
}

cudaError_t Staging::up(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  if (!prepare()) return cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream);
  for (std::size_t at = 0; at < bytes; at += kPieceBytes) {
    Piece& p = ring_[static_cast<std::size_t>(next_)];
    next_ = (next_ + 1) % kPieces;
    if (const cudaError_t e = empty(p); e != cudaSuccess) return e;
    const std::size_t n = std::min(kPieceBytes, bytes - at);
    std::memcpy(p.data, static_cast<const char*>(from) + at, n);
    if (const cudaError_t e = cudaMemcpyAsync(static_cast<char*>(to) + at, p.data, n, cudaMemcpyHostToDevice, stream); e != cudaSuccess) return e;
    if (const cudaError_t e = cudaEventRecord(p.done, stream); e != cudaSuccess) return e;
    p.busy = true;
  }
  return cudaSuccess;
}

cudaError_t Staging::down(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  if (!prepare()) {
    const cudaError_t e = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream);
    return e == cudaSuccess ? cudaStreamSynchronize(stream) : e;
  }
  cudaError_t error = cudaSuccess;
  for (std::size_t at = 0; at < bytes && error == cudaSuccess; at += kPieceBytes) {
    Piece& p = ring_[static_cast<std::size_t>(next_)];
    next_ = (next_ + 1) % kPieces;
    error = empty(p);
    const std::size_t n = std::min(kPieceBytes, bytes - at);
    if (error == cudaSuccess) error = cudaMemcpyAsync(p.data, static_cast<const char*>(from) + at, n, cudaMemcpyDeviceToHost, stream);
    if (error == cudaSuccess) error = cudaEventRecord(p.done, stream);
    if (error == cudaSuccess) p.busy = true, p.owner = static_cast<char*>(to) + at, p.bytes = n;
  }
  // Oldest first. After an error nobody owns what still comes.
  for (int i = 0; i < kPieces; ++i) {
    Piece& p = ring_[static_cast<std::size_t>((next_ + i) % kPieces)];
    if (error != cudaSuccess) p.owner = nullptr;
    if (const cudaError_t e = empty(p); error == cudaSuccess) error = e;
  }
  return error;
}

Staging& staging(int device, bool down) {
  static std::array<std::array<Staging, 2>, 128> rings;
  return rings[static_cast<std::size_t>(device)][down];
}

}  // namespace vg::gpu

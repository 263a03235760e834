// Tensors of 2-byte floats as the copies of the tensor-core kernels want them: rows of a multiple of 8 channels, on 16 bytes. What is not so, is copied to
// scratch memory first.
#pragma once
#include "kernels/half.cuh"

namespace vg {
namespace VG_NS {

template <class H>
struct HalfSources {
  const H* data[2];
  int pitch[2];   // channels in memory, a multiple of 8
  int chunks[2];  // of channels that a block works through at a time
};

// to: rows of `pitch` channels; the last pitch - channels of each are zero.
template <class H>
__global__ __launch_bounds__(kThreads) void pad_channels_kernel(H* __restrict__ to, const H* __restrict__ from, int channels, int pitch,
                                                                std::int64_t elements) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements; i += step) {
    const std::int64_t row = i / pitch;
    const int channel = static_cast<int>(i - row * pitch);
    to[i] = channel < channels ? from[row * channels + channel] : H{0};
  }
}

// Pieces of scratch memory begin on 256 bytes.
inline std::int64_t whole_piece(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

inline int pitch_of(const Tensor& x) { return (static_cast<int>(x.shape().c()) + 7) / 8 * 8; }

// Scratch memory for the copy; 0 where none is needed (and for an undefined tensor).
inline std::int64_t padded_bytes(const Tensor& x) {
  if (!x.defined() || (pitch_of(x) == x.shape().c() && aligned16(x.raw()))) return 0;
  return whole_piece(x.elements() / x.shape().c() * pitch_of(x) * 2);
}

// The numbers of x in rows of pitch_of(x): where they are, or copied to `memory`, which then advances.
template <class H>
const H* in_eights(const Exec& ex, const Tensor& x, char*& memory) {
  const std::int64_t bytes = padded_bytes(x);
  if (bytes == 0) return data_or_null_of<H>(x);
  const std::int64_t elements = x.elements() / x.shape().c() * pitch_of(x);
  H* to = reinterpret_cast<H*>(memory);
  memory += bytes;
  VG_LAUNCH(ex, pad_channels_kernel<H>, flat_blocks(elements, false), kThreads, 0, to, x.data<H>(), static_cast<int>(x.shape().c()),
            pitch_of(x), elements);
  return to;
}

}  // namespace VG_NS
}  // namespace vg

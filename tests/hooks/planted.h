// Kernels with one mistake each, and their corrected twins: what planted_test.cpp wants reported, at which line. Marks in planted.cu: "HERE: name".
#pragma once
#include "tensor/tensor.h"

namespace vg::planted {

enum class Bug {
  none,
  missing_barrier,         // a neighbour's shared value is read before it is written
  missing_second_barrier,  // a shared value is overwritten before the neighbour has read it
  missing_syncwarp,        // the same within one warp
  shuffle_for_syncwarp,    // a shuffle orders no memory
  blocks_race,             // two blocks write one place
  atomic_and_plain,        // one thread adds atomically, another reads
  past_buffer,             // one element too far, global
  before_buffer,
  past_shared,
  unwritten_shared,
  unwritten_global,
  copy_not_awaited,  // cp.async: read before the wait
  copy_too_early,    // cp.async: issued while others still read what it overwrites
  host_reads,        // host code reads device memory
  divergent          // half of the block waits at a barrier that the other half never reaches
};

// x, y: 64 floats on sim; y may be undefined for the bugs that do not write it. Launches 2 blocks of 64 threads.
void run(Bug bug, const Tensor& y, const Tensor& x);
const char* name_of(Bug bug);

// y[i] = x[i * stride] by one warp; then the same through shared memory, where lane i keeps its value in word i * stride.
void strided_global(const Tensor& y, const Tensor& x, int stride);
void strided_shared(const Tensor& y, const Tensor& x, int stride);
void fours_shared(const Tensor& y, const Tensor& x);  // 16-byte accesses, no conflict
// ldmatrix of 8 x 8 matrices whose rows are `stride` 16-byte words apart. x: 32 floats or more.
void matrix_rows(const Tensor& y, const Tensor& x, int stride);

}  // namespace vg::planted

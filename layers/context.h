// The single argument of networks and training: where work runs, whether it is recorded, and what it may use. No globals, no hidden modes.
#pragma once
#include "kernels/scratch.h"
#include "tensor/dtype.h"
#include "tensor/random.h"

namespace vg {

class Tape;

struct Context {
  explicit Context(Device where) : device(where), scratch(where) {}
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device;
  Tape* tape = nullptr;  // null: inference; values die with their last use and operations may work in place
  DType precision =
      DType::f32;         // of activations and their gradients: f32, or bf16 or f16 (not on cpu); parameters and their gradients are f32
  bool training = false;  // batch norm: use and update batch statistics
  ScratchOwner scratch;
  void* stream = nullptr;
  ConvAlgorithm convolution;  // which arithmetic is allowed

  Exec exec() { return Exec{device, &scratch, stream, convolution}; }
};

// Lets convolutions of f32 tensors round their factors to tf32. Throws where nobody would: unsupported (no GPU; our own kernels are demanded),
// invalid_argument (exact arithmetic is demanded), no_device (a GPU without the library).
void allow_tf32(ConvAlgorithm& convolution, Device device);

}  // namespace vg

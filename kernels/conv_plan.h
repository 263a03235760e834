// What the cpu would do with a convolution, for planners: by which arithmetic each pass is computed, and how fast that is.
#pragma once
#include <string>

#include "kernels/conv.h"

namespace vg {

enum class ConvPass { forward, data, weight };

// "direct", "AMX" (the matrix unit), or Winograd's tile: "F(2,4,4)" in 3-D, "F(4,4)" where an axis has one tap. y, x: extents and all channels of output and input of the
// convolution (for every pass); w: (O, I, kD, kH, kW).
std::string conv_algorithm(ConvPass pass, const Shape& y, const Shape& x, const Shape& w, const ConvParams& p, const ConvAlgorithm& allowed);

// Multiply-adds of the plain sum per second, as a multiple of those of the plain sum itself on a wide layer: what benchmarks/conv_bench.cpp measured
// on two cores with AVX-512, in a formula. Narrow layers leave lanes empty, or their transforms outweigh their products.
double conv_speed(const std::string& algorithm, ConvPass pass, const Shape& w);

}  // namespace vg

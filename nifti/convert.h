// Element loops between stored numbers and tensors, kept apart from files and geometry. Internal to nifti/.
#pragma once
#include <cstdint>

#include "nifti/image.h"

namespace vg::convert {

struct Scaling {
  double slope = 1, inter = 0;
  bool none() const { return slope == 1 && inter == 0; }
};
// What a conversion met.
struct Findings {
  std::int64_t non_finite = 0;   // NaN or infinite results
  std::int64_t beyond_2_53 = 0;  // 64-bit integers that a double cannot hold exactly
};

// out[n * stride] = slope * in[n] + inter, computed in double, for n < count.
Findings to_float(const std::byte* in, Number type, Scaling scaling, std::int64_t count, float* out, std::int64_t stride);

struct BadLabel {
  std::int64_t at = -1;  // first offending voxel, -1: none
  double value = 0;
};
// The same into whole numbers; stops at nothing, reports the first value that is none.
BadLabel to_label(const std::byte* in, Number type, Scaling scaling, std::int64_t count, std::int32_t* out, std::int64_t stride);

// uint8, int16 or int32: the first that holds all values.
Number smallest_type(const std::int32_t* in, std::int64_t count);

// out[n] = in[n * stride] as `type`; integers by rounding. Returns the first value that the type cannot hold.
template <class T>
BadLabel from_values(const T* in, std::int64_t stride, std::int64_t count, Number type, std::byte* out);
extern template BadLabel from_values(const float*, std::int64_t, std::int64_t, Number, std::byte*);
extern template BadLabel from_values(const std::int32_t*, std::int64_t, std::int64_t, Number, std::byte*);

}  // namespace vg::convert

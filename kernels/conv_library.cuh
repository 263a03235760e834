// The door from our convolutions to a library's (cuda/conv_library.h): each function asks for a plan, lays the weights out as libraries want them, and
// runs it; false means that our own kernels are to do the work. On sim there is no library.
#pragma once
#include "kernels/conv.h"

namespace vg {
namespace VG_NS {

#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
bool library_forward(const Exec& ex, Tensor& y, const Tensor& x0, const Tensor& x1, const Tensor& w, const Tensor& b, const ConvParams& p);
bool library_backward_data(const Exec& ex, const Grad& dx0, const Grad& dx1, const Tensor& dy, const Tensor& w, const Tensor& b,
                           const ConvParams& p);
bool library_backward_weight(const Exec& ex, const Grad& dw, const Tensor& dy, const Tensor& x0, const Tensor& x1, const ConvParams& p);
#else
template <class... Arguments>
bool library_forward(const Exec&, Arguments&&...) {
  return false;
}
template <class... Arguments>
bool library_backward_data(const Exec&, Arguments&&...) {
  return false;
}
template <class... Arguments>
bool library_backward_weight(const Exec&, Arguments&&...) {
  return false;
}
#endif

}  // namespace VG_NS
}  // namespace vg

// tf32 is something that only a library computes: it is refused where the library is not.
#include "layers/context.h"

#include "tensor/device.h"
#include "tensor/error.h"

namespace vg {

void allow_tf32(ConvAlgorithm& convolution, Device device) {
  if (device.kind != DeviceKind::cuda)
    fail(ErrorCode::unsupported, "precision tf32 is computed by cuDNN on a GPU alone, and the device is {} (fp32 is what it computes)", to_string(device));
  if (convolution.engine == ConvAlgorithm::Engine::native)
    fail(ErrorCode::unsupported, "precision tf32 is computed by cuDNN alone, and convolutions are to be native: our kernels multiply f32 as fp32");
  if (convolution.allow != ConvAlgorithm::Allow::fast)
    fail(ErrorCode::invalid_argument, "precision tf32 rounds more coarsely than the plain sum, and nothing that does is allowed (--exact)");
  std::string why_not;
  if (convolution_library(device, &why_not).empty()) fail(ErrorCode::no_device, "precision tf32 is computed by cuDNN alone: {}", why_not);
  convolution.tf32 = true;
}

}  // namespace vg

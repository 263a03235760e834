// cuDNN and cuBLASLt as one library of convolutions: matrix products go to the one that is made for them, if it is there.
#include "kernels/cuda/nvidia.h"

namespace vg::gpu {
namespace {

class Nvidia : public ConvLibrary {
 public:
  Nvidia(std::unique_ptr<ConvLibrary> cudnn, std::unique_ptr<ConvLibrary> cublas) : cudnn_(std::move(cudnn)), cublas_(std::move(cublas)) {}
  std::string name() const override { return cudnn_->name() + (cublas_ ? ", " + cublas_->name() : ""); }
  std::unique_ptr<ConvPlan> plan(const ConvProblem& p, std::size_t most_workspace) override {
    if (cublas_)
      if (auto plan = cublas_->plan(p, most_workspace)) return plan;
    return cudnn_->plan(p, most_workspace);
  }

 private:
  std::unique_ptr<ConvLibrary> cudnn_, cublas_;
};

}  // namespace

std::unique_ptr<ConvLibrary> open_conv_library(std::string* why_not) {
  auto cudnn = open_cudnn(why_not);
  if (!cudnn) return nullptr;
  std::string ignored;  // without it cuDNN computes those, too
  return std::make_unique<Nvidia>(std::move(cudnn), open_cublaslt(&ignored));
}

}  // namespace vg::gpu

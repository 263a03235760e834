// Builders of the networks that the field uses. A configuration is plain data (and JSON); the builder writes the graph with the parameter names
// of the PyTorch implementation that it follows, so that weights trained there load here.
#pragma once
#include "layers/graph.h"

namespace vg {

struct UnetConfig {
  int spatial_dims = 2, in_channels = 1, classes = 2;
  // Which definition: "dynunet" (MONAI DynUNet, the plain nnU-Net) or "unet" (MONAI UNet with residual units).
  std::string style = "dynunet";
  std::vector<int> features = {16, 32, 64, 128, 256};
  std::vector<std::vector<int>> kernels;  // per level and axis; empty: 3 everywhere
  std::vector<std::vector<int>> strides;  // per level and axis; the first is 1; empty: 1, 2, 2, ...
  int convs_per_stage = 2;
  std::string norm = "instance";          // "instance", "batch", "none"
  bool norm_affine = true;
  std::string activation = "leaky_relu";  // any ActivationKind
  float activation_alpha = 0.01f;
  int residual_units = 0;                 // style "unet": units per level (0: plain convolutions); style "dynunet": > 0 = residual blocks
  std::string upsampling = "transpose";   // "transpose", "nearest", "linear" (followed by a 1x1 convolution)
  int deep_supervision = 0;               // number of extra heads
};
UnetConfig unet_config_from_json(const Json& j, const std::string& where);  // strict; complete sample with all defaults in layers/README.md
Json to_json(const UnetConfig& c);
Graph unet(const UnetConfig& c);

// MeshNet (Fedorov et al., arXiv:1612.00940): dilated 3x3x3 convolutions, one width, full resolution.
struct MeshnetConfig {
  int in_channels = 1, classes = 18, channels = 30;
  std::vector<int> dilations = {1, 2, 4, 8, 16, 8, 4, 2, 1};
  std::string activation = "elu";
  float activation_alpha = 1.0f;
  std::string norm = "none";  // "none", "instance" (affine false)
  bool norm_affine = false, bias = true;
};
MeshnetConfig meshnet_config_from_json(const Json& j, const std::string& where);
Json to_json(const MeshnetConfig& c);
Graph meshnet(const MeshnetConfig& c);

}  // namespace vg

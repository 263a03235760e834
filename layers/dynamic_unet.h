// fastai's DynamicUnet on a ResNet of basic blocks: the network that `unet_learner(dls, resnet34)` trains. 41,258,368 parameters at 374 classes.
#pragma once
#include "layers/graph.h"

namespace vg {

struct DynamicUnetConfig {
  int in_channels = 3, classes = 2;
  std::vector<int> features = {64, 128, 256, 512};  // of the encoder's stages; the stem has as many as the first
  std::vector<int> blocks = {3, 4, 6, 3};           // basic blocks a stage; this is ResNet-34, {2, 2, 2, 2} ResNet-18
  bool blur = false;                                // average after each pixel shuffle of the decoder
  bool blur_final = true;                           // of its last block too
};
DynamicUnetConfig dynamic_unet_config_from_json(const Json& j,
                                                const std::string& where);  // strict; sample with all defaults in layers/README.md
Json to_json(const DynamicUnetConfig& c);

// Parameters are called as in fastai's state_dict (layers.0.* is the encoder). Any extents will do: where halving rounded up, the doubled
// grid is one row larger than the skip, and its last row is dropped, which is what fastai's nearest resizing amounts to.
Graph dynamic_unet(const DynamicUnetConfig& c);

}  // namespace vg

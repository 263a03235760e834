// Other people's weights as our model file: the five MeshNets of github.com/neuroneural/brainchop from safetensors plus a description (JSON).
#pragma once
#include <string>

#include "layers/model_file.h"

namespace vg {

struct ImportOptions {
  std::string weights, config;  // paths: safetensors, JSON
  std::string licence = "";     // prose; "": "unknown"
  // What "gelu" in the description means: "erf" (PyTorch's nn.GELU(), in which these networks were trained) or "tanh" (tinygrad's, in which they
  // are also run); the logits of mindgrab differ by up to 3.2e-2.
  std::string gelu = "erf";
  bool golden = true;  // run the network once and keep input and logits in the file
};

// Strict: every key of the description is known, every layer is what meshnet() builds, every tensor is used. Throws bad_file.
Model import_meshnet(const ImportOptions& options);

}  // namespace vg

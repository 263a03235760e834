// What a model file or a checkpoint holds, for people (one screen) and for programs (JSON).
#pragma once
#include "layers/model_file.h"

namespace vg {

// Network (operations, parameters, cost on a small input), recipe, labels, licence, provenance, training state, self-test vectors, warnings.
Json describe_model(const Model& model, const std::string& path);
std::string to_text(const Json& model_description);

// A safetensors file that is no model of ours (PyTorch's weights, say): tensors with types, shapes and ranges, metadata.
Json describe_safetensors(const Safetensors& file, const std::string& path);
std::string safetensors_text(const Json& description);

}  // namespace vg

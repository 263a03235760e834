// What a model file or a checkpoint holds, for people (one screen) and for programs (JSON).
#pragma once
#include "layers/model_file.h"

namespace vg {

// Network (operations, parameters, cost on a small input), recipe, labels, licence, provenance, training state, self-test vectors, warnings.
Json describe_model(const Model& model, const std::string& path);
std::string to_text(const Json& model_description);

}  // namespace vg

// Safetensors, and the model file that voxgrad keeps in it: graph, weights, recipe, labels in one file that any PyTorch user can open.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "layers/graph.h"

namespace vg {

// A safetensors file: named tensors and a map of strings. Reading checks everything before it is believed (every byte covered exactly once,
// offsets, sizes, duplicate names, header limit 100 MB, nesting); errors are bad_file and open with the path.
struct Safetensors {
  std::vector<std::pair<std::string, Tensor>> tensors;  // in file order, on the cpu; f32, bf16, f16, i32, u8 (F64 and I64 are converted; others refused)
  std::map<std::string, std::string> metadata;
  const Tensor* find(const std::string& name) const;
};
Safetensors read_safetensors(const std::string& path);
Safetensors parse_safetensors(std::span<const std::byte> bytes, const std::string& where);
// Atomically (os::AtomicFile). Header padded with spaces to a multiple of 8.
void write_safetensors(const std::string& path, const Safetensors& content);

// One class of a model: what the network's channel means.
struct LabelInfo {
  int id = 0;                 // the label written to files (a FreeSurfer id)
  std::string name;
  int rgb[3] = {0, 0, 0};
  int pair = -1;              // class index of the other hemisphere's structure, -1: none
  std::vector<int> merged;    // all ids that this class stands for, when left and right are one class
};

// Version 1. `recipe`, `calibration` and every "vg.*" key that we do not know are kept as they are.
struct Model {
  Graph graph;
  std::vector<std::pair<std::string, Tensor>> weights;  // PyTorch names and layout, cpu
  std::vector<LabelInfo> labels;
  Json recipe = Json::object();       // infer/recipe.h gives it meaning
  Json calibration = Json::object();
  std::string licence;
  Json provenance = Json::object();
  std::vector<std::pair<std::string, Tensor>> golden;   // self-test: golden.input, golden.logits
  std::map<std::string, std::string> other;             // other metadata (checkpoint state lives here and in `extra`)
  std::vector<std::pair<std::string, Tensor>> extra;    // tensors under "state.": optimizer moments of a checkpoint
};
// Throws bad_file: no "vg.format", unknown major version, hash mismatch, missing or unexpected tensors, wrong shapes.
Model read_model(const std::string& path);
void write_model(const std::string& path, const Model& model);
bool is_model_file(const std::string& path);  // has "vg.format" in its metadata

// Copies weights into a network (same names, same shapes, nothing left over on either side). Throws bad_file.
void load_weights(Network& net, const std::vector<std::pair<std::string, Tensor>>& weights, const std::string& where);
std::vector<std::pair<std::string, Tensor>> save_weights(const Network& net);

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace vg

// Safetensors, and the model file that voxgrad keeps in it: graph, weights, recipe, labels in one file that any PyTorch user can open.
#pragma once
#include <map>
#include <span>
#include <string>
#include <vector>

#include "layers/graph.h"
#include "layers/sha256.h"

namespace vg {

// A safetensors file: named tensors and a map of strings. Reading checks everything before it is believed (every byte covered exactly once,
// offsets, sizes, duplicate names, header limit 100 MB, nesting); errors are bad_file and open with the path.
struct Safetensors {
  std::vector<std::pair<std::string, Tensor>>
      tensors;  // in file order, on the cpu; f32, bf16, f16, i32, u8 (F64 and I64 are converted; others refused)
  std::map<std::string, std::string> metadata;
  const Tensor* find(const std::string& name) const;
};
Safetensors read_safetensors(const std::string& path);
Safetensors parse_safetensors(std::span<const std::byte> bytes, const std::string& where);
std::map<std::string, std::string> read_safetensors_metadata(const std::string& path);  // the header alone is read, and checked as above
// Atomically (os::AtomicFile). Header padded with spaces to a multiple of 8; tensors in safetensors_order(), so that the bytes of each are aligned
// to its element (PyTorch wants that).
void write_safetensors(const std::string& path, const Safetensors& content);
// Positions of the tensors as they are written: 4-byte elements first, then 2, then 1; otherwise in the order given.
std::vector<std::size_t> safetensors_order(const std::vector<std::pair<std::string, Tensor>>& tensors);

// One class of a model: what the network's channel means.
struct LabelInfo {
  int id = 0;  // the label written to files (a FreeSurfer id)
  std::string name;
  int rgb[3] = {0, 0, 0};
  int pair = -1;            // class index of the other hemisphere's structure, -1: none
  std::vector<int> merged;  // all ids that this class stands for, when left and right are one class
};

// Version 1, as metadata of the safetensors file (texts; all but the first and the last are JSON or prose):
//   vg.format       "1", or "1.N" from a later version that version 1 can read; another major version is refused
//   vg.graph        layers/graph.h          vg.labels      a list of {id, name, rgb, pair, merged}, one per output channel, or empty
//   vg.recipe       infer/recipe.h          vg.calibration, vg.provenance: objects       vg.licence: prose
//   vg.sha256       of everything else in the file. SHA-256 over: for each other metadata key in byte order: u64 length, key, u64 length, value;
//                   then for each tensor in file order: u64 length, name, u64 length, element type as spelled in the header ("F32"), u64 rank,
//                   u64 per extent, and its bytes (u64: little endian)
// Tensors: weights under PyTorch's names and layout, exactly those of the graph; "golden.*" self-test; "state.*" what a checkpoint adds.
// A "vg.*" key that we do not know is kept in `other` and named in `warnings`. Every other key (a checkpoint's) is kept in `other`.
struct Model {
  Graph graph;
  std::vector<std::pair<std::string, Tensor>> weights;  // PyTorch names and layout, cpu
  std::vector<LabelInfo> labels;
  Json recipe = Json::object();  // infer/recipe.h gives it meaning
  Json calibration = Json::object();
  std::string licence;
  Json provenance = Json::object();
  // Self-test: golden.input (N, C, D, H, W) and golden.logits (N, O, D, H, W) for the weights as they stand here (before any permutation).
  std::vector<std::pair<std::string, Tensor>> golden;
  std::map<std::string, std::string> other;           // metadata with other keys
  std::vector<std::pair<std::string, Tensor>> extra;  // "state.*": optimizer moments of a checkpoint
  std::vector<std::string> warnings;                  // of reading; never written
};
// Throws bad_file: no "vg.format", unknown major version, hash missing or different, missing or unexpected tensors, wrong shapes.
Model read_model(const std::string& path);
Model parse_model(std::span<const std::byte> bytes, const std::string& where);
// The same bytes for the same model. Throws invalid_argument for what read_model would refuse.
void write_model(const std::string& path, const Model& model);
bool is_model_file(const std::string& path);  // is safetensors and has "vg.format" in its metadata

// Copies weights (f32, or f16 and bf16, which are widened) into a network: same names, same shapes, nothing left over on either side (except
// PyTorch's *.num_batches_tracked). Throws bad_file naming what is missing and what is unexpected; then the network is unchanged.
void load_weights(Network& net, const std::vector<std::pair<std::string, Tensor>>& weights, const std::string& where);
std::vector<std::pair<std::string, Tensor>> save_weights(const Network& net);

}  // namespace vg

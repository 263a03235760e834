// Reading a node's attributes: every key must be known and of the right form, so that a typing error in a model file is found, not ignored.
#pragma once
#include <set>

#include "kernels/norm.h"
#include "layers/graph.h"

namespace vg {

class Attributes {
 public:
  explicit Attributes(const Node& node) : node_(node) {}

  // Three numbers for D, H, W; absent: all `fallback`.
  void axes(const char* key, std::int32_t (&out)[3], std::int32_t fallback);
  double number(const char* key, double fallback);  // of a float's range
  std::int64_t whole_number(const char* key, std::int64_t fallback);
  bool flag(const char* key, bool fallback);
  std::string text(const char* key, const std::string& fallback);
  // {"kind": "elu", "alpha": 1.0}, or the kind alone as a string; absent: identity.
  Activation activation(const char* key = "activation");

  // Throws bad_file if the node has an attribute that nobody asked for.
  void done() const;
  // Throws bad_file unless the node's parameter roles are exactly `required` plus any of `optional`.
  void roles(std::initializer_list<const char*> required, std::initializer_list<const char*> optional = {}) const;

 private:
  const Json* get(const char* key);
  const Node& node_;
  std::set<std::string> seen_;
};

// What the graph's "norm" says of itself; here, because the convolution in front of it wants to know, too. Throws bad_file.
struct NormNode {
  bool batch;
  float momentum;
  NormParams params;
};
NormNode read_norm(const Node& node);

ActivationKind activation_kind(const std::string& name);  // throws unsupported, naming the known ones
const char* name_of(ActivationKind kind);
Json to_json(const Activation& a);

}  // namespace vg

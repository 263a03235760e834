// Strict reading of node attributes.
#include "layers/attributes.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace vg {
namespace {
constexpr const char* kActivations[] = {"identity", "relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "sigmoid", "prelu"};
}

const char* name_of(ActivationKind kind) { return kActivations[static_cast<int>(kind)]; }

ActivationKind activation_kind(const std::string& name) {
  std::string known;
  for (int i = 0; i < static_cast<int>(std::size(kActivations)); ++i) {
    if (name == kActivations[i]) return static_cast<ActivationKind>(i);
    known += (i ? ", " : "") + std::string(kActivations[i]);
  }
  fail(ErrorCode::unsupported, "unknown activation \"{}\" (known: {})", name, known);
}

Json to_json(const Activation& a) {
  if (a.kind == ActivationKind::leaky_relu || a.kind == ActivationKind::elu) return {{"kind", name_of(a.kind)}, {"alpha", a.alpha}};
  return name_of(a.kind);
}

const Json* Attributes::get(const char* key) {
  seen_.insert(key);
  const auto found = node_.attributes.find(key);
  return found == node_.attributes.end() ? nullptr : &*found;
}

void Attributes::axes(const char* key, std::int32_t (&out)[3], std::int32_t fallback) {
  std::fill_n(out, 3, fallback);
  const Json* j = get(key);
  if (!j) return;
  if (!j->is_array() || j->size() != 3 || !std::all_of(j->begin(), j->end(), [](const Json& e) { return e.is_number_integer(); }))
    fail(ErrorCode::bad_file, "node {}: attribute {} is {}, wanted three integers (D, H, W)", node_.name, key, j->dump());
  for (std::size_t a = 0; a < 3; ++a) {
    const auto v = (*j)[a].get<std::int64_t>();
    if (v < 0 || v > 1 << 20) fail(ErrorCode::bad_file, "node {}: attribute {} holds {}", node_.name, key, v);
    out[a] = static_cast<std::int32_t>(v);
  }
}

double Attributes::number(const char* key, double fallback) {
  const Json* j = get(key);
  if (j && (!j->is_number() || std::abs(j->get<double>()) > static_cast<double>(std::numeric_limits<float>::max())))
    fail(ErrorCode::bad_file, "node {}: attribute {} is {}, wanted a number that fits a float", node_.name, key, j->dump());
  return j ? j->get<double>() : fallback;
}

std::int64_t Attributes::whole_number(const char* key, std::int64_t fallback) {
  const Json* j = get(key);
  if (!j) return fallback;
  const double v = j->is_number() ? j->get<double>() : 0.5;
  if (v != std::floor(v) || std::abs(v) > 0x1p53) fail(ErrorCode::bad_file, "node {}: attribute {} is {}, wanted a whole number", node_.name, key, j->dump());
  return static_cast<std::int64_t>(v);
}

bool Attributes::flag(const char* key, bool fallback) {
  const Json* j = get(key);
  if (j && !j->is_boolean()) fail(ErrorCode::bad_file, "node {}: attribute {} is {}, wanted true or false", node_.name, key, j->dump());
  return j ? j->get<bool>() : fallback;
}

std::string Attributes::text(const char* key, const std::string& fallback) {
  const Json* j = get(key);
  if (j && !j->is_string()) fail(ErrorCode::bad_file, "node {}: attribute {} is {}, wanted a string", node_.name, key, j->dump());
  return j ? j->get<std::string>() : fallback;
}

Activation Attributes::activation(const char* key) {
  Activation a;
  const Json* j = get(key);
  if (!j) return a;
  const bool object = j->is_object();
  if (!object && !j->is_string()) fail(ErrorCode::bad_file, "node {}: attribute {} is {}, wanted a name or an object", node_.name, key, j->dump());
  a.kind = activation_kind(object ? j->value("kind", "") : j->get<std::string>());
  a.alpha = a.kind == ActivationKind::elu ? 1.0f : 0.01f;
  if (object) a.alpha = j->value("alpha", a.alpha);
  if (!std::isfinite(a.alpha)) fail(ErrorCode::bad_file, "node {}: attribute {} is {}, wanted an alpha that fits a float", node_.name, key, j->dump());
  return a;
}

void Attributes::done() const {
  for (const auto& item : node_.attributes.items())
    if (!seen_.count(item.key())) fail(ErrorCode::bad_file, "node {}: operation {} has no attribute \"{}\"", node_.name, node_.op, item.key());
}

void Attributes::roles(std::initializer_list<const char*> required, std::initializer_list<const char*> optional) const {
  const auto among = [](std::initializer_list<const char*> list, const std::string& role) {
    return std::any_of(list.begin(), list.end(), [&](const char* r) { return role == r; });
  };
  for (const char* role : required)
    if (!node_.params.count(role)) fail(ErrorCode::bad_file, "node {}: operation {} wants a parameter \"{}\"", node_.name, node_.op, role);
  for (const auto& [role, name] : node_.params)
    if (!among(required, role) && !among(optional, role))
      fail(ErrorCode::bad_file, "node {}: operation {} has no parameter \"{}\" (given as {})", node_.name, node_.op, role, name);
}

}  // namespace vg

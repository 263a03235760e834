// Facts about a model file, gathered once as JSON; the text is a view of it, so that the two cannot disagree.
#include "layers/describe_model.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace vg {

Json describe_model(const Model& m, const std::string& path) {
  std::map<std::string, int> operations;
  for (const Node& n : m.graph.nodes) ++operations[n.op];
  const std::vector<int> d = m.graph.divisor();
  // Big enough to divide, small enough to mean "per voxel".
  const Shape input = {1, m.graph.spatial_dims == 2 ? 1 : d[0] * 4, d[1] * 4, d[2] * 4, m.graph.in_channels};
  const Plan p = plan(m.graph, input);
  Json labels = Json::array();
  for (std::size_t k = 0; k < m.labels.size(); ++k) {
    const LabelInfo& l = m.labels[k];
    Json j = {{"index", k}, {"id", l.id}, {"name", l.name}, {"rgb", {l.rgb[0], l.rgb[1], l.rgb[2]}}};
    if (l.pair >= 0) j["pair"] = l.pair;
    if (!l.merged.empty()) j["merged"] = l.merged;
    labels.push_back(std::move(j));
  }
  Json out = {{"path", path}, {"format", "voxgrad model, version 1"}, {"spatial_dims", m.graph.spatial_dims}, {"in_channels", m.graph.in_channels},
              {"classes", m.graph.out_channels()}, {"nodes", m.graph.nodes.size()}, {"operations", operations}, {"parameters", p.parameters},
              {"multiply_adds_per_voxel", p.multiply_adds / static_cast<double>(input.voxels())}, {"divisor", d}, {"recipe", m.recipe},
              {"labels", labels}, {"licence", m.licence}, {"provenance", m.provenance}, {"self_test", !m.golden.empty()}, {"warnings", m.warnings}};
  if (const auto state = m.other.find("train.state"); state != m.other.end()) out["training_state"] = Json::parse(state->second, nullptr, false);
  return out;
}

std::string to_text(const Json& j) {
  std::string t = fmt::format("{}\n  {}{}\n", j["path"].get<std::string>(), j["format"].get<std::string>(), j.contains("training_state") ? ", checkpoint" : "");
  std::string operations;
  for (const auto& item : j["operations"].items()) operations += fmt::format("{}{} {}", operations.empty() ? "" : ", ", item.value().get<int>(), item.key());
  t += fmt::format("  network      {}-D, {} channels in, {} classes out: {}\n", j["spatial_dims"].get<int>(), j["in_channels"].get<int>(), j["classes"].get<int>(), operations);
  t += fmt::format("  parameters   {}; {:.0f} multiply-adds a voxel; extents divisible by {}\n", j["parameters"].get<std::int64_t>(), j["multiply_adds_per_voxel"].get<double>(), j["divisor"].dump());
  t += fmt::format("  recipe       {}\n", j["recipe"].dump());
  if (j.contains("training_state")) t += fmt::format("  training     {}\n", j["training_state"].dump());
  if (!j["provenance"].empty()) t += fmt::format("  provenance   {}\n", j["provenance"].value("data", j["provenance"]).dump());
  t += fmt::format("  licence      {}\n  self-test    {}\n", j["licence"].get<std::string>().empty() ? "not stated" : j["licence"].get<std::string>(), j["self_test"].get<bool>() ? "input and logits are in the file (seginfer --selftest)" : "none");
  for (const Json& w : j["warnings"]) t += "  warning      " + w.get<std::string>() + "\n";
  for (const Json& l : j["labels"])
    t += fmt::format("  {:>5} {:>6}  {:<34} #{:02x}{:02x}{:02x}{}\n", l["index"].get<int>(), l["id"].get<int>(), l["name"].get<std::string>(), l["rgb"][0].get<int>(),
                     l["rgb"][1].get<int>(), l["rgb"][2].get<int>(), l.contains("merged") ? "  stands for " + l["merged"].dump() : "");
  return t;
}

Json describe_safetensors(const Safetensors& file, const std::string& path) {
  Json tensors = Json::array();
  std::int64_t elements = 0;
  for (const auto& [name, t] : file.tensors) {
    Json shape = Json::array();
    for (int a = 0; a < t.shape().rank(); ++a) shape.push_back(t.shape()[a]);
    Json j = {{"name", name}, {"type", name_of(t.dtype())}, {"shape", shape}};
    if (t.dtype() == DType::f32 && t.elements() > 0) {
      const float* v = t.data<float>();
      float low = v[0], high = v[0];
      std::int64_t not_finite = 0;
      for (std::int64_t n = 0; n < t.elements(); ++n) low = std::min(low, v[n]), high = std::max(high, v[n]), not_finite += !std::isfinite(v[n]);
      j["min"] = low, j["max"] = high, j["not_finite"] = not_finite;
    }
    elements += t.elements();
    tensors.push_back(std::move(j));
  }
  return {{"path", path}, {"format", "safetensors"}, {"elements", elements}, {"tensors", tensors}, {"metadata", file.metadata}};
}

std::string safetensors_text(const Json& j) {
  std::string t = fmt::format("{}\n  safetensors, no model of voxgrad: {} tensors, {} numbers (segimport makes models of known networks)\n",
                              j["path"].get<std::string>(), j["tensors"].size(), j["elements"].get<std::int64_t>());
  for (const auto& item : j["metadata"].items()) t += fmt::format("  metadata     {} = {}\n", item.key(), item.value().get<std::string>().substr(0, 100));
  for (const Json& x : j["tensors"]) {
    t += fmt::format("  {:<5} {:<22} {}", x["type"].get<std::string>(), x["shape"].dump(), x["name"].get<std::string>());
    if (x.contains("min")) t += fmt::format("  {:.4g} .. {:.4g}{}", x["min"].get<double>(), x["max"].get<double>(), x["not_finite"].get<int>() ? ", NaN or infinite values" : "");
    t += "\n";
  }
  return t;
}

}  // namespace vg

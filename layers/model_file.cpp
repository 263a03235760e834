// The model file, version 1: everything that a network needs in order to be run by somebody who has only this file. Strict both ways: what the
// graph wants must be there, and what is there must be wanted.
#include "layers/model_file.h"

#include <algorithm>
#include <set>

#include "layers/json.h"

namespace vg {
namespace {

using Tensors = std::vector<std::pair<std::string, Tensor>>;
using NamedShapes = std::vector<std::pair<std::string, Shape>>;

constexpr const char* kKeys[] = {"vg.format",      "vg.graph",   "vg.recipe",     "vg.labels",
                                 "vg.calibration", "vg.licence", "vg.provenance", "vg.sha256"};
bool known_key(const std::string& key) { return std::find(std::begin(kKeys), std::end(kKeys), key) != std::end(kKeys); }

const char* file_name_of(DType t) {
  constexpr const char* names[] = {"F32", "BF16", "F16", "I32", "U8"};
  return names[static_cast<int>(t)];
}

// model_file.h says over what.
std::string hash_of(const std::map<std::string, std::string>& metadata, const Tensors& tensors) {
  Sha256 sha;
  const auto text = [&](std::string_view t) { sha.update_u64(t.size()), sha.update(t); };
  for (const auto& [key, value] : metadata)
    if (key != "vg.sha256") text(key), text(value);
  for (const std::size_t i : safetensors_order(tensors)) {
    const auto& [name, t] = tensors[i];
    text(name), text(file_name_of(t.dtype()));
    sha.update_u64(static_cast<std::uint64_t>(t.shape().rank()));
    for (int a = 0; a < t.shape().rank(); ++a) sha.update_u64(static_cast<std::uint64_t>(t.shape()[a]));
    sha.update(t.raw(), t.bytes());
  }
  return sha.hex();
}

Json to_json(const std::vector<LabelInfo>& labels) {
  Json list = Json::array();
  for (const LabelInfo& l : labels)
    list.push_back({{"id", l.id}, {"name", l.name}, {"rgb", {l.rgb[0], l.rgb[1], l.rgb[2]}}, {"pair", l.pair}, {"merged", l.merged}});
  return list;
}

std::vector<LabelInfo> labels_from_json(const Json& list, const std::string& where) {
  if (!list.is_array()) fail(ErrorCode::bad_file, "{}: wanted a list, found {}", where, list.type_name());
  std::vector<LabelInfo> labels;
  std::set<int> ids;
  for (const Json& item : list) {
    JsonFields f(item, fmt::format("{}[{}]", where, labels.size()));
    LabelInfo l;
    l.id = f.get<int>("id");
    l.name = f.get<std::string>("name");
    const auto rgb = f.get<std::vector<int>>("rgb");
    if (rgb.size() != 3 || std::any_of(rgb.begin(), rgb.end(), [](int v) { return v < 0 || v > 255; }))
      fail(ErrorCode::bad_file, "{}: rgb wants three numbers 0 .. 255", f.where());
    std::copy_n(rgb.begin(), 3, l.rgb);
    l.pair = f.get<int>("pair");
    l.merged = f.get<std::vector<int>>("merged");
    f.done();
    if (!ids.insert(l.id).second) fail(ErrorCode::bad_file, "{}: the id {} is given twice", f.where(), l.id);
    labels.push_back(std::move(l));
  }
  const int count = static_cast<int>(labels.size());
  for (int i = 0; i < count; ++i) {  // pairs must be mutual, or a flip would lose a class
    const int pair = labels[static_cast<std::size_t>(i)].pair;
    if (pair < -1 || pair >= count || pair == i || (pair >= 0 && labels[static_cast<std::size_t>(pair)].pair != i))
      fail(ErrorCode::bad_file, "{}[{}]: pair {} is not another class that is paired with this one", where, i, pair);
  }
  return labels;
}

// Same names, same shapes, floating point, nothing left over on either side.
void check_weights(const NamedShapes& wanted, const Tensors& found, const std::string& where) {
  const auto list = [](const std::vector<std::string>& names) {
    return names.size() == 1 ? "\"" + names[0] + "\"" : fmt::format("\"{}\" and {} more", names[0], names.size() - 1);
  };
  std::map<std::string, const Tensor*> by_name;
  for (const auto& [name, t] : found)
    if (!by_name.emplace(name, &t).second) fail(ErrorCode::bad_file, "{}: two tensors are called \"{}\"", where, name);
  std::vector<std::string> missing, unexpected;
  for (const auto& [name, shape] : wanted) {
    const auto at = by_name.find(name);
    if (at == by_name.end()) {
      missing.push_back(name);
      continue;
    }
    const Tensor& t = *at->second;
    if (t.shape() != shape)
      fail(ErrorCode::bad_file, "{}: tensor \"{}\" is {}, the network wants {}", where, name, to_string(t.shape()), to_string(shape));
    if (t.dtype() == DType::i32 || t.dtype() == DType::u8)
      fail(ErrorCode::bad_file, "{}: tensor \"{}\" is {}, the network wants floating point numbers", where, name, name_of(t.dtype()));
    by_name.erase(at);
  }
  for (const auto& [name, t] : found)
    if (by_name.count(name)) unexpected.push_back(name);
  if (missing.empty() && unexpected.empty()) return;
  fail(ErrorCode::bad_file, "{}: the tensors do not belong to this network: {}{}{}", where,
       missing.empty() ? "" : "missing " + list(missing), missing.empty() || unexpected.empty() ? "" : ", ",
       unexpected.empty() ? "" : "unexpected " + list(unexpected));
}

// As PyTorch has it: the weights of a 2-D network are (O, I, kH, kW).
Shape stored_shape(const Graph& g, const Shape& s) { return g.spatial_dims == 2 && s.rank() == 5 ? Shape{s[0], s[1], s[3], s[4]} : s; }

NamedShapes shapes_of(const Graph& g) {
  NamedShapes shapes;
  for (const ParamSpec& spec : param_specs(g)) shapes.emplace_back(spec.name, stored_shape(g, spec.shape));
  return shapes;
}

const std::string& member(const std::map<std::string, std::string>& metadata, const char* key, const std::string& path) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) fail(ErrorCode::bad_file, "{}: {} is missing", path, key);
  return found->second;
}

Json object_member(const std::map<std::string, std::string>& metadata, const char* key, const std::string& path) {
  Json j = parse_json(member(metadata, key, path), path + ": " + key);
  if (!j.is_object()) fail(ErrorCode::bad_file, "{}: {}: wanted an object, found {}", path, key, j.type_name());
  return j;
}

// "1" or "1.N"
void check_version(const std::string& text, const std::string& path, std::vector<std::string>& warnings) {
  const std::size_t dot = text.find('.');
  const auto number = [](const std::string& t) {
    return !t.empty() && t.size() < 9 && t.find_first_not_of("0123456789") == std::string::npos;
  };
  const std::string major = text.substr(0, dot), minor = dot == std::string::npos ? "0" : text.substr(dot + 1);
  if (!number(major) || !number(minor))
    fail(ErrorCode::bad_file, "{}: vg.format is \"{}\", wanted a version such as \"1\"", path, text.substr(0, 40));
  if (major != "1") fail(ErrorCode::bad_file, "{}: model file version {}, this program reads version 1", path, text);
  if (minor != "0") warnings.push_back(fmt::format("{}: written by a later version ({}) of the program", path, text));
}

void check_labels(const Model& m, const std::string& where) {
  if (!m.labels.empty() && static_cast<int>(m.labels.size()) != m.graph.out_channels())
    fail(ErrorCode::bad_file, "{}: {} labels for a network with {} output channels", where, m.labels.size(), m.graph.out_channels());
}

// A tensor as f32 on the cpu.
Tensor widened(const Tensor& from) {
  if (from.dtype() == DType::f32) return from;
  Tensor to(from.shape(), DType::f32, kCpu);
  for (std::int64_t i = 0; i < from.elements(); ++i)
    to.data<float>()[i] = from.dtype() == DType::f16 ? static_cast<float>(from.data<f16>()[i]) : static_cast<float>(from.data<bf16>()[i]);
  return to;
}

}  // namespace

static Model from_safetensors(Safetensors file, const std::string& path) {
  Model m;
  if (!file.metadata.count("vg.format"))
    fail(ErrorCode::bad_file, "{}: no vg.format in its metadata: not a voxgrad model (weights of others: segimport makes one)", path);
  check_version(file.metadata.at("vg.format"), path, m.warnings);
  // The hash comes first: of a damaged file nothing else is worth saying.
  const std::string &stored = member(file.metadata, "vg.sha256", path), computed = hash_of(file.metadata, file.tensors);
  if (stored != computed)
    fail(ErrorCode::bad_file, "{}: damaged: SHA-256 of the content is {}, the file says {}", path, computed, stored.substr(0, 80));

  m.graph = graph_from_json(parse_json(member(file.metadata, "vg.graph", path), path + ": vg.graph"), path + ": vg.graph");
  m.recipe = object_member(file.metadata, "vg.recipe", path);
  m.calibration = object_member(file.metadata, "vg.calibration", path);
  m.provenance = object_member(file.metadata, "vg.provenance", path);
  m.licence = member(file.metadata, "vg.licence", path);
  m.labels = labels_from_json(parse_json(member(file.metadata, "vg.labels", path), path + ": vg.labels"), path + ": vg.labels");
  check_labels(m, path);
  for (auto& [key, text] : file.metadata) {
    if (known_key(key)) continue;
    if (key.starts_with("vg.")) m.warnings.push_back(fmt::format("{}: unknown key \"{}\" (kept)", path, key));
    m.other.emplace(key, std::move(text));
  }
  for (auto& named : file.tensors)
    (named.first.starts_with("golden.") ? m.golden : named.first.starts_with("state.") ? m.extra : m.weights).push_back(std::move(named));
  check_weights(shapes_of(m.graph), m.weights, path);
  return m;
}

Model read_model(const std::string& path) { return from_safetensors(read_safetensors(path), path); }
Model parse_model(std::span<const std::byte> bytes, const std::string& where) { return from_safetensors(parse_safetensors(bytes, where), where); }

void write_model(const std::string& path, const Model& model) {
  Safetensors file;
  for (const auto& [key, text] : model.other) {
    require(!known_key(key), "{}: metadata key {} is the model file's own", path, key);
    file.metadata.emplace(key, text);
  }
  const auto put = [&](const char* key, std::string text) { file.metadata.emplace(key, std::move(text)); };
  try {
    check_weights(shapes_of(model.graph), model.weights, path);
    check_labels(model, path);
    const Json labels = to_json(model.labels), graph = to_json(model.graph);
    labels_from_json(labels, "vg.labels"), graph_from_json(graph, "vg.graph");
    for (const Json* j : {&model.recipe, &model.calibration, &model.provenance})
      require(j->is_object(), "{}: recipe, calibration and provenance are objects", path);
    put("vg.format", "1");
    put("vg.graph", graph.dump());
    put("vg.labels", labels.dump());
    put("vg.recipe", model.recipe.dump());
    put("vg.calibration", model.calibration.dump());
    put("vg.provenance", model.provenance.dump());
    put("vg.licence", model.licence);
  } catch (const Json::exception& e) {
    fail(ErrorCode::invalid_argument, "{}: {}", path, e.what());
  } catch (const Error& e) {
    throw Error(ErrorCode::invalid_argument, e.what());
  }
  const auto add = [&](const Tensors& tensors, const char* prefix) {
    for (const auto& [name, t] : tensors) {
      require(name.starts_with(prefix), "{}: tensor \"{}\" must be called \"{}...\"", path, name, prefix);
      require(t.defined(), "{}: tensor \"{}\" is undefined", path, name);
      file.tensors.emplace_back(name, t.device().on_host() ? t : copy_to(t, kCpu));
    }
  };
  add(model.weights, ""), add(model.golden, "golden."), add(model.extra, "state.");
  put("vg.sha256", hash_of(file.metadata, file.tensors));
  write_safetensors(path, file);
}

bool is_model_file(const std::string& path) {
  try {
    return read_safetensors_metadata(path).count("vg.format") > 0;
  } catch (const Error& e) {
    if (e.code() == ErrorCode::io) throw;
    return false;
  }
}

void load_weights(Network& net, const Tensors& weights, const std::string& where) {
  Tensors used;
  for (const auto& [name, t] : weights)
    if (!name.ends_with(".num_batches_tracked")) used.emplace_back(name, t);  // PyTorch's batch norms count their steps; nothing depends on it
  check_weights(shapes_of(net.graph), used, where);
  for (const auto& [name, t] : used) {
    Tensor& value = net.params.at(name).value;
    copy(value, widened(t).reshaped(value.shape()));
  }
}

Tensors save_weights(const Network& net) {
  Tensors weights;
  for (const Param& p : net.params.all()) weights.emplace_back(p.name, copy_to(p.value, kCpu).reshaped(stored_shape(net.graph, p.value.shape())));
  return weights;
}

}  // namespace vg

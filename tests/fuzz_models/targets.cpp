// Fuzz targets of what stands in model files and configurations: safetensors, whole models, graphs, recipes, training configurations.
#include <cstring>

#include "infer/recipe.h"
#include "layers/json.h"
#include "layers/model_file.h"
#include "layers/unet.h"
#include "tests/fuzz/target.h"
#include "train/config.h"

namespace vg::fuzz {
namespace {

Bytes tensors_file(std::string header, std::size_t data) {
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t n = header.size();
  std::string file(reinterpret_cast<const char*>(&n), 8);
  return bytes_of(file + header + std::string(data, '\0'));
}

void safetensors(Input input) {
  const Safetensors s = parse_safetensors(input, "f.safetensors");
  for (const auto& [name, t] : s.tensors) promise(t.defined() && s.find(name) != nullptr, "a tensor that cannot be found");
}
std::vector<Bytes> safetensors_seeds() {
  return {tensors_file(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"U8","shape":[],"data_offsets":[24,25]}})", 25),
          tensors_file(R"({"__metadata__":{"k":"v"},"a":{"dtype":"F16","shape":[0,3],"data_offsets":[0,0]}})", 0),
          tensors_file(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"F64","shape":[1,1,1,1,1],"data_offsets":[8,16],"x":1},"c":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]}})", 18),
          tensors_file("{}", 0)};
}

void graph(Input input) {
  const Graph g = graph_from_json(parse_json(text_of(input), "f.json"), "f.json");
  const Json j = to_json(g);
  promise(to_json(graph_from_json(j, "g.json")) == j, "written and read back: another graph");
}
std::vector<Bytes> graph_seeds() {
  UnetConfig small;
  small.classes = 2, small.in_channels = 1, small.features = {4, 8};
  std::vector<Bytes> seeds = {bytes_of(to_json(unet(small)).dump())};
  Graph one = unet(small);
  one.nodes.resize(1);
  one.outputs = {one.nodes[0].name};
  seeds.push_back(bytes_of(to_json(one).dump()));
  return seeds;
}

void recipe(Input input) {
  const Recipe r = recipe_from_json(parse_json(text_of(input), "f.json"), "f.json");
  promise(to_json(recipe_from_json(to_json(r), "g.json")) == to_json(r), "written and read back: another recipe");
}
std::vector<Bytes> recipe_seeds() {
  Recipe full;
  full.orientation = "RAS", full.spacing = {1, 1, 1}, full.window = {32, 32, 32}, full.divisor = {8, 8, 8}, full.intensity.kind = "zscore";
  return {bytes_of(to_json(Recipe{}).dump()), bytes_of(to_json(full).dump())};
}

void train_config(Input input) {
  const TrainConfig c = train_config_from_json(parse_json(text_of(input), "f.json"), "f.json");
  promise(to_json(train_config_from_json(to_json(c), "g.json")) == to_json(c), "written and read back: another configuration");
}
std::vector<Bytes> train_config_seeds() {
  TrainConfig resnet;
  resnet.dynamic_unet.emplace();
  return {bytes_of(to_json(TrainConfig{}).dump()), bytes_of(to_json(resnet).dump()), bytes_of(R"({"network": {"norm_affine": false}, "schedule": {"rate": 0.004}, "batch": 8, "epochs": 8})")};
}

// A model file whose texts come from the input, separated by bytes of 1, and whose hash is right: model_file.h says over what.
void model(Input input) {
  const char* const keys[] = {"vg.graph", "vg.labels", "vg.recipe", "vg.calibration", "vg.provenance", "vg.licence", "vg.other"};
  std::map<std::string, std::string> metadata = {{"vg.format", "1"}};
  const std::string text = text_of(input);
  std::size_t at = 0;
  for (const char* key : keys) {
    const std::size_t end = std::min(text.find('\1', at), text.size());
    metadata[key] = text.substr(at, end - at);
    at = std::min(end + 1, text.size());
  }
  Sha256 sha;
  for (const auto& [key, value] : metadata) sha.update_u64(key.size()), sha.update(key), sha.update_u64(value.size()), sha.update(value);
  metadata["vg.sha256"] = sha.hex();
  Json header;
  header["__metadata__"] = metadata;
  std::string json;
  try {
    json = header.dump();
  } catch (const Json::exception&) {
    fail(ErrorCode::bad_file, "not UTF-8");
  }
  const Model m = parse_model(tensors_file(json, 0), "f.safetensors");
  promise(m.labels.empty() || static_cast<int>(m.labels.size()) == m.graph.out_channels(), "labels that do not fit the network");
}
std::vector<Bytes> model_seeds() {
  const std::string g = R"({"spatial_dims":2,"in_channels":2,"outputs":["a"],"nodes":[{"name":"a","op":"activation","inputs":["input"],"attributes":{"kind":"relu"}}]})";
  const std::string labels = R"([{"id":0,"name":"background","rgb":[0,0,0],"pair":-1,"merged":[]},{"id":4,"name":"x","rgb":[1,2,3],"pair":-1,"merged":[4,43]}])";
  return {bytes_of(g + "\1" + labels + "\1{}\1{}\1{\"data\":\"x\"}\1Apache-2.0")};
}

constexpr Target kTargets[] = {{"safetensors", safetensors, safetensors_seeds}, {"model", model, model_seeds}, {"graph", graph, graph_seeds}, {"recipe", recipe, recipe_seeds}, {"train_config", train_config, train_config_seeds}};

}  // namespace

std::span<const Target> targets() { return kTargets; }

}  // namespace vg::fuzz

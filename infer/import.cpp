// Import of MeshNets. The description is checked against what the builder makes, layer by layer: loaders in the wild apply the wrong activation, drop
// a bias or overlook the norm, and the segmentation still looks plausible.
#include "infer/import.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "infer/recipe.h"
#include "infer/self_test.h"
#include "layers/json.h"
#include "layers/unet.h"
#include "tensor/os.h"

namespace vg {
namespace {

// Colours for classes that have none: the hues of the golden angle, so that neighbours differ; class 0 is black.
void default_colour(int index, int (&rgb)[3]) {
  const double hue = std::fmod(index * 0.61803398875, 1.0) * 6.0;
  for (int c = 0; c < 3; ++c) {
    const double distance = std::fabs(std::fmod(hue - 2.0 * c + 9.0, 6.0) - 3.0);  // of the hue from red, green, blue: 0 .. 3 sixths
    rgb[c] = index == 0 ? 0 : static_cast<int>(60.0 + 180.0 * std::clamp(2.0 - distance, 0.0, 1.0));
  }
}

std::vector<LabelInfo> read_classes(const Json& list, int wanted, const std::string& where) {
  if (!list.is_array() || static_cast<int>(list.size()) != wanted)
    fail(ErrorCode::bad_file, "{}: classes wants a list of {}", where, wanted);
  std::vector<LabelInfo> labels;
  std::set<int> taken;
  for (const Json& item : list) {
    JsonFields f(item, fmt::format("{}: classes[{}]", where, labels.size()));
    const int index = static_cast<int>(labels.size());
    if (f.get<int>("index") != index) fail(ErrorCode::bad_file, "{}: index is {}, wanted {}", f.where(), item["index"].dump(), index);
    LabelInfo l;
    l.name = f.get<std::string>("name");
    std::vector<int> ids = {index}, rgb;
    f.get_to("freesurfer_ids", ids);
    f.get_to("rgb", rgb);
    f.done();
    if (ids.empty()) fail(ErrorCode::bad_file, "{}: freesurfer_ids is empty", f.where());
    for (const int id : ids)
      if (id < 0 || !taken.insert(id).second)
        fail(ErrorCode::bad_file, "{}: the id {} is negative or belongs to two classes", f.where(), id);
    l.id = ids[0];
    if (ids.size() > 1) l.merged = ids;
    default_colour(index, l.rgb);
    if (rgb.size() == 3) std::copy_n(rgb.begin(), 3, l.rgb);
    if ((!rgb.empty() && rgb.size() != 3) || std::any_of(l.rgb, l.rgb + 3, [](int v) { return v < 0 || v > 255; }))
      fail(ErrorCode::bad_file, "{}: rgb wants three numbers 0 .. 255", f.where());
    labels.push_back(std::move(l));
  }
  return labels;
}

// The layers must be 3x3x3 convolutions with padding = dilation and stride 1, all of one width, then one 1x1x1. Returns the dilations.
std::vector<int> read_layers(const Json& list, int channels, int classes, const std::string& where) {
  if (!list.is_array() || list.size() < 2) fail(ErrorCode::bad_file, "{}: layers wants a list of at least 2", where);
  std::vector<int> dilations;
  for (std::size_t i = 0; i < list.size(); ++i) {
    JsonFields f(list[i], fmt::format("{}: layers[{}]", where, i));
    const bool first = i == 0, last = i + 1 == list.size();
    const auto expect = [&](const char* key, int wanted) {
      const int found = f.get<int>(key);
      if (found != wanted) fail(ErrorCode::unsupported, "{}: {} is {}, a MeshNet has {}", f.where(), key, found, wanted);
    };
    const int dilation = f.get<int>("dilation");
    expect("in_channels", first ? 1 : channels);
    expect("out_channels", last ? classes : channels);
    expect("kernel_size", last ? 1 : 3);
    expect("stride", 1);
    expect("padding", last ? 0 : dilation);
    if (last) expect("dilation", 1);
    f.done();
    if (!last) dilations.push_back(dilation);
  }
  return dilations;
}

struct Description {
  MeshnetConfig network;
  std::vector<LabelInfo> labels;
  std::string name, source;
  std::int64_t parameters = 0;
};

Description read_description(const Json& j, const std::string& gelu, const std::string& where) {
  JsonFields f(j, where);
  Description d;
  d.name = f.get<std::string>("name");
  d.parameters = f.get<std::int64_t>("parameters");
  f.get_to("tfjs", d.source);
  MeshnetConfig& c = d.network;
  c.channels = f.get<int>("channels");
  c.classes = f.get<int>("n_classes");
  c.bias = f.get<bool>("bias");
  c.activation = f.get<std::string>("activation");
  // The flags of the original say the same again; a contradiction must not be decided by guessing.
  for (const char* flag : {"elu", "gelu"}) {
    bool on = c.activation == flag;
    f.get_to(flag, on);
    if (on != (c.activation == flag)) fail(ErrorCode::bad_file, "{}: activation is \"{}\", but {} is {}", where, c.activation, flag, on);
  }
  if (c.activation != "relu" && c.activation != "elu" && c.activation != "gelu")
    fail(ErrorCode::unsupported, "{}: activation \"{}\" (known: relu, elu, gelu)", where, c.activation);
  if (c.activation == "gelu" && gelu == "tanh") c.activation = "gelu_tanh";

  const Json& norm = f.json("norm");
  const std::string norm_text = norm.is_null() ? "" : f.get<std::string>("norm");
  constexpr const char* kInstance = "instance norm per channel, no affine, eps 1e-5";
  if (!norm_text.empty() && !norm_text.starts_with(kInstance))
    fail(ErrorCode::unsupported, "{}: norm \"{}\" (known: null, or a text that begins \"{}\")", where, norm_text.substr(0, 80), kInstance);
  c.norm = norm_text.empty() ? "none" : "instance";
  if (f.get<bool>("bnorm") != !norm_text.empty()) fail(ErrorCode::bad_file, "{}: bnorm and norm contradict each other", where);
  bool last_bias = true;
  f.get_to("last_layer_bias", last_bias);
  if (!last_bias) fail(ErrorCode::unsupported, "{}: a last layer without bias", where);

  c.dilations = read_layers(f.json("layers"), c.channels, c.classes, where);
  d.labels = read_classes(f.json("classes"), c.classes, where);
  // Said for people; the values that they stand for are in the recipe.
  for (const char* key :
       {"weights", "dropout_p", "input", "normalisation_of_the_references", "brainchop_web_settings", "tfjs_note", "class_note"})
    f.ignore(key);
  f.done();
  return d;
}

}  // namespace

Model import_meshnet(const ImportOptions& o) {
  require(o.gelu == "erf" || o.gelu == "tanh", "gelu is \"{}\" (known: erf, tanh)", o.gelu);
  const std::string text = os::read_text(o.config);
  const Description d = read_description(parse_json(text, o.config), o.gelu, o.config);
  const std::vector<std::byte> bytes = os::read_file(o.weights);
  const Safetensors file = parse_safetensors(bytes, o.weights);
  Model m;
  try {
    m.graph = meshnet(d.network);
  } catch (const Error& e) {
    fail(ErrorCode::bad_file, "{}: {}", o.config, e.what());
  }
  Network net(m.graph, kCpu, false);
  load_weights(net, file.tensors, o.weights);
  m.weights = save_weights(net);
  if (net.params.trainable_elements() != d.parameters)
    fail(ErrorCode::bad_file, "{}: parameters is {}, the network has {}", o.config, d.parameters, net.params.trainable_elements());

  m.labels = d.labels;
  Recipe recipe;
  recipe.axes = "ijk";
  recipe.conform = "meshnet";
  recipe.intensity.kind = "quantile";
  m.recipe = to_json(recipe);
  m.licence = o.licence.empty() ? "unknown" : o.licence;
  m.provenance = {{"name", d.name},
                  {"importer", fmt::format("voxgrad {}", VG_VERSION)},
                  {"source", d.source},
                  {"config", to_json(d.network)},
                  {"weights_sha256", sha256_hex(bytes)},
                  {"description_sha256", sha256_hex(std::as_bytes(std::span<const char>(text)))}};
  if (o.golden) add_golden(m);
  return m;
}

}  // namespace vg

// Import of other people's MeshNets: the five published ones give their files' numbers in either order of axes; descriptions that contradict
// themselves or the weights are refused; the program segimport.
#include "infer/import.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>

#include "infer/recipe.h"
#include "infer/self_test.h"
#include "layers/json.h"
#include "layers/unet.h"
#include "tensor/random.h"
#include "tests/layers/files.h"

namespace vg {
namespace {

using test::message_of;

std::string data(const std::string& name) { return test::shared_data("models/" + name); }

// (D, H, W) <-> (W, H, D), voxels of `channels` numbers
Tensor turned(const Tensor& x, std::int64_t d, std::int64_t h, std::int64_t w, std::int64_t channels) {
  Tensor y({1, w, h, d, channels}, DType::f32, kCpu);
  for (std::int64_t i = 0; i < d; ++i)
    for (std::int64_t j = 0; j < h; ++j)
      for (std::int64_t k = 0; k < w; ++k)
        std::copy_n(x.data<float>() + ((i * h + j) * w + k) * channels, channels, y.data<float>() + ((k * h + j) * d + i) * channels);
  return y;
}

Tensor forward(const Graph& graph, const std::vector<std::pair<std::string, Tensor>>& weights, const Tensor& x, Device device = kCpu) {
  Network net(graph, device, false);
  load_weights(net, weights, "test");
  Context ctx(device);
  return copy_to(run(ctx, net, Value{copy_to(x, device)}).at(0).data, kCpu);
}

float largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  float worst = 0;
  for (std::int64_t i = 0; i < a.elements(); ++i) worst = std::fmax(worst, std::fabs(a.data<float>()[i] - b.data<float>()[i]));
  return worst;
}

class ImportModels : public testing::TestWithParam<const char*> {};

TEST_P(ImportModels, GiveTheirLogitsInEitherOrderOfAxes) {
  const std::string name = GetParam();
  if (data(name + ".json").empty()) GTEST_SKIP() << "no data/models (VG_TEST_DATA)";
  test::Folder folder;
  write_model(folder / "m", import_meshnet({.weights = data(name + ".safetensors"), .config = data(name + ".json"), .licence = "MIT"}));
  const Model m = read_model(folder / "m");
  EXPECT_EQ(self_test(m, kCpu), 0.0f);
  const Recipe recipe = recipe_from_json(m.recipe, "recipe");
  EXPECT_EQ(recipe.axes, "ijk");
  EXPECT_EQ(recipe.conform, "meshnet");
  EXPECT_EQ(recipe.intensity.kind, "quantile");
  EXPECT_TRUE(recipe.intensity.clip);
  EXPECT_EQ(m.licence, "MIT");
  EXPECT_EQ(m.provenance.at("name"), name);

  const bool sub = name == "subcortical";
  const Safetensors crop = read_safetensors(data(name + (sub ? "-crop64" : "-crop32") + ".safetensors"));
  const Tensor& x = *crop.find("input32");
  const Tensor& wanted = *crop.find(name == "mindgrab" ? "logits32_erf" : "logits32");
  // A part of the block that is not a cube would be another problem at its border: the whole one is taken, and turned for the turned network.
  const Tensor straight = forward(m.graph, m.weights, x.reshaped({1, 32, 32, 32, 1}));
  const Tensor other = forward(permute_axes(m.graph), permute_axes(m.weights), turned(x, 32, 32, 32, 1));
  const std::int64_t classes = wanted.shape()[0];
  EXPECT_LE(largest_difference(turned(other, 32, 32, 32, classes), straight), 2e-3f);  // either within 1e-3 of PyTorch's, below
  float worst = 0;
  for (std::int64_t v = 0; v < 32768; ++v)
    for (std::int64_t c = 0; c < classes; ++c)
      worst = std::fmax(worst, std::fabs(straight.data<float>()[v * classes + c] - wanted.data<float>()[c * 32768 + v]));
  EXPECT_LE(worst, 1e-3f);
  // Without the turn the logits are others: the test would notice.
  EXPECT_GT(largest_difference(forward(m.graph, m.weights, turned(x, 32, 32, 32, 1)), other), 0.05f);
}

INSTANTIATE_TEST_SUITE_P(Published, ImportModels,
                         testing::Values("subcortical", "model18cls", "model20chan3cls", "model11_gw_ae", "mindgrab"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Import, LabelsOfSubcortical) {
  if (data("subcortical.json").empty()) GTEST_SKIP() << "no data/models (VG_TEST_DATA)";
  const Model m = import_meshnet(
      {.weights = data("subcortical.safetensors"), .config = data("subcortical.json"), .licence = "", .gelu = "erf", .golden = false});
  ASSERT_EQ(m.labels.size(), 18u);
  EXPECT_EQ(m.labels[0].id, 0);
  EXPECT_TRUE(m.labels[0].merged.empty());
  EXPECT_EQ(m.labels[7].id, 10);
  EXPECT_EQ(m.labels[7].name, "Thalamus");
  EXPECT_EQ(m.labels[7].merged, (std::vector<int>{10, 49}));
  EXPECT_EQ(m.labels[7].rgb[1], 118);
  EXPECT_EQ(m.labels[13].id, 16);
  EXPECT_TRUE(m.golden.empty());
  EXPECT_EQ(m.licence, "unknown");
}

TEST(Import, GeluMeansWhatIsAsked) {
  if (data("mindgrab.json").empty()) GTEST_SKIP() << "no data/models (VG_TEST_DATA)";
  const auto golden = [](const char* gelu) {
    return import_meshnet({.weights = data("mindgrab.safetensors"), .config = data("mindgrab.json"), .licence = "", .gelu = gelu})
        .golden[1]
        .second;
  };
  const float difference = largest_difference(golden("erf"), golden("tanh"));
  EXPECT_GT(difference, 1e-3f);
  EXPECT_LT(difference, 0.2f);
  message_of(ErrorCode::invalid_argument, [&] { golden("quick"); });
}

TEST(Import, ReadsTheFileOfVersion1) {
  const Model m = read_model(VG_SOURCE_DIR "/tests/layers/data/v1.safetensors");
  recipe_from_json(m.recipe, "recipe");
  for (const Device device : {kCpu, kSim}) EXPECT_LE(self_test(m, device), 1e-5f) << to_string(device);
  Model changed = m;
  changed.weights[0].second = copy_to(m.weights[0].second, kCpu);
  changed.weights[0].second.data<float>()[5] += 0.01f;
  EXPECT_GT(self_test(changed, kCpu), 1e-4f);
  changed.weights[0].second.data<float>()[5] = NAN;
  EXPECT_EQ(self_test(changed, kCpu), HUGE_VALF);
  changed.golden.clear();
  message_of(ErrorCode::bad_file, [&] { self_test(changed, kCpu); });
}

// A small network of our own with a description as those of data/models.
class SmallImport : public testing::Test {
 protected:
  SmallImport() {
    const Graph g = meshnet({.classes = 2, .channels = 3, .dilations = {1, 2}, .activation = "relu"});
    Safetensors s;
    std::uint64_t stream = 0;
    for (const ParamSpec& spec : param_specs(g)) {
      Random random(1, stream++);
      Tensor t(spec.shape, DType::f32, kCpu);
      for (std::int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = random.uniform(-1, 1);
      s.tensors.emplace_back(spec.name, t);
    }
    write_safetensors(folder_ / "w", s);
    const auto layer = [](int in, int out, int k, int d) {
      return Json{{"in_channels", in},         {"out_channels", out}, {"kernel_size", k},
                  {"padding", k == 3 ? d : 0}, {"stride", 1},         {"dilation", d}};
    };
    description_ = {{"name", "small"},
                    {"weights", "w"},
                    {"channels", 3},
                    {"n_classes", 2},
                    {"activation", "relu"},
                    {"norm", nullptr},
                    {"bnorm", false},
                    {"elu", false},
                    {"gelu", false},
                    {"bias", true},
                    {"dropout_p", 0},
                    {"parameters", 338},
                    {"input", "a head"},
                    {"classes", Json::array({{{"index", 0}, {"name", "background"}}, {{"index", 1}, {"name", "brain"}}})},
                    {"layers", Json::array({layer(1, 3, 3, 1), layer(3, 3, 3, 2), layer(3, 2, 1, 1)})}};
  }
  Model import(const Json& description) {
    test::put_bytes(folder_ / "c", description.dump());
    return import_meshnet({.weights = folder_ / "w", .config = folder_ / "c"});
  }
  std::string refused(const char* pointer, const Json& value, ErrorCode code = ErrorCode::bad_file) {
    Json j = description_;
    j[Json::json_pointer(pointer)] = value;
    return message_of(code, [&] { import(j); });
  }
  test::Folder folder_;
  Json description_;
};

TEST_F(SmallImport, Works) {
  const Model m = import(description_);
  EXPECT_EQ(m.weights.size(), 6u);
  EXPECT_EQ(m.labels[1].id, 1);
  EXPECT_EQ(m.labels[0].rgb[0] + m.labels[0].rgb[1] + m.labels[0].rgb[2], 0);
  EXPECT_GT(m.labels[1].rgb[0] + m.labels[1].rgb[1] + m.labels[1].rgb[2], 100);
  write_model(folder_ / "m", m);
  EXPECT_LE(self_test(read_model(folder_ / "m"), kCpu), 0.0f);
}

TEST_F(SmallImport, DescriptionsThatContradictAreRefused) {
  EXPECT_NE(refused("/colour", 1).find("unknown key \"colour\""), std::string::npos);
  EXPECT_NE(refused("/elu", true).find("activation is \"relu\", but elu is true"), std::string::npos);
  EXPECT_NE(refused("/activation", "elu").find("but elu is false"), std::string::npos);
  refused("/activation", "silu", ErrorCode::unsupported);
  EXPECT_NE(refused("/bnorm", true).find("bnorm and norm contradict"), std::string::npos);
  refused("/norm", "batch norm", ErrorCode::unsupported);
  refused("/norm", "instance norm per channel, no affine, eps 1e-5, somewhere");
  EXPECT_NE(refused("/bias", false).find("unexpected \"model.0.bias\""), std::string::npos);
  refused("/last_layer_bias", false, ErrorCode::unsupported);
  EXPECT_NE(refused("/parameters", 337).find("parameters is 337, the network has 338"), std::string::npos);
  EXPECT_NE(refused("/channels", 4, ErrorCode::unsupported).find("layers[0]: out_channels is 3, a MeshNet has 4"), std::string::npos);
  EXPECT_NE(refused("/n_classes", 3, ErrorCode::unsupported).find("layers[2]: out_channels is 2"), std::string::npos);
  EXPECT_NE(refused("/layers/1/padding", 1, ErrorCode::unsupported).find("layers[1]: padding is 1, a MeshNet has 2"), std::string::npos);
  EXPECT_NE(refused("/layers/1/stride", 2, ErrorCode::unsupported).find("stride is 2"), std::string::npos);
  EXPECT_NE(refused("/layers/1/groups", 3).find("unknown key \"groups\""), std::string::npos);
  refused("/layers/2/kernel_size", 3, ErrorCode::unsupported);
  refused("/layers", Json::array());
  EXPECT_NE(refused("/classes/1/index", 2).find("index is 2, wanted 1"), std::string::npos);
  EXPECT_NE(refused("/classes/1/freesurfer_ids", {0}).find("belongs to two classes"), std::string::npos);
  refused("/classes/1/freesurfer_ids", Json::array());
  refused("/classes/1/rgb", {1, 2});
  refused("/classes/1/rgb", {1, 2, 300});
  Json j = description_;
  j["classes"].erase(1);
  EXPECT_NE(message_of(ErrorCode::bad_file, [&] { import(j); }).find("classes wants a list of 2"), std::string::npos);
  for (const auto& item : description_.items()) {
    if (item.key() == "weights" || item.key() == "dropout_p" || item.key() == "input" || item.key() == "elu" || item.key() == "gelu")
      continue;
    Json less = description_;
    less.erase(item.key());
    EXPECT_NE(message_of(ErrorCode::bad_file, [&] { import(less); }).find("\"" + item.key() + "\" is missing"), std::string::npos);
  }
}

// The exit status of bin/segimport with these arguments.
int segimport(std::vector<std::string> args) {
  args.insert(args.begin(), VG_BIN_DIR "/segimport");
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<char*> argv;
    for (std::string& a : args) argv.push_back(a.data());
    argv.push_back(nullptr);
    if (!std::freopen("/dev/null", "w", stderr) || !std::freopen("/dev/null", "w", stdout)) ::_exit(126);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

TEST_F(SmallImport, TheProgram) {
  if (!std::filesystem::exists(VG_BIN_DIR "/segimport")) GTEST_SKIP() << "segimport is not built";
  test::put_bytes(folder_ / "c", description_.dump());
  EXPECT_EQ(segimport({folder_ / "w", "--config", folder_ / "c", "-o", folder_ / "m", "--licence", "MIT"}), 0);
  EXPECT_EQ(read_model(folder_ / "m").licence, "MIT");
  EXPECT_EQ(segimport({folder_ / "c", "--config", folder_ / "c", "-o", folder_ / "n"}), 1);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "n"));
  EXPECT_EQ(segimport({folder_ / "w"}), 2);
  EXPECT_EQ(segimport({folder_ / "w", "--config", folder_ / "c", "-o", folder_ / "m", "--gelu", "fast"}), 2);
  EXPECT_EQ(segimport({"--help"}), 0);
}

}  // namespace
}  // namespace vg

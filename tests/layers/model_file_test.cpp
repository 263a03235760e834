// The model file: what is written is read, damage and strangers are refused, version 1 stays readable.
#include "layers/model_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "layers/json.h"
#include "layers/unet.h"
#include "tensor/random.h"
#include "tests/layers/files.h"

namespace vg {
namespace {

using test::message_of;
constexpr const char* kV1 = VG_SOURCE_DIR "/tests/layers/data/v1.safetensors";

Tensor uniform(Shape shape, std::uint64_t stream) {
  Random random(3, stream);
  Tensor t(shape, DType::f32, kCpu);
  for (std::int64_t i = 0; i < t.elements(); ++i) t.data<float>()[i] = random.uniform(-1, 1);
  return t;
}

// tests/layers/data/v1.safetensors is write_model(tiny()) of the day when version 1 was made, with golden.logits of the cpu device.
Model tiny() {
  Model m;
  m.graph = meshnet({.classes = 3, .channels = 2, .dilations = {1, 2}});
  std::uint64_t stream = 0;
  for (const ParamSpec& s : param_specs(m.graph)) m.weights.emplace_back(s.name, uniform(s.shape, stream++));
  m.labels = {{.id = 0, .name = "Unknown", .rgb = {0, 0, 0}, .pair = -1, .merged = {}},
              {.id = 17, .name = "Left-Hippocampus", .rgb = {220, 216, 20}, .pair = 2, .merged = {}},
              {.id = 53, .name = "Right-Hippocampus", .rgb = {220, 216, 20}, .pair = 1, .merged = {53, 54}}};
  m.recipe = parse_json(
      R"({"axes":"kji","conform":"none","divisor":[],"intensity":{"clip":true,"high":0.98,"kind":"quantile","low":0.02,"mask":"whole"},)"
      R"("orientation":"","overlap":0.5,"per_slice":false,"slices":"","spacing":[],"window":[]})",
      "recipe");
  m.calibration = {{"temperature", 1.25}};
  m.licence = "Apache-2.0; \"tiny\"\n";
  m.provenance = {{"made by", "a test"}};
  m.golden = {{"golden.input", uniform({1, 1, 4, 5, 6}, 10)}, {"golden.logits", uniform({1, 3, 4, 5, 6}, 11)}};
  m.other = {{"train.epoch", "7"}};
  Tensor counts({3}, DType::u8, kCpu);
  for (int i = 0; i < 3; ++i) counts.data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i);
  m.extra = {{"state.counts", counts}, {"state.moment", uniform({5}, 12)}};
  return m;
}

using Tensors = std::vector<std::pair<std::string, Tensor>>;
void expect_same(const Tensors& a, const Tensors& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, t] : a) {
    const auto found = std::find_if(b.begin(), b.end(), [&](const auto& other) { return other.first == name; });
    ASSERT_NE(found, b.end()) << name;
    ASSERT_EQ(t.shape(), found->second.shape()) << name;
    ASSERT_EQ(t.dtype(), found->second.dtype()) << name;
    EXPECT_EQ(std::memcmp(t.raw(), found->second.raw(), t.bytes()), 0) << name;
  }
}

void expect_same(const Model& a, const Model& b) {
  EXPECT_EQ(to_json(a.graph), to_json(b.graph));
  EXPECT_EQ(a.recipe, b.recipe);
  EXPECT_EQ(a.calibration, b.calibration);
  EXPECT_EQ(a.provenance, b.provenance);
  EXPECT_EQ(a.licence, b.licence);
  EXPECT_EQ(a.other, b.other);
  ASSERT_EQ(a.labels.size(), b.labels.size());
  for (std::size_t i = 0; i < a.labels.size(); ++i) {
    EXPECT_EQ(a.labels[i].id, b.labels[i].id);
    EXPECT_EQ(a.labels[i].name, b.labels[i].name);
    EXPECT_TRUE(std::equal(a.labels[i].rgb, a.labels[i].rgb + 3, b.labels[i].rgb));
    EXPECT_EQ(a.labels[i].pair, b.labels[i].pair);
    EXPECT_EQ(a.labels[i].merged, b.labels[i].merged);
  }
  expect_same(a.weights, b.weights), expect_same(a.golden, b.golden), expect_same(a.extra, b.extra);
}

class ModelFile : public testing::Test {
 protected:
  // A file with this content and a matching hash: the safetensors of tiny(), changed by `change` before it is written.
  template <class Change>
  std::string changed(Change change, bool rehash = true) {
    write_model(folder_ / "good", tiny());
    Safetensors s = read_safetensors(folder_ / "good");
    change(s);
    write_safetensors(folder_ / "bad", s);
    if (rehash) {  // the refusal tells the hash that it computed
      const std::string message = message_of(ErrorCode::bad_file, [&] { read_model(folder_ / "bad"); });
      const std::size_t at = message.find("SHA-256 of the content is ");
      EXPECT_NE(at, std::string::npos) << message;
      s.metadata["vg.sha256"] = message.substr(at + 26, 64);
      write_safetensors(folder_ / "bad", s);
    }
    return folder_ / "bad";
  }
  template <class Change>
  std::string refusal(Change change, bool rehash = true) {
    const std::string path = changed(change, rehash);
    const std::string message = message_of(ErrorCode::bad_file, [&] { read_model(path); });
    EXPECT_TRUE(message.starts_with(path + ": ")) << message;
    return message;
  }
  test::Folder folder_;
};

TEST_F(ModelFile, WhatIsWrittenIsRead) {
  write_model(folder_ / "a", tiny());
  const Model r = read_model(folder_ / "a");
  EXPECT_TRUE(r.warnings.empty());
  expect_same(r, tiny());
  write_model(folder_ / "b", r);
  EXPECT_EQ(test::bytes_of(folder_ / "a"), test::bytes_of(folder_ / "b"));
}

TEST_F(ModelFile, Version1StaysReadable) {
  const Model r = read_model(kV1);
  EXPECT_TRUE(r.warnings.empty());
  Model wanted = tiny();
  wanted.golden = r.golden;
  expect_same(r, wanted);
  // The hash as an independent program computes it: python3 tests/layers/model_file_hash.py tests/layers/data/v1.safetensors
  EXPECT_EQ(read_safetensors_metadata(kV1).at("vg.sha256"), "a605908f07cf6b1b78c9aa319411774d17eefd51c95513949c07f73d84985a47");
}

// A flipped bit in a weight would still give plausible labels: every byte of the file counts.
TEST_F(ModelFile, EveryFlippedBitIsRefused) {
  const std::string bytes = test::bytes_of(kV1);
  ASSERT_GT(bytes.size(), 3000u);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
    EXPECT_THROW(parse_model(std::as_bytes(std::span(damaged.data(), damaged.size())), "damaged"), Error) << "byte " << i;
  }
}

TEST_F(ModelFile, Versions) {
  EXPECT_NE(refusal([](Safetensors& s) { s.metadata.erase("vg.format"); }, false).find("not a voxgrad model"), std::string::npos);
  EXPECT_NE(refusal([](Safetensors& s) { s.metadata["vg.format"] = "2"; }, false).find("version 2, this program reads version 1"),
            std::string::npos);
  for (const char* text : {"", "one", "1.", ".1", "1.x", "01", "-1", "1.2.3", "99999999999999999999"})
    refusal([&](Safetensors& s) { s.metadata["vg.format"] = text; }, false);
  const Model later = read_model(changed([](Safetensors& s) { s.metadata["vg.format"] = "1.4"; }));
  ASSERT_EQ(later.warnings.size(), 1u);
  EXPECT_NE(later.warnings[0].find("later version (1.4)"), std::string::npos);
}

TEST_F(ModelFile, UnknownKeysAreKeptAndNamed) {
  const Model r = read_model(changed([](Safetensors& s) { s.metadata["vg.colour"] = "blue", s.metadata["mine"] = "x"; }));
  ASSERT_EQ(r.warnings.size(), 1u);
  EXPECT_NE(r.warnings[0].find("unknown key \"vg.colour\""), std::string::npos);
  EXPECT_EQ(r.other.at("vg.colour"), "blue");
  EXPECT_EQ(r.other.at("mine"), "x");
  write_model(folder_ / "again", r);
  EXPECT_EQ(read_model(folder_ / "again").other, r.other);
}

TEST_F(ModelFile, HashMismatch) {
  EXPECT_NE(refusal([](Safetensors& s) { s.metadata["vg.licence"] = "mine"; }, false).find("damaged: SHA-256"), std::string::npos);
  EXPECT_NE(
      refusal([](Safetensors& s) { const_cast<Tensor&>(*s.find("model.0.weight")).data<float>()[3] += 1e-6f; }, false).find("damaged"),
      std::string::npos);
  EXPECT_NE(refusal([](Safetensors& s) { s.metadata.erase("vg.sha256"); }, false).find("vg.sha256 is missing"), std::string::npos);
  // Two tensors of one shape that change places.
  EXPECT_NE(refusal(
                [](Safetensors& s) {
                  for (auto& [name, t] : s.tensors)
                    name = name == "model.0.bias" ? "model.2.bias" : name == "model.2.bias" ? "model.0.bias" : name;
                },
                false)
                .find("damaged"),
            std::string::npos);
}

TEST_F(ModelFile, StrictOnBothSides) {
  const auto rename = [](const char* from, const char* to) {
    return [=](Safetensors& s) {
      for (auto& [name, t] : s.tensors)
        if (name == from) name = to;
    };
  };
  const auto replace = [](const char* which, Tensor t) {
    return [=](Safetensors& s) {
      for (auto& [name, old] : s.tensors)
        if (name == which) old = t;
    };
  };
  EXPECT_NE(refusal(rename("model.2.bias", "model.3.bias")).find("missing \"model.2.bias\", unexpected \"model.3.bias\""),
            std::string::npos);
  EXPECT_NE(refusal([](Safetensors& s) { s.tensors.clear(); }).find("missing \"model.0.weight\" and 5 more"), std::string::npos);
  EXPECT_NE(refusal([](Safetensors& s) { s.tensors.emplace_back("more", uniform({1}, 1)); }).find("unexpected \"more\""),
            std::string::npos);
  EXPECT_NE(refusal(replace("model.2.bias", uniform({3}, 0))).find("tensor \"model.2.bias\" is (3), the network wants (2)"),
            std::string::npos);
  EXPECT_NE(refusal(replace("model.2.bias", zeros({2}, DType::i32, kCpu))).find("is i32"), std::string::npos);
  for (const char* key : {"vg.graph", "vg.recipe", "vg.labels", "vg.calibration", "vg.licence", "vg.provenance"})
    EXPECT_NE(refusal([&](Safetensors& s) { s.metadata.erase(key); }).find(std::string(key) + " is missing"), std::string::npos);
  for (const char* key : {"vg.recipe", "vg.calibration", "vg.provenance"}) {
    EXPECT_NE(refusal([&](Safetensors& s) { s.metadata[key] = "[]"; }).find("wanted an object, found array"), std::string::npos);
    EXPECT_NE(refusal([&](Safetensors& s) { s.metadata[key] = "{\"a\":1,\"a\":1}"; }).find("the key \"a\" is given twice"),
              std::string::npos);
    EXPECT_NE(refusal([&](Safetensors& s) { s.metadata[key] = "{\"a\":" + std::string(100'000, '['); }).find("nested deeper"),
              std::string::npos);
  }
  EXPECT_NE(refusal([](Safetensors& s) { s.metadata["vg.graph"] = "nonsense"; }).find("vg.graph: not JSON"), std::string::npos);
}

TEST_F(ModelFile, Labels) {
  const auto with = [&](auto change) {
    return refusal([&](Safetensors& s) {
      Json labels = parse_json(s.metadata.at("vg.labels"), "labels");
      change(labels);
      s.metadata["vg.labels"] = labels.dump();
    });
  };
  EXPECT_NE(with([](Json& l) { l.erase(2), l[1]["pair"] = -1; }).find("2 labels for a network with 3 output channels"), std::string::npos);
  EXPECT_NE(with([](Json& l) { l[1]["id"] = 0; }).find("vg.labels[1]: the id 0 is given twice"), std::string::npos);
  EXPECT_NE(with([](Json& l) { l[1]["pair"] = 0; }).find("pair 0 is not another class"), std::string::npos);
  EXPECT_NE(with([](Json& l) { l[1]["pair"] = 1; }).find("pair 1 is not"), std::string::npos);
  EXPECT_NE(with([](Json& l) { l[1]["pair"] = 3; }).find("pair 3 is not"), std::string::npos);
  EXPECT_NE(with([](Json& l) { l[2]["rgb"] = {0, 0, 256}; }).find("rgb wants"), std::string::npos);
  EXPECT_NE(with([](Json& l) { l[2]["rgb"] = {0, 0}; }).find("rgb wants"), std::string::npos);
  EXPECT_NE(with([](Json& l) { l[2]["colour"] = "red"; }).find("unknown key \"colour\""), std::string::npos);
  EXPECT_NE(with([](Json& l) { l[2].erase("name"); }).find("\"name\" is missing"), std::string::npos);
  EXPECT_NE(with([](Json& l) { l = Json::object(); }).find("wanted a list"), std::string::npos);
}

TEST_F(ModelFile, RefusesToWriteWhatItWouldNotRead) {
  const auto refused = [&](auto change) {
    Model m = tiny();
    change(m);
    message_of(ErrorCode::invalid_argument, [&] { write_model(folder_ / "x", m); });
    EXPECT_FALSE(std::filesystem::exists(folder_ / "x"));
  };
  refused([](Model& m) { m.weights.pop_back(); });
  refused([](Model& m) { m.weights.push_back(m.weights[0]); });
  refused([](Model& m) { m.weights.emplace_back("golden.weight", uniform({1}, 0)); });
  refused([](Model& m) { m.golden[0].first = "input"; });
  refused([](Model& m) { m.extra[0].first = "moment"; });
  refused([](Model& m) { m.other["vg.graph"] = "{}"; });
  refused([](Model& m) { m.labels.pop_back(); });
  refused([](Model& m) { m.labels[1].pair = 1; });
  refused([](Model& m) { m.recipe = Json::array(); });
  refused([](Model& m) { m.provenance["x"] = "\xff"; });
  refused([](Model& m) { m.licence = "\xff"; });
}

TEST_F(ModelFile, KnowsItsOwn) {
  write_model(folder_ / "model", tiny());
  write_safetensors(folder_ / "weights", {tiny().weights, {}});
  test::put_bytes(folder_ / "text", "hello, world");
  EXPECT_TRUE(is_model_file(folder_ / "model"));
  EXPECT_FALSE(is_model_file(folder_ / "weights"));
  EXPECT_FALSE(is_model_file(folder_ / "text"));
  message_of(ErrorCode::io, [&] { is_model_file(folder_ / "none"); });
}

TEST_F(ModelFile, WeightsGoIntoANetworkAndComeBack) {
  const Model m = tiny();
  for (const Device device : {kCpu, kSim}) {
    Network net(m.graph, device, false);
    load_weights(net, m.weights, "m");
    expect_same(save_weights(net), m.weights);
  }
  // Half precision is widened; a failed load changes nothing.
  Network net(m.graph, kCpu, false);
  load_weights(net, m.weights, "m");
  Tensors half = m.weights;
  half[1].second = Tensor({2}, DType::bf16, kCpu);
  half[1].second.data<bf16>()[0] = bf16::from(0.5f), half[1].second.data<bf16>()[1] = bf16::from(-3.0f);
  half[3].second = Tensor({2}, DType::f16, kCpu);
  half[3].second.data<f16>()[0] = f16::from(0.25f), half[3].second.data<f16>()[1] = f16::from(7.0f);
  Tensors bad = half;
  bad.pop_back();
  EXPECT_NE(message_of(ErrorCode::bad_file, [&] { load_weights(net, bad, "m.safetensors"); }).find("m.safetensors: "), std::string::npos);
  expect_same(save_weights(net), m.weights);
  load_weights(net, half, "m");
  EXPECT_EQ(to_host<float>(net.params.at("model.0.bias").value), (std::vector<float>{0.5f, -3.0f}));
  EXPECT_EQ(to_host<float>(net.params.at("model.2.bias").value), (std::vector<float>{0.25f, 7.0f}));
}

}  // namespace
}  // namespace vg

// seginfo's view of safetensors files that are no models: every tensor with type, shape and range.
#include <gtest/gtest.h>

#include <limits>

#include "layers/describe_model.h"

namespace vg {
namespace {

TEST(DescribeSafetensors, NamesTypesShapesAndRanges) {
  Safetensors s;
  Tensor a({2, 3}, DType::f32, kCpu), b({5}, DType::u8, kCpu);
  for (int n = 0; n < 6; ++n) a.data<float>()[n] = static_cast<float>(n) - 2;
  a.data<float>()[4] = std::numeric_limits<float>::infinity();
  s.tensors = {{"conv.weight", a}, {"mask", b}, {"empty", Tensor({0, 3}, DType::f32, kCpu)}};
  s.metadata["format"] = "pt";
  const Json j = describe_safetensors(s, "w.safetensors");
  EXPECT_EQ(j["elements"], 11);
  EXPECT_EQ(j["tensors"][0]["shape"], Json({2, 3}));
  EXPECT_EQ(j["tensors"][0]["min"], -2);
  EXPECT_EQ(j["tensors"][0]["not_finite"], 1);
  EXPECT_FALSE(j["tensors"][1].contains("min"));
  EXPECT_FALSE(j["tensors"][2].contains("min"));
  const std::string text = safetensors_text(j);
  for (const char* part : {"w.safetensors", "3 tensors, 11 numbers", "format = pt", "[2,3]", "conv.weight", "NaN or infinite"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

}  // namespace
}  // namespace vg

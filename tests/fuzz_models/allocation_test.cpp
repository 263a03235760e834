// The law of allocation for model files: a header that declares more than the file holds is refused before memory is asked for.
#include "tests/nifti/counted_malloc.h"

#include <gtest/gtest.h>

#include <cstring>

#include "layers/json.h"
#include "layers/model_file.h"

#if VG_COUNTS_MALLOC
namespace vg {
namespace {

std::size_t peak_of(const std::string& header, std::size_t data) {
  const std::uint64_t n = header.size();
  std::string file(reinterpret_cast<const char*>(&n), 8);
  file += header;
  file.append(data, '\0');
  return test::peak_of([&] { EXPECT_THROW(parse_safetensors(std::as_bytes(std::span(file)), "x.safetensors"), Error); });
}

TEST(AllocationLaw, Safetensors) {
  constexpr std::size_t kMuch = 1 << 20;
  EXPECT_LT(peak_of(R"({"a":{"dtype":"F32","shape":[1000,1000,1000],"data_offsets":[0,4000000000]}})", 8), kMuch);
  EXPECT_LT(peak_of(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0), kMuch);
  EXPECT_LT(peak_of(R"({"a":{"dtype":"F64","shape":[9223372036854775807,0],"data_offsets":[0,8]}})", 8), kMuch);
  EXPECT_LT(peak_of(R"({"a":{"dtype":"F32","shape":)" + std::string(kMuch, '['), 0), 5 * kMuch);
  std::string many = "{";
  for (int k = 0; k < 20'000; ++k) many += (k ? ",\"" : "\"") + std::to_string(k) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_LT(peak_of(many + "}", 1), (std::size_t{64} << 20) + 4 * many.size()) << "one byte that no tensor covers";
}

TEST(AllocationLaw, Json) {
  for (const char* piece : {"[", "{\"a\":", "[1,"}) {
    std::string text;
    while (text.size() < 1 << 20) text += piece;
    EXPECT_LT(test::peak_of([&] { EXPECT_THROW(parse_json(text, "x.json"), Error); }), std::size_t{64} << 20) << piece;
  }
}

}  // namespace
}  // namespace vg
#endif

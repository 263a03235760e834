// What fuzzing found in readers of model files and configurations, each with its reason; the inputs are in the corpus as well.
#include <gtest/gtest.h>

#include "layers/graph.h"
#include "layers/json.h"

namespace vg {
namespace {

// The library casts any number to int: undefined where it does not fit, silent where it is 1.5.
TEST(Findings, GraphNumbersAreIntegersOfTheirRange) {
  for (const char* number : {"2.1e32", "1.5", "true", "\"2\"", "4294967298", "null"})
    for (const char* key : {"spatial_dims", "in_channels"}) {
      Json j = parse_json(R"({"spatial_dims":2,"in_channels":1,"outputs":["a"],"nodes":[{"name":"a","op":"activation","inputs":["input"],"attributes":{"kind":"relu"}}]})", "x");
      EXPECT_NO_THROW(graph_from_json(j, "x"));
      j[key] = parse_json(number, "x");
      try {
        graph_from_json(j, "x");
        ADD_FAILURE() << key << " = " << number << " was accepted";
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::bad_file);
        EXPECT_NE(std::string(e.what()).find(key), std::string::npos) << e.what();
      }
    }
}

}  // namespace
}  // namespace vg

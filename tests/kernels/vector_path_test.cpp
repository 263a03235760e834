// Every vector path that this machine has gives right results, and for any number of threads the same bits: a forward pass, a data gradient and
// a weight gradient of shapes that take the plain sum and Winograd's tiles.
#include "kernels/conv_plan.h"
#include "kernels/norm.h"
#include "kernels/vector_path.h"
#include "tensor/parallel.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

struct Layer {
  Shape x, y, w;
  std::int32_t stride;
};
const Layer kLayers[] = {{{2, 12, 13, 17, 16}, {2, 12, 13, 17, 18}, {18, 16, 3, 3, 3}, 1},
                         {{1, 1, 33, 31, 40}, {1, 1, 33, 31, 33}, {33, 40, 1, 3, 3}, 1},
                         {{2, 1, 17, 16, 33}, {2, 1, 9, 8, 34}, {34, 33, 1, 3, 3}, 2},
                         {{2, 1, 20, 33, 99}, {2, 1, 20, 33, 130}, {130, 99, 1, 3, 3}, 1}};

ConvParams params_of(const Layer& l) {
  ConvParams p;
  for (int a = 0; a < 3; ++a) p.pad[a] = static_cast<std::int32_t>(l.w[2 + a] / 2), p.stride[a] = l.w[2 + a] > 1 ? l.stride : 1;
  return p;
}

// Layers of which some pass is computed by the matrix unit.
int layers_by_matrix_unit() {
  int count = 0;
  for (const Layer& l : kLayers)
    for (const ConvPass pass : {ConvPass::forward, ConvPass::data, ConvPass::weight}) count += conv_algorithm(pass, l.y, l.x, l.w, params_of(l), {}) == "AMX";
  return count;
}

std::vector<std::vector<float>> results(const Layer& l) {
  ScratchOwner scratch(kCpu);
  const Exec ex{kCpu, &scratch, nullptr};
  const Tensor x = from_host(normals(l.x.elements(), 1), l.x, kCpu), w = from_host(normals(l.w.elements(), 2, 0.0, 0.1), l.w, kCpu),
               dy = from_host(normals(l.y.elements(), 3), l.y, kCpu);
  const ConvParams p = params_of(l);
  Tensor y(l.y, DType::f32, kCpu), dx(l.x, DType::f32, kCpu), dw(l.w, DType::f32, kCpu);
  Tensor mean({l.x.n(), l.x.c()}, DType::f32, kCpu), rstd(mean.shape(), DType::f32, kCpu);
  conv_forward(ex, y, x, Tensor(), w, Tensor(), p);
  conv_backward_data(ex, Grad{dx}, Grad{}, dy, w, Tensor(), p);
  conv_backward_weight(ex, Grad{dw}, dy, x, Tensor(), p);
  norm_statistics(ex, mean, rstd, x, NormParams{});
  return {to_host<float>(y), to_host<float>(dx), to_host<float>(dw), to_host<float>(mean), to_host<float>(rstd)};
}

TEST(VectorPath, EveryPathIsRightAndTheSameForAnyThreads) {
  choose_vector_path("scalar");
  std::vector<std::vector<std::vector<float>>> want;
  for (const Layer& l : kLayers) want.push_back(results(l));
  int paths = 0;
  for (const char* path : {"amx", "avx512", "avx2", "sse4", "neon", "scalar"}) {
    try {
      choose_vector_path(path);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::unsupported);
      continue;
    }
    SCOPED_TRACE(path);
    EXPECT_EQ(vector_path(), path);
    EXPECT_EQ(layers_by_matrix_unit() >= 3, path == std::string("amx"));
    ++paths;
    for (std::size_t i = 0; i < std::size(kLayers); ++i) {
      set_threads(1);
      const auto one = results(kLayers[i]);
      for (std::size_t k = 0; k < one.size(); ++k) expect_close(one[k], doubles(want[i][k]), {.relative = 3e-5});
      for (int threads = 2; threads <= 8; ++threads) {
        set_threads(threads);
        EXPECT_TRUE(results(kLayers[i]) == one) << threads << " threads, layer " << i;
      }
    }
  }
  EXPECT_GE(paths, 2);
  choose_vector_path("");
  set_threads(0);
}

TEST(VectorPath, UnknownNamesAreRefused) {
  try {
    choose_vector_path("avx1024");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_NE(std::string(e.what()).find("scalar"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace vg::test

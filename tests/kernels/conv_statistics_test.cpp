// Statistics that a convolution makes of its result on the way: against a double reference of the numbers that it stored, whatever made them.
#include <cmath>

#include "kernels/conv.h"
#include "tests/kernels/conv_reference.h"
#include "tests/kernels/harness.h"

namespace vg::test {
namespace {

using namespace conv;

// All widths of the tensor cores' tiles, single taps, boxes that hang over the border, dilation, two sources, rows of channels that are no multiple of 8,
// shared-out chunks (few voxels, many channels: statistics are then a pass of their own), and more boxes than are merged at once.
const Case kCases[] = {
    {2, {5, 10, 17}, 32, 0, 32, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
    {3, {1, 12, 17}, 24, 0, 66, {1, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 1, 1}},
    {2, {6, 9, 33}, 8, 16, 12, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
    {1, {5, 9, 10}, 24, 0, 32, {3, 3, 3}, {1, 1, 1}, {2, 4, 3}, {2, 4, 3}},
    {2, {9, 9, 10}, 16, 8, 48, {3, 3, 3}, {2, 2, 2}, {1, 1, 1}, {1, 1, 1}},
    {2, {8, 10, 12}, 64, 0, 40, {1, 1, 1}},
    {2, {2, 3, 5}, 256, 0, 24, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
    {1, {1, 130, 140}, 8, 0, 16, {1, 1, 1}},
    {2, {20, 30, 32}, 16, 0, 8, {1, 1, 1}},
    {2, {1, 130, 140}, 3, 0, 20, {1, 1, 1}},
};

struct Moments {
  std::vector<double> mean, rstd;
};
Moments reference(const std::vector<float>& y, const Shape& s, bool batch, double eps) {
  const std::int64_t C = s.c(), groups = batch ? 1 : s.n(), count = s.n() * s.voxels() / groups;
  Moments m{std::vector<double>(static_cast<std::size_t>(groups * C)), std::vector<double>(static_cast<std::size_t>(groups * C))};
  for (std::int64_t g = 0; g < groups; ++g)
    for (std::int64_t c = 0; c < C; ++c) {
      double sum = 0, squares = 0;
      const auto at = [&](std::int64_t v) { return static_cast<double>(y[static_cast<std::size_t>((g * count + v) * C + c)]); };
      for (std::int64_t v = 0; v < count; ++v) sum += at(v);
      const double mean = sum / static_cast<double>(count);
      for (std::int64_t v = 0; v < count; ++v) squares += (at(v) - mean) * (at(v) - mean);
      m.mean[static_cast<std::size_t>(g * C + c)] = mean;
      m.rstd[static_cast<std::size_t>(g * C + c)] = 1 / std::sqrt(squares / static_cast<double>(count) + eps);
    }
  return m;
}

VG_COVERS(conv_forward_statistics);

class ConvolutionStatistics : public ::testing::TestWithParam<std::tuple<Case, DType>> {};

TEST_P(ConvolutionStatistics, AreThoseOfTheStoredResult) {
  const auto& [c, type] = GetParam();
  // A bias far from 0, different for each channel: deviations must not drown in it.
  const std::vector<float> x = normals(c.x_shape(c.inputs()).elements(), 1), w = normals(c.w_shape().elements(), 2), b = normals(c.o, 3, 20, 10);
  NormParams norm;
  norm.eps = 1e-3f;
  Bits bits;
  for (const KernelRun& run : runs_of(conv_forward_statistics)) {
    if (run.device == kCpu && type != DType::f32) continue;
    SCOPED_TRACE(run.name);
    const Tensor x0 = run.put(columns(x, c.inputs(), 0, c.i0), c.x_shape(c.i0), type),
                 x1 = c.i1 ? run.put(columns(x, c.inputs(), c.i0, c.i1), c.x_shape(c.i1), type) : Tensor(), weights = run.put(w, c.w_shape());
    Tensor plain = run.blank(c.y_shape(), type);
    conv_forward(run.exec(), plain, x0, x1, weights, run.put(b), c.params());
    for (const bool batch : {false, true}) {
      SCOPED_TRACE(batch ? "batch" : "instance");
      Tensor y = run.blank(c.y_shape(), type), mean = run.blank({batch ? 1 : c.n, c.o}), rstd = run.blank(mean.shape());
      conv_forward_statistics(run.exec(), y, mean, rstd, x0, x1, weights, run.put(b), c.params(), norm);
      const std::vector<float> stored = floats_of(y);
      EXPECT_EQ(stored, floats_of(plain));
      const Moments want = reference(stored, c.y_shape(), batch, norm.eps);
      expect_close(mean, want.mean, {.relative = 2e-6});
      expect_close(rstd, want.rstd, {.relative = 1e-5});
      bits.same(run, mean, batch ? "mean of the batch" : "mean"), bits.same(run, rstd, batch ? "rstd of the batch" : "rstd");
    }
  }
}

// In halves by turns: what differs between them is one instruction.
std::vector<std::tuple<Case, DType>> cases_and_types() {
  std::vector<std::tuple<Case, DType>> all;
  for (std::size_t i = 0; i < std::size(kCases); ++i) all.emplace_back(kCases[i], DType::f32), all.emplace_back(kCases[i], i % 2 ? DType::f16 : DType::bf16);
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, ConvolutionStatistics, ::testing::ValuesIn(cases_and_types()));

}  // namespace
}  // namespace vg::test

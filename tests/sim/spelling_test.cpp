// Every word of CUDA that kernels may use does what NVIDIA's documents say: each kernel of every_spelling.cu against a plain C++ reference, in every
// order of turns and for several workers, equal to the bit.
#include "tests/sim/every_spelling.cu"

#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/random.h"
#include "tests/sim/helpers.h"

namespace vg {
namespace {

using testing_sim::everywhere;

std::vector<float> noise(std::size_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(random.uniform()) * 2.0f - 1.0f;
  return v;
}

TEST(Spelling, BuiltInVariablesInThreeDimensions) {
  everywhere([] {
    const dim3 grid(3, 2, 2), block(5, 3, 2);
    std::vector<int> out(12 * 30, -1);
    SIMT_LAUNCH(spelling::who_am_i, grid, block, 0, nullptr, out.data());
    std::size_t i = 0;
    for (int bz = 0; bz < 2; ++bz)
      for (int by = 0; by < 2; ++by)
        for (int bx = 0; bx < 3; ++bx)
          for (int z = 0; z < 2; ++z)
            for (int y = 0; y < 3; ++y)
              for (int x = 0; x < 5; ++x, ++i) ASSERT_EQ(out[i], x + 100 * y + 10000 * z + 1000000 * (bx + 10 * by + 100 * bz));
  });
}

TEST(Spelling, VectorLoadsAndTemplates) {
  everywhere([] {
    for (std::int64_t n4 : {1, 7, 128, 1025}) {
      const std::size_t n = static_cast<std::size_t>(4 * n4);
      const std::vector<float> a = noise(n, 1), b = noise(n, 2);
      std::vector<float4> x(n / 4), y(n / 4);
      std::memcpy(x.data(), a.data(), 4 * n);
      std::memcpy(y.data(), b.data(), 4 * n);
      spelling::run_axpy4(&y[0].x, &x[0].x, 0.5f, n4, nullptr);
      const float* result = &y[0].x;
      for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(result[i], b[i] + 0.5f * a[i]);
    }
  });
}

TEST(Spelling, StaticSharedMemoryAndBarrier) {
  everywhere([] {
    for (const auto& [rows, columns] : {std::pair{1, 1}, {7, 33}, {17, 16}, {40, 65}}) {
      const std::vector<float> in = noise(static_cast<std::size_t>(rows * columns), 3);
      std::vector<float> out(in.size());
      const dim3 grid(simt::blocks_for(columns, 16), simt::blocks_for(rows, 16));
      SIMT_LAUNCH(spelling::transpose, grid, dim3(16, 16), 0, nullptr, out.data(), in.data(), rows, columns);
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) ASSERT_EQ(out[c * rows + r], in[r * columns + c]);
    }
  });
}

TEST(Spelling, DynamicSharedMemory) {
  everywhere([] {
    for (unsigned threads : {1u, 33u, 256u, 1024u}) {
      std::vector<float> data(threads);
      for (unsigned i = 0; i < threads; ++i) data[i] = static_cast<float>(i % 13);
      std::vector<float> want(threads);
      std::partial_sum(data.begin(), data.end(), want.begin());
      SIMT_LAUNCH(spelling::scan, 1, threads, threads * sizeof(float), nullptr, data.data(), static_cast<int>(threads));
      ASSERT_EQ(data, want);
    }
  });
}

TEST(Spelling, BlockSumHasOneOrder) {
  for (unsigned threads : {32u, 96u, 256u, 1024u}) {
    const int rows = 5, n = 1000;
    const std::vector<float> in = noise(static_cast<std::size_t>(rows * n), 4);
    std::vector<float> first;
    everywhere([&] {
      std::vector<float> out(2 * rows);
      SIMT_LAUNCH(spelling::row_moments, rows, threads, 0, nullptr, out.data(), in.data(), n);
      if (first.empty()) first = out;
      ASSERT_EQ(out, first);
    });
    for (int r = 0; r < rows; ++r) {
      double sum = 0, squares = 0;
      for (int i = 0; i < n; ++i) {
        const double x = in[static_cast<std::size_t>(r * n + i)];
        sum += x;
        squares += x * x;
      }
      EXPECT_NEAR(first[2 * r], sum / n, 1e-6);
      EXPECT_NEAR(first[2 * r + 1], squares, 1e-4 * squares);
    }
  }
}

TEST(Spelling, ShufflesAndVotes) {
  everywhere([] {
    std::vector<int> out(12 * 32, -1);
    std::vector<long long> wide(32);
    std::vector<double> real(32);
    SIMT_LAUNCH(spelling::shuffles, 1, 32, 0, nullptr, out.data(), wide.data(), real.data());
    for (int lane = 0; lane < 32; ++lane) {
      const int segment8 = lane / 8 * 8, segment16 = lane / 16 * 16, segment4 = lane / 4 * 4;
      EXPECT_EQ(out[0 * 32 + lane], 15);
      EXPECT_EQ(out[1 * 32 + lane], segment8 + (lane + 1) % 8);
      EXPECT_EQ(out[2 * 32 + lane], lane < 3 ? lane : lane - 3);
      EXPECT_EQ(out[3 * 32 + lane], lane - segment16 < 3 ? lane : lane - 3);
      EXPECT_EQ(out[4 * 32 + lane], lane > 29 ? lane : lane + 2);
      EXPECT_EQ(out[5 * 32 + lane], lane - segment4 > 1 ? lane : lane + 2);
      EXPECT_EQ(out[6 * 32 + lane], lane ^ 7);
      EXPECT_EQ(static_cast<unsigned>(out[7 * 32 + lane]), 0x49249249u);
      EXPECT_EQ(out[8 * 32 + lane], 1);
      EXPECT_EQ(out[9 * 32 + lane], 1);
      EXPECT_EQ(out[10 * 32 + lane], lane < 16 ? lane ^ 1 : lane == 31 ? 31 : lane + 1);
      EXPECT_EQ(out[11 * 32 + lane], 31 + 500);
      EXPECT_EQ(wide[static_cast<std::size_t>(lane)], (31 - lane) * 10000000000ll);
      EXPECT_EQ(real[static_cast<std::size_t>(lane)], 512.0);
    }
  });
}

TEST(Spelling, BarriersThatCombinePredicates) {
  everywhere([] {
    std::vector<int> out(4);
    SIMT_LAUNCH(spelling::agreements, 1, 96, 0, nullptr, out.data());
    EXPECT_EQ(out, (std::vector<int>{1, 1, 32, 95}));
  });
}

TEST(Spelling, AtomicsOnIntegers) {
  everywhere([] {
    const unsigned blocks = 33, threads = 40, n = blocks * threads;
    std::vector<unsigned> cells(12, 0);
    cells[3] = ~0u;
    cells[5] = ~0u;
    std::vector<int> low{0, 5};
    std::vector<unsigned long long> wide(3, 0);
    std::vector<long long> high{0};
    SIMT_LAUNCH(spelling::atomics, blocks, threads, 0, nullptr, cells.data(), low.data(), wide.data(), high.data());
    unsigned folded = 0;
    for (unsigned i = 0; i < n; ++i) folded ^= i;
    EXPECT_EQ(cells[0], n * (n - 1) / 2);
    EXPECT_EQ(cells[1], 0u - n);
    EXPECT_EQ(cells[2], n - 1);
    EXPECT_EQ(cells[3], 0u);
    EXPECT_EQ(cells[4], ~0u);
    EXPECT_EQ(cells[5], 0xffff0000u);
    EXPECT_EQ(cells[6], folded);
    EXPECT_EQ(cells[7], n % 7);
    EXPECT_EQ(cells[8], (7 - n % 7) % 7);
    EXPECT_EQ(cells[9], 2 * n);
    EXPECT_EQ(cells[10], 17u);
    EXPECT_EQ(low[0], -static_cast<int>(n));
    EXPECT_EQ(low[1], -static_cast<int>(n - 1));
    EXPECT_EQ(wide[0], (1ull << 33) * n);
    EXPECT_EQ(wide[1], static_cast<unsigned long long>(n - 1) << 32);
    EXPECT_EQ(high[0], -static_cast<long long>(n - 1) * 4000000000ll);
  });
}

TEST(Spelling, AtomicsOnSharedMemory) {
  std::vector<unsigned char> data(10007);
  Random random(5);
  for (unsigned char& d : data) d = static_cast<unsigned char>(random.bits());
  std::vector<unsigned> want(64, 0);
  for (unsigned char d : data) ++want[d % 64];
  everywhere([&] {
    std::vector<unsigned> bins(64, 0);
    SIMT_LAUNCH(spelling::histogram, 7, 96, 0, nullptr, bins.data(), data.data(), static_cast<int>(data.size()));
    EXPECT_EQ(bins, want);
  });
}

TEST(Spelling, ExactArithmetic) {
  std::vector<float> out(20);
  std::vector<int> whole(16);
  const float x = 1.7f, y = -0.3f, z = 2.5f;
  SIMT_LAUNCH(spelling::exact_words, 1, 1, 0, nullptr, out.data(), whole.data(), x, y, z);
  const std::vector<float> want = {x + y,
                                   x - y,
                                   x * y,
                                   x / y,
                                   std::fma(x, y, z),
                                   std::fma(x, -y, z),
                                   std::sqrt(x),
                                   1.0f / x,
                                   1.25f,
                                   y + z + y + z,
                                   1.0f + 2.0f + 1.0f + 2.0f + 2.0f + 2.0f,
                                   1.7f + 1.7f,
                                   std::nextafter(x, 9.0f),
                                   0.3f,
                                   16777219.0f,
                                   1.7f,
                                   static_cast<float>((double{x} + y) + double{x} * y + std::fma(double{x}, y, double{z})),
                                   1.0f,
                                   1.125f};
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(out[i], want[i]) << "word " << i;
  const std::vector<int> numbers = {2 + 10 * 4,
                                    -2 - 30 + 300,
                                    INT_MAX,
                                    INT_MIN,
                                    7,
                                    8 + 1600,
                                    31 + 6300 + 320000,
                                    4 + 4100,
                                    static_cast<int>(0x1e6a2c48u),
                                    static_cast<int>(0x77115522u),
                                    1 - 2,
                                    4,
                                    -4 + 3 + 3 + 5 + 3};
  for (std::size_t i = 0; i < numbers.size(); ++i) EXPECT_EQ(whole[i], numbers[i]) << "word " << i;
}

TEST(Spelling, RoughArithmetic) {
  std::vector<float> out(30);
  const float x = 0.7f;
  SIMT_LAUNCH(spelling::rough_words, 1, 1, 0, nullptr, out.data(), x);
  const double d = x, root = std::sqrt(d);
  const std::vector<double> want = {std::exp(d),
                                    std::exp(d),
                                    std::exp2(d),
                                    std::log(d),
                                    std::log(d),
                                    std::log2(d),
                                    std::log2(d),
                                    std::log1p(d),
                                    std::expm1(d),
                                    root,
                                    1 / root,
                                    std::cbrt(d),
                                    1 / std::cbrt(d),
                                    std::tanh(d),
                                    std::erf(d),
                                    std::erfc(d),
                                    0.5 * std::erfc(-d / std::sqrt(2.0)),
                                    std::sin(d) + std::cos(d),
                                    std::sin(d) + std::cos(d),
                                    std::pow(d, 1.5),
                                    std::pow(d, 1.5),
                                    d / 3,
                                    1 / root,
                                    std::fmod(d, 0.3f),
                                    std::sin(d) * std::cos(d),
                                    std::sin(d) - std::cos(d),
                                    std::exp(d) + root + 1 / root};
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(out[i], want[i], 1e-6 * (1 + std::abs(want[i]))) << "word " << i;
}

TEST(Spelling, VectorTypes) {
  float4 f;
  int4 i;
  uchar4 u;
  double2 d;
  SIMT_LAUNCH(spelling::vectors, 1, 1, 0, nullptr, &f, &i, &u, &d);
  EXPECT_EQ(f.x + 10 * f.y + 100 * f.z + 1000 * f.w, 1 + 20 + 300 + 5000);
  EXPECT_EQ(i.x + 10 * i.y + 100 * i.z + 1000 * i.w, 1 + 20 + 300 + 6000);
  EXPECT_EQ(u.x + 10 * u.y + 100 * u.z + 1000 * u.w, 7 + 20 + 300 + 10000);
  EXPECT_EQ(d.x + d.y, 2.5);
}

}  // namespace
}  // namespace vg

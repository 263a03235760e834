// The matrix words and asynchronous copies: products against the formula, mistakes that must show, addresses that must be refused.
#include "tests/sim/matrix_words.cu"

#include <vector>

#include "tensor/random.h"
#include "tests/sim/helpers.h"

namespace vg {
namespace {

using spelling::Mistakes;
using testing_sim::error_of;
using testing_sim::everywhere;
using testing_sim::expect_contains;

constexpr int kSteps = 3, kDepth = 16 * kSteps;

// Small integers: every product and sum is exact, so any order of sums gives the same bits.
template <class H>
struct Operands {
  std::vector<H> a{16 * kDepth}, b{kDepth * 16}, b_transposed{16 * kDepth};
  std::vector<float> want;

  Operands() : want(256, 0.0f) {
    Random random(5);
    const auto draw = [&] { return H::from(static_cast<float>(static_cast<int>(random.uniform() * 17.0) - 8)); };
    for (int r = 0; r < 16; ++r)
      for (int k = 0; k < kDepth; ++k) {
        a[static_cast<std::size_t>(r * kDepth + k)] = draw();
        b[static_cast<std::size_t>(k * 16 + r)] = b_transposed[static_cast<std::size_t>(r * kDepth + k)] = draw();
      }
    for (int r = 0; r < 16; ++r)
      for (int c = 0; c < 16; ++c)
        for (int k = 0; k < kDepth; ++k)
          want[static_cast<std::size_t>(r * 16 + c)] +=
              static_cast<float>(a[static_cast<std::size_t>(r * kDepth + k)]) * static_cast<float>(b[static_cast<std::size_t>(k * 16 + c)]);
  }
};

template <class H, bool kTransposed, bool kShuffles = false>
std::vector<float> product(const Mistakes& wrong = {}) {
  static const Operands<H> given;
  std::vector<float> d(256, -1.0f);
  SIMT_LAUNCH((spelling::matrix_words<H, kTransposed, kShuffles>), 1, 64, 0, nullptr, d.data(), given.a.data(),
              kTransposed ? given.b_transposed.data() : given.b.data(), kSteps, wrong);
  return d;
}

TEST(MatrixWords, GiveTheProduct) {
  everywhere([] {
    EXPECT_EQ((product<bf16, false>()), Operands<bf16>().want);
    EXPECT_EQ((product<bf16, true>()), Operands<bf16>().want);
    EXPECT_EQ((product<f16, false>()), Operands<f16>().want);
    EXPECT_EQ((product<f16, true>()), Operands<f16>().want);
    EXPECT_EQ((product<f16, true, true>()), Operands<f16>().want) << "by shuffles";
  });
}

// In how many of the five orders a planted mistake gives a wrong product. A correct kernel: 0.
int orders_that_show(const Mistakes& wrong) {
  int shown = 0;
  sim::in_every_order([&](sim::Order) { shown += product<bf16, false>(wrong) != Operands<bf16>().want; });
  return shown;
}

TEST(MatrixWords, MistakesShow) {
  EXPECT_EQ(orders_that_show({}), 0);
  EXPECT_GE(orders_that_show({.no_wait = true}), 1) << "a copy that nobody waited for";
  EXPECT_GE(orders_that_show({.no_first_barrier = true}), 1) << "a copy that only its own thread waited for";
  EXPECT_GE(orders_that_show({.no_second_barrier = true}), 1) << "a buffer filled again while others read it";
  EXPECT_EQ(orders_that_show({.wrong_fragment = true}), 5) << "two words of a fragment exchanged";
}

TEST(MatrixWords, HalvesAndZeros) {
  everywhere([] {
    float4 out;
    unsigned zeros[8];
    SIMT_LAUNCH(spelling::half_words<bf16>, 1, 1, 0, nullptr, &out, zeros, 1.00390625f, -3.0e38f);
    EXPECT_EQ(out.x, static_cast<float>(bf16::from(1.00390625f)));
    EXPECT_EQ(out.y, static_cast<float>(bf16::from(-3.0e38f)));
    for (unsigned z : zeros) EXPECT_EQ(z, 0u);
    SIMT_LAUNCH(spelling::half_words<f16>, 1, 1, 0, nullptr, &out, zeros, 70000.0f, 1.0e-7f);
    EXPECT_EQ(out.x, INFINITY);
    EXPECT_EQ(out.y, static_cast<float>(f16::from(1.0e-7f)));
  });
}

// ------------------------------------------------------------------------------------------------------------ refusals

constexpr int kLoadLine = __LINE__ + 5;
__global__ void load_rows(int bytes_apart, int from, bool* outside) {
  SIMT_SHARED(uint4, tile, [64]);
  unsigned r[4];
  const simt::SharedAddress row = simt::shared_address(outside ? static_cast<const void*>(outside) : tile);
  simt::ldmatrix_x4(r, row + from + bytes_apart * static_cast<int>(threadIdx.x));
}
constexpr int kCopyLine = __LINE__ + 3;
__global__ void copy_from(const char* from, int to) {
  SIMT_SHARED(uint4, tile, [2]);
  simt::copy_async16(simt::shared_address(tile) + to, from, true);
}
__global__ void different_words() {
  float d[4] = {};
  unsigned a[4] = {}, b[2] = {};
  if (threadIdx.x < 16)
    simt::mma16816<bf16>(d, a, b);
  else
    simt::mma16816<f16>(d, a, b);
}

TEST(MatrixWords, WrongAddressesAreNamed) {
  const std::string file = "tests/sim/matrix_test.cpp:";
  alignas(16) bool memory[1024] = {};
  EXPECT_EQ(error_of([] { SIMT_LAUNCH(load_rows, 1, 32, 0, nullptr, 16, 0, nullptr); }), "");
  const std::string odd = error_of([] { SIMT_LAUNCH(load_rows, 1, 32, 0, nullptr, 24, 0, nullptr); });
  expect_contains(odd, "thread (1,0,0), " + file + std::to_string(kLoadLine) + ": ldmatrix_x4: shared address ");
  expect_contains(odd, "(wanted a multiple of 16)");
  expect_contains(error_of([&] { SIMT_LAUNCH(load_rows, 1, 32, 0, nullptr, 16, 0, memory); }),
                  "is not an address in the block's shared memory");
  const char* bytes = reinterpret_cast<const char*>(memory);
  EXPECT_EQ(error_of([&] { SIMT_LAUNCH(copy_from, 1, 1, 0, nullptr, bytes, 0); }), "");
  expect_contains(error_of([&] { SIMT_LAUNCH(copy_from, 1, 1, 0, nullptr, bytes + 8, 0); }),
                  file + std::to_string(kCopyLine) + ": cp.async: global address ");
  expect_contains(error_of([&] { SIMT_LAUNCH(copy_from, 1, 1, 0, nullptr, bytes, 4); }), "cp.async: shared address ");
}

TEST(MatrixWords, LanesMustAgree) {
  everywhere([] {
    expect_contains(error_of([] { SIMT_LAUNCH(different_words, 1, 32, 0, nullptr); }), "lanes of one mask called different things");
    expect_contains(error_of([] { SIMT_LAUNCH(load_rows, 1, 40, 0, nullptr, 16, 0, nullptr); }), "which does not exist");
  });
}

}  // namespace
}  // namespace vg

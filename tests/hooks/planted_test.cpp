// The hooks build watched: each planted mistake is reported, once, at its own line, as what it is; the corrected kernels are not; and traffic is counted
// as a GPU's manual says.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <numeric>
#include <string>

#include "kernels/sim/hooks/hooks.h"
#include "tensor/error.h"
#include "tests/hooks/places.h"
#include "tests/hooks/planted.h"

namespace vg::planted {
namespace {

using namespace simt::hooks;

// The line of planted.cu that carries the mark.
int marked_line(Bug bug) {
  std::ifstream source(VG_SOURCE_DIR "/tests/hooks/planted.cu");
  int number = 0;
  for (std::string line; std::getline(source, line);) {
    ++number;
    if ((line + ' ').find(std::string("HERE: ") + name_of(bug) + ' ') != std::string::npos) return number;
  }
  return 0;
}

Tensor input(std::int64_t n = 64) {
  std::vector<float> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), 1.0f);
  return from_host(values, {n}, kSim);
}

// At least one report is of this kind and at the marked line; none is of another kind, unless uninitialised reads follow from the race.
void expect_reported(Bug bug, Finding what) {
  SCOPED_TRACE(name_of(bug));
  const int line = marked_line(bug);
  ASSERT_GT(line, 0);
  // 128 elements are written, and what is read is 64 of x.
  const Tensor y({128}, DType::f32, kSim), x = bug == Bug::unwritten_global ? Tensor({64}, DType::f32, kSim) : input();
  take_reports();
  run(bug, y, x);
  const std::vector<Report> found = take_reports();
  EXPECT_FALSE(found.empty());
  bool at_the_line = false;
  std::string text;
  for (const Report& r : found) {
    const std::string at = test::describe(test::frames_of({r.place})[0]);
    at_the_line = at_the_line || (r.what == what && at == "tests/hooks/planted.cu:" + std::to_string(line));
    EXPECT_TRUE(r.what == what || (what == Finding::race && r.what == Finding::uninitialised)) << r.text;
    text += at + ": " + r.text + '\n';
  }
  EXPECT_TRUE(at_the_line) << "wanted: " << name_of(what) << " at line " << line << ", found:\n" << text;
}

TEST(Planted, CorrectKernelsAreNotReported) {
  const Tensor y({128}, DType::f32, kSim), x = input();
  take_reports();
  run(Bug::none, y, x);
  for (const Report& r : take_reports()) ADD_FAILURE() << test::describe(test::frames_of({r.place})[0]) << ": " << r.text;
}

TEST(Planted, MissingBarriersAreRaces) {
  expect_reported(Bug::missing_barrier, Finding::race);
  expect_reported(Bug::missing_second_barrier, Finding::race);
  expect_reported(Bug::missing_syncwarp, Finding::race);
  expect_reported(Bug::shuffle_for_syncwarp, Finding::race);
}

TEST(Planted, BlocksAndAtomics) {
  expect_reported(Bug::blocks_race, Finding::race);
  expect_reported(Bug::atomic_and_plain, Finding::race);
}

TEST(Planted, Bounds) {
  expect_reported(Bug::past_buffer, Finding::out_of_bounds);
  expect_reported(Bug::before_buffer, Finding::out_of_bounds);
  expect_reported(Bug::past_shared, Finding::out_of_bounds);
}

TEST(Planted, Uninitialised) {
  expect_reported(Bug::unwritten_shared, Finding::uninitialised);
  expect_reported(Bug::unwritten_global, Finding::uninitialised);
}

TEST(Planted, AsynchronousCopies) {
  expect_reported(Bug::copy_not_awaited, Finding::uninitialised);
  expect_reported(Bug::copy_too_early, Finding::race);
}

TEST(Planted, HostCodeMayNotReadDeviceMemory) { expect_reported(Bug::host_reads, Finding::host_access); }

TEST(Planted, DivergentBarriersStopTheLaunch) {
  const Tensor y({128}, DType::f32, kSim), x = input();
  try {
    run(Bug::divergent, y, x);
    FAIL() << "nothing was said";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tests/hooks/planted.cu:" + std::to_string(marked_line(Bug::divergent))), std::string::npos)
        << e.what();
  }
  take_reports();
}

TEST(Planted, BarriersCanBeLeftOut) {
  const Tensor y({128}, DType::f32, kSim), x = input();
  run(Bug::none, y, x);
  take_reports();
  int barriers_tried = 0;
  for (const std::string& barrier : barriers()) {
    leave_out(barrier.substr(0, barrier.find(' ')));
    try {
      run(Bug::none, y, x);
    } catch (const Error&) {
    }
    if (times_left_out() > 0) {
      ++barriers_tried;
      EXPECT_FALSE(take_reports().empty()) << barrier;
    }
  }
  leave_out("");
  EXPECT_EQ(barriers_tried, 8);
}

// The traffic of the only site that `work` adds with these properties.
Traffic only(bool shared, bool store, const std::function<void()>& work) {
  const auto sum = [&] {
    Traffic total{};
    for (const Traffic& t : traffic())
      if (t.shared == shared && t.store == store)
        total.requests += t.requests, total.lanes += t.lanes, total.moved += t.moved, total.ideal += t.ideal;
    return total;
  };
  const Traffic before = sum();
  work();
  Traffic after = sum();
  after.requests -= before.requests, after.lanes -= before.lanes, after.moved -= before.moved, after.ideal -= before.ideal;
  return after;
}

TEST(Traffic, SectorsOfStridedLoads) {
  const Tensor y({32}, DType::f32, kSim), x = input(1024);
  for (const auto& [stride, sectors] : {std::pair{1, 4}, {2, 8}, {8, 32}, {32, 32}}) {
    const Traffic t = only(false, false, [&, s = stride] { strided_global(y, x, s); });
    EXPECT_EQ(t.requests, 1);
    EXPECT_EQ(t.lanes, 32);
    EXPECT_EQ(t.moved, sectors);
    EXPECT_EQ(t.ideal, 4);
  }
}

TEST(Traffic, WavefrontsOfStridedSharedAccesses) {
  const Tensor y({32}, DType::f32, kSim), x = input(1024);
  for (const auto& [stride, waves] : {std::pair{1, 1}, {2, 2}, {3, 1}, {8, 8}, {16, 16}, {31, 1}, {32, 32}}) {
    const Traffic t = only(true, false, [&, s = stride] { strided_shared(y, x, s); });
    EXPECT_EQ(t.moved, waves) << stride;
    EXPECT_EQ(t.ideal, 1);
  }
}

TEST(Traffic, MatrixRowsShouldLieInDifferentBanks) {
  const Tensor y({32}, DType::f32, kSim), x = input(64);
  // Eight rows of 16 bytes are one wavefront if they lie in different banks: side by side, or an odd number of words apart.
  for (const auto& [stride, waves] : {std::pair{1, 4}, {2, 8}, {8, 32}, {9, 4}}) {
    const Traffic t = only(true, false, [&, s = stride] { matrix_rows(y, x, s); });
    EXPECT_EQ(t.requests, 1);
    EXPECT_EQ(t.moved, waves) << stride;
    EXPECT_EQ(t.ideal, 4);
  }
}

TEST(Traffic, SixteenBytesPerLaneAreFourWavefronts) {
  const Tensor y({128}, DType::f32, kSim), x = input(128);
  const Traffic t = only(true, true, [&] { fours_shared(y, x); });
  EXPECT_EQ(t.requests, 1);
  EXPECT_EQ(t.moved, 4);
  EXPECT_EQ(t.ideal, 4);
}

}  // namespace
}  // namespace vg::planted

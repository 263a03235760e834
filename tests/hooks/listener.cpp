// Makes every test of a hooks build fail in which a kernel did something that a GPU does not forgive; and writes what was seen, as one JSON document,
// to the file that VG_HOOKS_REPORT names: traffic by place, launch shapes by kernel, barriers. The scripts in tests/proof read it.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "kernels/sim/hooks/hooks.h"
#include "tensor/os.h"
#include "tests/hooks/places.h"
#include "tests/hooks/seen.h"

namespace vg::test {
namespace {

using namespace simt::hooks;

std::map<std::string, std::vector<std::string>>& barriers_of_tests() {
  static std::map<std::string, std::vector<std::string>> all;
  return all;
}

void write_report(const std::string& path) {
  nlohmann::json report = seen();
  report["barriers"] = barriers_of_tests();  // test -> places
  std::ofstream(path) << report.dump(1) << '\n';
}

std::string without_arguments(const std::string& kernel) { return kernel.substr(0, kernel.find('(')); }

// With a report asked for, all tests run: then each kernel that was compiled, for each type of numbers, must have been launched in at least three shapes.
class Coverage : public ::testing::Environment {
  void TearDown() override {
    if (os::environment("VG_HOOKS_REPORT").empty()) return;
    std::map<std::string, std::size_t> shapes;
    const std::vector<LaunchShapes> kernels = launches();
    std::vector<std::uintptr_t> places;
    for (const LaunchShapes& l : kernels) places.push_back(reinterpret_cast<std::uintptr_t>(l.kernel));
    const auto frames = frames_of(places);
    for (std::size_t i = 0; i < kernels.size(); ++i)
      if (!frames[i].empty()) shapes[without_arguments(frames[i].back().function)] += kernels[i].shapes.size();
    for (const std::string& kernel : compiled_kernels()) {
      const bool one_thread =
          kernel.find("clip_scale_kernel") != std::string::npos || kernel.find("loss_scale_step_kernel") != std::string::npos;
      EXPECT_GE(shapes[without_arguments(kernel)], one_thread ? 1 : 3) << kernel << ": launched in too few shapes";
    }
  }
};

class Listener : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override { forget_barriers(); }
  void OnTestEnd(const ::testing::TestInfo& info) override {
    barriers_of_tests()[std::string(info.test_suite_name()) + "." + info.name()] = barriers();
    const std::vector<Report> found = take_reports();
    std::vector<std::uintptr_t> places;
    for (const Report& r : found) places.insert(places.end(), {r.place, r.other ? r.other : r.place});
    const auto frames = frames_of(places);
    for (std::size_t i = 0; i < found.size() && i < 20; ++i) {
      const Report& r = found[i];
      ADD_FAILURE() << describe(frames[2 * i]) << ": " << name_of(r.what) << ": " << r.text
                    << (r.other ? " (the earlier access: " + describe(frames[2 * i + 1]) + ")" : "") << ", " << r.count << " times";
    }
  }
  void OnTestProgramEnd(const ::testing::UnitTest&) override {
    if (const std::string path = os::environment("VG_HOOKS_REPORT"); !path.empty()) write_report(path);
  }
};

const bool listening = [] {
  ::testing::AddGlobalTestEnvironment(new Coverage);
  ::testing::UnitTest::GetInstance()->listeners().Append(new Listener);
  return true;
}();

}  // namespace
}  // namespace vg::test

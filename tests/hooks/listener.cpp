// Makes every test of a hooks build fail in which a kernel did something that a GPU does not forgive; and writes what was seen, as one JSON document,
// to the file that VG_HOOKS_REPORT names: traffic by place, launch shapes by kernel, barriers. The scripts in tests/proof read it.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "kernels/sim/hooks/hooks.h"
#include "tensor/os.h"
#include "tests/hooks/places.h"

namespace vg::test {
namespace {

using namespace simt::hooks;

// Where the kernel's author wrote it: not the load() of device.cuh, but the line that calls it.
Frame own_line(const std::vector<Frame>& frames) {
  for (const Frame& f : frames)
    if (!f.file.ends_with("kernels/device.cuh") && f.file.find("kernels/sim/") == std::string::npos &&
        f.file.find("kernels/") != std::string::npos)
      return f;
  return frames.empty() ? Frame{} : frames.front();
}

void write_report(const std::string& path) {
  std::vector<std::uintptr_t> places;
  const std::vector<Traffic> sites = traffic();
  const std::vector<LaunchShapes> kernels = launches();
  for (const Traffic& t : sites) places.push_back(t.place);
  for (const LaunchShapes& l : kernels) places.push_back(reinterpret_cast<std::uintptr_t>(l.kernel));
  std::vector<std::vector<Frame>> frames;
  constexpr std::size_t kAtOnce = 4000;  // arguments of one command
  for (std::size_t i = 0; i < places.size(); i += kAtOnce)
    for (auto& f : frames_of({places.begin() + static_cast<std::ptrdiff_t>(i),
                              places.begin() + static_cast<std::ptrdiff_t>(std::min(places.size(), i + kAtOnce))}))
      frames.push_back(std::move(f));

  nlohmann::json report;
  std::map<const void*, std::string> name;
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    const std::vector<Frame>& f = frames[sites.size() + i];
    name[kernels[i].kernel] = f.empty() ? kernels[i].name : f.back().function;
    report["kernels"].push_back({{"kernel", name[kernels[i].kernel]}, {"shapes", kernels[i].shapes}, {"launches", kernels[i].launches}});
  }
  std::map<std::tuple<std::string, std::string, int, bool, bool, int>, Traffic> by_line;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const Frame f = own_line(frames[i]);
    const Traffic& t = sites[i];
    Traffic& sum = by_line.try_emplace({name[t.kernel], f.file, f.line, t.shared, t.store, t.bytes}, Traffic{}).first->second;
    sum.requests += t.requests, sum.lanes += t.lanes, sum.moved += t.moved, sum.ideal += t.ideal;
  }
  for (const auto& [key, t] : by_line) {
    const auto& [kernel, file, line, shared, store, bytes] = key;
    report["traffic"].push_back({{"kernel", kernel},
                                 {"file", file},
                                 {"line", line},
                                 {"space", shared ? "shared" : "global"},
                                 {"access", store ? "store" : "load"},
                                 {"bytes", bytes},
                                 {"requests", t.requests},
                                 {"lanes", t.lanes},
                                 {"moved", t.moved},
                                 {"ideal", t.ideal}});
  }
  report["barriers"] = barriers();
  report["left_out"] = times_left_out();
  std::ofstream(path) << report.dump(1) << '\n';
}

// With a report asked for, all tests run: then each kernel that was compiled must have been launched, in at least three shapes.
class Coverage : public ::testing::Environment {
  void TearDown() override {
    if (os::environment("VG_HOOKS_REPORT").empty()) return;
    std::map<std::string, std::size_t> shapes;
    const std::vector<LaunchShapes> kernels = launches();
    std::vector<std::uintptr_t> places;
    for (const LaunchShapes& l : kernels) places.push_back(reinterpret_cast<std::uintptr_t>(l.kernel));
    const auto frames = frames_of(places);
    for (std::size_t i = 0; i < kernels.size(); ++i)
      if (!frames[i].empty()) shapes[frames[i].back().function] += kernels[i].shapes.size();
    for (const std::string& kernel : compiled_kernels()) {
      const std::size_t wanted = kernel.find("clip_scale_kernel") != std::string::npos ? 1 : 3;  // one thread, one number
      EXPECT_GE(shapes[kernel], wanted) << kernel << ": launched in too few shapes";
    }
  }
};

class Listener : public ::testing::EmptyTestEventListener {
  void OnTestEnd(const ::testing::TestInfo&) override {
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

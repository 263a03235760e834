// The implementation of seen.h.
#include "tests/hooks/seen.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "kernels/sim/hooks/hooks.h"
#include "tests/hooks/places.h"

namespace vg::test {
namespace {

// Where the kernel's author wrote it: not the load() of device.cuh, but the line that calls it.
Frame own_line(const std::vector<Frame>& frames) {
  for (const Frame& f : frames)
    if (!f.file.ends_with("kernels/device.cuh") && f.file.find("kernels/sim/") == std::string::npos &&
        f.file.find("kernels/") != std::string::npos)
      return f;
  return frames.empty() ? Frame{} : frames.front();
}

}  // namespace

nlohmann::json seen() {
  std::vector<std::uintptr_t> places;
  const std::vector<simt::hooks::Traffic> sites = simt::hooks::traffic();
  const std::vector<simt::hooks::LaunchShapes> kernels = simt::hooks::launches();
  for (const simt::hooks::Traffic& t : sites) places.push_back(t.place);
  for (const simt::hooks::LaunchShapes& l : kernels) places.push_back(reinterpret_cast<std::uintptr_t>(l.kernel));
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
    report["kernels"].push_back({{"kernel", name[kernels[i].kernel]},
                                 {"shapes", kernels[i].shapes},
                                 {"launches", kernels[i].launches},
                                 {"blocks", kernels[i].blocks},
                                 {"blocks_run", kernels[i].blocks_run},
                                 {"threads", kernels[i].threads},
                                 {"dynamic_shared", kernels[i].dynamic_shared}});
  }
  std::map<std::tuple<std::string, std::string, int, bool, bool, int>, simt::hooks::Traffic> by_line;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    if (sites[i].requests == 0) continue;
    const Frame f = own_line(frames[i]);
    const simt::hooks::Traffic& t = sites[i];
    simt::hooks::Traffic& sum =
        by_line.try_emplace({name[t.kernel], f.file, f.line, t.shared, t.store, t.bytes}, simt::hooks::Traffic{}).first->second;
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
  return report;
}

}  // namespace vg::test

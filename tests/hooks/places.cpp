// The implementation of places.h.
#include "tests/hooks/places.h"

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "kernels/sim/hooks/hooks.h"
#include "tests/tools/process.h"

namespace vg::test {
namespace {

Frame frame(const std::string& function, const std::string& place) {
  constexpr std::string_view source = VG_SOURCE_DIR "/";
  Frame f{function, place, 0};
  if (const std::size_t colon = place.rfind(':'); colon != std::string::npos) {
    f.file = place.substr(0, colon);
    f.line = static_cast<int>(std::strtol(place.c_str() + colon + 1, nullptr, 10));
  }
  if (f.file.starts_with(source)) f.file.erase(0, source.size());
  f.file = std::filesystem::path(f.file).lexically_normal();  // with ccache: relative to the folder of the build
  while (f.file.starts_with("../")) f.file.erase(0, 3);
  return f;
}

}  // namespace

std::vector<std::vector<Frame>> frames_of(const std::vector<std::uintptr_t>& addresses) {
  if (addresses.empty()) return {};
  Words arguments = {"-a", "-f", "-i", "-C", "-e", "/proc/" + std::to_string(::getpid()) + "/exe"};
  for (const std::uintptr_t a : addresses) {
    std::ostringstream hex;
    hex << std::hex << "0x" << (simt::hooks::is_named(a) ? 0 : a - simt::hooks::program_start());
    arguments.push_back(hex.str());
  }
  const Result r = run("/usr/bin/addr2line", arguments);
  std::vector<std::vector<Frame>> all;
  std::istringstream lines(r.out);
  for (std::string line, place; std::getline(lines, line);) {
    if (line.starts_with("0x"))
      all.emplace_back();
    else if (std::getline(lines, place) && !all.empty())
      all.back().push_back(frame(line, place));
  }
  all.resize(addresses.size());
  for (std::size_t i = 0; i < all.size(); ++i)
    if (simt::hooks::is_named(addresses[i])) all[i] = {frame("", simt::hooks::name_of_place(addresses[i]))};
  return all;
}

std::vector<std::string> compiled_kernels() {
  const Result r = run("/usr/bin/nm", {"-C", "--defined-only", "/proc/" + std::to_string(::getpid()) + "/exe"});
  std::vector<std::string> names;
  std::istringstream lines(r.out);
  for (std::string line; std::getline(lines, line);) {
    if (line.size() < 20 || std::string("TtWw").find(line[17]) == std::string::npos) continue;  // "0000000000123456 T name"
    const std::string name = line.substr(19);
    const std::size_t arguments = name.find('(');
    const std::string head = name.substr(0, std::min(arguments, name.find('<')));
    if (head.ends_with("_kernel") && head.find("vg::sim::") != std::string::npos && arguments != std::string::npos &&
        name.find("{lambda") == std::string::npos)
      names.push_back(name);
  }
  return names;
}

std::string describe(const std::vector<Frame>& frames) {
  std::string text;
  for (const Frame& f : frames) {
    if (f.file.find("kernels/") == std::string::npos && f.file.find("tests/") == std::string::npos) continue;
    if (f.file.ends_with("simt.h")) break;
    if (f.file.ends_with("kernels/sim/words.h")) continue;  // inside of an atomic
    (text += text.empty() ? "" : " in ") += f.file + ":" + std::to_string(f.line);
  }
  return text;
}

}  // namespace vg::test

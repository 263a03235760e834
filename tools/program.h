// What every program shares: errors become one line on stderr and exit code 1, a progress bar for people, the number of threads.
#pragma once
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>
#include <string>

#include "kernels/vector_path.h"
#include "tensor/device.h"
#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/parallel.h"

namespace vg {

// Runs `body` after the command line was read (what the app's callback checks belongs to that). VG_CPU in the environment names the vector
// instructions that the cpu may use (kernels/vector_path.h). 0 done, 1 failed, 2 usage; body's own value else (130, 143 after an interrupt).
inline int run_program(CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
  app.set_version_flag("--version", "voxgrad " VG_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    choose_vector_path(os::environment("VG_CPU"));
    return body();
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s: out of memory\n", app.get_name().c_str());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), e.what());
  }
  return 1;
}

// For conditions that an option's own check cannot express: a message about usage, and exit code 2.
inline void usage(bool ok, const std::string& option, const std::string& wanted) {
  if (!ok) throw CLI::ValidationError(option, wanted);
}

// The device that --device names; says on stderr what "auto" chose and why.
inline Device choose_device(const std::string& text, bool quiet) {
  std::string why;
  const Device device = parse_device(text, &why);
  if (!quiet && text == "auto") std::fprintf(stderr, "device: %s%s\n", to_string(device).c_str(), why.empty() ? "" : (" (" + why + ")").c_str());
  return device;
}

// "4G", "512M", "1.5G" (powers of 1000), "1073741824"; 0: not a size.
inline std::uint64_t bytes_of(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  const std::string unit = end;
  const double factor = unit == "G" || unit == "g" ? 1e9 : unit == "M" || unit == "m" ? 1e6 : unit.empty() ? 1.0 : 0.0;
  return number > 0.0 && number * factor < 1e18 ? static_cast<std::uint64_t>(number * factor) : 0;
}
inline void usage_size(const std::string& option, const std::string& text) {
  usage(text.empty() || bytes_of(text) > 0, option, "wanted a size such as 4G or 512M, got " + text);
}

// "1:05", "2:03:10"
inline std::string duration(double seconds) {
  const auto s = static_cast<long>(seconds + 0.5);
  return s >= 3600 ? fmt::format("{}:{:02d}:{:02d}", s / 3600, s / 60 % 60, s % 60) : fmt::format("{}:{:02d}", s / 60, s % 60);
}

// A line on stderr that is drawn over itself; nothing where stderr is not a terminal or `quiet`.
class ProgressBar {
 public:
  explicit ProgressBar(bool quiet) : shown_(!quiet && os::is_terminal(2)), start_(os::wall_seconds()) {}
  ~ProgressBar() { clear(); }
  void draw(double done, const std::string& text) {
    const double now = os::wall_seconds();
    if (!shown_ || (now - last_ < 0.1 && done < 1.0)) return;
    last_ = now;
    const double elapsed = now - start_, left = done > 0.0 ? elapsed * (1.0 - done) / done : 0.0;
    const std::string tail = fmt::format(" {:3.0f} %  {} left  {}", done * 100.0, duration(left), text);
    const int width = std::max(10, std::min(30, os::terminal_columns(2) - static_cast<int>(tail.size()) - 3));
    const int full = static_cast<int>(done * width);
    std::fprintf(stderr, "\r\033[K[%s%s]%s", std::string(static_cast<std::size_t>(full), '#').c_str(), std::string(static_cast<std::size_t>(width - full), '.').c_str(), tail.c_str());
    std::fflush(stderr);
    drawn_ = true;
  }
  void clear() {
    if (drawn_) std::fprintf(stderr, "\r\033[K"), std::fflush(stderr);
    drawn_ = false;
  }

 private:
  bool shown_, drawn_ = false;
  double start_, last_ = 0.0;
};

}  // namespace vg

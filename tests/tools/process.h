// The built programs as child processes: run to the end, or started, watched and killed.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

namespace vg::test {

using Words = std::vector<std::string>;

struct Result {
  int code = -1;  // exit code, or 128 + signal as a shell says
  std::string out, err;
};

// A program of the build (or, with a '/', any). stdout comes through a pipe, stderr through a file in memory.
class Process {
 public:
  Process(const std::string& program, const Words& arguments) {
    int out[2];
    EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
    err_ = ::memfd_create("stderr", MFD_CLOEXEC);
    EXPECT_GE(err_, 0);
    const std::string path = program.find('/') != std::string::npos ? program : std::string(VG_BIN_DIR) + "/" + program;
    std::vector<char*> argv = {const_cast<char*>(path.c_str())};
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      const int nothing = ::open("/dev/null", O_RDONLY);
      ::dup2(nothing, 0), ::dup2(out[1], 1), ::dup2(err_, 2);
      ::execv(path.c_str(), argv.data());
      ::_exit(127);
    }
    ::close(out[1]);
    out_ = out[0];
  }
  ~Process() {
    if (pid_ > 0) ::kill(pid_, SIGKILL), ::waitpid(pid_, nullptr, 0);
    ::close(out_), ::close(err_);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void signal(int number) const { ::kill(pid_, number); }

  // Waits until stdout has `lines` lines; false at its end.
  bool read_lines(int lines) {
    while (std::count(text_.begin(), text_.end(), '\n') < lines)
      if (!read_some()) return false;
    return true;
  }

  Result wait() {
    while (read_some()) {
    }
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    std::string err(static_cast<std::size_t>(::lseek(err_, 0, SEEK_END)), '\0');
    EXPECT_EQ(::pread(err_, err.data(), err.size(), 0), static_cast<ssize_t>(err.size()));
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), text_, err};
  }

 private:
  bool read_some() {
    char buffer[4096];
    const ssize_t n = ::read(out_, buffer, sizeof buffer);
    if (n > 0) text_.append(buffer, static_cast<std::size_t>(n));
    return n > 0;
  }
  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
  std::string text_;
};

inline Result run(const std::string& program, const Words& arguments) { return Process(program, arguments).wait(); }

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace vg::test

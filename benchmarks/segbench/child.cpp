// fork, pipes and poll behind child.h.
#include "benchmarks/segbench/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "tensor/error.h"
#include "tensor/os.h"

namespace vg::bench {

Child::Child(const Words& command, bool loud) : name_(command.at(0)) {
  int in[2], out[2];
  if (::pipe2(in, O_CLOEXEC) != 0) fail(ErrorCode::io, "{}: no pipe: {}", name_, std::strerror(errno));
  if (::pipe2(out, O_CLOEXEC) != 0) {
    ::close(in[0]), ::close(in[1]);
    fail(ErrorCode::io, "{}: no pipe: {}", name_, std::strerror(errno));
  }
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::signal(SIGPIPE, SIG_IGN);  // a peer that is gone is an error to report, not a signal
  pid_ = ::fork();
  if (pid_ == 0) {
    ::signal(SIGPIPE, SIG_DFL);
    ::dup2(in[0], 0), ::dup2(out[1], 1);
    if (!loud) ::dup2(::open("/dev/null", O_WRONLY), 2);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(in[0]), ::close(out[1]);
  in_ = in[1], out_ = out[0];
  if (pid_ < 0) fail(ErrorCode::io, "{}: cannot be started: {}", name_, std::strerror(errno));
}

Child::~Child() {
  if (pid_ > 0) ::kill(pid_, SIGKILL), ::waitpid(pid_, nullptr, 0);
  ::close(in_), ::close(out_);
}

void Child::tell(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(in_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) fail(ErrorCode::io, "{}: ended: {}", name_, std::strerror(errno));
}

bool Child::read_some(double seconds) {
  pollfd wait{out_, POLLIN, 0};
  if (::poll(&wait, 1, static_cast<int>(seconds * 1000)) <= 0) return false;
  char buffer[4096];
  const ssize_t n = ::read(out_, buffer, sizeof buffer);
  if (n > 0) text_.append(buffer, static_cast<std::size_t>(n));
  return n > 0;
}

nlohmann::json Child::answer(double seconds) {
  const double end = os::wall_seconds() + seconds;
  std::size_t at;
  while ((at = text_.find('\n')) == std::string::npos)
    if (!read_some(std::max(0.0, end - os::wall_seconds()))) fail(ErrorCode::io, "{}: ended, or was silent for {:.0f} s", name_, seconds);
  const std::string line = text_.substr(0, at);
  text_.erase(0, at + 1);
  nlohmann::json j = nlohmann::json::parse(line, nullptr, false);
  if (!j.is_object()) fail(ErrorCode::io, "{}: answered \"{}\", wanted JSON", name_, line.substr(0, 200));
  return j;
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "segbench-XXXXXX").string();
  if (!::mkdtemp(name.data())) fail(ErrorCode::io, "{}: {}", name, std::strerror(errno));
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace vg::bench

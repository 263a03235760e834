// fork, limits, a pipe, and the many ways in which a process can end, as one string.
#include "tensor/os_child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <new>
#include <vector>

#include "tensor/error.h"

namespace vg::os {
namespace {

constexpr int kOutOfMemory = 12, kFailed = 1;  // exit codes of the child

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // shadow memory takes terabytes of address space
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

void limit(int what, std::uint64_t value) {
  rlimit now{};
  if (::getrlimit(static_cast<__rlimit_resource_t>(what), &now) != 0) return;
  now.rlim_cur = std::min<rlim_t>(value, now.rlim_max);
  now.rlim_max = now.rlim_cur;
  ::setrlimit(static_cast<__rlimit_resource_t>(what), &now);
}

std::uint64_t mapped_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t pages = 0;
  statm >> pages;
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

struct ReaderGone {};  // the parent stopped listening

[[noreturn]] void child(const ChildLimits& limits, const std::function<void(const ChildWrite&)>& work, int out) {
  for (const int s : {SIGINT, SIGTERM, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXCPU}) ::signal(s, SIG_DFL);
  ::signal(SIGPIPE, SIG_IGN);
  if (const int nowhere = ::open("/dev/null", O_RDWR); nowhere >= 0)
    for (int fd = 0; fd <= 2; ++fd) ::dup2(nowhere, fd);
  const std::uint64_t mapped = mapped_bytes();
  if (!kSanitized && mapped > 0) limit(RLIMIT_AS, mapped + limits.memory);
  limit(RLIMIT_CPU, static_cast<std::uint64_t>(std::max(limits.cpu_seconds, 1)));
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_FSIZE, 0);
  int code = 0;
  try {
    work([out](const void* data, std::size_t bytes) {
      const char* p = static_cast<const char*>(data);
      while (bytes > 0) {
        const ssize_t n = ::write(out, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) throw ReaderGone();
        p += n, bytes -= static_cast<std::size_t>(n);
      }
    });
  } catch (const std::bad_alloc&) {
    code = kOutOfMemory;
  } catch (const Error& e) {
    code = e.code() == ErrorCode::out_of_memory ? kOutOfMemory : kFailed;
  } catch (...) {
    code = kFailed;
  }
  ::_exit(code);
}

struct Fd {
  int fd = -1;
  ~Fd() { close(); }
  void close() {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
};

// The child's end, whatever happens to us: killed if it still runs, and waited for.
struct Child {
  pid_t pid;
  int status = 0;
  bool gone = false;
  ~Child() {
    if (!gone) ::kill(pid, SIGKILL), wait();
  }
  void wait() {
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    gone = true;
  }
};

}  // namespace

std::string run_in_child(const ChildLimits& limits, const std::function<void(const ChildWrite&)>& work,
                         const std::function<void(std::span<const std::byte>)>& take) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail(ErrorCode::io, "no pipe to a child process: {}", std::strerror(errno));
  Fd in{ends[0]}, out{ends[1]};
  ::fcntl(in.fd, F_SETPIPE_SZ, 1 << 20);  // fewer turns; the default size does too
  const pid_t pid = ::fork();
  if (pid < 0) fail(ErrorCode::io, "no child process: {}", std::strerror(errno));
  if (pid == 0) {
    ::close(in.fd);
    child(limits, work, out.fd);
  }
  Child process{pid};
  out.close();
  std::vector<std::byte> piece(1 << 18);
  for (;;) {
    pollfd ready{in.fd, POLLIN, 0};
    const int n = ::poll(&ready, 1, static_cast<int>(limits.silence_seconds * 1000));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fmt::format("said nothing for {:g} s", limits.silence_seconds);
    const ssize_t got = ::read(in.fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    take({piece.data(), static_cast<std::size_t>(got)});
  }
  process.wait();
  if (WIFEXITED(process.status)) {
    const int code = WEXITSTATUS(process.status);
    return code == 0 ? "" : code == kOutOfMemory ? "ran out of memory" : "failed";
  }
  const int signal = WTERMSIG(process.status);
  if (signal == SIGXCPU || signal == SIGKILL) return fmt::format("used more than {} s of processor time", limits.cpu_seconds);
  return fmt::format("ended by signal {} ({})", signal, ::strsignal(signal));
}

}  // namespace vg::os

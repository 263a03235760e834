// The process and its machine: memory pages, clocks, processors (within what a container is allowed), terminals, interrupts.
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <ctime>

#include "tensor/error.h"
#include "tensor/os.h"

namespace vg::os {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// The text of a small system file, or "" where there is none.
std::string text_or_empty(const std::string& path) {
  try {
    return read_text(path, 16u << 20);
  } catch (const Error&) {
    return {};
  }
}

// The rest of the line after `key` and blanks or a colon; "" if absent.
std::string_view value_of(std::string_view text, std::string_view key) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.starts_with(key)) {
      line.remove_prefix(key.size());
      const std::size_t first = line.find_first_not_of(" \t:");
      return first == std::string_view::npos ? std::string_view{} : line.substr(first);
    }
    at = end + 1;
  }
  return {};
}

std::uint64_t number_or(std::string_view text, std::uint64_t otherwise) {
  std::uint64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() ? value : otherwise;
}

// The folders of this process's control groups that may carry a limit: version 2 from the innermost outwards, then version 1.
template <class Visit>
void for_each_cgroup(const char* controller, const Visit& visit) {
  const std::string groups = text_or_empty("/proc/self/cgroup");
  std::string path(value_of(groups, "0:"));  // "0::/a/b"
  for (;;) {
    visit("/sys/fs/cgroup" + path);
    const std::size_t slash = path.rfind('/');
    if (slash == std::string::npos) break;
    path.resize(slash);
  }
  visit(fmt::format("/sys/fs/cgroup/{}", controller));
}

std::atomic<int> caught_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);  // what makes it safe in a signal handler

void on_signal(int number) {
  if (number == SIGINT && caught_signal == SIGINT) {
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
  }
  caught_signal = number;
}

double seconds_of(clockid_t clock) {
  timespec t;
  ::clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace

void* allocate_pages(std::size_t bytes) {
  const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t size = (bytes + page - 1) / page * page;
  if (size < bytes || size + kHugePage < size) return nullptr;
  void* mapped = ::mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  // Cut off what stands before and after the aligned part.
  char* const first = static_cast<char*>(mapped);
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(first) % kHugePage) % kHugePage;
  if (before) ::munmap(first, before);
  if (before < kHugePage) ::munmap(first + before + size, kHugePage - before);
  ::madvise(first + before, size, MADV_HUGEPAGE);  // only advice: a refusal costs speed, nothing else
  return first + before;
}

void release_pages(void* data, std::size_t bytes) {
  const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  ::munmap(data, (bytes + page - 1) / page * page);
}

void* allocate_stack(std::size_t bytes) {
  const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t size = (bytes + page - 1) / page * page + page;
  void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  if (::mprotect(mapped, page, PROT_NONE) != 0) {
    ::munmap(mapped, size);
    return nullptr;
  }
  return static_cast<char*>(mapped) + page;
}

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

int terminal_columns(int fd) {
  winsize size{};
  return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

double wall_seconds() { return seconds_of(CLOCK_MONOTONIC); }
double cpu_seconds() { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }

std::uint64_t peak_resident_bytes() { return 1024 * number_or(value_of(text_or_empty("/proc/self/status"), "VmHWM"), 0); }

std::uint64_t physical_memory_bytes() {
  std::uint64_t bytes = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  for_each_cgroup("memory", [&](const std::string& folder) {
    for (const char* name : {"/memory.max", "/memory.limit_in_bytes"})
      bytes = std::min(bytes, number_or(text_or_empty(folder + name), bytes));
  });
  return bytes;
}

int hardware_threads() {
  static const int count = [] {
    cpu_set_t mask;
    int n = ::sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
    const auto at_most = [&n](std::uint64_t quota, std::uint64_t period) {  // microseconds of processor time per period
      if (quota > 0 && period > 0)
        n = static_cast<int>(std::min<std::uint64_t>(static_cast<std::uint64_t>(n), (quota + period - 1) / period));
    };
    for_each_cgroup("cpu", [&](const std::string& folder) {
      const std::string both = text_or_empty(folder + "/cpu.max");  // "200000 100000" or "max 100000"
      if (const std::size_t blank = both.find(' '); blank != std::string::npos)
        at_most(number_or(both, 0), number_or(both.substr(blank + 1), 0));
      const std::string quota = text_or_empty(folder + "/cpu.cfs_quota_us");  // "-1": none
      at_most(number_or(quota, 0), number_or(text_or_empty(folder + "/cpu.cfs_period_us"), 0));
    });
    return std::max(n, 1);
  }();
  return count;
}

std::string cpu_name() {
  const std::string info = text_or_empty("/proc/cpuinfo");
  if (const std::string_view name = value_of(info, "model name"); !name.empty()) return std::string(name);
  utsname names{};
  return ::uname(&names) == 0 ? std::string(names.machine) : "unknown processor";  // aarch64 kernels print numbers only
}

std::string executable_folder() {
  char buffer[4096];
  const ssize_t n = ::readlink("/proc/self/exe", buffer, sizeof buffer);
  if (n <= 0) fail(ErrorCode::io, "/proc/self/exe: cannot be read");
  const std::string path(buffer, static_cast<std::size_t>(n));
  return path.substr(0, path.rfind('/'));
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

int interrupt_signal() { return caught_signal; }

}  // namespace vg::os

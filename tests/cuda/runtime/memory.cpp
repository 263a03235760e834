// Device and pinned memory of the fake runtime. A buffer ends (within its 256-byte alignment) at an unreadable page and its addresses are never used
// again; in strict mode device memory as a whole is unreadable except while queued work runs. Whoever touches what he may not, meets the handler
// below, which says what was running and what lies there.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "kernels/sim/words.h"
#include "tensor/error.h"
#include "tests/cuda/runtime/handles.h"

namespace vg::fake_cuda {
namespace {

constexpr std::size_t kPage = 4096, kAlignment = 256;

struct State {
  std::map<const char*, Buffer> buffers;  // by start of mapping
  std::size_t used[kMostDevices] = {};
  int made = 0, open = 0;
};
State& state() {
  static auto& s = *new State;  // never destroyed: the handler and the report at exit look at it
  return s;
}

const char* name_of(Space s) { return s == Space::device ? "device" : "pinned"; }

void protect(bool readable) {
  if (!options().strict) return;
  for (auto& [pages, b] : state().buffers)
    if (b.live && b.space == Space::device) ::mprotect(b.pages, b.mapped, readable ? PROT_READ | PROT_WRITE : PROT_NONE);
}

struct sigaction before;

void on_fault(int number, siginfo_t* info, void*) {
  const Buffer* b = find(info->si_addr);
  if (b) {
    const std::string what = running();
    char text[640];
    int n;
    if (!what.empty())
      n = std::snprintf(text, sizeof text, "fake CUDA runtime: %s: block (%u,%u,%u), thread (%u,%u,%u) touched %s\n", what.c_str(), blockIdx.x,
                        blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, describe(info->si_addr).c_str());
    else
      n = std::snprintf(text, sizeof text, "fake CUDA runtime: host code touched %s\n", describe(info->si_addr).c_str());
    if (n > 0) [[maybe_unused]] const ssize_t written = ::write(2, text, std::min<std::size_t>(static_cast<std::size_t>(n), sizeof text - 1));
  }
  ::sigaction(number, &before, nullptr);  // the access is repeated when this returns, and then ends the process or reaches a sanitizer
}

[[maybe_unused]] const bool handling = [] {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  return ::sigaction(SIGSEGV, &action, &before) == 0;
}();

}  // namespace

OpenMemory::OpenMemory() {
  if (state().open++ == 0) protect(true);
}
OpenMemory::~OpenMemory() {
  if (--state().open == 0) protect(false);
}

cudaError_t allocate(Space space, int device, std::size_t bytes, void** data) {
  State& s = state();
  *data = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (space == Space::device && (bytes > options().memory || s.used[device] > options().memory - bytes)) return cudaErrorMemoryAllocation;
  const std::size_t room = (bytes + kAlignment - 1) / kAlignment * kAlignment, mapped = (room + kPage - 1) / kPage * kPage;
  void* pages = ::mmap(nullptr, mapped + kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return cudaErrorMemoryAllocation;
  if (::mprotect(pages, mapped, PROT_READ | PROT_WRITE) != 0) return cudaErrorMemoryAllocation;
  char* start = static_cast<char*>(pages) + mapped - room;
  std::memset(start, 0xFF, room);
  if (options().strict && space == Space::device && s.open == 0) ::mprotect(pages, mapped, PROT_NONE);
  s.buffers[static_cast<char*>(pages)] = {static_cast<char*>(pages), mapped, start, bytes, space, device, ++s.made, true};
  if (space == Space::device) s.used[device] += bytes;
  *data = start;
  return cudaSuccess;
}

cudaError_t release(Space space, void* data) {
  if (!data) return cudaSuccess;
  const Buffer* found = find(data);
  if (!found || found->data != data || !found->live || found->space != space) {
    complain(fmt::format("{} is called for {}", space == Space::device ? "cudaFree" : "cudaFreeHost", describe(data)));
    return cudaErrorInvalidValue;
  }
  Buffer& b = state().buffers[found->pages];
  b.live = false;
  if (space == Space::device) state().used[b.device] -= b.bytes;
  // Fresh pages without rights in the same place: the memory goes back, the addresses stay taken.
  ::mmap(b.pages, b.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return cudaSuccess;
}

const Buffer* find(const void* address) {
  const auto& buffers = state().buffers;
  const auto* at = static_cast<const char*>(address);
  auto next = buffers.upper_bound(at);
  if (next == buffers.begin()) return nullptr;
  const Buffer& b = std::prev(next)->second;
  return at < b.pages + b.mapped + kPage ? &b : nullptr;
}

std::string describe(const void* address) {
  const Buffer* b = find(address);
  if (!b) return "memory that this runtime does not know";
  const auto* at = static_cast<const char*>(address);
  const std::string which = fmt::format("{}{} buffer {} ({} bytes)", b->live ? "" : "freed ", name_of(b->space), b->number, b->bytes);
  if (at < b->data) return fmt::format("{} bytes before {}", b->data - at, which);
  const std::ptrdiff_t offset = at - b->data;
  if (at < b->data + b->bytes) return fmt::format("byte {} of {}", offset, which);
  return fmt::format("{} bytes past the end of {}", offset - static_cast<std::ptrdiff_t>(b->bytes), which);
}

std::size_t used(int device) { return state().used[device]; }

std::vector<const Buffer*> live_buffers() {
  std::vector<const Buffer*> live;
  for (const auto& [pages, b] : state().buffers)
    if (b.live) live.push_back(&b);
  return live;
}

}  // namespace vg::fake_cuda

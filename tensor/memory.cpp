// The caching allocator behind Storage: one pool per device, exact figures, a limit. Freed blocks wait in the pool for the next tensor of their
// size class, because a training step asks for the same sizes again and fresh pages are dear; blocks nobody wants any more are given back.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "tensor/error.h"
#include "tensor/os.h"
#include "tensor/storage.h"

namespace vg {
namespace {

// Under the address sanitizer, in the hooks build (kernels/sim/hooks), or with VG_MEMORY_CACHE=0 in the environment (for compute-sanitizer and the like),
// every tensor gets a fresh block of exactly its size, so that a byte past its end or after its death is reported.
bool reuse() {
#if defined(__SANITIZE_ADDRESS__) || defined(VG_HOOKS)
  return false;
#else
  static const bool wanted = os::environment("VG_MEMORY_CACHE") != "0";
  return wanted;
#endif
}

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kSlack = std::size_t{64} << 20;

std::string in_words(std::size_t bytes) {
  if (bytes >= std::size_t{1} << 30) return fmt::format("{:.2f} GiB", static_cast<double>(bytes) * 0x1p-30);
  if (bytes >= std::size_t{1} << 20) return fmt::format("{:.1f} MiB", static_cast<double>(bytes) * 0x1p-20);
  return fmt::format("{} bytes", bytes);
}

class Pool {
 public:
  void* take(Device d, std::size_t bytes) {
    const DeviceApi& api = device_api(d);
    const std::size_t block = block_bytes(bytes);
    const std::lock_guard lock(mutex_);
    if (owner_) {
      if (void* data = take_held(block)) return data;
    }
    void* data = take_free(api, d, bytes, block);
    if (owner_) owner_of_[data] = owner_;
    return data;
  }

  void give_back(Device d, void* data, std::size_t bytes) noexcept {
    const std::size_t block = block_bytes(bytes);
    const std::lock_guard lock(mutex_);
    try {
      const auto found = owner_of_.find(data);
      if (const void* owner = found != owner_of_.end() ? found->second : owner_) {
        held_[owner].push_back({data, bytes});  // still counted as live: the recording uses it
        owner_of_[data] = owner;
        return;
      }
    } catch (const std::bad_alloc&) {  // no room for the note: better lost than given to another
      return;
    }
    free_or_release(d, data, bytes, block);
  }

  void hold(const void* owner) {
    const std::lock_guard lock(mutex_);
    owner_ = owner;
  }
  void stop_holding(Device d, const void* owner) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase_if(owner_of_, [&](const auto& entry) { return entry.second == owner; });
    const auto found = held_.find(owner);
    if (found == held_.end()) return;
    for (const Held& h : found->second) free_or_release(d, h.data, h.bytes, block_bytes(h.bytes));
    held_.erase(found);
  }

  MemoryStats stats() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak = stats_.live;
  }
  void release_cache(Device d) {
    const std::lock_guard lock(mutex_);
    if (stats_.cached) shrink(device_api(d), d, 0);
    highest_live_ = stats_.live;
  }
  void set_limit(Device d, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
    if (limit_ && stats_.cached) shrink(device_api(d), d, limit_ > stats_.live ? limit_ - stats_.live : 0);
  }

 private:
  struct Block {
    void* data;
    std::uint64_t freed;  // when, on clock_
  };
  struct Held {
    void* data;
    std::size_t bytes;  // as asked for
  };

  // One that the recording under way gave back itself.
  void* take_held(std::size_t block) {
    std::vector<Held>& held = held_[owner_];
    for (std::size_t i = held.size(); i-- > 0;) {
      if (block_bytes(held[i].bytes) != block || !reuse()) continue;
      void* data = held[i].data;
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
      return data;
    }
    return nullptr;
  }

  void* take_free(const DeviceApi& api, Device d, std::size_t bytes, std::size_t block) {
    if (const auto found = free_.find(block); found != free_.end() && !found->second.empty() && within_limit(block)) {
      void* data = found->second.back().data;  // the youngest: its bytes may still be in the processor's cache
      found->second.pop_back();
      stats_.cached -= block;
      enter(block);
      return data;
    }
    if (!within_limit(block))
      fail(ErrorCode::out_of_memory, "{}: {} more would pass the limit: {} in use of {}", to_string(d), in_words(block),
           in_words(stats_.live), in_words(limit_));
    // Held memory stays near the most that was ever live at once: half as much again for differing sizes, never more than the limit.
    std::size_t most = std::max(highest_live_, stats_.live + block);
    most += most / 2 + kSlack;
    if (limit_) most = std::min(most, limit_);
    shrink(api, d, most > stats_.live + block ? most - stats_.live - block : 0);
    void* data = nullptr;
    const std::size_t given = reuse() ? block : bytes;
    if (api.allocate(d, given, &data)) {
      shrink(api, d, 0);
      if (const char* why = api.allocate(d, given, &data))
        fail(ErrorCode::out_of_memory, "{}: cannot allocate {} more: {} in use ({})", to_string(d), in_words(block), in_words(stats_.live),
             why);
    }
    enter(block);
    return data;
  }

  void free_or_release(Device d, void* data, std::size_t bytes, std::size_t block) noexcept {
    stats_.live -= block;
    if (reuse()) {
      try {
        free_[block].push_back({data, ++clock_});
        stats_.cached += block;
        return;
      } catch (const std::bad_alloc&) {  // no room for the note: give the block itself back
      }
    }
    device_api(d).release(d, data, reuse() ? block : bytes);
  }

  bool within_limit(std::size_t block) const { return !limit_ || (stats_.live <= limit_ && block <= limit_ - stats_.live); }

  void enter(std::size_t block) {
    stats_.live += block;
    stats_.peak = std::max(stats_.peak, stats_.live);
    highest_live_ = std::max(highest_live_, stats_.live);
  }

  // Gives back the blocks that waited longest until at most `keep` bytes are cached.
  void shrink(const DeviceApi& api, Device d, std::size_t keep) {
    while (stats_.cached > keep) {
      auto oldest = free_.end();
      for (auto it = free_.begin(); it != free_.end();) {
        if (it->second.empty()) {
          it = free_.erase(it);
          continue;
        }
        if (oldest == free_.end() || it->second.front().freed < oldest->second.front().freed) oldest = it;
        ++it;
      }
      api.release(d, oldest->second.front().data, oldest->first);
      stats_.cached -= oldest->first;
      oldest->second.erase(oldest->second.begin());
    }
  }

  std::mutex mutex_;
  std::map<std::size_t, std::vector<Block>> free_;  // by size class, oldest first; an emptied class keeps its place
  const void* owner_ = nullptr;                             // the recording under way
  std::map<void*, const void*> owner_of_;                   // of blocks that a recording uses
  std::map<const void*, std::vector<Held>> held_;           // those of them that no tensor lives in
  MemoryStats stats_;
  std::size_t limit_ = 0, highest_live_ = 0;
  std::uint64_t clock_ = 0;
};

// Never destroyed: a tensor may be a static object of another file.
Pool& pool(Device d) {
  constexpr std::size_t kIndices = 128;
  static auto& pools = *new std::array<std::array<Pool, kIndices>, kDeviceKinds>;
  require(d.index >= 0, "device {}: a negative index", name_of(d.kind));
  return pools[static_cast<std::size_t>(d.kind)][static_cast<std::size_t>(d.index)];
}

}  // namespace

std::size_t block_bytes(std::size_t bytes) {
  if (bytes <= 8 * kAlignment) return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t step = std::bit_floor(bytes - 1) / 8;  // eight classes in [2^k, 2^(k+1)]
  return (bytes + step - 1) / step * step;
}

Storage::Storage(Device device, std::size_t bytes) : device(device), bytes(bytes) {
  if (bytes == 0) return;
  data = pool(device).take(device, bytes);
  // What a simulated kernel reads without having written is NaN (f32, f16, bf16) or -1, every time.
  if (device.kind == DeviceKind::sim) std::memset(data, 0xFF, bytes);
}

Storage::~Storage() {
  if (data) pool(device).give_back(device, data, bytes);
}

MemoryStats memory_stats(Device d) { return pool(d).stats(); }
void reset_peak(Device d) { pool(d).reset_peak(); }
void release_cache(Device d) { pool(d).release_cache(d); }
void set_memory_limit(Device d, std::size_t bytes) { pool(d).set_limit(d, bytes); }
void hold_memory(Device d, const void* owner) { pool(d).hold(owner); }
void stop_holding(Device d, const void* owner) noexcept { pool(d).stop_holding(d, owner); }

}  // namespace vg

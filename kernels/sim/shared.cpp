// Shared memory of the running block: one arena per worker. Filled with 0xFF (a NaN in every float type, -1 in every integer) before each block, so
// that reading what nobody wrote shows. A red zone follows each array: poisoned under the address sanitizer, otherwise compared when the block ends.
#include <algorithm>
#include <cstring>
#include <mutex>

#include "kernels/sim/watch.h"
#include "kernels/sim/worker.h"
#include "tensor/error.h"
#include "tensor/os.h"

#if defined(VG_SIM_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace vg::simt {
namespace {

constexpr std::size_t kArenaBytes = 1 << 20;
constexpr std::size_t kArrayAlign = 128, kRedZone = 128;
constexpr std::size_t kMaxArrays = (kArenaBytes - 2 * kSharedBytes) / (2 * kRedZone + kArrayAlign);
constexpr unsigned char kUnwritten = 0xff;

std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

#if defined(VG_SIM_ASAN)
void open(char* at, std::size_t bytes) { __asan_unpoison_memory_region(at, bytes); }
void close_all(char* at, std::size_t bytes) { __asan_poison_memory_region(at, bytes); }
void guard(char*) {}
bool intact(const char*) { return true; }
#else
constexpr unsigned char kGuard = 0xa5;
void open(char*, std::size_t) {}
void close_all(char*, std::size_t) {}
void guard(char* at) { std::memset(at, kGuard, kRedZone); }
bool intact(const char* at) {
  return std::all_of(at, at + kRedZone, [](char c) { return static_cast<unsigned char>(c) == kGuard; });
}
#endif

}  // namespace

Worker::Worker() {
  arena_ = static_cast<char*>(os::allocate_pages(kArenaBytes));
  if (!arena_) fail(ErrorCode::out_of_memory, "sim device: no memory for {} KiB of shared memory", kArenaBytes >> 10);
  close_all(arena_, kArenaBytes);
}

Worker::~Worker() {
  open(arena_, kArenaBytes);
  os::release_pages(arena_, kArenaBytes);
}

void Worker::begin_shared() {
  ++block_serial_;
  static_bytes_ = 0;
  red_zones_.clear();
  const std::size_t dynamic = launch_->dynamic_shared;
  open(arena_, dynamic);
  std::memset(arena_, kUnwritten, dynamic);
  // Right after the last byte, whatever its alignment.
  guard(arena_ + dynamic);
  red_zones_.push_back({arena_ + dynamic, nullptr});
  arena_used_ = round_up(dynamic + kRedZone, kArrayAlign);
}

void* Worker::shared_array(SharedArray& array) {
  std::uint32_t id = array.id.load(std::memory_order_relaxed);
  if (id != 0 && id < places_.size() && places_[id].block == block_serial_) return places_[id].data;
  if (id == 0) {
    static std::atomic<std::uint32_t> last{0};
    const std::uint32_t mine = ++last;
    id = array.id.compare_exchange_strong(id, mine) ? mine : array.id.load();
  }
  if (id >= places_.size()) places_.resize(id + 1);

  // As the CUDA compiler counts: one after the other, each aligned.
  static_bytes_ = round_up(static_bytes_, array.alignment) + array.bytes;
  if (static_bytes_ > kStaticSharedBytes)
    fault(current_, array.file, array.line,
          fmt::format("shared array {} of {} bytes brings the block to {} bytes (at most {}; more only as dynamic shared memory)",
                      array.name, array.bytes, static_bytes_, kStaticSharedBytes));
  if (static_bytes_ + launch_->dynamic_shared > kSharedBytes)
    fault(current_, array.file, array.line,
          fmt::format("shared array {} of {} bytes brings the block to {} static and {} dynamic bytes (at most {} together)", array.name,
                      array.bytes, static_bytes_, launch_->dynamic_shared, kSharedBytes));
  if (red_zones_.size() > kMaxArrays) fault(current_, array.file, array.line, fmt::format("more than {} shared arrays", kMaxArrays));
  char* data = arena_ + arena_used_;
  open(data, array.bytes);
  std::memset(data, kUnwritten, array.bytes);
  guard(data + array.bytes);
  red_zones_.push_back({data + array.bytes, &array});
  arena_used_ = round_up(arena_used_ + array.bytes + kRedZone, kArrayAlign);
  places_[id] = {block_serial_, data};
  watch::shared_array_placed(array, data);
  return data;
}

void Worker::end_shared() {
  close_all(arena_, arena_used_);
  if (error_) return;
  for (const RedZone& zone : red_zones_) {
    if (intact(zone.at)) continue;
    const std::string what = zone.after ? fmt::format("shared array {} of {} bytes ({})", zone.after->name, zone.after->bytes,
                                                      place(zone.after->file, zone.after->line))
                                        : fmt::format("dynamic shared memory of {} bytes", launch_->dynamic_shared);
    fail(ErrorCode::invalid_argument, "kernel {}, grid {}, block {}: block ({},{},{}) wrote past the end of {}", launch_->kernel,
         to_string(launch_->grid), to_string(launch_->block), block_.x, block_.y, block_.z, what);
  }
}

}  // namespace vg::simt

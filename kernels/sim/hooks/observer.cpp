// Bounds, initialisation and races: what each access is held against.
#include "kernels/sim/hooks/observer.h"

#include <algorithm>
#include <thread>

#include "kernels/sim/words.h"
#include "kernels/sim/worker.h"
#include "tensor/error.h"
#include "tensor/os.h"

extern "C" {
extern const char __executable_start, _end;  // the linker's: first and last byte of the program
}

namespace vg::simt::hooks {
namespace {

bool in_program(const char* p) { return p >= &__executable_start && p < &_end; }

bool is_builtin_variable(const void* p) {  // threadIdx and its like
  const auto inside = [p](const auto& v) { return p >= static_cast<const void*>(&v) && p < static_cast<const void*>(&v + 1); };
  return inside(threadIdx) || inside(blockIdx) || inside(blockDim) || inside(gridDim);
}

// In here: what the compiler instruments of our own templates is not a kernel's.
constinit thread_local bool busy = false;
const auto main_thread = std::this_thread::get_id();

constexpr const char* kAccess[] = {"read", "write", "atomic"};

}  // namespace

Observer& observer() {
  static Observer& one = *new Observer;  // never destroyed: static tensors outlive everything
  return one;
}

std::uintptr_t program_start() { return reinterpret_cast<std::uintptr_t>(&__executable_start); }

const char* name_of(Finding f) {
  constexpr const char* names[] = {"race", "out of bounds", "uninitialised", "device memory in host code"};
  return names[static_cast<int>(f)];
}

Region* Observer::find(const char* p) {
  if (last_ && last_->holds(p)) return last_;
  for (Region& r : shared_)
    if (r.holds(p)) return last_ = &r;
  auto next = buffers_.upper_bound(p);
  if (next == buffers_.begin() || !std::prev(next)->second.holds(p)) return nullptr;
  return last_ = &std::prev(next)->second;
}

// "byte 4096 of a buffer of 4096 bytes", or whatever lies nearest.
std::string Observer::where(const char* p, std::size_t bytes) const {
  for (const Region& r : shared_)
    if (p >= r.begin - 64 && p < r.begin + r.bytes + 128)
      return fmt::format("{} bytes at byte {} of shared array {} of {} bytes", bytes, p - r.begin, r.name, r.bytes);
  auto next = buffers_.upper_bound(p);
  const Region* near = nullptr;
  if (next != buffers_.begin()) near = &std::prev(next)->second;
  if (next != buffers_.end() && (!near || next->first - p < p - (near->begin + near->bytes))) near = &next->second;
  if (near && p - near->begin > -(1 << 20) && p - (near->begin + near->bytes) < (1 << 20))
    return fmt::format("{} bytes at byte {} of a buffer of {} bytes", bytes, p - near->begin, near->bytes);
  return fmt::format("{} bytes at {}, far from every buffer", bytes, static_cast<const void*>(p));
}

std::string Observer::who(std::uint32_t block, int thread) const {
  const Shape3& b = launch_->block;
  const auto t = static_cast<unsigned>(thread);
  return fmt::format("{} thread ({},{},{})",
                     block == serial_ ? fmt::format("block ({},{},{})", block_.x, block_.y, block_.z) : "another block's", t % b.x,
                     t / b.x % b.y, t / b.x / b.y);
}

void Observer::report(Finding what, std::uintptr_t place, std::uintptr_t other, const std::string& text) {
  for (Report& r : reports)
    if (r.what == what && r.place == place && r.other == other) {
      ++r.count;
      return;
    }
  reports.push_back(
      {what, place, other,
       launch_ ? fmt::format("kernel {}, grid {}, block {}: {}", launch_->kernel, to_string(launch_->grid), to_string(launch_->block), text)
               : text});
}

void Observer::access(const void* address, std::size_t bytes, Kind kind, std::uintptr_t place) {
  if (busy) return;
  busy = true;
  struct Leave {
    ~Leave() { busy = false; }
  } leave;
  const char* p = static_cast<const char*>(address);
  const Running running = running_thread();
  if (running.thread < 0) {
    if (buffers_.empty() || std::this_thread::get_id() != main_thread) return;
    if (find(p))
      report(Finding::host_access, place, 0, fmt::format("host code makes a {} of {}", kAccess[static_cast<int>(kind)], where(p, bytes)));
    return;
  }
  if (is_builtin_variable(p)) return;
  if (!find(p)) {
    const bool arguments =
        p >= static_cast<const char*>(launch_->arguments) && p < static_cast<const char*>(launch_->arguments) + launch_->argument_bytes;
    if (running.on_stack(p) || (kind == Kind::read && (arguments || in_program(p)))) return;
  }
  thread_access(running.thread, address, bytes, kind, place);
}

void Observer::thread_access(int thread, const void* address, std::size_t bytes, Kind kind, std::uintptr_t place, bool counted) {
  const char* p = static_cast<const char*>(address);
  Region* r = find(p);
  ++accesses_;
  now_ = Access{serial_, barriers_, warp_syncs_[thread / kLanes], 0, static_cast<std::uint16_t>(thread)};
  if (!r || p + bytes > r->begin + r->bytes) {
    report(Finding::out_of_bounds, place, 0,
           fmt::format("{}: {} of {}", who(serial_, thread), kAccess[static_cast<int>(kind)], where(p, bytes)));
    return;
  }
  now_.site = site_number(place, r->shared, kind, static_cast<int>(bytes));
  if (counted) record(now_.site, reinterpret_cast<std::uintptr_t>(p));
  if (!r->written) return;
  if (kind != Kind::write) check_written(*r, p, bytes, place);
  if (kind != Kind::read) std::fill_n(r->written.get() + (p - r->begin), bytes, static_cast<unsigned char>(1));
  check_races(*r, p, bytes, kind);
}

std::uintptr_t Observer::named_place(const char* file, int line) {
  std::uintptr_t& number = named_[{file, line}];
  if (!number) {
    places.push_back(simt::place(file, line));
    number = places.size();
  }
  return number;
}

void Observer::check_written(Region& r, const char* p, std::size_t bytes, std::uintptr_t place) {
  const unsigned char* first = r.written.get() + (p - r.begin);
  if (std::find(first, first + bytes, 0) == first + bytes) return;
  report(Finding::uninitialised, place, 0, fmt::format("{} reads what nobody wrote: {}", who(serial_, now_.thread), where(p, bytes)));
  std::fill_n(r.written.get() + (p - r.begin), bytes, static_cast<unsigned char>(1));  // each byte once
}

// Did `before` happen before the access of now, by a barrier, by __syncwarp of both, or by being the same thread?
bool Observer::ordered(const Access& before) const {
  if (before.block < first_serial_) return true;  // nobody, or an earlier launch
  if (before.block != serial_) return false;
  if (before.thread == now_.thread || before.barriers != barriers_) return true;
  const int warp = now_.thread / kLanes;
  if (before.thread / kLanes != warp || before.warp_syncs == now_.warp_syncs) return false;
  return (warp_mask_[warp] >> before.thread % kLanes & warp_mask_[warp] >> now_.thread % kLanes & 1) != 0;
}

void Observer::collide(const Access& before, const char* was, const char* is, const char* p) {
  report(Finding::race, sites[now_.site].place, sites[before.site].place,
         fmt::format("{} {} what {} {} with no barrier between: {}", who(serial_, now_.thread), is, who(before.block, before.thread), was,
                     where(p, 1)));
}

void Observer::check_races(Region& r, const char* p, std::size_t bytes, Kind kind) {
  const std::size_t offset = static_cast<std::size_t>(p - r.begin);
  if (r.unit == 4 && (offset % 4 || bytes % 4)) r.split_words();
  const std::size_t unit = static_cast<std::size_t>(r.unit), last = (offset + bytes - 1) / unit;
  for (std::size_t i = offset / unit; i <= last; ++i) {
    Cell& c = r.cells[i];
    const char* is = kind == Kind::read ? "reads" : "writes";
    if (!ordered(c.write)) collide(c.write, "wrote", is, p);
    if (kind != Kind::atomic && !ordered(c.atomic)) collide(c.atomic, "changed atomically", is, p);
    if (kind == Kind::read) {
      if (c.read.block != serial_) {
        c.other_block = c.read;
        c.other_warp = c.other_lane = Access{};
      } else if (c.read.thread / kLanes != now_.thread / kLanes) {
        c.other_warp = c.read;
        c.other_lane = Access{};
      } else if (c.read.thread != now_.thread) {
        c.other_lane = c.read;
      }
      c.read = now_;
    } else {
      for (const Access* reader : {&c.read, &c.other_warp, &c.other_lane, &c.other_block})
        if (!ordered(*reader)) collide(*reader, "read", is, p);
      if (kind == Kind::atomic) {
        c.atomic = now_;
        continue;
      }
      c = Cell{};
      c.write = now_;
    }
  }
}

// --- what the executor tells ---

std::uint64_t Observer::blocks_to_run(std::uint64_t blocks) {
  const std::uint64_t chosen = most_blocks == 0 || blocks <= 32 ? blocks : most_blocks;
  launched[launch_->function].blocks_run += static_cast<std::int64_t>(chosen);
  return chosen;
}

void Observer::begin_launch(const Launch& launch) {
  launch_ = &launch;
  first_serial_ = serial_ + 1;
  LaunchShapes& l = launched[launch.function];
  l.name = launch.kernel;
  l.kernel = launch.function;
  ++l.launches;
  l.threads = static_cast<unsigned>(launch.block.count());
  l.blocks += static_cast<std::int64_t>(launch.grid.count());
  l.dynamic_shared = std::max(l.dynamic_shared, launch.dynamic_shared);
  accesses_ = 0;
}

void Observer::end_launch() {
  end_block();
  launched[launch_->function].shapes.insert(fmt::format("{}, {}, {} bytes, {} accesses", to_string(launch_->grid),
                                                        to_string(launch_->block), launch_->dynamic_shared, accesses_));
  launch_ = nullptr;
}

void Observer::begin_block(uint3 block, char* dynamic_shared) {
  end_block();
  block_ = block;
  ++serial_;
  barriers_ = 0;
  std::fill_n(warp_syncs_, kWarps, 0u);
  if (launch_->dynamic_shared) shared_.emplace_back(dynamic_shared, launch_->dynamic_shared, true, "(dynamic)");
}

void Observer::end_block() {
  for (int w = 0; w < kWarps; ++w) flush(w);
  shared_.clear();
  last_ = nullptr;
}

void Observer::place_shared(const SharedArray& array, char* data) {
  shared_.emplace_back(data, array.bytes, true, fmt::format("{} ({})", array.name, place(array.file, array.line)));
  last_ = nullptr;
}

void Observer::block_synchronised() {
  ++barriers_;
  for (int w = 0; w < kWarps; ++w) flush(w);
}

void Observer::warp_asked(int warp, unsigned mask, Collective what) {
  flush(warp);
  if (what != Collective::sync_warp) return;  // shuffles and votes order no memory (CUDA C++ programming guide, "warp shuffle functions")
  ++warp_syncs_[warp];
  warp_mask_[warp] = mask;
}

bool Observer::left_out(const Request& request) {
  if (request.what < Collective::barrier && request.what != Collective::sync_warp) return false;
  return left_out(request.file, request.line, simt::name_of(request.what));
}

bool Observer::left_out(const char* file, int line, const char* what) {
  const auto [known, is_new] = barrier_places.try_emplace({file, line}, false);
  if (is_new) {
    const std::string at = place(file, line);
    barriers_reached.emplace(at, what);
    known->second = at == omit;
  }
  omitted += known->second;
  return known->second;
}

// --- buffers ---

void Observer::add_buffer(void* data, std::size_t bytes) {
  buffers_.insert_or_assign(static_cast<const char*>(data), Region(static_cast<char*>(data), bytes, false, ""));
  last_ = nullptr;
}

void Observer::allow_virtual(void* data, std::size_t bytes) {
  if (bytes == 0) return remove_buffer(data);
  buffers_.insert_or_assign(static_cast<const char*>(data), Region(static_cast<char*>(data), bytes));
  last_ = nullptr;
}

void Observer::remove_buffer(void* data) {
  buffers_.erase(static_cast<const char*>(data));
  last_ = nullptr;
}

void Observer::mark(const void* data, std::size_t bytes, unsigned char written) {
  const char* p = static_cast<const char*>(data);
  Region* r = bytes ? find(p) : nullptr;
  if (!r || !r->written) return;
  const std::size_t offset = static_cast<std::size_t>(p - r->begin);
  std::fill_n(r->written.get() + offset, std::min(bytes, r->bytes - offset), written);
}

std::vector<Report> take_reports() {
  const std::lock_guard lock(observer().mutex);
  return std::exchange(observer().reports, {});
}

std::vector<LaunchShapes> launches() {
  std::vector<LaunchShapes> all;
  for (const auto& [function, l] : observer().launched) all.push_back(l);
  return all;
}

std::vector<std::string> barriers() {
  std::vector<std::string> all;
  for (const auto& [at, what] : observer().barriers_reached) all.push_back(at + " " + what);
  return all;
}

bool is_named(std::uintptr_t place) { return place <= observer().places.size(); }
std::string name_of_place(std::uintptr_t place) { return place ? observer().places[place - 1] : ""; }

void forget_counts() {
  observer().launched.clear();
  for (Traffic& t : observer().sites) t.requests = t.lanes = t.moved = t.ideal = 0;
}

void sample_blocks(std::uint64_t most) { observer().most_blocks = most; }

void forget_barriers() {
  observer().barriers_reached.clear();
  observer().barrier_places.clear();
}

void leave_out(const std::string& at) {
  observer().omit = at;
  observer().omitted = 0;
  observer().barrier_places.clear();
}
std::int64_t times_left_out() { return observer().omitted; }

void allow_virtual(void* data, std::size_t bytes) {
  const std::lock_guard lock(observer().mutex);
  observer().allow_virtual(data, bytes);
}

void forget(const void* data, std::size_t bytes) {
  const std::lock_guard lock(observer().mutex);
  observer().mark(data, bytes, 0);
}

}  // namespace vg::simt::hooks

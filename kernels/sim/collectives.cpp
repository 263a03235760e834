// Barriers, shuffles and votes: threads wait until the last one of their group arrives; that one checks the group and computes everybody's result.
// Shuffle semantics: PTX ISA, "shfl.sync"; masks: CUDA C++ programming guide, "warp shuffle functions".
#include <cstring>

#include "kernels/sim/watch.h"
#include "kernels/sim/worker.h"
#include "tensor/error.h"

namespace vg::simt {
namespace {

std::string hex(unsigned mask) { return fmt::format("0x{:08x}", mask); }

bool same_place(const char* file_a, int line_a, const char* file_b, int line_b) {
  return line_a == line_b && (file_a == file_b || std::strcmp(file_a, file_b) == 0);
}

// The lane that `lane` reads from. Lanes count within segments of `width`; a source outside of the segment means its own value.
int source_lane(Collective what, int lane, int operand, int width) {
  const int first = lane & ~(width - 1), last = first + width - 1;
  switch (what) {
    case Collective::shuffle: return first | (operand & (width - 1));
    case Collective::shuffle_up: return lane - (operand & 31) < first ? lane : lane - (operand & 31);
    case Collective::shuffle_down: return lane + (operand & 31) > last ? lane : lane + (operand & 31);
    default: return (lane ^ (operand & 31)) > last ? lane : lane ^ (operand & 31);
  }
}

}  // namespace

const char* name_of(Collective what) {
  constexpr const char* names[] = {"__syncwarp",      "__shfl_sync",      "__shfl_up_sync",    "__shfl_down_sync",
                                   "__shfl_xor_sync", "__ballot_sync",    "__any_sync",        "__all_sync",
                                   "mma16816<bf16>",  "mma16816<f16>",    "ldmatrix_x4",       "ldmatrix_x4_trans",
                                   "__syncthreads",   "__syncthreads_or", "__syncthreads_and", "__syncthreads_count"};
  return names[static_cast<int>(what)];
}

void Worker::answer(Request& request) {
  if (request.what < Collective::barrier)
    warp_collective(request);
  else
    block_barrier(request);
}

void Worker::warp_collective(Request& request) {
  const int w = current_ / kLanes, lane = current_ % kLanes;
  const unsigned bit = 1u << lane, mask = request.mask;
  Warp& warp = warp_[w];
  const auto refuse = [&](const std::string& why) {
    fault(current_, request.file, request.line, fmt::format("{}, mask {}: {}", name_of(request.what), hex(mask), why));
  };
  if (!(mask & bit)) [[unlikely]]
    refuse(fmt::format("the mask does not name the calling lane {}", lane));
  if (const unsigned missing = mask & ~warp.alive) [[unlikely]] {
    const unsigned returned = missing & warp.exists;
    refuse(returned ? fmt::format("the mask names lane {}, which has returned", std::countr_zero(returned))
                    : fmt::format("the mask names lane {}, which does not exist (the block has {} threads)", std::countr_zero(missing),
                                  threads_));
  }
  if (request.width < 1 || request.width > kLanes || (request.width & (request.width - 1))) [[unlikely]]
    refuse(fmt::format("width {} (wanted 1, 2, 4, 8, 16 or 32)", request.width));

  warp.request[lane] = &request;
  warp.waiting |= bit;
  if ((warp.waiting & mask) == mask) {
    resolve(warp, w * kLanes, request);
    watch::warp_asked(w, mask, request.what);
    warp.waiting &= ~mask;
    warp.ready |= mask;
    ready_warps_ |= 1u << w;
  }
  park();
}

// All lanes of the last one's mask have asked: checks that it is the same question, and answers.
void Worker::resolve(Warp& warp, int first_thread, const Request& last) {
  const Collective what = last.what;
  const unsigned mask = last.mask;
  unsigned yes = 0;
  std::uint64_t value[kLanes];
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    const Request& r = *warp.request[lane];
    if (r.what != what || r.mask != mask) [[unlikely]]
      fault(current_, last.file, last.line,
            fmt::format("lanes of one mask called different things: lane {} calls {}, mask {}; lane {} called {}, mask {} at {}",
                        current_ - first_thread, name_of(what), hex(mask), lane, name_of(r.what), hex(r.mask), place(r.file, r.line)));
    value[lane] = r.value;
    yes |= static_cast<unsigned>(r.value != 0) << lane;
  }
  if (what >= Collective::mma_bf16) return resolve_matrix(warp.request, first_thread);
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    Request& r = *warp.request[lane];
    switch (what) {
      case Collective::ballot: r.value = yes; break;
      case Collective::any: r.value = yes != 0; break;
      case Collective::all: r.value = yes == mask; break;
      case Collective::sync_warp: break;
      default: {
        const int from = source_lane(what, lane, r.operand, r.width);
        if (!(mask >> from & 1)) [[unlikely]]
          fault(first_thread + lane, r.file, r.line,
                fmt::format("{} reads lane {}, which mask {} does not name", name_of(what), from, hex(mask)));
        r.value = value[from];
      }
    }
  }
}

void Worker::block_barrier(Request& request) {
  const Collective what = request.what;
  if (exited_) [[unlikely]] {
    int gone = 0;
    while (warp_[gone / kLanes].alive >> gone % kLanes & 1) ++gone;
    fault(current_, request.file, request.line,
          fmt::format("{} after {} of the block's {} threads have returned, the first of them {}", name_of(what), exited_, threads_,
                      thread_name(gone)));
  }
  Barrier& b = barrier_;
  if (b.waiting == 0) {
    b.what = what;
    b.file = request.file;
    b.line = request.line;
    b.count = 0;
  } else if (b.what != what || !same_place(b.file, b.line, request.file, request.line)) [[unlikely]] {
    fault(current_, request.file, request.line,
          fmt::format("{}, while {} other threads of the block wait at another barrier, {} at {}", name_of(what), b.waiting,
                      name_of(b.what), place(b.file, b.line)));
  }
  b.count += static_cast<int>(request.value);
  if (++b.waiting == threads_) {
    b.waiting = 0;
    watch::block_synchronised();
    b.result = what == Collective::barrier_count ? b.count : what == Collective::barrier_and ? b.count == threads_ : b.count != 0;
    const int warps = (threads_ + kLanes - 1) / kLanes;
    for (int w = 0; w < warps; ++w) warp_[w].ready = warp_[w].exists;
    ready_warps_ = warps == 32 ? ~0u : (1u << warps) - 1;
  }
  park();
  request.value = static_cast<std::uint64_t>(b.result);
}

// A thread returned: nobody may be waiting for it.
void Worker::finish_thread() {
  const int lane = current_ % kLanes;
  Warp& warp = warp_[current_ / kLanes];
  home_[current_] = nullptr;
  warp.alive &= ~(1u << lane);
  ++exited_;
  if (barrier_.waiting) [[unlikely]]
    fault(current_, barrier_.file, barrier_.line,
          fmt::format("returned, while {} other threads of the block wait at {}", barrier_.waiting, name_of(barrier_.what)));
  for (unsigned rest = warp.waiting; rest; rest &= rest - 1) {
    const int other = std::countr_zero(rest);
    const Request& r = *warp.request[other];
    if (r.mask >> lane & 1) [[unlikely]]
      fault(current_ - lane + other, r.file, r.line,
            fmt::format("{}, mask {}: the mask names lane {}, which has returned", name_of(r.what), hex(r.mask), lane));
  }
}

std::string Worker::thread_name(int thread) const {
  return fmt::format("({},{},{})", index_[thread].x, index_[thread].y, index_[thread].z);
}

void Worker::fault(int thread, const char* file, int line, const std::string& what) const {
  fail(ErrorCode::invalid_argument, "kernel {}, grid {}, block {}: block ({},{},{}), thread {}, {}: {}", launch_->kernel,
       to_string(launch_->grid), to_string(launch_->block), block_.x, block_.y, block_.z, thread_name(thread), place(file, line), what);
}

// Threads wait, none could run. Says for every group (same call, same mask, same line) who and where.
std::string Worker::deadlock() const {
  struct Group {
    const Request* what;  // null: the block's barrier
    int warp, count;
    std::string threads;
  };
  std::vector<Group> groups;
  for (int t = 0; t < threads_; ++t) {
    const Warp& warp = warp_[t / kLanes];
    const int lane = t % kLanes;
    if (!(warp.alive >> lane & 1)) continue;
    const Request* r = warp.waiting >> lane & 1 ? warp.request[lane] : nullptr;
    Group* home = nullptr;
    for (Group& g : groups)
      if (r ? g.what && g.warp == t / kLanes && g.what->what == r->what && g.what->mask == r->mask &&
                  same_place(g.what->file, g.what->line, r->file, r->line)
            : !g.what)
        home = &g;
    if (!home) home = &groups.emplace_back(Group{r, t / kLanes, 0, ""});
    if (++home->count <= 4) (home->threads += ' ') += thread_name(t);
    if (home->count == 5) home->threads += " ...";
  }
  std::string text =
      fmt::format("kernel {}, grid {}, block {}: block ({},{},{}): deadlock, no thread can go on; {} of {} threads have returned",
                  launch_->kernel, to_string(launch_->grid), to_string(launch_->block), block_.x, block_.y, block_.z, exited_, threads_);
  for (const Group& g : groups)
    text += g.what ? fmt::format("; {} of warp {} at {}, mask {}, {}:{}", g.count, g.warp, name_of(g.what->what), hex(g.what->mask),
                                 place(g.what->file, g.what->line), g.threads)
                   : fmt::format("; {} at {}, {}:{}", g.count, name_of(barrier_.what), place(barrier_.file, barrier_.line), g.threads);
  return text;
}

// The path below the repository's root, where the compiler was given an absolute one.
std::string place(const char* file, int line) {
  constexpr std::string_view here = "kernels/sim/collectives.cpp";
  const std::string_view self = __FILE__, path = file;
  const std::string_view root = self.ends_with(here) ? self.substr(0, self.size() - here.size()) : std::string_view();
  return fmt::format("{}:{}", path.starts_with(root) ? path.substr(root.size()) : path, line);
}

}  // namespace vg::simt

// The tensor cores and the asynchronous copies of the sim device. Matrix words are warp collectives: when the last lane has asked, its request is
// answered for all 32, element by element as PTX lays fragments out over lanes ("Matrix fragments for mma.m16n8k16", "ldmatrix").
//
// A copy may arrive at any moment between its issue and the wait for it, and a correct kernel does not care. So the forward order performs copies at the
// wait (what was not waited for is not there), the reverse order at their issue (what is still being read is overwritten), the random order draws.
#include <cstring>

#include "kernels/sim/watch.h"
#include "kernels/sim/worker.h"
#include "tensor/dtype.h"
#include "tensor/error.h"

namespace vg::simt {
namespace {

template <class H>
float widened(unsigned word, int which) {
  return static_cast<float>(H{static_cast<std::uint16_t>(word >> 16 * which)});
}

// Products of halves are exact in float; a GPU's own order and rounding of the sums is not documented.
template <class H>
void multiply(Request* const* request) {
  float a[16][16], b[16][8];
  const auto operands = [&](int lane) -> const MatrixProduct& { return *reinterpret_cast<const MatrixProduct*>(request[lane]->value); };
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const MatrixProduct& own = operands(lane);
    for (int j = 0; j < 2; ++j) {
      for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][2 * t + j + r / 2 * 8] = widened<H>(own.a[r], j);
      for (int r = 0; r < 2; ++r) b[2 * t + j + r * 8][g] = widened<H>(own.b[r], j);
    }
  }
  float sum[16][8] = {};
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) sum[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < kLanes; ++lane)
    for (int r = 0; r < 4; ++r) operands(lane).d[r] += sum[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
}

}  // namespace

void Worker::resolve_matrix(Request* const* request, int first_thread) {
  const Collective what = request[0]->what;
  if (what == Collective::mma_bf16) return multiply<bf16>(request);
  if (what == Collective::mma_f16) return multiply<f16>(request);
  const auto load = [&](int lane) -> const MatrixLoad& { return *reinterpret_cast<const MatrixLoad*>(request[lane]->value); };
  for (int lane = 0; lane < kLanes; ++lane) {
    check_shared16(first_thread + lane, load(lane).row, name_of(what), request[lane]->file, request[lane]->line);
    watch::reads(first_thread + lane, load(lane).row, 16, request[lane]->file, request[lane]->line);
  }
  std::uint16_t element[kLanes][8];
  for (int lane = 0; lane < kLanes; ++lane) std::memcpy(element[lane], load(lane).row, 16);
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int j = 0; j < 4; ++j) {
      const auto at = [&](int row, int column) { return static_cast<unsigned>(element[8 * j + row][column]); };
      load(lane).r[j] = what == Collective::load_matrix ? at(g, 2 * t + 1) << 16 | at(g, 2 * t) : at(2 * t + 1, g) << 16 | at(2 * t, g);
    }
  }
}

void Worker::check_shared16(int thread, const char* at, const char* word, const char* file, int line) const {
  if (at < arena_ || at + 16 > arena_ + arena_used_) [[unlikely]]
    fault(thread, file, line, fmt::format("{}: {} is not an address in the block's shared memory", word, static_cast<const void*>(at)));
  if (reinterpret_cast<std::uintptr_t>(at) % 16) [[unlikely]]
    fault(thread, file, line, fmt::format("{}: shared address {} (wanted a multiple of 16)", word, static_cast<const void*>(at)));
}

void Worker::async_copy(char* to, const void* from, const char* file, int line) {
  check_shared16(current_, to, "cp.async", file, line);
  if (reinterpret_cast<std::uintptr_t>(from) % 16) [[unlikely]]
    fault(current_, file, line, fmt::format("cp.async: global address {} (wanted a multiple of 16)", from));
  if (async_.size() < static_cast<std::size_t>(threads_)) async_.resize(static_cast<std::size_t>(threads_));
  AsyncQueue& queue = async_[static_cast<std::size_t>(current_)];
  if (queue.block != block_serial_) {  // first copy of this thread in this block
    queue.copies.clear();
    queue.open = 0;
    queue.block = block_serial_;
  }
  const AsyncCopy copy{to, from, queue.open, file, line};
  watch::copy_issued(current_, to, from, file, line);
  bool now = order_ == sim::Order::reverse;
  if (order_ == sim::Order::random) {
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;  // Knuth, MMIX
    now = random_ >> 63;
  }
  if (now)
    perform(copy);
  else
    queue.copies.push_back(copy);
}

void Worker::perform(const AsyncCopy& copy) const {
  watch::copy_arrived(current_, copy.to, copy.file, copy.line);
  if (copy.from)
    std::memcpy(copy.to, copy.from, 16);
  else
    std::memset(copy.to, 0, 16);
}

Worker::AsyncQueue* Worker::own_queue() {
  if (static_cast<std::size_t>(current_) >= async_.size()) return nullptr;
  AsyncQueue& queue = async_[static_cast<std::size_t>(current_)];
  return queue.block == block_serial_ ? &queue : nullptr;
}

void Worker::async_commit() {
  if (AsyncQueue* queue = own_queue()) ++queue->open;
}

// Performs the committed groups but the last `left`, oldest first.
void Worker::async_wait(int left, const char* file, int line) {
  if (watch::left_out(file, line)) return;
  AsyncQueue* queue = own_queue();
  if (!queue) return;
  std::size_t done = 0;
  for (; done < queue->copies.size() && queue->copies[done].group < queue->open - left; ++done) perform(queue->copies[done]);
  queue->copies.erase(queue->copies.begin(), queue->copies.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace vg::simt

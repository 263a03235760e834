// How the cpu kernels cut their work. Blocks depend on shapes alone, never on the number of threads, and partial results are combined in a
// fixed order: that is what makes every result the same for any number of threads.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "tensor/parallel.h"
#include "tensor/shape.h"

namespace vg {

inline constexpr std::int64_t kBlockFloats = 1 << 16;  // 256 KiB: a fraction of L2, and long enough that starting a task does not count

// Flat work on `count` floats: body(first, floats).
inline void for_flat_blocks(std::int64_t count, const std::function<void(std::int64_t first, std::int64_t floats)>& body) {
  parallel_for(count, kBlockFloats, [&](std::int64_t begin, std::int64_t end) { body(begin, end - begin); });
}

// Work on rows of `row_floats` floats, several to a task: body(row).
inline void for_rows(std::int64_t rows, std::int64_t row_floats, const std::function<void(std::int64_t begin, std::int64_t end)>& body) {
  parallel_for(rows, std::max<std::int64_t>(1, kBlockFloats / 2 / std::max<std::int64_t>(1, row_floats)), body);
}

// Per-channel work on (N, D, H, W, C): in the flat (voxel, channel) axis the channels repeat every C floats, so vectors of any width see
// the same channels again every `period` floats, a common multiple of C and 16 lanes. A per-channel number is used as a pattern of that
// length.
struct ChannelBlocks {
  explicit ChannelBlocks(const Shape& s) : samples(s.n()), voxels(s.voxels()), channels(s.c()), sample(voxels * channels) {
    period = std::lcm<std::int64_t>(std::max<std::int64_t>(channels, 1), 16);
    period *= (255 + period) / period;  // at least 256: enough independent sums that additions do not wait for each other
    block = std::max<std::int64_t>(1, kBlockFloats / period) * period;
    blocks = (sample + block - 1) / block;
  }
  std::int64_t samples, voxels, channels;
  std::int64_t sample;                 // floats in one sample
  std::int64_t period, block, blocks;  // floats, floats, blocks in one sample

  std::int64_t floats(std::int64_t k) const { return std::min(block, sample - k * block); }  // in block k of a sample

  // body(sample n, block k, offset of its first float in the tensor)
  void for_each(const std::function<void(std::int64_t n, std::int64_t k, std::int64_t offset)>& body) const {
    parallel_for(samples * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) body(i / blocks, i % blocks, i / blocks * sample + i % blocks * block);
    });
  }
};

// pattern[j] = values[j mod count]
inline void repeat(const float* values, std::int64_t count, float* pattern, std::int64_t period) {
  for (std::int64_t j = 0; j < period; j += count) std::copy_n(values, count, pattern + j);
}

// Combines `count` items of `width` doubles into the first, by a binary tree over the index: (0, 1), (2, 3), ..., then pairs of pairs.
inline void tree_sum(double* items, std::int64_t count, std::int64_t width) {
  for (std::int64_t step = 1; step < count; step *= 2)
    for (std::int64_t i = 0; i + step < count; i += 2 * step)
      for (std::int64_t j = 0; j < width; ++j) items[i * width + j] += items[(i + step) * width + j];
}

// The binary tree over a sequence of sums that come one by one: sums of 1, 2, 4, ... neighbours wait in numbered slots for their partner,
// as the digits of a binary counter do.
struct BinaryCounter {
  std::int64_t count = 0;
  template <class Add, class Store>
  void push(const Add& add_slot_to_newest, const Store& store_newest_in_slot) {
    std::int64_t level = 0;
    for (; count >> level & 1; ++level) add_slot_to_newest(level);
    store_newest_in_slot(level);
    ++count;
  }
  // What still waits, the youngest first; the total is the newest sum then. Nothing happens if nothing was pushed.
  template <class Load, class Add>
  void finish(const Load& load_newest_from_slot, const Add& add_slot_to_newest) {
    bool first = true;
    for (std::int64_t level = 0; count >> level; ++level) {
      if (!(count >> level & 1)) continue;
      first ? load_newest_from_slot(level) : add_slot_to_newest(level);
      first = false;
    }
  }
  static std::int64_t slots(std::int64_t total) {
    std::int64_t n = 0;
    while (total >> n) ++n;
    return n;
  }
};

}  // namespace vg

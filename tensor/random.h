// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11).
// A number depends on (seed, stream, index) alone, never on who asked before, so it is the same on every device and for any number of threads.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define VG_HOST_DEVICE __host__ __device__
#else
#define VG_HOST_DEVICE
#endif

namespace vg {

struct Philox4 {
  std::uint32_t v[4];
};

VG_HOST_DEVICE inline Philox4 philox(std::uint64_t key, std::uint64_t counter_hi, std::uint64_t counter_lo) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  Philox4 c{{static_cast<std::uint32_t>(counter_lo), static_cast<std::uint32_t>(counter_lo >> 32), static_cast<std::uint32_t>(counter_hi),
             static_cast<std::uint32_t>(counter_hi >> 32)}};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = 0xD2511F53ull * c.v[0], p1 = 0xCD9E8D57ull * c.v[2];
    c = {{static_cast<std::uint32_t>(p1 >> 32) ^ c.v[1] ^ k0, static_cast<std::uint32_t>(p1), static_cast<std::uint32_t>(p0 >> 32) ^ c.v[3] ^ k1,
          static_cast<std::uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

// A stream of numbers for sequential use on the host (shuffles, augmentation draws). Copyable; its whole state is three integers, so a
// checkpoint can hold it. Independent streams: Random(seed, name-hash or index).
class Random {
 public:
  explicit Random(std::uint64_t seed, std::uint64_t stream = 0, std::uint64_t position = 0) : seed_(seed), stream_(stream), position_(position) {}

  std::uint32_t bits() {
    const Philox4 r = philox(seed_, stream_, position_ / 4);
    return r.v[position_++ % 4];
  }
  float uniform() { return static_cast<float>(bits() >> 8) * 0x1p-24f; }  // [0, 1)
  float uniform(float low, float high) { return low + (high - low) * uniform(); }
  float normal() {  // Box-Muller, one of the pair
    const float u = (static_cast<float>(bits() >> 8) + 1.0f) * 0x1p-24f, v = uniform();
    return std::sqrt(-2.0f * std::log(u)) * std::cos(6.28318530717958647692f * v);
  }
  std::uint32_t below(std::uint32_t n) {  // 0 .. n-1, unbiased to 2^-32
    return static_cast<std::uint32_t>((static_cast<std::uint64_t>(bits()) * n) >> 32);
  }
  template <class It>
  void shuffle(It first, It last) {  // Fisher-Yates
    for (auto n = last - first; n > 1; --n) {
      using std::swap;
      swap(first[n - 1], first[below(static_cast<std::uint32_t>(n))]);
    }
  }
  std::uint64_t seed() const { return seed_; }
  std::uint64_t stream() const { return stream_; }
  std::uint64_t position() const { return position_; }

 private:
  std::uint64_t seed_, stream_, position_;
};

}  // namespace vg

// Conversion loops. Plain code that the compiler vectorises; threads take chunks, so memory bandwidth is the limit.
#include "nifti/convert.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <type_traits>
#include <utility>

#include "tensor/parallel.h"

namespace vg::convert {
namespace {

constexpr std::int64_t kChunk = 1 << 16;  // 256 KiB of f32: a second look at a chunk finds it in the cache

// One chunk. Separate loops for stride 1, so that these vectorise.
template <class T, class Make>
void fill(const T* in, std::int64_t count, float* out, std::int64_t stride, Make make) {
  if (stride == 1) {
    for (std::int64_t n = 0; n < count; ++n) out[n] = make(in[n]);
  } else {
    for (std::int64_t n = 0; n < count; ++n) out[n * stride] = make(in[n]);
  }
}

template <class T>
std::int64_t count_non_finite(const T* in, std::int64_t count) {
  std::int64_t bad = 0;
  for (std::int64_t n = 0; n < count; ++n) bad += !(std::abs(in[n]) <= std::numeric_limits<T>::max());
  return bad;
}

template <class T>
std::int64_t count_beyond(const T* in, std::int64_t count) {
  constexpr std::int64_t kLimit = std::int64_t{1} << 53;
  std::int64_t n_beyond = 0;
  for (std::int64_t n = 0; n < count; ++n) {
    if constexpr (std::is_signed_v<T>)
      n_beyond += in[n] > kLimit || in[n] < -kLimit;
    else
      n_beyond += in[n] > static_cast<std::uint64_t>(kLimit);
  }
  return n_beyond;
}

// The whole number nearest to v, if v is one within 1e-3 and fits; else false.
bool whole(double v, std::int32_t& out) {
  const double r = std::nearbyint(v);
  if (!(std::abs(v - r) <= 1e-3) || r < std::numeric_limits<std::int32_t>::min() || r > std::numeric_limits<std::int32_t>::max())
    return false;
  out = static_cast<std::int32_t>(r);
  return true;
}

// The first offender over all chunks: chunks run in any order.
class FirstBad {
 public:
  void report(std::int64_t at, double value) {
    const std::lock_guard lock(mutex_);
    if (bad_.at < 0 || at < bad_.at) bad_ = {at, value};
  }
  BadLabel get() const { return bad_; }

 private:
  std::mutex mutex_;
  BadLabel bad_;
};

}  // namespace

Findings to_float(const std::byte* bytes, Number type, Scaling s, std::int64_t count, float* out, std::int64_t stride) {
  std::atomic<std::int64_t> non_finite{0}, beyond{0};
  with_number(type, [&]<class T>() {
    const T* in = reinterpret_cast<const T*>(bytes);
    float table[256];  // 8-bit types: every possible result
    if constexpr (sizeof(T) == 1)
      for (int v = 0; v < 256; ++v) table[v] = static_cast<float>(s.slope * static_cast<double>(static_cast<T>(v)) + s.inter);
    parallel_for(count, kChunk, [&](std::int64_t begin, std::int64_t end) {
      const T* from = in + begin;
      float* to = out + begin * stride;
      const std::int64_t n = end - begin;
      if (s.none()) {
        fill(from, n, to, stride, [](T v) { return static_cast<float>(v); });
      } else if constexpr (sizeof(T) == 1) {
        fill(from, n, to, stride, [&](T v) { return table[static_cast<std::uint8_t>(v)]; });
      } else {
        fill(from, n, to, stride, [s](T v) { return static_cast<float>(s.slope * static_cast<double>(v) + s.inter); });
      }
      if constexpr (std::is_floating_point_v<T>) non_finite += count_non_finite(from, n);
      if constexpr (std::is_integral_v<T> && sizeof(T) == 8) beyond += count_beyond(from, n);
    });
  });
  return {non_finite, beyond};
}

BadLabel to_label(const std::byte* bytes, Number type, Scaling s, std::int64_t count, std::int32_t* out, std::int64_t stride) {
  FirstBad first;
  with_number(type, [&]<class T>() {
    const T* in = reinterpret_cast<const T*>(bytes);
    constexpr bool kAlwaysFits = std::is_integral_v<T> && (sizeof(T) < 4 || std::is_same_v<T, std::int32_t>);
    parallel_for(count, kChunk, [&](std::int64_t begin, std::int64_t end) {
      if (kAlwaysFits && s.none()) {
        for (std::int64_t n = begin; n < end; ++n) out[n * stride] = static_cast<std::int32_t>(in[n]);
        return;
      }
      for (std::int64_t n = begin; n < end; ++n) {
        const double v = s.slope * static_cast<double>(in[n]) + s.inter;
        if (!whole(v, out[n * stride])) return first.report(n, v);
      }
    });
  });
  return first.get();
}

// Do all values lie in [-bias, mask - bias]? An OR over v + bias, which every vector unit has (minimum and maximum need SSE4).
bool all_fit(const std::int32_t* in, std::int64_t stride, std::int64_t count, std::uint32_t bias, std::uint32_t mask) {
  std::uint32_t bits = 0;
  if (stride == 1) {
    for (std::int64_t n = 0; n < count; ++n) bits |= static_cast<std::uint32_t>(in[n]) + bias;
  } else {
    for (std::int64_t n = 0; n < count; ++n) bits |= static_cast<std::uint32_t>(in[n * stride]) + bias;
  }
  return (bits & ~mask) == 0;
}

Number smallest_type(const std::int32_t* in, std::int64_t count) {
  std::atomic<bool> u8{true}, i16{true};
  parallel_for(count, kChunk, [&](std::int64_t begin, std::int64_t end) {
    if (u8 && !all_fit(in + begin, 1, end - begin, 0, 0xff)) u8 = false;
    if (!u8 && i16 && !all_fit(in + begin, 1, end - begin, 1u << 15, 0xffff)) i16 = false;
  });
  // A chunk may have been judged for uint8 alone before another chunk ruled that out: it then fits int16 as well.
  return u8 ? Number::u8 : i16 ? Number::i16 : Number::i32;
}

template <class Out>
bool fit(const std::int32_t* in, std::int64_t stride, std::int64_t count) {
  if constexpr (sizeof(Out) >= 4 && std::is_signed_v<Out>) return true;
  if constexpr (sizeof(Out) >= 4) return all_fit(in, stride, count, 0, 0x7fffffff);
  constexpr auto kBits = 8 * sizeof(Out) % 32;
  return all_fit(in, stride, count, std::is_signed_v<Out> ? 1u << (kBits - 1) % 32 : 0, (1u << kBits) - 1);
}

template <class In>
BadLabel from_values(const In* in, std::int64_t stride, std::int64_t count, Number type, std::byte* bytes) {
  FirstBad first;
  with_number(type, [&]<class Out>() {
    Out* out = reinterpret_cast<Out*>(bytes);
    parallel_for(count, kChunk, [&](std::int64_t begin, std::int64_t end) {
      // Copies that no store can change: bytes may alias everything, and then nothing is vectorised.
      const In* const __restrict from = in + begin * stride;
      Out* const __restrict to = out + begin;
      const std::int64_t chunk = end - begin, step = stride;
      if constexpr (std::is_floating_point_v<Out>) {
        if (step == 1)
          for (std::int64_t n = 0; n < chunk; ++n) to[n] = static_cast<Out>(from[n]);
        else
          for (std::int64_t n = 0; n < chunk; ++n) to[n] = static_cast<Out>(from[n * step]);
      } else if constexpr (std::is_integral_v<In>) {
        if (!fit<Out>(from, step, chunk)) {
          for (std::int64_t n = 0; n < chunk; ++n)
            if (!std::in_range<Out>(from[n * step])) return first.report(begin + n, static_cast<double>(from[n * step]));
        }
        if (step == 1)
          for (std::int64_t n = 0; n < chunk; ++n) to[n] = static_cast<Out>(from[n]);
        else
          for (std::int64_t n = 0; n < chunk; ++n) to[n] = static_cast<Out>(from[n * step]);
      } else {
        // 2^bits as a double: the first value that does not fit, exact where max() itself is not.
        constexpr double kLow = static_cast<double>(std::numeric_limits<Out>::min()),
                         kEnd = 2.0 * static_cast<double>(std::numeric_limits<Out>::max() / 2 + 1);
        for (std::int64_t n = 0; n < chunk; ++n) {
          const double r = std::nearbyint(static_cast<double>(from[n * step]));
          if (!(r >= kLow && r < kEnd)) return first.report(begin + n, static_cast<double>(from[n * step]));
          to[n] = static_cast<Out>(r);
        }
      }
    });
  });
  return first.get();
}
template BadLabel from_values(const float*, std::int64_t, std::int64_t, Number, std::byte*);
template BadLabel from_values(const std::int32_t*, std::int64_t, std::int64_t, Number, std::byte*);

}  // namespace vg::convert

// The loops of peak.h, compiled for every instruction set that the kernels are compiled for.
#include "benchmarks/segbench/peak.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "benchmarks/segbench/peak.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"  // must precede highway.h

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;
constexpr int kUnroll = 8;
constexpr std::int64_t kStep = kUnroll * static_cast<std::int64_t>(hn::MaxLanes(F()));

// Independent fused multiply-adds in registers: floating-point operations done, for `rounds` of 12 vectors.
double multiply_add(std::int64_t rounds) {
  const F d;
  const V a = hn::Set(d, 0.9999f), b = hn::Set(d, 1e-4f);
  V v[12];  // of different values, or the compiler keeps one
  HWY_UNROLL(12)
  for (int k = 0; k < 12; ++k) v[k] = hn::Set(d, static_cast<float>(k));
  for (std::int64_t i = 0; i < rounds; ++i) {
    HWY_UNROLL(12)
    for (int k = 0; k < 12; ++k) v[k] = hn::MulAdd(v[k], a, b);
  }
  V sum = v[0];
  HWY_UNROLL(12)
  for (int k = 1; k < 12; ++k) sum = hn::Add(sum, v[k]);
  volatile float keep = hn::GetLane(sum);
  static_cast<void>(keep);
  return static_cast<double>(rounds) * 12 * 2 * static_cast<double>(hn::Lanes(d));
}

// Counts are in floats; whole steps of kStep are done.
void read(const float* x, std::int64_t n) {
  const F d;
  V s[kUnroll];
  HWY_UNROLL(kUnroll)
  for (int k = 0; k < kUnroll; ++k) s[k] = hn::Zero(d);
  for (std::int64_t i = 0; i + kStep <= n; i += kStep) {
    HWY_UNROLL(kUnroll)
    for (int k = 0; k < kUnroll; ++k) s[k] = hn::Add(s[k], hn::LoadU(d, x + i + k * static_cast<std::int64_t>(hn::Lanes(d))));
  }
  HWY_UNROLL(kUnroll)
  for (int k = 1; k < kUnroll; ++k) s[0] = hn::Add(s[0], s[k]);
  volatile float keep = hn::GetLane(s[0]);
  static_cast<void>(keep);
}

void write(float* y, std::int64_t n, bool stream) {
  const F d;
  const V v = hn::Set(d, 1.0f);
  for (std::int64_t i = 0; i + kStep <= n; i += kStep) {
    HWY_UNROLL(kUnroll)
    for (int k = 0; k < kUnroll; ++k) {
      float* to = y + i + k * static_cast<std::int64_t>(hn::Lanes(d));
      stream ? hn::Stream(v, d, to) : hn::Store(v, d, to);
    }
  }
}

void update(float* y, std::int64_t n) {
  const F d;
  const V v = hn::Set(d, 1.0f);
  for (std::int64_t i = 0; i + kStep <= n; i += kStep) {
    HWY_UNROLL(kUnroll)
    for (int k = 0; k < kUnroll; ++k) {
      float* at = y + i + k * static_cast<std::int64_t>(hn::Lanes(d));
      hn::Store(hn::Max(hn::Load(d, at), v), d, at);
    }
  }
}

void copy(const float* x, float* y, std::int64_t n) {
  const F d;
  for (std::int64_t i = 0; i + kStep <= n; i += kStep) {
    HWY_UNROLL(kUnroll)
    for (int k = 0; k < kUnroll; ++k) {
      const std::int64_t at = i + k * static_cast<std::int64_t>(hn::Lanes(d));
      hn::Store(hn::Load(d, x + at), d, y + at);
    }
  }
}

// One block of a mixture: reads, writes and updates take turns, so that no stretch of memory is met by one kind alone.
void mix(const float* x, std::int64_t reads, float* y, std::int64_t writes, float* z, std::int64_t updates, bool stream) {
  constexpr std::int64_t kTurns = 64;
  const auto part = [](std::int64_t n, std::int64_t turn) { return n / kStep * turn / kTurns * kStep; };
  for (std::int64_t t = 0; t < kTurns; ++t) {
    read(x + part(reads, t), part(reads, t + 1) - part(reads, t));
    write(y + part(writes, t), part(writes, t + 1) - part(writes, t), stream);
    update(z + part(updates, t), part(updates, t + 1) - part(updates, t));
  }
  if (stream) hwy::FlushStream();
}

void access(int kind, float* x, std::int64_t n) {
  if (kind == 0) read(x, n);
  if (kind == 1 || kind == 2) write(x, n, kind == 2);
  if (kind == 3) copy(x, x + n / 2, n / 2);
}

const char* target() { return hwy::TargetName(HWY_TARGET); }

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "tensor/tensor.h"

namespace vg {
HWY_EXPORT(multiply_add);
HWY_EXPORT(mix);
HWY_EXPORT(access);
HWY_EXPORT(target);

namespace bench {
namespace {

constexpr std::int64_t kBlock = 1 << 16;  // floats of each kind that one task of a probe meets

// Memory that every probe works in: touched once, so that no probe pays for page faults.
float* arena(std::int64_t floats) {
  static Tensor memory;
  if (!memory.defined() || memory.elements() < floats) {
    memory = Tensor();
    memory = Tensor({floats}, DType::f32, kCpu);
    parallel_for(floats, kBlock, [&](std::int64_t begin, std::int64_t end) { std::fill(memory.data<float>() + begin, memory.data<float>() + end, 1.0f); });
  }
  return memory.data<float>();
}

std::int64_t whole(double bytes) { return static_cast<std::int64_t>(bytes / 4) / 1024 * 1024; }  // floats, keeps every block aligned

void sweep(const float* x, std::int64_t reads, float* y, std::int64_t writes, float* z, std::int64_t updates, bool stream) {
  const std::int64_t blocks = std::max<std::int64_t>(1, (std::max({reads, writes, updates}) + kBlock - 1) / kBlock);
  parallel_for(blocks, 1, [&](std::int64_t i, std::int64_t) {
    const auto cut = [&](std::int64_t n, std::int64_t k) { return n / 1024 * k / blocks * 1024; };
    HWY_DYNAMIC_DISPATCH(mix)
    (x + cut(reads, i), cut(reads, i + 1) - cut(reads, i), y + cut(writes, i), cut(writes, i + 1) - cut(writes, i), z + cut(updates, i),
     cut(updates, i + 1) - cut(updates, i), stream);
  });
}

}  // namespace

std::string vector_target() {
  multiply_add_peak(false, 0);  // Highway chooses with the first call
  return HWY_DYNAMIC_DISPATCH(target)();
}

double multiply_add_peak(bool all_threads, double seconds) {
  constexpr std::int64_t kRounds = 1 << 18;
  const int pieces = all_threads ? 4 * threads() : 1;
  std::vector<double> done(static_cast<std::size_t>(pieces));
  const auto piece = [&](std::int64_t first, std::int64_t last) {
    for (; first < last; ++first) done[static_cast<std::size_t>(first)] = HWY_DYNAMIC_DISPATCH(multiply_add)(kRounds);
  };
  const Samples t = measure(seconds, [&] { all_threads ? parallel_for(pieces, 1, piece) : piece(0, 1); }, 1, {}, std::min(seconds, kWindow));
  return done[0] * pieces * (all_threads ? threads() : 1) / median(t.cpu) * 1e-9;
}

double probe_seconds(const Traffic& t, double seconds) {
  const std::int64_t reads = whole(t.read), writes = whole(t.write), updates = whole(t.update), before = whole(t.read_before);
  if (reads + writes + updates + before == 0) return 0.0;
  float* x = arena(std::max(reads + updates, before) + writes);
  float *z = x + reads, *y = x + std::max(reads + updates, before);
  const Samples s = measure(seconds, [&] {
    if (before) sweep(x, before, y, 0, z, 0, false);
    sweep(x, reads, y, writes, z, updates, t.stream);
  }, 1, {}, std::min(seconds, kWindow));
  return median(s.cpu) / threads();
}

const char* name_of(Access a) {
  constexpr const char* names[] = {"read", "write", "streaming write", "copy"};
  return names[static_cast<int>(a)];
}

double bandwidth(Access access, std::int64_t bytes, bool all_threads, double seconds) {
  const int workers = all_threads ? threads() : 1;
  const std::int64_t n = bytes / 4 / 1024 * 1024;
  const std::int64_t passes = std::max<std::int64_t>(1, (std::int64_t{64} << 20) / bytes);
  float* memory = arena(n * workers);
  const auto work = [&](std::int64_t worker, std::int64_t) {
    for (std::int64_t i = 0; i < passes; ++i) HWY_DYNAMIC_DISPATCH(access)(static_cast<int>(access), memory + worker * n, n);
    hwy::FlushStream();
  };
  const Samples s = measure(seconds, [&] { all_threads ? parallel_for(workers, 1, work) : work(0, 1); }, 1, {}, std::min(seconds, kWindow));
  return static_cast<double>(n * 4) * static_cast<double>(passes) * workers * (all_threads ? workers : 1) / median(s.cpu) * 1e-9;
}

}  // namespace bench
}  // namespace vg
#endif

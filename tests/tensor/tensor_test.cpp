// Tensors: views, copies, refusals. And the register of devices, with a CUDA table that a test can fake.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "tensor/error.h"
#include "tensor/tensor.h"
#include "tensor/recording.h"
#include "tensor/stream.h"

namespace vg {
namespace {

template <class Call>
std::string message_of(ErrorCode code, Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return {};
}

std::vector<float> counting(std::int64_t n) {
  std::vector<float> v(static_cast<std::size_t>(n));
  std::iota(v.begin(), v.end(), 1.0f);
  return v;
}

TEST(Tensor, HostValuesGoThereAndBack) {
  for (const Device d : {kCpu, kSim}) {
    const Tensor t = from_host(counting(7 * 17), {7, 17}, d);
    EXPECT_TRUE(t.device() == d);
    EXPECT_EQ(to_host<float>(t), counting(7 * 17));
    const Tensor other = copy_to(t, d == kCpu ? kSim : kCpu);
    EXPECT_NE(other.raw(), t.raw());
    EXPECT_EQ(to_host<float>(other), counting(7 * 17));
    EXPECT_EQ(to_host<float>(zeros({33}, DType::f32, d)), std::vector<float>(33, 0.0f));
  }
}

TEST(Tensor, RangesAndReshapesShareMemory) {
  Tensor flat = from_host(counting(24), {24});
  Tensor part = flat.range(6, {2, 3});
  part.data<float>()[5] = -1;
  EXPECT_EQ(flat.data<float>()[11], -1);
  EXPECT_EQ(flat.reshaped({2, 3, 4}).raw(), flat.raw());
  EXPECT_EQ(part.range(3, {3}).raw(), flat.data<float>() + 9);
  EXPECT_TRUE(flat.range(24, {0}).defined());
}

TEST(Tensor, WrongRequestsSayWhatWasWanted) {
  Tensor t = from_host(counting(24), {24});
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { t.reshaped({5, 5}); }).find("(5, 5)"), std::string::npos);
  message_of(ErrorCode::invalid_argument, [&] { t.range(20, {5}); });
  message_of(ErrorCode::invalid_argument, [&] { t.range(-1, {5}); });
  message_of(ErrorCode::invalid_argument, [&] { t.range(1, {std::int64_t{1} << 62}); });
  message_of(ErrorCode::invalid_argument, [&] { from_host(counting(5), {6}); });
  Tensor other({24}, DType::i32, kCpu);
  EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { copy(other, t); }).find("i32"), std::string::npos);
  message_of(ErrorCode::invalid_argument, [&] { copy_to(Tensor(), kCpu); });
}

TEST(Tensor, NothingIsAValue) {
  EXPECT_FALSE(Tensor().defined());
  const Tensor empty({3, 0}, DType::f32, kCpu);
  EXPECT_TRUE(empty.defined());
  EXPECT_EQ(empty.bytes(), 0u);
  EXPECT_TRUE(to_host<float>(copy_to(empty, kSim)).empty());
}

TEST(Device, TextIsParsedStrictly) {
  EXPECT_TRUE(parse_device("cpu") == kCpu);
  EXPECT_TRUE(parse_device("sim") == kSim);
  for (const char* bad : {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:128", "cuda:99999999999", "cpu:0"})
    EXPECT_NE(message_of(ErrorCode::invalid_argument, [&] { parse_device(bad); }).find("wanted"), std::string::npos) << bad;
  EXPECT_EQ(to_string(Device{DeviceKind::cuda, 3}), "cuda:3");
  EXPECT_EQ(to_string(kSim), "sim");
}

TEST(Device, HostPropertiesAreFilled) {
  const DeviceProperties p = device_properties(kCpu);
  EXPECT_FALSE(p.name.empty());
  EXPECT_GT(p.memory_bytes, std::size_t{1} << 28);
  EXPECT_GE(p.units, 1);
  EXPECT_NE(p.detail.find("vector path"), std::string::npos);
  EXPECT_NO_THROW(synchronize(kSim));
}

TEST(Device, ARecordingOnTheHostIsACall) {
  Recording recording(kSim);
  int calls = 0;
  recording.record([&] { ++calls; });
  EXPECT_EQ(calls, 0);
  recording.replay(), recording.replay();
  EXPECT_EQ(calls, 2);
  message_of(ErrorCode::invalid_argument, [&] { recording.record([] {}); });
}

// What follows installs things for good, so each runs in a process of its own.
int loads = 0;
void loader_that_finds_nothing() {
  ++loads;
  throw Error(ErrorCode::no_device, "no CUDA device: driver not found");
}

void expect_no_device() {
  set_device_loader(DeviceKind::cuda, loader_that_finds_nothing);
  for (int i = 0; i < 3; ++i) {
    const std::string why = message_of(ErrorCode::no_device, [] { parse_device("cuda"); });
    if (why != "no CUDA device: driver not found") std::exit(2);
  }
  message_of(ErrorCode::no_device, [] { Tensor({4}, DType::f32, Device{DeviceKind::cuda, 1}); });
  std::string reason;
  if (!(parse_device("auto", &reason) == kCpu) || reason != "no CUDA device: driver not found") std::exit(3);
  std::exit(loads == 1 && !testing::Test::HasFailure() ? 0 : 1);
}

TEST(DeviceDeathTest, MissingCudaIsExplainedAndTriedOnce) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(expect_no_device(), testing::ExitedWithCode(0), "");
}

// A GPU made of host memory whose addresses are off by one bit, so that reading them directly would crash.
std::uintptr_t hidden(const void* p) { return reinterpret_cast<std::uintptr_t>(p) ^ (std::uintptr_t{1} << 62); }
void* real(const void* p, Device d) { return reinterpret_cast<void*>(d.on_host() ? reinterpret_cast<std::uintptr_t>(p) : hidden(p)); }

constexpr DeviceApi kFakeGpu = {
    [](Device, std::size_t bytes, void** out) -> const char* {
      *out = reinterpret_cast<void*>(hidden(std::malloc(bytes)));
      return nullptr;
    },
    [](Device d, void* data, std::size_t) -> const char* {
      std::free(real(data, d));
      return nullptr;
    },
    [](void* to, Device to_device, const void* from, Device from_device, std::size_t bytes, void*) -> const char* {
      std::memcpy(real(to, to_device), real(from, from_device), bytes);
      return nullptr;
    },
    [](Device d, void* data, std::size_t bytes, void*) -> const char* {
      std::memset(real(data, d), 0, bytes);
      return nullptr;
    },
    [](Device, void*) -> const char* { return nullptr; },
    [](Device, DeviceProperties*) -> const char* { return "no properties today"; },
    [](int* devices) -> const char* {
      *devices = 2;
      return nullptr;
    },
    [](Device, void** stream) -> const char* {
      static int made = 0;
      *stream = &made;
      return ++made < 3 ? nullptr : "no more streams";
    },
    [](Device, void*) -> const char* { return nullptr; },
    [](Device, void** mark, void*) -> const char* {
      static int marks = 0;
      *mark = &marks;
      return nullptr;
    },
    [](Device, void*, void*) -> const char* { return "waiting is not for today"; },
    [](Device, void*) -> const char* { return nullptr; },
    [](Device, void*) -> const char* { return nullptr; },
    [](Device) -> const char* { return "it cannot record"; },
    nullptr,
    nullptr,
    nullptr,
    [](Device, std::string* name) -> const char* {
      *name = "a library";
      return nullptr;
    },
};

void expect_a_gpu() {
  set_device_loader(DeviceKind::cuda, [] { install_device_api(DeviceKind::cuda, &kFakeGpu); });
  if (!(parse_device("auto") == Device{DeviceKind::cuda, 0}) || !(parse_device("cuda:1") == Device{DeviceKind::cuda, 1})) std::exit(2);
  const std::string why = message_of(ErrorCode::no_device, [] { parse_device("cuda:2"); });
  if (why.find("has 2") == std::string::npos) std::exit(3);
  const Device gpu{DeviceKind::cuda, 1};
  {
    const Tensor there = from_host(counting(33), {33}, gpu);
    const Tensor moved = copy_to(copy_to(there, Device{DeviceKind::cuda, 0}), kSim);
    EXPECT_EQ(to_host<float>(moved), counting(33));
    EXPECT_EQ(to_host<float>(zeros({5}, DType::f32, gpu)), std::vector<float>(5, 0.0f));
    EXPECT_EQ(memory_stats(gpu).live, block_bytes(132));
    EXPECT_EQ(message_of(ErrorCode::no_device, [&] { device_properties(gpu); }), "cuda:1: no properties today");
    const Stream first(gpu), second(gpu);
    EXPECT_EQ(message_of(ErrorCode::no_device, [&] { const Stream third(gpu); }), "cuda:1: making a stream failed: no more streams");
    Mark mark(gpu);
    EXPECT_NO_THROW(mark.hold(nullptr)) << "never recorded";
    mark.record(first.handle());
    EXPECT_EQ(message_of(ErrorCode::no_device, [&] { mark.hold(second.handle()); }), "cuda:1: waiting between streams failed: waiting is not for today");
    EXPECT_EQ(convolution_library(gpu), "a library");
    Recording recording(gpu);
    EXPECT_EQ(message_of(ErrorCode::no_device, [&] { recording.record([] {}); }), "cuda:1: recording failed: it cannot record");
    message_of(ErrorCode::invalid_argument, [&] { recording.replay(); });
  }
  EXPECT_EQ(memory_stats(gpu).live, 0u);
  std::exit(testing::Test::HasFailure() ? 1 : 0);
}

TEST(DeviceDeathTest, AnInstalledTableServesCopiesInEveryDirection) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(expect_a_gpu(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace vg

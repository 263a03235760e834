// The implementation of harness.h.
#include "tests/kernels/harness.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "hwy/targets.h"
#include "kernels/sim/executor.h"
#include "tensor/os.h"
#include "tensor/parallel.h"

#if defined(VG_HOOKS)
#include "kernels/sim/hooks/hooks.h"
#endif

namespace vg::test {
namespace {

// The hooks build (tests/hooks) observes the simulator and nothing else.
#if defined(VG_HOOKS)
constexpr bool kHooks = true;
#else
constexpr bool kHooks = false;
#endif

// What was filled with NaN to be recognised counts as never written in the hooks build.
void forget([[maybe_unused]] const void* data, [[maybe_unused]] std::size_t bytes) {
#if defined(VG_HOOKS)
  simt::hooks::forget(data, bytes);
#endif
}

bool cuda_present() {
  static const bool present = [] {
    try {
      int devices = 0;
      return device_api(Device{DeviceKind::cuda, 0}).count(&devices) == nullptr && devices > 0;
    } catch (const Error&) {
      return false;
    }
  }();
  return present;
}

// Lets the cpu kernels use only these instruction sets (Highway's bits); 0: all that the machine has.
void choose_targets(std::int64_t targets) {
  static std::int64_t current = 0;
  if (targets == current) return;
  current = targets;
  hwy::SetSupportedTargetsForTest(targets);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

template <class T>
Tensor narrowed(const std::vector<std::int32_t>& values, const Shape& shape, DType type, Device device) {
  std::vector<T> narrow(values.begin(), values.end());
  return copy_to(wrap(narrow.data(), shape, type), device);
}

// The instruction sets below the machine's best, so that one machine tests them all.
std::vector<std::int64_t> other_targets() {
  std::vector<std::int64_t> all;
  for (std::int64_t target : {HWY_AVX3, HWY_AVX2, HWY_SSE4, HWY_NEON})
    if (hwy::SupportedTargets() & target) all.push_back(target);
  if (!all.empty()) all.erase(all.begin());
  return all;
}

}  // namespace

KernelRun::KernelRun(std::string run_name, std::string run_group, Device where)
    : name(std::move(run_name)), group(std::move(run_group)), device(where), scratch_(std::make_shared<ScratchOwner>(where)) {}

Exec KernelRun::exec() const {
  set_threads(threads);
  if (device.kind == DeviceKind::sim) sim::set_order(static_cast<sim::Order>(order));
  choose_targets(targets);
  if (device.on_host() && scratch_->bytes) {
    std::memset(scratch_->data, 0xff, scratch_->bytes);
    forget(scratch_->data, scratch_->bytes);
  }
  Exec ex{device, scratch_.get(), nullptr};
  ex.convolution.engine = ConvAlgorithm::Engine::native;  // these are tests of our kernels; conv_library_test.cpp is the other one's
  return ex;
}

Tensor KernelRun::put_labels(const std::vector<std::int32_t>& values, Shape shape, DType type) const {
  return type == DType::u8 ? narrowed<std::uint8_t>(values, shape, type, device) : narrowed<std::int32_t>(values, shape, type, device);
}

Tensor KernelRun::blank(Shape shape, DType type) const {
  Tensor host(shape, type, kCpu);
  std::memset(host.raw(), 0xff, host.bytes());
  Tensor on_device = copy_to(host, device);
  forget(on_device.raw(), on_device.bytes());
  return on_device;
}

Tensor KernelRun::put(const std::vector<float>& values, Shape shape, DType type) const {
  if (type == DType::f32) return put(values, shape);
  std::vector<std::uint16_t> bits;
  for (float v : values) bits.push_back(type == DType::bf16 ? bf16::from(v).bits : f16::from(v).bits);
  return copy_to(wrap(bits.data(), shape, type), device);
}

Output KernelRun::output(Shape shape, float beta, std::uint64_t seed, DType type) const {
  Output out;
  if (beta == 0.0f) {
    out.grad = Grad{blank(shape, type), beta};
    out.before.assign(static_cast<std::size_t>(shape.elements()), 0.0);
  } else {
    const std::vector<float> values = rounded(normals(shape.elements(), seed), type);
    out.grad = Grad{put(values, shape, type), beta};
    out.before = doubles(values);
  }
  return out;
}

std::vector<KernelRun> runs_of(const KernelBase& kernel) {
  all_kernels();  // fills the slots
  std::vector<KernelRun> runs;
  const auto add = [&](std::string name, std::string group, Device device) -> KernelRun& { return runs.emplace_back(name, group, device); };
  if (os::environment("VG_TEST_DEVICES") == "cuda") {  // a GPU's minutes are few
    if (cuda_present() && kernel.implemented(DeviceKind::cuda)) add("cuda:0", "cuda", Device{DeviceKind::cuda, 0});
    return runs;
  }
  if (kHooks) {
    add("sim, hooks", "sim", kSim).order = static_cast<int>(sim::order());
    return runs;
  }
  if (kernel.implemented(DeviceKind::cpu)) {
    for (int threads : {1, 2, 3}) add("cpu, " + std::to_string(threads) + " threads", "cpu", kCpu).threads = threads;
    for (std::int64_t target : other_targets())
      add(std::string("cpu, ") + hwy::TargetName(target), hwy::TargetName(target), kCpu).targets = target;
  }
  if (kernel.implemented(DeviceKind::sim)) {
    const char* orders[] = {"forward", "reverse", "random"};  // sim::Order
    for (int order : {0, 1, 2}) add(std::string("sim, ") + orders[order] + " order", "sim", kSim).order = order;
  }
  if (cuda_present() && kernel.implemented(DeviceKind::cuda)) add("cuda:0", "cuda", Device{DeviceKind::cuda, 0});
  return runs;
}

std::set<std::string>& covered_kernels() {
  static std::set<std::string> names;
  return names;
}

std::vector<float> normals(std::int64_t count, std::uint64_t seed, double mean, double deviation) {
  Random random(seed, 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = static_cast<float>(mean + deviation * random.normal());
  return values;
}

std::vector<float> uniforms(std::int64_t count, std::uint64_t seed, double low, double high) {
  Random random(seed, 2);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = static_cast<float>(low + (high - low) * random.uniform());
  return values;
}

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

std::vector<float> rounded(std::vector<float> values, DType type) {
  if (type != DType::f32)
    for (float& v : values) v = type == DType::bf16 ? static_cast<float>(bf16::from(v)) : static_cast<float>(f16::from(v));
  return values;
}

std::vector<float> floats_of(const Tensor& t) {
  if (t.dtype() == DType::f32) return to_host<float>(t);
  std::vector<float> values;
  const Tensor host = copy_to(t, kCpu);
  for (std::int64_t i = 0; i < t.elements(); ++i)
    values.push_back(t.dtype() == DType::bf16 ? static_cast<float>(host.data<bf16>()[i]) : static_cast<float>(host.data<f16>()[i]));
  return values;
}

void expect_close(const std::vector<float>& got, const std::vector<double>& want, Close how) {
  ASSERT_EQ(got.size(), want.size());
  double largest = 0;
  std::size_t zeros = 0;
  bool constant = true;
  for (double w : want) {
    if (std::isfinite(w)) largest = std::max(largest, std::fabs(w));
    zeros += w == 0;
    constant = constant && w == want[0];
  }
  if (!how.trivial && want.size() > 1) {
    ASSERT_FALSE(constant) << "mistrusted: every value of the reference is " << want[0];
    ASSERT_LT(static_cast<double>(zeros), 0.9 * static_cast<double>(want.size())) << "mistrusted: the reference is mostly zeros";
  }
  const double allowed = how.relative * largest + how.floor;
  std::size_t bad = 0, worst = 0;
  double worst_error = -1;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double g = got[i], w = want[i];
    double error = 0;
    if (std::isnan(g) != std::isnan(w))
      error = HUGE_VAL;
    else if (!std::isnan(w) && g != w)
      error = std::fabs(g - w);
    bad += error > allowed;
    if (error > worst_error) worst_error = error, worst = i;
  }
  EXPECT_EQ(bad, 0u) << bad << " of " << want.size() << " values are off; worst at " << worst << ": got " << got[worst] << ", want "
                     << want[worst] << ", error " << worst_error << ", allowed " << allowed << " (largest magnitude " << largest << ")";
}

void expect_close(const Tensor& got, const std::vector<double>& want, Close how) {
  synchronize(got.device());
  expect_close(floats_of(got), want, how);
}

void expect_close(const Output& got, const std::vector<double>& gradient, Close how) {
  ASSERT_EQ(got.before.size(), gradient.size());
  std::vector<double> want = gradient;
  for (std::size_t i = 0; i < want.size(); ++i) want[i] += got.before[i];
  expect_close(got.grad.tensor, want, how);
}

void Bits::same(const KernelRun& run, const Tensor& result, const std::string& what) {
  synchronize(result.device());
  const Tensor host = copy_to(result, kCpu);
  std::vector<std::uint8_t> bytes(host.bytes());
  std::memcpy(bytes.data(), host.raw(), bytes.size());
  const auto [first, is_new] = first_.try_emplace(run.group + ": " + what, bytes);
  if (is_new) return;
  EXPECT_TRUE(first->second == bytes) << what << ": " << run.name << " gives other bits than the first run of " << run.group;
}

std::vector<double> numeric_gradient(const std::function<double(const std::vector<double>&)>& f, std::vector<double> x, double h) {
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    const auto value = [&](double offset) {
      x[i] = at + offset;
      return f(x);
    };
    gradient[i] = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h);
    x[i] = at;
  }
  return gradient;
}

}  // namespace vg::test

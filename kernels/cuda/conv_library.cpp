// Which convolutions the library computes, and the cache of its plans. Making a plan costs milliseconds, finding one a lookup; the answer "cannot" is
// kept, too. A training run has some hundred problems; a cache that grows beyond kMostPlans (inference over many shapes) forgets the oldest.
#include "kernels/cuda/conv_library.h"

#include <map>
#include <mutex>

#include "tensor/error.h"

namespace vg::gpu {
namespace {

constexpr std::size_t kMostPlans = 2048;
constexpr std::size_t kMostWorkspace = std::size_t{512} << 20;

struct Entry {
  std::shared_ptr<ConvPlan> plan;  // null: the library cannot
  std::uint64_t used = 0;
};

struct State {
  std::mutex mutex;
  bool tried = false;
  std::unique_ptr<ConvLibrary> opened;
  std::string why_not;
  std::map<ConvProblem, Entry> plans;
  std::uint64_t clock = 0;
  PlanStatistics statistics;
};
State& state() {
  static State s;
  return s;
}

void open_once(State& s) {
  if (s.tried) return;
  s.tried = true;
  s.opened = open_conv_library(&s.why_not);
}

}  // namespace

std::string to_string(const ConvProblem& p) {
  static const char* const passes[] = {"forward", "data gradient", "weight gradient"};
  return fmt::format("convolution {} {} {}x{}x{}x{}x{} -> {}x{}x{}x{}, kernel {}x{}x{}, stride {}x{}x{}, dilation {}x{}x{}, pad {}x{}x{}{}{}{}{}",
                     passes[static_cast<int>(p.pass)], p.tf32 ? "tf32" : name_of(p.type), p.samples, p.in[0], p.in[1], p.in[2], p.inputs, p.out[0],
                     p.out[1], p.out[2], p.outputs, p.kernel[0], p.kernel[1], p.kernel[2], p.stride[0], p.stride[1], p.stride[2], p.dilation[0],
                     p.dilation[1], p.dilation[2], p.pad[0], p.pad[1], p.pad[2], p.w_type != p.type ? ", weights f32" : "", p.add ? ", added" : "",
                     p.bias ? ", bias" : "", p.activation != ActivationKind::identity ? ", activation" : "");
}

// Few channels leave a matrix product's tiles empty: there our own kernels are written for the case. The bound is a guess until a GPU has timed both.
bool library_may(ConvAlgorithm::Engine engine, std::int64_t inputs, std::int64_t outputs) {
  constexpr std::int64_t kFewest = 16;
  if (engine == ConvAlgorithm::Engine::automatic) return inputs >= kFewest && outputs >= kFewest;
  return engine == ConvAlgorithm::Engine::library;
}

ConvLibrary* conv_library(std::string* why_not) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  open_once(s);
  if (why_not) *why_not = s.why_not;
  return s.opened.get();
}

std::shared_ptr<ConvPlan> find_plan(const ConvProblem& p, ConvAlgorithm::Engine engine) {
  using Engine = ConvAlgorithm::Engine;
  if (engine == Engine::native) return nullptr;
  State& s = state();
  const std::lock_guard lock(s.mutex);
  open_once(s);
  if (!s.opened) {
    if (engine == Engine::library) fail(ErrorCode::no_device, "{}", s.why_not);
    return nullptr;
  }
  auto found = s.plans.find(p);
  if (found == s.plans.end()) {
    if (s.plans.size() >= kMostPlans) {
      auto oldest = s.plans.begin();
      for (auto it = s.plans.begin(); it != s.plans.end(); ++it)
        if (it->second.used < oldest->second.used) oldest = it;
      s.plans.erase(oldest);
    }
    found = s.plans.emplace(p, Entry{s.opened->plan(p, kMostWorkspace), 0}).first;
    ++(found->second.plan ? s.statistics.made : s.statistics.refused);
  } else {
    ++s.statistics.found;
  }
  found->second.used = ++s.clock;
  return found->second.plan;
}

PlanStatistics plan_statistics() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return s.statistics;
}

}  // namespace vg::gpu

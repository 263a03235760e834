// The stand-ins in the kernel registry. Each is one instance of a template over the kernel's signature; the list at the end names the kernels.
#include "benchmarks/segbench/record.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <set>
#include <tuple>
#include <variant>

#include "kernels/blur.h"
#include "kernels/conv.h"
#include "kernels/elementwise.h"
#include "kernels/intensity.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "kernels/optim.h"
#include "kernels/pixel_shuffle.h"
#include "kernels/pool.h"
#include "kernels/resample.h"
#include "kernels/upsample.h"
#include "kernels/window.h"
#include "layers/attributes.h"
#include "tensor/parallel.h"
#include "tensor/random.h"

namespace vg::bench {
namespace {

Recording* active = nullptr;

constexpr std::int64_t kSmall = 1 << 16;  // elements up to which contents are kept: statistics, scalars, most weights

// ---- parameters as text: what people read, and what makes two calls equal -----------------------------------------------

std::string text_of(const Activation& p) { return p.kind == ActivationKind::identity ? "" : fmt::format(" {}", name_of(p.kind)); }
std::string triple(const char* name, const std::int32_t (&v)[3], std::int32_t usual) {
  if (v[0] == usual && v[1] == usual && v[2] == usual) return "";
  return v[0] == v[1] && v[1] == v[2] ? fmt::format(" {} {}", name, v[0]) : fmt::format(" {} {},{},{}", name, v[0], v[1], v[2]);
}
std::string text_of(const ConvParams& p) {
  return triple("stride", p.stride, 1) + triple("dilation", p.dilation, 1) + triple("pad", p.pad, 0) + text_of(p.activation);
}
std::string text_of(const NormParams& p) { return text_of(p.activation) + (p.constant ? " constant" : ""); }
std::string text_of(const PoolParams& p) { return triple("kernel", p.kernel, 0) + triple("stride", p.stride, 0); }
std::string text_of(const UpsampleParams& p) { return triple("factor", p.factor, 0) + (p.linear ? " linear" : ""); }
std::string text_of(const ChannelParams& p) { return fmt::format(" {} channels, {} <- {}", p.count, p.first_to, p.first_from); }
template <class P>
std::string text_of(const P&) {
  return "";  // of the others no field changes what work is done
}

// ---- one argument ----------------------------------------------------------------------------------------------------------

template <class A>
inline constexpr bool kIsTensor = std::is_same_v<std::remove_cvref_t<A>, Tensor>;
template <class A>
inline constexpr bool kIsGrad = std::is_same_v<std::remove_cvref_t<A>, Grad>;
// What a call keeps of an argument besides its TensorNote.
template <class A>
using Kept = std::conditional_t<kIsTensor<A>, std::monostate, std::conditional_t<kIsGrad<A>, float, std::remove_cvref_t<A>>>;

TensorNote note_of(const Tensor& t, bool output) {
  TensorNote n{.defined = t.defined(), .output = output, .shape = t.shape(), .dtype = t.dtype(), .content = {}};
  if (!n.defined) return n;
  if (n.dtype != DType::f32 || t.elements() <= kSmall) {
    n.content.resize(t.bytes());
    std::memcpy(n.content.data(), t.raw(), t.bytes());
  }
  if (n.dtype != DType::f32) return n;
  const float* v = t.data<float>();
  const std::int64_t count = std::min(t.elements(), kSmall);
  const bool finite = std::all_of(v, v + count, [](float x) { return std::isfinite(x) && std::fabs(x) < 1e6f; });
  if (!finite) n.content.clear();  // memory that nobody has written yet
  else if (count) n.low = *std::min_element(v, v + count), n.high = *std::max_element(v, v + count);
  return n;
}

template <class A>
void note(Call& call, std::vector<const void*>& memory, const std::remove_cvref_t<A>& a) {
  TensorNote n;
  const void* address = nullptr;
  if constexpr (kIsTensor<A>) {
    n = note_of(a, !std::is_const_v<std::remove_reference_t<A>>), address = a.raw();
  } else if constexpr (kIsGrad<A>) {
    n = note_of(a.tensor, true), n.beta = a.beta, address = a.tensor.raw();
  } else {
    call.parameters += text_of(a);
  }
  if (n.defined) {
    const auto same = std::find(memory.begin(), memory.end(), address);
    if (same != memory.end()) n.alias = static_cast<int>(same - memory.begin());
  }
  memory.push_back(address);
  call.arguments.push_back(std::move(n));
}

template <class A>
Kept<A> keep(const std::remove_cvref_t<A>& a) {
  if constexpr (kIsTensor<A>) return {};
  else if constexpr (kIsGrad<A>) return a.beta;
  else return a;
}

template <class A>
decltype(auto) give(Tensor& t, const Kept<A>& kept) {
  if constexpr (kIsTensor<A>) return (t);
  else if constexpr (kIsGrad<A>) return Grad{t, kept};
  else return (kept);
}

// ---- one kernel ------------------------------------------------------------------------------------------------------------

template <class Function>
struct StandIn;
template <class... A>
struct StandIn<void(const Exec&, A...)> {
  template <void (*Original)(const Exec&, A...), const char* Name>
  static void call(const Exec& ex, A... a) {
    if (active) {
      Call c;
      c.kernel = Name;
      std::vector<const void*> memory;
      (note<A>(c, memory, a), ...);
      c.run = [kept = std::tuple<Kept<A>...>(keep<A>(a)...)](const Exec& e, std::vector<Tensor>& t) {
        [&]<std::size_t... I>(std::index_sequence<I...>) { Original(e, give<A>(t[I], std::get<I>(kept))...); }(std::index_sequence_for<A...>());
      };
      active->add(std::move(c));
    }
    Original(ex, a...);
  }
};

// Made late, so that the registry does not take them for the real ones; `next` is cut so that installing them touches nothing else.
class StandIns {
 public:
  template <class Function, Function* Original, const char* Name>
  void add(const char* signature) {
    const KernelImpl* before = KernelImpl::head();
    list_.emplace_back(Name, signature, DeviceKind::cpu, reinterpret_cast<KernelSlot>(&StandIn<Function>::template call<Original, Name>));
    KernelImpl::head() = before;
    list_.back().next = nullptr;
    names_.insert(Name);
  }
  void install() const {
    for (const KernelImpl& k : list_) install_kernels(&k, DeviceKind::cpu);
  }
  const std::set<std::string>& names() const { return names_; }

 private:
  std::deque<KernelImpl> list_;
  std::set<std::string> names_;
};

#define VG_EACH_KERNEL(X)                                                                                                                       \
  X(conv_forward) X(conv_backward_data) X(conv_backward_weight) X(channel_sum) X(activation_forward) X(activation_backward) X(fill) X(add)      \
  X(accumulate) X(copy_channels) X(dice_ce_forward) X(dice_ce_backward) X(softmax) X(decide) X(norm_statistics) X(norm_apply) X(norm_backward) \
  X(norm_update_running) X(norm_rstd) X(adam_step) X(sgd_step) X(sum_squares) X(clip_scale) X(maxpool_forward) X(maxpool_backward)             \
  X(cast) X(cut_window) X(blend_window) X(resample) X(vary_intensity) X(loss_scale_step) X(upsample_forward) X(upsample_backward) X(pixel_shuffle_forward) X(pixel_shuffle_backward) X(blur_forward) X(blur_backward)

#define VG_NAME(NAME) constexpr char k_##NAME[] = #NAME;
VG_EACH_KERNEL(VG_NAME)
#undef VG_NAME

const StandIns& stand_ins() {
  static const StandIns all = [] {
    all_kernels();  // the real ones are in place from now on
    StandIns s;
#define VG_ADD(NAME) s.add<NAME##_fn, &cpu::NAME, k_##NAME>(NAME##_signature);
    VG_EACH_KERNEL(VG_ADD)
#undef VG_ADD
    return s;
  }();
  return all;
}

std::string dims(const Shape& s) {
  std::string text;
  for (int i = 0; i < s.rank(); ++i) text += (i ? "x" : "") + std::to_string(s[i]);
  return text;
}

}  // namespace

Recording::Recording() {
  require(!active, "recording: another one is running");
  stand_ins().install();
  active = this;
}

Recording::~Recording() {
  active = nullptr;
  install_kernels(KernelImpl::head(), DeviceKind::cpu);
}

std::vector<std::string> Recording::blind() {
  std::vector<std::string> names;
  for (const KernelBase* k : all_kernels())
    if (!stand_ins().names().contains(k->name()) && k != &conv_forward_statistics) names.emplace_back(k->name());  // on the cpu that is two others
  return names;
}

void Recording::add(Call call) {
  std::string key = call.kernel + call.parameters;
  for (const TensorNote& a : call.arguments)
    key += !a.defined ? "|" : fmt::format("|{} {} {} {} {}", dims(a.shape), name_of(a.dtype), a.output, a.beta, a.alias);
  const auto known = std::find(keys_.begin(), keys_.end(), key);
  if (known != keys_.end()) {
    ++calls[static_cast<std::size_t>(known - keys_.begin())].count;
    return;
  }
  keys_.push_back(std::move(key));
  calls.push_back(std::move(call));
}

std::string Call::shapes() const {
  std::string outputs, inputs;
  for (const TensorNote& a : arguments) {
    if (!a.defined) continue;
    std::string& to = a.output ? outputs : inputs;
    to += (to.empty() ? "" : ", ") + dims(a.shape) + (a.beta != 0.0f ? "+" : "") + (a.alias >= 0 ? "=" : "");
  }
  return outputs + (inputs.empty() ? "" : " <- " + inputs);
}

std::vector<Tensor> Call::tensors(std::uint64_t seed) const {
  std::vector<Tensor> made;
  for (const TensorNote& a : arguments) {
    Tensor t;
    if (a.defined && a.alias >= 0) {
      const Tensor& first = made[static_cast<std::size_t>(a.alias)];
      t = first.shape() == a.shape ? first : first.reshaped(a.shape);
    } else if (a.defined) {
      t = Tensor(a.shape, a.dtype, kCpu);
      if (a.content.size() == t.bytes()) {
        std::memcpy(t.raw(), a.content.data(), t.bytes());
      } else {
        float* v = t.data<float>();
        const std::uint64_t stream = made.size();
        parallel_for(t.elements(), kSmall, [&](std::int64_t begin, std::int64_t end) {
          Random random(seed, stream, static_cast<std::uint64_t>(begin));
          for (std::int64_t i = begin; i < end; ++i) v[i] = random.uniform(a.low, a.high);
        });
      }
    }
    made.push_back(std::move(t));
  }
  return made;
}

}  // namespace vg::bench

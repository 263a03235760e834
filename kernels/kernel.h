// The seam. A Kernel is one callable per computation with up to three implementations: cpu, sim, cuda. The outputs' device picks one.
//
//   conv.h       VG_KERNEL(conv_forward, Tensor& y, const Tensor& x, ...);      declares vg::conv_forward and {cpu, sim, gpu}::conv_forward
//   conv_cpu.cpp VG_KERNEL_HOME(conv_forward); VG_IMPL(cpu, cpu, conv_forward);  the one home of the object, and the cpu slot
//   conv.cu      VG_DEVICE_IMPL(conv_forward);                                   the sim slot under g++, the cuda slot under nvcc (simt.h)
//
// Argument order: exec, outputs, inputs, one parameter struct. Callers (layers/, infer/, train/) have checked shapes; kernels assert them.
// Read by g++, clang and nvcc alike. Which kernels exist, and where each is implemented: all_kernels().
#pragma once
#include <cstdint>
#include <type_traits>
#include <vector>

#include "tensor/error.h"
#include "tensor/tensor.h"

namespace vg {

// Memory that a kernel needs while it runs (packed weights, partial sums). Grows and is kept; owned by whoever owns the Exec. A plug-in may
// call `grow` although it lives in the core: it is a plain function pointer.
struct Scratch {
  void* data = nullptr;
  std::size_t bytes = 0;
  void (*grow)(Scratch&, std::size_t bytes) = nullptr;  // throws out_of_memory; earlier contents are lost

  // At least n elements of T, 256-byte aligned, uninitialised, valid until the next call of reserve.
  template <class T>
  T* reserve(std::int64_t n) {
    const std::size_t need = static_cast<std::size_t>(n) * sizeof(T);
    if (need > bytes) grow(*this, need);
    return static_cast<T*>(data);
  }
};

// By which arithmetic a convolution may be computed on the cpu. Results differ by rounding: `exact` stays within that of the plain sum,
// `fast` may round some 5 times as coarsely (4e-6 of the largest value) where that is faster.
struct ConvAlgorithm {
  enum class Allow : std::uint8_t { fast, exact, direct } allow = Allow::fast;
  // D, H, W: a Winograd tile (1, 2 or 4 per axis) wherever it is possible; -1: the matrix unit (AMX) wherever it is; 0: the fastest that is allowed.
  std::int8_t tile[3] = {0, 0, 0};
  // On a GPU: by the library (cuDNN) where that promises to be faster; by our own kernels; by the library wherever it can.
  enum class Engine : std::uint8_t { automatic, native, library } engine = Engine::automatic;
  bool nondeterministic = false;  // the library may add in any order
  bool tf32 = false;              // the library may round f32 factors to 10 bits of mantissa (tensor cores); our own kernels never do
};

// Where and how work is done, never what is computed.
struct Exec {
  Device device;
  Scratch* scratch = nullptr;
  void* stream = nullptr;  // cudaStream_t on cuda
  ConvAlgorithm convolution = {};
};

// A gradient output: where to write, and whether to add to what is there. Undefined tensor: not wanted.
//   dx = beta * dx + gradient          beta is 0 (write; earlier contents are never read) or 1 (add)
struct Grad {
  Tensor tensor;
  float beta = 0.0f;
  bool wanted() const { return tensor.defined(); }
  float* data() const { return const_cast<Tensor&>(tensor).data<float>(); }
  const Shape& shape() const { return tensor.shape(); }
};

using KernelSlot = void (*)();

class KernelBase {
 public:
  KernelBase(const char* name, const char* signature);
  const char* name() const { return name_; }
  const char* signature() const { return signature_; }
  bool implemented(DeviceKind k) const { return slot_[static_cast<int>(k)] != nullptr; }

 protected:
  // The implementation for the one device that all defined tensors share. Throws invalid_argument (mixed devices), unsupported (none).
  KernelSlot pick(const Exec& ex, const Device* const* devices, int count) const;

 private:
  const char *name_, *signature_;
  KernelSlot slot_[kDeviceKinds] = {};
  friend void install_kernels(const struct KernelImpl* list, DeviceKind only);
};

inline const Device* device_of(const Tensor& t, Device& space) { return t.defined() ? (space = t.device(), &space) : nullptr; }
inline const Device* device_of(const Grad& g, Device& space) { return device_of(g.tensor, space); }
template <class T>
const Device* device_of(const T&, Device&) {
  return nullptr;  // parameter structs have no place
}

template <class Signature>
class Kernel;
template <class... A>
class Kernel<void(const Exec&, A...)> : public KernelBase {
 public:
  using KernelBase::KernelBase;
  template <class... B>
  void operator()(const Exec& ex, B&&... args) const {
    static_assert(sizeof...(A) == sizeof...(B));
    Device space[sizeof...(B)];
    int i = 0;
    const Device* devices[] = {device_of(args, space[i++])...};
    reinterpret_cast<void (*)(const Exec&, A...)>(pick(ex, devices, sizeof...(B)))(ex, static_cast<B&&>(args)...);
  }
};

// One implementation, in a list local to the binary that it sits in (the core, or the plug-in).
struct KernelImpl {
  const char *name, *signature;
  DeviceKind device;
  KernelSlot function;
  const KernelImpl* next;
  static const KernelImpl*& head();  // one definition per binary, hidden
  KernelImpl(const char* n, const char* s, DeviceKind d, KernelSlot f) : name(n), signature(s), device(d), function(f), next(head()) { head() = this; }
};

// Fills the slots named by `list` for one device. Throws invalid_argument if a name is unknown or a signature differs (another version's plug-in).
void install_kernels(const KernelImpl* list, DeviceKind only);
std::vector<const KernelBase*> all_kernels();  // by name

// What a plug-in hands over: its only export is `const vg::Plugin* vg_plugin(int abi)`, null when the abi differs.
struct DeviceApi;
inline constexpr int kPluginAbi = 3;
struct Plugin {
  int abi;
  const char* version;  // VG_VERSION; must equal the core's
  std::size_t tensor_bytes, exec_bytes;
  DeviceKind kind;
  const KernelImpl* kernels;
  const DeviceApi* api;
};

}  // namespace vg

#define VG_KERNEL(NAME, ...)                                                \
  using NAME##_fn = void(const ::vg::Exec&, __VA_ARGS__);                   \
  inline constexpr char NAME##_signature[] = "void(Exec," #__VA_ARGS__ ")"; \
  namespace cpu {                                                           \
  NAME##_fn NAME;                                                           \
  }                                                                         \
  namespace sim {                                                           \
  NAME##_fn NAME;                                                           \
  }                                                                         \
  namespace gpu {                                                           \
  NAME##_fn NAME;                                                           \
  }                                                                         \
  extern const ::vg::Kernel<NAME##_fn> NAME

// Both at namespace vg scope.
#define VG_KERNEL_HOME(NAME) const ::vg::Kernel<::vg::NAME##_fn> NAME{#NAME, NAME##_signature}
#define VG_IMPL(NS, DEVICE, NAME)                                                                             \
  static const ::vg::KernelImpl NS##_##NAME##_impl{#NAME, ::vg::NAME##_signature, ::vg::DeviceKind::DEVICE, \
                                                   reinterpret_cast<::vg::KernelSlot>(static_cast<::vg::NAME##_fn*>(&::vg::NS::NAME))}

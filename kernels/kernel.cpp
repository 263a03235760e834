// The registry behind kernels/kernel.h: the list of kernels, the slots' first filling from this binary's implementations, and the choice of one.
#include "kernels/kernel.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace vg {

const KernelImpl*& KernelImpl::head() {
  static const KernelImpl* first = nullptr;
  return first;
}

namespace {

std::map<std::string, KernelBase*>& registry() {
  static std::map<std::string, KernelBase*> kernels;
  return kernels;
}

// The core's own implementations (cpu and sim). Static constructors only build the list; slots are filled when the first kernel is called.
void install_builtin() {
  static std::once_flag once;
  std::call_once(once, [] {
    install_kernels(KernelImpl::head(), DeviceKind::cpu);
    install_kernels(KernelImpl::head(), DeviceKind::sim);
  });
}

}  // namespace

KernelBase::KernelBase(const char* name, const char* signature) : name_(name), signature_(signature) { registry()[name] = this; }

KernelSlot KernelBase::pick(const Exec& ex, const Device* const* devices, int count) const {
  install_builtin();
  for (int i = 0; i < count; ++i)
    if (devices[i] && !(*devices[i] == ex.device))
      fail(ErrorCode::invalid_argument, "{}: argument {} lives on {}, but the work is to run on {}", name_, i, to_string(*devices[i]),
           to_string(ex.device));
  const KernelSlot slot = slot_[static_cast<int>(ex.device.kind)];
  if (!slot) fail(ErrorCode::unsupported, "{}: no implementation for device {}", name_, to_string(ex.device));
  return slot;
}

void install_kernels(const KernelImpl* list, DeviceKind only) {
  for (const KernelImpl* impl = list; impl; impl = impl->next) {
    if (impl->device != only) continue;
    const auto found = registry().find(impl->name);
    if (found == registry().end()) fail(ErrorCode::invalid_argument, "{}: the plug-in brings a kernel that this program does not know", impl->name);
    KernelBase& kernel = *found->second;
    if (std::strcmp(kernel.signature_, impl->signature) != 0)
      fail(ErrorCode::invalid_argument, "{}: the plug-in was built from another version (its signature is {}, wanted {})", impl->name, impl->signature,
           kernel.signature_);
    kernel.slot_[static_cast<int>(impl->device)] = impl->function;
  }
}

std::vector<const KernelBase*> all_kernels() {
  install_builtin();
  std::vector<const KernelBase*> kernels;
  for (const auto& entry : registry()) kernels.push_back(entry.second);
  return kernels;
}

}  // namespace vg

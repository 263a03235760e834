// The owner of the memory behind Exec::scratch: one block per Context, grown on demand, counted like any tensor's memory.
#pragma once
#include "kernels/kernel.h"

namespace vg {

class ScratchOwner : public Scratch {
 public:
  explicit ScratchOwner(Device device) : device_(device) {
    grow = [](Scratch& self, std::size_t need) { static_cast<ScratchOwner&>(self).resize(need); };
  }
  ScratchOwner(const ScratchOwner&) = delete;
  ScratchOwner& operator=(const ScratchOwner&) = delete;

 private:
  void resize(std::size_t need) {
    memory_ = Tensor();  // given back first: old and new never live together
    data = nullptr, bytes = 0;
    memory_ = Tensor({static_cast<std::int64_t>(need)}, DType::u8, device_);
    data = memory_.raw(), bytes = need;
  }
  Device device_;
  Tensor memory_;
};

}  // namespace vg

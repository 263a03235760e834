// A block of device memory, and the cache that it comes from and returns to. Private to tensor/: everyone else holds Tensors.
#pragma once
#include <cstddef>

#include "tensor/device.h"

namespace vg {

struct Storage {
  Storage(Device device, std::size_t bytes);  // throws out_of_memory
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  Device device;
  std::size_t bytes = 0;  // as asked for
  void* data = nullptr;   // nullptr when bytes == 0
};

// From now on blocks that a device's pool gives or takes back are set aside for `owner` (a recording), until hold_memory(d, nullptr). Whatever tensor
// they served, they serve no other until stop_holding.
void hold_memory(Device d, const void* owner);
void stop_holding(Device d, const void* owner) noexcept;

}  // namespace vg

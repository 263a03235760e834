// Tensor: numbers in the memory of a device, dense, with shared ownership. No arithmetic (that is kernels/), no strides, no padding.
#pragma once
#include <memory>
#include <vector>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace vg {

struct Storage;  // a block of device memory; given back to the device's cache with its last tensor

class Tensor {
 public:
  Tensor() = default;  // undefined: "not given" for optional kernel arguments
  Tensor(Shape shape, DType dtype, Device device);  // uninitialised memory. Throws out_of_memory

  bool defined() const { return data_ != nullptr || storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  std::int64_t elements() const { return shape_.elements(); }
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * size_of(dtype_); }

  // The address on its device. T must be the dtype's C++ type.
  template <class T>
  T* data() {
    return assert(DTypeOf<T>::value == dtype_), static_cast<T*>(data_);
  }
  template <class T>
  const T* data() const {
    return assert(DTypeOf<T>::value == dtype_), static_cast<const T*>(data_);
  }
  void* raw() { return data_; }
  const void* raw() const { return data_; }

  // Does nobody else hold this memory? Then an operation may work in place.
  bool unique() const { return storage_.use_count() == 1; }

  // Another shape of the same elements, same memory. Throws invalid_argument if the counts differ.
  Tensor reshaped(Shape shape) const;
  // Elements [first, first + shape.elements()) as a tensor of their own, same memory: parameters are ranges of one flat buffer.
  Tensor range(std::int64_t first, Shape shape) const;

 private:
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_;
  void* data_ = nullptr;
  std::shared_ptr<Storage> storage_;
  friend Tensor wrap(void* data, Shape shape, DType dtype, Device device);
};

// A tensor over memory that somebody else owns and keeps alive.
Tensor wrap(void* data, Shape shape, DType dtype, Device device = kCpu);

Tensor zeros(Shape shape, DType dtype, Device device);
// The same values on another device (a copy even when it is the same device).
Tensor copy_to(const Tensor& from, Device device);
// Copies values between tensors of equal shape and dtype, on any devices. Throws invalid_argument.
void copy(Tensor& to, const Tensor& from, void* stream = nullptr);

Tensor from_host(const std::vector<float>& values, Shape shape, Device device = kCpu);
Tensor from_host(const std::vector<std::int32_t>& values, Shape shape, Device device = kCpu);
template <class T>
std::vector<T> to_host(const Tensor& t) {
  std::vector<T> values(static_cast<std::size_t>(t.elements()));
  Tensor view = wrap(values.data(), t.shape(), DTypeOf<T>::value);
  copy(view, t);
  return values;
}

}  // namespace vg

// Tensor's few operations: making, viewing, copying. Every check of shapes and devices that concerns memory alone is here.
#include "tensor/tensor.h"

#include <cstring>
#include <limits>

#include "tensor/error.h"
#include "tensor/storage.h"

namespace vg {
namespace {

// Bytes of a shape. Throws invalid_argument for a negative extent or a product beyond 63 bits.
std::size_t checked_bytes(const Shape& shape, DType dtype) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  for (int i = 0; i < shape.rank(); ++i) {
    require(shape[i] >= 0, "tensor of shape {}: extent {} is negative", to_string(shape), i);
    if (__builtin_mul_overflow(bytes, shape[i], &bytes))
      fail(ErrorCode::invalid_argument, "tensor of shape {} {}: more than 2^63 bytes", to_string(shape), name_of(dtype));
  }
  return static_cast<std::size_t>(bytes);
}

void check(const char* message, Device d, const char* what) {
  if (message) fail(ErrorCode::no_device, "{}: {} failed: {}", to_string(d), what, message);
}

template <class T>
Tensor from_values(const std::vector<T>& values, Shape shape, Device device) {
  require(shape.elements() == static_cast<std::int64_t>(values.size()), "from_host: {} values for shape {}", values.size(),
          to_string(shape));
  const Tensor view = wrap(const_cast<T*>(values.data()), shape, DTypeOf<T>::value);
  return copy_to(view, device);
}

}  // namespace

Tensor::Tensor(Shape shape, DType dtype, Device device)
    : shape_(shape), dtype_(dtype), device_(device), storage_(std::make_shared<Storage>(device, checked_bytes(shape, dtype))) {
  data_ = storage_->data;
}

Tensor Tensor::reshaped(Shape shape) const {
  require(shape.elements() == elements(), "reshape: {} elements of {} do not fit {}", elements(), to_string(shape_), to_string(shape));
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::range(std::int64_t first, Shape shape) const {
  const std::int64_t count = static_cast<std::int64_t>(checked_bytes(shape, dtype_) / size_of(dtype_));
  require(first >= 0 && first <= elements() && count <= elements() - first, "range: elements {} .. {} of a tensor of {}", first,
          first + count, elements());
  Tensor t = *this;
  t.shape_ = shape;
  if (data_) t.data_ = static_cast<std::byte*>(data_) + static_cast<std::size_t>(first) * size_of(dtype_);
  return t;
}

Tensor wrap(void* data, Shape shape, DType dtype, Device device) {
  checked_bytes(shape, dtype);
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = device;
  t.data_ = data;
  return t;
}

Tensor zeros(Shape shape, DType dtype, Device device) {
  Tensor t(shape, dtype, device);
  if (t.bytes()) check(device_api(device).clear(device, t.raw(), t.bytes(), nullptr), device, "clear");
  return t;
}

Tensor copy_to(const Tensor& from, Device device) {
  require(from.defined() || from.elements() == 0, "copy: the source tensor is undefined");
  Tensor to(from.shape(), from.dtype(), device);
  copy(to, from);
  return to;
}

void copy(Tensor& to, const Tensor& from, void* stream) {
  require(to.shape() == from.shape() && to.dtype() == from.dtype(), "copy: from {} {} to {} {} (wanted the same shape and type)",
          to_string(from.shape()), name_of(from.dtype()), to_string(to.shape()), name_of(to.dtype()));
  if (to.bytes() == 0) return;
  require(from.raw() && to.raw(), "copy: the {} tensor is undefined", from.raw() ? "target" : "source");
  // A copy that touches a GPU is the business of that GPU's table.
  const Device owner = to.device().on_host() ? from.device() : to.device();
  const DeviceApi& api = device_api(owner);
  check(api.copy(to.raw(), to.device(), from.raw(), from.device(), to.bytes(), stream), owner, "copy");
  if (to.device().on_host() && !owner.on_host()) check(api.synchronize(owner, stream), owner, "copy");  // the caller reads the values next
}

Tensor from_host(const std::vector<float>& values, Shape shape, Device device) { return from_values(values, shape, device); }
Tensor from_host(const std::vector<std::int32_t>& values, Shape shape, Device device) { return from_values(values, shape, device); }

}  // namespace vg

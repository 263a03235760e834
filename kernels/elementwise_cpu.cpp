// Fill, add, accumulate and channel copies on the cpu: as fast as memory.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise_cpu.cpp"
#include "kernels/simd.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/elementwise.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace vg::HWY_NAMESPACE {
namespace {

// `bytes`: of the whole output, for the choice between stores into and around the caches.
void fill_floats(float* y, std::int64_t bytes, float value, std::int64_t count) {
  const auto body = [&](std::int64_t i, auto part) HWY_ATTR { store(set(value), y + i, part); };
  for_vectors(count, body, streamed(y, bytes));
}

void add_floats(float* y, std::int64_t bytes, const float* a, const float* b, std::int64_t count) {
  const auto body = [&](std::int64_t i, auto part) HWY_ATTR { store(hn::Add(load(a + i, part), load(b + i, part)), y + i, part); };
  for_vectors(count, body, y != a && y != b && streamed(y, bytes));
}

void accumulate_floats(float* dx, std::int64_t bytes, bool add, const float* dy, float scale, std::int64_t count) {
  if (add)
    for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR { put<true>(hn::Mul(set(scale), load(dy + i, part)), dx + i, part); });
  else
    for_vectors(
        count, [&](std::int64_t i, auto part) HWY_ATTR { put<false>(hn::Mul(set(scale), load(dy + i, part)), dx + i, part); },
        dx != dy && streamed(dx, bytes));
}

// `count` channels of each voxel, `to_stride` and `from_stride` floats from voxel to voxel.
void copy_strided(float* to, std::int64_t to_stride, bool add, const float* from, std::int64_t from_stride, std::int64_t count,
                  std::int64_t voxels) {
  if (add)
    for (std::int64_t v = 0; v < voxels; ++v, to += to_stride, from += from_stride)
      for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR { put<true>(load(from + i, part), to + i, part); });
  else
    for (std::int64_t v = 0; v < voxels; ++v, to += to_stride, from += from_stride)
      for_vectors(count, [&](std::int64_t i, auto part) HWY_ATTR { put<false>(load(from + i, part), to + i, part); });
}

}  // namespace
}  // namespace vg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/blocks.h"

namespace vg {
namespace {

HWY_EXPORT(fill_floats);
HWY_EXPORT(add_floats);
HWY_EXPORT(accumulate_floats);
HWY_EXPORT(copy_strided);

}  // namespace

namespace cpu {

void fill(const Exec&, Tensor& y, const FillParams& p) {
  for_flat_blocks(y.elements(), [&](std::int64_t i, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(fill_floats)(y.data<float>() + i, static_cast<std::int64_t>(y.bytes()), p.value, count);
  });
}

void add(const Exec&, Tensor& y, const Tensor& a, const Tensor& b) {
  assert(a.shape() == b.shape() && a.shape() == y.shape());
  for_flat_blocks(y.elements(), [&](std::int64_t i, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(add_floats)
    (y.data<float>() + i, static_cast<std::int64_t>(y.bytes()), a.data<float>() + i, b.data<float>() + i, count);
  });
}

void accumulate(const Exec&, const Grad& dx, const Tensor& dy, const ScaleParams& p) {
  assert(dx.tensor.elements() == dy.elements());
  for_flat_blocks(dy.elements(), [&](std::int64_t i, std::int64_t count) {
    HWY_DYNAMIC_DISPATCH(accumulate_floats)
    (dx.data() + i, static_cast<std::int64_t>(dx.tensor.bytes()), dx.beta != 0, dy.data<float>() + i, p.scale, count);
  });
}

namespace {
template <class Work>
void with_float_type(DType type, const Work& work) {
  switch (type) {
    case DType::f32: return work(0.0f);
    case DType::bf16: return work(bf16{});
    case DType::f16: return work(f16{});
    default: fail(ErrorCode::unsupported, "cast: numbers are {} (wanted f32, bf16 or f16)", name_of(type));
  }
}
}  // namespace

void cast(const Exec&, Tensor& y, const Tensor& x) {
  assert(y.shape() == x.shape());
  with_float_type(y.dtype(), [&](auto to) {
    with_float_type(x.dtype(), [&](auto from) {
      using To = decltype(to);
      To* out = y.data<To>();
      const auto* in = x.data<decltype(from)>();
      for_flat_blocks(x.elements(), [&](std::int64_t i, std::int64_t count) {
        for (std::int64_t j = i; j < i + count; ++j) {
          const float v = static_cast<float>(in[j]);
          if constexpr (std::is_same_v<To, float>)
            out[j] = v;
          else
            out[j] = To::from(v);
        }
      });
    });
  });
}

void copy_channels(const Exec&, const Grad& to, const Tensor& from, const ChannelParams& p) {
  const std::int64_t to_stride = to.shape().c(), from_stride = from.shape().c();
  assert(p.first_to >= 0 && p.first_to + p.count <= to_stride && p.first_from >= 0 && p.first_from + p.count <= from_stride);
  if (p.count == 0) return;
  for_rows(from.elements() / from_stride, p.count, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(copy_strided)
    (to.data() + begin * to_stride + p.first_to, to_stride, to.beta != 0, from.data<float>() + begin * from_stride + p.first_from,
     from_stride, p.count, end - begin);
  });
}

}  // namespace cpu

VG_KERNEL_HOME(fill);
VG_KERNEL_HOME(add);
VG_KERNEL_HOME(cast);
VG_KERNEL_HOME(accumulate);
VG_KERNEL_HOME(copy_channels);
VG_IMPL(cpu, cpu, fill);
VG_IMPL(cpu, cpu, add);
VG_IMPL(cpu, cpu, cast);
VG_IMPL(cpu, cpu, accumulate);
VG_IMPL(cpu, cpu, copy_channels);

}  // namespace vg
#endif

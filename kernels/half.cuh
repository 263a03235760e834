// Numbers in memory may have 2 bytes (bf16, f16), numbers in registers are floats: kernels are templates on the type T in memory and go through these.
// Of V = 4 neighbours a load is 8 bytes for halves; V = 8 moves 16.
#pragma once
#include "kernels/device.cuh"
#include "kernels/simt_tensor.h"
#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
#include "kernels/cuda/capability.h"
#endif

namespace vg {
namespace VG_NS {

template <class T>
inline constexpr bool kIsHalf = std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

template <class T>
__device__ inline float to_float(T x) {
  if constexpr (kIsHalf<T>)
    return simt::unpack2<T>(x.bits).x;
  else
    return x;
}
template <class T>
__device__ inline T from_float(float x) {
  if constexpr (kIsHalf<T>)
    return T{static_cast<std::uint16_t>(simt::pack2<T>(x, 0.0f))};
  else
    return x;
}

// V / 2 words of two halves each.
template <int V>
struct alignas(2 * V) HalfPack {
  unsigned word[V / 2];
};
template <int V, class H>
requires kIsHalf<H> __device__ inline Pack<V> load(const H* p) {
  Pack<V> x;
  if constexpr (V == 1) {
    x.v[0] = to_float(*p);
  } else {
    const HalfPack<V> raw = *reinterpret_cast<const HalfPack<V>*>(p);
    SIMT_UNROLL for (int j = 0; j < V / 2; ++j) {
      const float2 two = simt::unpack2<H>(raw.word[j]);
      x.v[2 * j] = two.x;
      x.v[2 * j + 1] = two.y;
    }
  }
  return x;
}
template <int V, class H>
requires kIsHalf<H> __device__ inline void store(H* p, const Pack<V>& x) {
  if constexpr (V == 1) {
    *p = from_float<H>(x.v[0]);
  } else {
    HalfPack<V> raw;
    SIMT_UNROLL for (int j = 0; j < V / 2; ++j) raw.word[j] = simt::pack2<H>(x.v[2 * j], x.v[2 * j + 1]);
    *reinterpret_cast<HalfPack<V>*>(p) = raw;
  }
}
template <int V, class H>
requires kIsHalf<H> __device__ inline void store(H* p, Pack<V> x, float beta) {
  if (beta != 0.0f) {
    const Pack<V> old = load<V>(p);
    SIMT_UNROLL for (int j = 0; j < V; ++j) x.v[j] += beta * old.v[j];
  }
  store<V>(p, x);
}

// Throws where tensor cores multiply no matrices of H: bf16 came with compute capability 8.0, f16 before the oldest GPU that CUDA 13 knows.
template <class H>
void require_tensor_cores(const Exec& ex, const char* who) {
#if defined(VG_SLOT_CUDA) && VG_SLOT_CUDA
  const int capability = std::is_same_v<H, bf16> ? compute_capability(ex.device.index) : 0;
  if (capability != 0 && capability < 80)
    throw Error(ErrorCode::unsupported, std::string(who) + ": bf16 needs compute capability 8.0, this GPU has " + std::to_string(capability / 10) + "." +
                                            std::to_string(capability % 10) + " (f16 is what it multiplies)");
#else
  static_cast<void>(ex), static_cast<void>(who);
#endif
}

// Calls work(T{}) with the type that `type` names.
template <class Work>
void for_half_type(DType type, const char* who, const Work& work) {
  if (type == DType::bf16) return work(bf16{});
  if (type == DType::f16) return work(f16{});
  throw Error(ErrorCode::unsupported, std::string(who) + ": numbers are " + name_of(type) + " (wanted f32, bf16 or f16)");
}
template <class Work>
void for_float_type(DType type, const char* who, const Work& work) {
  if (type == DType::f32) return work(0.0f);
  for_half_type(type, who, work);
}
template <class T>
const T* data_or_null_of(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}
template <class T>
T* data_of(const Grad& g) {
  return const_cast<Tensor&>(g.tensor).data<T>();
}
template <class T>
T* data_or_null_of(const Grad& g) {
  return g.wanted() ? data_of<T>(g) : nullptr;
}

}  // namespace VG_NS
}  // namespace vg

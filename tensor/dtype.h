// The five element types, and our own 2-byte floats: neither host compiler that we build with has both _Float16 and __bf16.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

namespace vg {

enum class DType : std::uint8_t { f32, bf16, f16, i32, u8 };

constexpr std::size_t size_of(DType t) { return t == DType::f32 || t == DType::i32 ? 4 : t == DType::u8 ? 1 : 2; }
constexpr const char* name_of(DType t) {
  constexpr const char* names[] = {"f32", "bf16", "f16", "i32", "u8"};
  return names[static_cast<int>(t)];
}

// bfloat16: the upper half of an IEEE binary32, rounded to nearest even; NaN stays NaN.
struct bf16 {
  std::uint16_t bits;
  static constexpr bf16 from(float x) {
    std::uint32_t u = std::bit_cast<std::uint32_t>(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
  }
  constexpr explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

// IEEE binary16, rounded to nearest even, with subnormals; overflow gives infinity.
struct f16 {
  std::uint16_t bits;
  static constexpr f16 from(float x) {
    const std::uint32_t u = std::bit_cast<std::uint32_t>(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
    if (a >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // >= 65520 rounds to infinity
    if (a < 0x38800000u) {                                                      // below 2^-14: subnormal, unit 2^-24
      const float m = std::bit_cast<float>(a) + 0.5f;                           // 0.5f has 2^-24 as its last bit: the addition rounds
      return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(m) - 0x3f000000u))};
    }
    return {static_cast<std::uint16_t>(sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13))};
  }
  constexpr explicit operator float() const {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16, e = (bits >> 10) & 31u, m = bits & 0x3ffu;
    if (e == 31) return std::bit_cast<float>(sign | 0x7f800000u | (m << 13));
    if (e == 0) {
      const float v = static_cast<float>(m) * 0x1p-24f;
      return sign ? -v : v;
    }
    return std::bit_cast<float>(sign | ((e + 112u) << 23) | (m << 13));
  }
};

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<f16> {
  static constexpr DType value = DType::f16;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};

}  // namespace vg

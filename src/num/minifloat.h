// One rounding rule for every small float: binary32 to a format with `Mant` mantissa bits and exponent bias `Bias`, to nearest, ties to even.
//
// Goals: branch-free, so that loops around it vectorise, and shared by the codecs and the recipes' loops, so that they cannot differ. Everything here is
// inlined always: a copy that the linker keeps could come from a file compiled for a wider instruction set. Non-goals: overflow and NaN; each format treats
// them in its own way (see codec.h).
#pragma once

#include <bit>
#include <cstdint>

#define QB_INLINE inline __attribute__((always_inline))

namespace qb {

inline constexpr uint32_t f32_abs_mask = 0x7FFFFFFFU;
inline constexpr uint32_t f32_inf_bits = 0x7F800000U;

QB_INLINE constexpr uint32_t min_of(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}
QB_INLINE constexpr uint32_t max_of(uint32_t a, uint32_t b) {
  return a > b ? a : b;
}

// Bits of |x| to the magnitude code of min(|x|, limit); NaN counts as the limit. The limit is at most 2^100.
template <int Mant, int Bias>
QB_INLINE constexpr uint32_t round_magnitude(uint32_t magnitude, float limit) {
  constexpr int shift = 23 - Mant;
  constexpr uint32_t min_normal = uint32_t{128 - Bias} << 23;
  magnitude = min_of(magnitude, std::bit_cast<uint32_t>(limit));
  // 2^23 steps of the format at this exponent: the adder rounds to whole steps and leaves their number in the low bits of the sum. Subnormal numbers have the
  // steps of the smallest normal exponent.
  const uint32_t exponent = max_of(magnitude & f32_inf_bits, min_normal);
  const uint32_t magic = exponent + (uint32_t{shift} << 23);
  const float sum = std::bit_cast<float>(magnitude) + std::bit_cast<float>(magic);
  const uint32_t steps = std::bit_cast<uint32_t>(sum) - magic;
  return steps + ((exponent - min_normal) >> shift);
}

// The value of a magnitude code that is neither infinity nor NaN.
template <int Mant, int Bias>
QB_INLINE constexpr float magnitude_value(uint32_t code) {
  constexpr uint32_t step = uint32_t{127 + 1 - Bias - Mant} << 23;  // 2^(1-Bias-Mant)
  const float subnormal = static_cast<float>(static_cast<int32_t>(code)) * std::bit_cast<float>(step);
  const float normal = std::bit_cast<float>((code << (23 - Mant)) + (uint32_t{127 - Bias} << 23));
  return code < (1U << Mant) ? subnormal : normal;
}

// The magnitude bits of a binary16 number as binary32.
QB_INLINE constexpr float f16_value(uint32_t magnitude) {
  // Read as binary32 the number is 2^112 too small, also where it is subnormal; infinity and NaN have to be named.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112F;
  const uint32_t special = magnitude >= 0x7C00 ? f32_inf_bits : 0U;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | special);
}

// Bits of |x| rounded to bfloat16, as binary32 bits. NaN gives some bits above infinity's, which may reach the sign.
QB_INLINE constexpr uint32_t round_bf16_magnitude(uint32_t magnitude) {
  return (magnitude + 0x7FFFU + ((magnitude >> 16) & 1U)) & 0xFFFF0000U;
}

// The bfloat16 code of any number. NaN becomes quiet: a payload only in the low half must not round to infinity.
QB_INLINE constexpr uint16_t bf16_code(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (u + 0x7FFFU + ((u >> 16) & 1U)) >> 16, quiet = (u >> 16) | 0x40U;
  return static_cast<uint16_t>((u & f32_abs_mask) > f32_inf_bits ? quiet : rounded);
}

// Bits of |x| rounded to binary16, as binary32 bits; overflow and NaN give infinity.
QB_INLINE constexpr uint32_t round_f16_magnitude(uint32_t magnitude) {
  return std::bit_cast<uint32_t>(f16_value(round_magnitude<10, 15>(magnitude, 65536.0F)));
}

}  // namespace qb

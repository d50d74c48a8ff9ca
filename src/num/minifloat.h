// One rounding rule for every small float: binary32 to a format with `Mant` mantissa bits and exponent bias `Bias`, to nearest, ties to even.
//
// Goals: branch-free, so that loops around it vectorise, and shared by the codecs and the recipes' loops, so that they cannot differ.
// Non-goals: overflow and NaN; each format treats them in its own way (see codec.h).
#pragma once

#include <bit>
#include <cstdint>

namespace qb {

// Magnitude bits of a finite |x| to the magnitude code, with no upper bound: overflow shows as a code beyond the largest one.
template <int Mant, int Bias>
constexpr uint32_t round_magnitude(uint32_t magnitude) {
  constexpr int shift = 23 - Mant;
  constexpr uint32_t rebias = uint32_t{127 - Bias} << Mant;
  constexpr uint32_t min_normal = uint32_t{128 - Bias} << 23;
  // 2^23 steps of the subnormal range: the adder rounds to those steps and leaves their number in the mantissa.
  constexpr uint32_t magic = uint32_t{127 + 1 - Bias - Mant + 23} << 23;
  const uint32_t odd = (magnitude >> shift) & 1U;
  const uint32_t normal = ((magnitude + ((1U << (shift - 1)) - 1U) + odd) >> shift) - rebias;
  const float sum = std::bit_cast<float>(magnitude) + std::bit_cast<float>(magic);
  const uint32_t subnormal = std::bit_cast<uint32_t>(sum) - magic;
  return magnitude < min_normal ? subnormal : normal;
}

// The value of a magnitude code that is neither infinity nor NaN.
template <int Mant, int Bias>
constexpr float magnitude_value(uint32_t code) {
  constexpr uint32_t step = uint32_t{127 + 1 - Bias - Mant} << 23;  // 2^(1-Bias-Mant)
  const float subnormal = static_cast<float>(code) * std::bit_cast<float>(step);
  const float normal = std::bit_cast<float>((code << (23 - Mant)) + (uint32_t{127 - Bias} << 23));
  return code < (1U << Mant) ? subnormal : normal;
}

}  // namespace qb

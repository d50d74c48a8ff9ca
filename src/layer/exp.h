// exp for loops that vectorise: a polynomial, no branches, no tables, the same bits at every vector width.
//
// Source: the usual reduction x = n ln2 + r with ln2 in two parts, and the Cephes polynomial for exp on [-ln2/2, ln2/2]. Within 2 ulp of exp on [-87, 88];
// above 88 it stays at exp(88), below -87 it is 0, NaN stays NaN. layer_test compares it with std::exp.
#pragma once

#include <bit>
#include <cstdint>

#include "num/minifloat.h"

namespace qb::layer {

QB_INLINE float exp_f32(float x) {
  const float limited = x > 88.0F ? 88.0F : x < -87.0F ? -87.0F : x;
  constexpr float magic = 0x1.8p23F;  // adding it leaves the nearest whole number in the low bits
  const float shifted = limited * 1.44269504088896341F + magic;
  const float n = shifted - magic;
  const float r = (limited - n * 0.693359375F) - n * -2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float e = p * (r * r) + r + 1.0F;
  const float power = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) + 127U) << 23);  // 2^n
  return x < -87.0F ? 0.0F : e * power;
}

}  // namespace qb::layer

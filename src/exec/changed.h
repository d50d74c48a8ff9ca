// Numbers made in double and rounded once into a float format.
#pragma once

#include <bit>
#include <cmath>

#include "exec/numbers.h"

namespace qb::ops {

// To float32 with the last bit set where something was cut off: rounding that to fewer bits is rounding the double itself (Boldo and Melquiond, 2008).
inline float to_odd(double y) {
  const auto near = static_cast<float>(y);
  if (std::isnan(y) || std::isinf(near) || static_cast<double>(near) == y) return near;
  const bool beyond = std::fabs(static_cast<double>(near)) > std::fabs(y);
  const uint32_t cut = std::bit_cast<uint32_t>(near) - (beyond ? 1U : 0U);
  return std::bit_cast<float>(cut | 1U);
}

// Element `i` of an array of f32, f16, bf16 or e4m3, to nearest even; e4m3 ends at 448.
inline void store_rounded(std::byte* p, Elem elem, int64_t i, double y) {
  switch (elem) {
    case Elem::f32:
      return store<float>(p, i, static_cast<float>(y));
    case Elem::bf16:
      return store<uint16_t>(p, i, encode_bf16(to_odd(y)));
    case Elem::f16:
      return store<uint16_t>(p, i, encode_f16(to_odd(y)));
    default:
      return store<uint8_t>(p, i, encode_e4m3_sat(to_odd(y)));
  }
}

}  // namespace qb::ops

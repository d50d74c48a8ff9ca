// Numbers as codes of an integer type whose scale and zero point are decided.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "calib/products.h"

namespace qb::calib {

struct Rounded {
  int code;
  float value;  // in the dtype of the scale, as the producers take it
};

// The nearest code from `low` on, which is -2^(bits-1). A scale that is not positive belongs to zeros alone.
inline Rounded nearest(float x, float scale, float zero, float low, Elem dtype) {
  if (!(scale > 0)) return {0, 0};
  const float code = std::nearbyint(std::clamp(x / scale + zero, low, -low - 1));
  float value = (code - zero) * scale;
  if (dtype != Elem::f32) {
    std::byte bits[sizeof(float)];
    narrow(&value, 1, dtype, bits);
    widen(bits, dtype, 1, &value);
  }
  return {static_cast<int>(code), value};
}

}  // namespace qb::calib

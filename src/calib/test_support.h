// What the tests of algorithms share.
#pragma once

#include <span>

#include "calib/algorithm.h"

namespace qb::calib {

// A weight of these bfloat16 numbers [n, k], to be made in a scheme with a producer's numerics.
inline Weight bf16_weight(const char* scheme, recipe::Numerics numerics, int64_t n, int64_t k, std::span<const float> numbers) {
  const ir::QuantType type = ir::parse_scheme(scheme)->weight;
  Weight w{.path = "w", .n = n, .k = k, .elem = Elem::bf16, .numbers = {}, .recipe = recipe::find_recipe(type, numerics), .type = type};
  w.numbers.resize(numbers.size() * 2);
  narrow(numbers.data(), n * k, w.elem, w.numbers.data());
  return w;
}

}  // namespace qb::calib

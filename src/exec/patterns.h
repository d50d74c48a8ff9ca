// Floats as the integers that they are stored as: without the sign these order like magnitudes, so that whole arrays are looked at in vectors.
//
// Goals: the answers that decoding every number would give, from one pass over its bits. Non-goals: integers, and formats of less than a byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "num/elem.h"
#include "num/isa.h"

namespace qb {

// Bits of the largest magnitude of an array; NaN is above infinity, infinity above all else.
uint64_t largest_magnitude(const std::byte* p, Elem elem, int64_t count, Isa isa);

// Whether a number of these bits without a sign is neither NaN nor infinite. Plain bytes are finite: they may hold codes as well as E8M0 scales.
bool is_finite_magnitude(Elem elem, uint64_t magnitude);

// Whether an array has neither NaN nor infinities. Integers have none.
bool all_finite(const std::byte* p, Elem elem, int64_t count, Isa isa);

// The least positive normal number; 0 for e8m0, which has no subnormals, and for integers.
double least_normal(Elem elem);

// The least and the largest of an array whose numbers are all positive, finite and normal; nothing where one is not.
struct Extent {
  double least, largest;
};
std::optional<Extent> regular_extent(const std::byte* p, Elem elem, int64_t count, Isa isa);

}  // namespace qb

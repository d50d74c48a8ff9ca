#include "exec/patterns.h"

#include <algorithm>
#include <limits>

#include "exec/tally.h"
#include "recipe/loops.h"

namespace qb {
namespace {

// All bits but the sign, the first pattern of a normal number, the first of one that is not finite. As signed integers of two bytes and more the patterns of
// negative numbers are below all others, as unsigned bytes above: either way no regular number has them.
struct Pattern {
  uint64_t magnitude, normal, not_finite;
};

std::optional<Pattern> pattern_of(Elem elem) {
  switch (elem) {
    case Elem::f64:
      return Pattern{0x7FFF'FFFF'FFFF'FFFF, 0x0010'0000'0000'0000, 0x7FF0'0000'0000'0000};
    case Elem::f32:
      return Pattern{0x7FFF'FFFF, 0x0080'0000, 0x7F80'0000};
    case Elem::bf16:
      return Pattern{0x7FFF, 0x0080, 0x7F80};
    case Elem::f16:
      return Pattern{0x7FFF, 0x0400, 0x7C00};
    case Elem::e4m3:
      return Pattern{0x7F, 0x08, 0x7F};
    case Elem::e5m2:
      return Pattern{0x7F, 0x04, 0x7C};
    case Elem::e8m0:
    case Elem::u8:  // e8m0 in plain bytes
      return Pattern{0xFF, 0, 0xFF};
    default:
      return std::nullopt;
  }
}

template <class T>
struct Span {
  T least = std::numeric_limits<T>::max(), largest = std::numeric_limits<T>::min();
};

template <class T>
struct Look {
  static QB_INLINE void run(const std::byte* p, int64_t count, T mask, Span<T>* found) {
    T least = found->least, largest = found->largest;
    for (int64_t i = 0; i < count; ++i) {
      T x;
      std::memcpy(&x, p + i * static_cast<int64_t>(sizeof x), sizeof x);
      x = static_cast<T>(x & mask);
      least = x < least ? x : least;
      largest = x > largest ? x : largest;
    }
    *found = {least, largest};
  }
};

// The least and the largest pattern among those bits of each number that the mask has. Signed: vectors of the baseline compare nothing else.
template <class T>
Span<int64_t> look_as(const std::byte* p, int64_t count, uint64_t mask, Isa isa) {
  Span<T> found;
  recipe::run_at<Look<T>>(isa, p, count, static_cast<T>(mask), &found);
  return {static_cast<int64_t>(found.least), static_cast<int64_t>(found.largest)};
}
Span<int64_t> look(const std::byte* p, Elem elem, int64_t count, uint64_t mask, Isa isa) {
  switch (bits(elem)) {
    case 8:
      return look_as<uint8_t>(p, count, mask, isa);
    case 16:
      return look_as<int16_t>(p, count, mask, isa);
    case 32:
      return look_as<int32_t>(p, count, mask, isa);
    default:
      return look_as<int64_t>(p, count, mask, isa);
  }
}

double value_of(int64_t pattern, Elem elem) {
  std::byte number[sizeof pattern];
  std::memcpy(number, &pattern, sizeof pattern);
  return value_at(number, elem, 0);
}

}  // namespace

uint64_t largest_magnitude(const std::byte* p, Elem elem, int64_t count, Isa isa) {
  const std::optional<Pattern> f = pattern_of(elem);
  return f && count > 0 ? static_cast<uint64_t>(look(p, elem, count, f->magnitude, isa).largest) : 0;
}

bool is_finite_magnitude(Elem elem, uint64_t magnitude) {
  const std::optional<Pattern> f = pattern_of(elem);
  return !f || elem == Elem::u8 || magnitude < f->not_finite;
}

bool all_finite(const std::byte* p, Elem elem, int64_t count, Isa isa) {
  return is_finite_magnitude(elem, largest_magnitude(p, elem, count, isa));
}

double least_normal(Elem elem) {
  const std::optional<Pattern> f = pattern_of(elem);
  return f && f->normal > 0 ? value_of(static_cast<int64_t>(f->normal), elem) : 0;
}

std::optional<Extent> regular_extent(const std::byte* p, Elem elem, int64_t count, Isa isa) {
  const std::optional<Pattern> f = pattern_of(elem);
  if (!f || count < 1) return std::nullopt;
  const Span<int64_t> found = look(p, elem, count, ~uint64_t{0}, isa);
  if (found.least < static_cast<int64_t>(f->normal) || found.largest >= static_cast<int64_t>(f->not_finite)) return std::nullopt;
  return Extent{value_of(found.least, elem), value_of(found.largest, elem)};
}

}  // namespace qb

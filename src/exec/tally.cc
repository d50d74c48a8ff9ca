#include "exec/tally.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "exec/numbers.h"

namespace qb {
namespace {

// The least positive normal number of a format; 0 for e8m0, which has no subnormals.
double least_normal(Elem elem) {
  switch (elem) {
    case Elem::f64:
      return std::numeric_limits<double>::min();
    case Elem::f32:
    case Elem::bf16:
      return std::numeric_limits<float>::min();
    case Elem::f16:
    case Elem::e5m2:
      return 0x1p-14;
    case Elem::e4m3:
      return 0x1p-6;
    default:
      return 0;
  }
}

// As vectors: good blocks pass this test alone.
template <class T>
bool any_at_least(const std::byte* p, int64_t count, T magnitude, T least) {
  T most = 0;
  for (int64_t i = 0; i < count; ++i) most = std::max(most, static_cast<T>(ops::load<T>(p, i) & magnitude));
  return most >= least;
}
}  // namespace

bool all_finite(const std::byte* p, Elem elem, int64_t count) {
  switch (elem) {
    case Elem::f64:
      return !any_at_least<uint64_t>(p, count, 0x7FFF'FFFF'FFFF'FFFF, 0x7FF0'0000'0000'0000);
    case Elem::f32:
      return !any_at_least<uint32_t>(p, count, 0x7FFF'FFFF, 0x7F80'0000);
    case Elem::bf16:
      return !any_at_least<uint16_t>(p, count, 0x7FFF, 0x7F80);
    case Elem::f16:
      return !any_at_least<uint16_t>(p, count, 0x7FFF, 0x7C00);
    case Elem::e4m3:
      return !any_at_least<uint8_t>(p, count, 0x7F, 0x7F);
    case Elem::e5m2:
      return !any_at_least<uint8_t>(p, count, 0x7F, 0x7C);
    case Elem::e8m0:
      return !any_at_least<uint8_t>(p, count, 0xFF, 0xFF);
    default:
      return true;
  }
}

double value_at(const std::byte* p, Elem elem, int64_t i) {
  if (elem == Elem::f64) return ops::load<double>(p, i);
  if (elem == Elem::i32) return ops::load<int32_t>(p, i);
  if (is_integer_code(elem)) return ops::load<int8_t>(p, i);  // one to a byte
  return static_cast<double>(ops::number_at(p, elem, i));
}

Tally::Tally(Elem elem, bool (*exact)(double)) : exact_(exact), least_normal_(least_normal(elem)) {}

void Tally::note(int64_t& count, int64_t& first, int64_t index, int64_t times) {
  count += times;
  if (first < 0 || index < first) first = index;
}

void Tally::add(double x, int64_t index, int64_t times) {
  r_.count += times;
  if (std::isnan(x)) return note(r_.nan, nan_, index, times);
  if (std::isinf(x)) return note(r_.inf, inf_, index, times);
  if (x == 0) {
    note(r_.zero, zero_, index, times);
  } else {
    const double m = std::fabs(x);
    r_.least = r_.least == 0 ? m : std::min(r_.least, m);
    r_.largest = std::max(r_.largest, m);
    if (m < least_normal_) r_.subnormal += times;
    if (x < 0) note(r_.negative, negative_, index, times);
  }
  if (exact_ != nullptr && !exact_(x)) note(r_.inexact, inexact_, index, times);
}

prog::SurveyResult Tally::result() const {
  prog::SurveyResult r = r_;
  for (int64_t first : {nan_, inf_, zero_, negative_, inexact_}) {
    if (first >= 0) {
      r.first_bad = first;
      break;
    }
  }
  return r;
}

Numbers::Numbers(Elem elem, int64_t total, bool (*exact)(double)) : elem_(elem), tally_(elem, exact) {
  if (bits(elem) > 16 || is_integer_code(elem)) return;
  const int64_t codes = int64_t{1} << bits(elem);
  if (total < codes) return;  // the table would cost more than it saves
  times_.assign(static_cast<size_t>(codes), 0);
  first_.assign(static_cast<size_t>(codes), -1);
}

void Numbers::add(const std::byte* data, int64_t first, int64_t count) {
  if (times_.empty()) {
    for (int64_t i = 0; i < count; ++i) tally_.add(value_at(data, elem_, i), first + i, 1);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const size_t code = bits(elem_) == 8 ? ops::load<uint8_t>(data, i) : ops::load<uint16_t>(data, i);
    if (times_[code]++ == 0) first_[code] = first + i;
  }
}

prog::SurveyResult Numbers::result() {
  for (size_t code = 0; code < times_.size(); ++code) {
    if (times_[code] == 0) continue;
    std::byte number[8] = {};  // as large as any format
    ops::store<uint16_t>(number, 0, static_cast<uint16_t>(code));
    tally_.add(value_at(number, elem_, 0), first_[code], times_[code]);
  }
  return tally_.result();
}

}  // namespace qb

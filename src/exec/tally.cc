#include "exec/tally.h"

#include <algorithm>
#include <cmath>

#include "exec/numbers.h"

namespace qb {

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

void Tally::add_regular(const Extent& extent, int64_t times) {
  r_.count += times;
  r_.least = r_.least == 0 ? extent.least : std::min(r_.least, extent.least);
  r_.largest = std::max(r_.largest, extent.largest);
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

Numbers::Numbers(Elem elem, int64_t total, bool (*exact)(double), Isa isa) : elem_(elem), tally_(elem, exact), isa_(isa), plain_(exact == nullptr) {
  // A table costs more than it saves where numbers are few.
  by_code_ = bits(elem) <= 16 && !is_integer_code(elem) && total >= int64_t{1} << bits(elem);
}

void Numbers::add(const std::byte* data, int64_t first, int64_t count) {
  constexpr int64_t at_once = 4096;
  const int64_t width = is_integer_code(elem_) ? 1 : bits(elem_) / 8;
  for (int64_t i = 0; i < count; i += at_once) {
    const int64_t n = std::min(at_once, count - i);
    const std::byte* const piece = data + i * width;
    if (const std::optional<Extent> extent = plain_ ? regular_extent(piece, elem_, n, isa_) : std::nullopt; extent)
      tally_.add_regular(*extent, n);
    else
      add_each(piece, first + i, n);
  }
}

void Numbers::add_each(const std::byte* data, int64_t first, int64_t count) {
  if (!by_code_) {
    for (int64_t i = 0; i < count; ++i) tally_.add(value_at(data, elem_, i), first + i, 1);
    return;
  }
  const bool bytes = bits(elem_) == 8;
  if (times_.empty()) {
    times_.assign(size_t{1} << bits(elem_), 0);
    first_.assign(times_.size(), -1);
  }
  for (int64_t i = 0; i < count; ++i) {
    const size_t code = bytes ? ops::load<uint8_t>(data, i) : ops::load<uint16_t>(data, i);
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

// What the numbers of a tensor are: how many are NaN, infinite, zero, negative or subnormal, the least and the largest magnitude.
#pragma once

#include <optional>
#include <vector>

#include "num/elem.h"
#include "prog/program.h"

namespace qb {

// Number `i` of an array: of a float format, of integers one to a byte, or of i32.
double value_at(const std::byte* p, Elem elem, int64_t i);

// Whether an array has neither NaN nor infinities. Integers have none.
bool all_finite(const std::byte* p, Elem elem, int64_t count);

class Tally {
 public:
  // `exact`: whether a finite number is one of a format that is asked about; null: all are.
  explicit Tally(Elem elem, bool (*exact)(double) = nullptr);

  // `times` numbers of value x, the first of them at element `index`.
  void add(double x, int64_t index, int64_t times);
  prog::SurveyResult result() const;

 private:
  static void note(int64_t& count, int64_t& first, int64_t index, int64_t times);

  bool (*exact_)(double);
  double least_normal_;
  prog::SurveyResult r_;
  int64_t nan_ = -1, inf_ = -1, zero_ = -1, negative_ = -1, inexact_ = -1;
};

// Counts `total` numbers of one format. Many numbers of at most 16 bits are counted by code first: the questions are then asked once for each code.
class Numbers {
 public:
  Numbers(Elem elem, int64_t total, bool (*exact)(double) = nullptr);

  // `count` numbers, the first of which is element `first`.
  void add(const std::byte* data, int64_t first, int64_t count);
  // All were added; once.
  prog::SurveyResult result();

 private:
  Elem elem_;
  Tally tally_;
  std::vector<int64_t> times_, first_;  // by code; empty: numbers go to the tally
};

}  // namespace qb

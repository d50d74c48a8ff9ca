// What the numbers of a tensor are: how many are NaN, infinite, zero, negative or subnormal, the least and the largest magnitude.
#pragma once

#include <optional>
#include <vector>

#include "exec/patterns.h"
#include "num/elem.h"
#include "num/isa.h"
#include "prog/program.h"

namespace qb {

// Number `i` of an array: of a float format, of integers one to a byte, or of i32.
double value_at(const std::byte* p, Elem elem, int64_t i);

class Tally {
 public:
  // `exact`: whether a finite number is one of a format that is asked about; null: all are.
  explicit Tally(Elem elem, bool (*exact)(double) = nullptr);

  // `times` numbers of value x, the first of them at element `index`.
  void add(double x, int64_t index, int64_t times);
  // So many positive, finite and normal numbers, of which nothing is asked.
  void add_regular(const Extent& extent, int64_t times);
  prog::SurveyResult result() const;

 private:
  static void note(int64_t& count, int64_t& first, int64_t index, int64_t times);

  bool (*exact_)(double);
  double least_normal_;
  prog::SurveyResult r_;
  int64_t nan_ = -1, inf_ = -1, zero_ = -1, negative_ = -1, inexact_ = -1;
};

// Counts `total` numbers of one format. Pieces without a number that stands out pass a test of their bits. Of others, many numbers of at most 16 bits are
// counted by code first: the questions are then asked once for each code.
class Numbers {
 public:
  Numbers(Elem elem, int64_t total, bool (*exact)(double) = nullptr, Isa isa = Isa::generic);

  // `count` numbers, the first of which is element `first`.
  void add(const std::byte* data, int64_t first, int64_t count);
  // All were added; once.
  prog::SurveyResult result();

 private:
  void add_each(const std::byte* data, int64_t first, int64_t count);

  Elem elem_;
  Tally tally_;
  Isa isa_;
  bool plain_, by_code_;                // all numbers are exact; many are counted by code
  std::vector<int64_t> times_, first_;  // by code, once there is one to count
};

}  // namespace qb

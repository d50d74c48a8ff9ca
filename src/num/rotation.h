// Vectors of a fixed length times a square matrix, in double, each result rounded once to float32.
//
// Goals: the same bits for every caller; a Hadamard matrix of Sylvester's order, whatever the signs of its rows and columns, costs n log n in place of n^2, and
// no memory for the matrix. Non-goal: other orders of Hadamard matrices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace qb {

class Rotation {
 public:
  // matrix: n x n, row by row; transposed: its transpose is meant. Every element is divided by `divisor`.
  Rotation(std::vector<double> matrix, int64_t n, bool transposed, double divisor);

  int64_t size() const { return n_; }
  bool fast() const { return !rows_.empty(); }
  size_t bytes() const { return (matrix_.size() + rows_.size() + cols_.size()) * sizeof(double); }
  // Numbers that apply() needs in `room`.
  size_t room() const { return static_cast<size_t>(n_); }
  // to[p * stride] = sum over q of from[q * stride] matrix[q][p]. `to` may be `from`.
  void apply(const float* from, float* to, int64_t stride, std::span<double> room) const;

 private:
  bool find_signs(double divisor);

  int64_t n_;
  std::vector<double> matrix_;       // [p][q], so that sums run along rows; empty where it is fast
  std::vector<double> rows_, cols_;  // factors before and after Sylvester's matrix
};

}  // namespace qb

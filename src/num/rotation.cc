#include "num/rotation.h"

#include <bit>
#include <cmath>
#include <utility>

#include "num/hadamard.h"

namespace qb {

Rotation::Rotation(std::vector<double> matrix, int64_t n, bool transposed, double divisor) : n_(n), matrix_(std::move(matrix)) {
  const auto side = static_cast<size_t>(n);
  if (!transposed)
    for (size_t q = 0; q < side; ++q)
      for (size_t p = 0; p < q; ++p) std::swap(matrix_[q * side + p], matrix_[p * side + q]);
  if (find_signs(divisor)) {
    matrix_ = {};
    return;
  }
  rows_.clear();
  cols_.clear();
  for (double& x : matrix_) x /= divisor;
}

// Whether the matrix is r_q h[q][p] c_p with h[q][p] = (-1)^(bits that q and p share), all of one magnitude.
bool Rotation::find_signs(double divisor) {
  const auto n = static_cast<size_t>(n_);
  const double first = matrix_[0], size = std::abs(first);
  if (!std::has_single_bit(n) || !(size > 0) || std::isinf(size)) return false;
  for (size_t i = 0; i < n; ++i) {
    rows_.push_back(matrix_[i] < 0 ? -1 : 1);
    cols_.push_back((matrix_[i * n] < 0) == (first < 0) ? 1 : -1);
  }
  for (size_t p = 0; p < n; ++p)
    for (size_t q = 0; q < n; ++q)
      if (matrix_[p * n + q] != size * rows_[q] * cols_[p] * (std::popcount(p & q) % 2 == 0 ? 1 : -1)) return false;
  for (double& c : cols_) c *= size / divisor;
  return true;
}

void Rotation::apply(const float* from, float* to, int64_t stride, std::span<double> room) const {
  const auto n = static_cast<size_t>(n_);
  const auto at = [stride](size_t i) { return static_cast<int64_t>(i) * stride; };
  double* const v = room.data();
  for (size_t q = 0; q < n; ++q) v[q] = static_cast<double>(from[at(q)]);
  if (!fast()) {
    for (size_t p = 0; p < n; ++p) {
      const double* column = matrix_.data() + p * n;
      double sum = 0;
      for (size_t q = 0; q < n; ++q) sum += v[q] * column[q];
      to[at(p)] = static_cast<float>(sum);
    }
    return;
  }
  for (size_t q = 0; q < n; ++q) v[q] *= rows_[q];
  hadamard(v, n_, 1);
  for (size_t p = 0; p < n; ++p) to[at(p)] = static_cast<float>(v[p] * cols_[p]);
}

}  // namespace qb

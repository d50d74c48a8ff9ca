// What rounding a weight does to its outputs: the sum of the squares of their errors, over all tokens that were seen.
//
// With d what a row of the weight has lost, that is d (x^T x) d^T over all rows. Non-goals: what comes behind the linear.
#pragma once

#include <vector>

#include "calib/algorithm.h"

namespace qb::calib {

// Twice x^T x right of its diagonal, 0 left of it: d times it times d^T is what d (x^T x) d^T is. Takes the products.
std::vector<float> doubled_products(Statistics& inputs);

// The sum over rows of d p d^T, d [rows, k] whose rows lie d_row numbers apart, p [k, k] as above whose rows lie p_row numbers apart.
double squares(const float* d, int64_t d_row, const float* p, int64_t p_row, int64_t rows, int64_t k, Isa isa);

// What rows [first, last) of a weight are once they were multiplied by factors (`scaled`: its numbers then), rounded by its recipe, and divided by them again.
// out: [last - first, k]. first is a multiple of the recipe's rows. Errors: invalid_argument, a type without values.
Result<void> rounded_rows(const Weight& w, const std::byte* scaled, int64_t first, int64_t last, const std::vector<float>& inverse, float amax,
                          const Tools& tools, float* out);
// The whole weight.
Result<std::vector<float>> rounded(const Weight& w, const std::vector<float>& factors, const Tools& tools);

class OutputError {
 public:
  // Everything is the caller's and outlives it; the weight has a recipe.
  OutputError(const Weight& w, const std::vector<float>& products, const Tools& tools) : w_(w), products_(products), tools_(tools), scaled_(w.numbers.size()) {}

  // Of the weight times `factors`, rounded by its recipe with `part` of its largest magnitude where that needs one, for inputs times `inverse`. NaN where
  // something is not finite.
  double of(const std::vector<float>& factors, const std::vector<float>& inverse, float part = 1);

 private:
  size_t at(int64_t row) const { return static_cast<size_t>(row * w_.k * bits(w_.elem) / 8); }
  double rows(int64_t first, int64_t last, const std::vector<float>& inverse, float amax) const;

  const Weight& w_;
  const std::vector<float>& products_;
  const Tools& tools_;
  std::vector<std::byte> scaled_;
};

}  // namespace qb::calib

// The one product of matrices that calibration spends its time on, and floats of any width in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "num/elem.h"
#include "num/isa.h"

namespace qb::calib {

// y[r, c] += the sum over d of e[r, d] * u[d, c], for `rows` x `columns` numbers: the terms of four d at once, in ascending order. Element (r, d) of e is
// e[r * e_row + d * e_depth]; rows of y and u lie y_row and u_row numbers apart. The result does not depend on the instruction set.
struct Product {
  float* y;
  int64_t y_row;
  const float* e;
  int64_t e_row, e_depth;
  const float* u;
  int64_t u_row;
  int64_t rows, depth, columns;
};
void add_product(const Product& product, Isa isa) noexcept;

// bf16, f16 or f32 numbers as float32, and float32 rounded to them, to nearest even.
void widen(const std::byte* from, Elem elem, int64_t count, float* to);
void narrow(const float* from, int64_t count, Elem elem, std::byte* to);
// Rows of numbers with each column times its factor, rounded once; `to` may be `from`.
void scale_columns(const std::byte* from, Elem elem, int64_t rows, std::span<const float> factors, std::byte* to);

}  // namespace qb::calib

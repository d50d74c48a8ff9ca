// What is known about a program's values before it runs, for those who know the recipes.
//
// Goals: one implementation of a program's typing, total over any Program; sizes never overflow.
// Non-goals: knowing recipes (they stand below in the list of layers): whoever does hands their answer in as a function.
#pragma once

#include <optional>
#include <vector>

#include "prog/program.h"

namespace qb::prog {

// In which format a recipe makes its scales, given its source's; nothing where there is no such recipe.
using ScaleElem = std::optional<Elem> (*)(const Quantize&, Elem source);

// type_check of program.h, with the recipes' word on scales. Without it (null), a scale is taken to have the dtype of the output that stores it.
Result<std::vector<ValueType>> type_check(const Program&, ScaleElem);

// How many rows of a value with this rows_per go with `rows` rows of the program.
inline int64_t value_rows(int64_t rows, int64_t rows_per) {
  return rows_per == 0 ? 1 : rows / rows_per + (rows % rows_per != 0 ? 1 : 0);
}

// Integer codes that do not lie one to a byte in two's complement, and others with lanes: reading has to unpack them.
bool is_packed(const ir::View&, Elem);

// A stored number stands for several of the view's.
bool is_repeated(const ir::View&);
inline int64_t stored_index(const ir::View& v, size_t axis, int64_t index) {
  return (index + v.repeat[axis].phase) / v.repeat[axis].times;
}

// The highest bit at which an element of this axis starts within its unit.
int64_t last_lane(const ir::View&, size_t axis);

// The floats that are worked on in binary32.
inline bool is_wide_float(Elem e) {
  return e == Elem::f32 || e == Elem::f16 || e == Elem::bf16;
}

// The view's elements lie one behind the other in row order, starting at a whole byte, as values do.
bool is_dense(const ir::View&, Elem);

// The side of a square matrix of so many elements; 0 when there is none, or one too large to be meant.
int64_t side(int64_t elements);

// How many results an op has: a Quantize has two or three, every other op one.
int results_of(const Op&);

}  // namespace qb::prog

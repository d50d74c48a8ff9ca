// A rectangle of a weight: which codes, scales, zero points, biases and factors it needs, and whether it may be cut out at all.
//
// Goals: one arithmetic for shards on disk, for ranks that read their own bytes, and for checking without data. A region is other views of the same bytes; no
// number changes. A cut through a block whose scales are ordinary numbers repeats the scale on both sides and makes smaller blocks, which is exact. Groups
// whose size is the format (16 of NVFP4, 32 of MX), words of packed codes and an order of groups are not cut. Non-goals: which rank has which region
// (arch/parallel.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arch/parallel.h"
#include "ir/checkpoint.h"

namespace qb::ir {

using arch::Range;

// Rows in ascending order, kept below each other, and columns of a module's matrix [n, k] as it is stored; of stacked experts those of each of some.
struct Region {
  Range experts{0, 1};
  std::vector<Range> rows;
  Range cols;
  friend bool operator==(const Region&, const Region&) = default;
};
Region all_of(const Module&);

// Where an axis may be cut: multiples of `whole` leave every block whole; multiples of `exact` are right too. 0: nowhere. `by` names what is in the way.
struct Grain {
  int64_t whole = 1, exact = 1;
  std::string by;
};
// axis 0: rows, 1: columns, of the module's matrix as it is stored.
Grain grain_of(const Module&, int axis);

// The region as a module of its own. Where it begins or ends within blocks, its scheme has blocks of `block` (rows, cols), which divide the scheme's own and
// every bound of the region. Nothing where it may not be cut so: grain_of() says why. Numbers for the whole matrix (second-level and input scales) stay.
std::optional<Module> region_of(const Module&, const Region&, Block block);

// Some of the rows (axis 0) or columns of a view; nothing where that would part a unit.
std::optional<View> some(View v, size_t axis, Range r);

// Some rows of a stored matrix, as a matrix of their own; nothing where that would part a unit.
std::optional<Stored> rows_of(const Stored&, Range rows);

// The largest blocks that divide the module's own and all bounds of these regions: the blocks of a matrix that is cut into them.
Block common_block(const Module&, const std::vector<Region>&);

}  // namespace qb::ir

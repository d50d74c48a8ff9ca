// Sparse weights of compressed-tensors 0.8 to 0.13: `compressed`, the numbers that are not left out, and `bitmask`, U8 [n, ceil(k/8)], which says where they
// lie.
//
// sparse-24-bitmask: two of every four, compressed [n, k/2], shape I64 [2,1]. sparse-bitmask: any number of them, compressed in one dimension, row_offsets I64
// [n] and shape I64 [2]. Source of truth: the library's own files, and its sparse compressors for those of the second kind. What needs the bits themselves is
// checked when they are read (exec/load.h).
#pragma once

#include "dialect/reading.h"

namespace qb {

// Whether the module's weight is stored so; with two of every four.
bool is_masked(const Reading&, const ir::Module&);
bool is_two_of_four(const Reading&, const ir::Module&);

// Claims the tensors and adds the weight to the module's parts, as if it held every element of n x k. False after a report: weight-missing, weight-shape,
// packed-shape-mismatch (of a shape that the tensors overrule).
bool read_masked(Reading&, ir::Module&, Elem elem);

}  // namespace qb

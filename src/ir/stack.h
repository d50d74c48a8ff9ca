// Stacked experts: what lies where in the one matrix that a layer's experts share, and each of them as a linear of its own.
//
// Goals: past the dialect a stack is a matrix like any other (its rows are read, dequantized, checked and copied block by block); orientation and scales are
// arithmetic on views. Non-goal: which rows of an expert are its gate and which its up projection; models know that.
#pragma once

#include "ir/checkpoint.h"

namespace qb::ir {

// The scheme's weight type for the matrix as it is stored: of a stack with the inputs first, blocks are turned as the experts are. For ordinary modules it is
// the scheme's own. Precondition: the module has a scheme and its size.
QuantType stored_type(const Module& module);

// The matrix with its axes swapped, also where it consists of others.
Stored swapped(Stored);

// The stack with each expert's part turned, [inputs, outputs] to [outputs, inputs] or back: other views of the same bytes.
Module turned(const Module& stack);

// One expert's weight as a linear [outputs, inputs] with its bias; of the outputs every step-th from `first` on. Precondition: `expert` and `first` are within
// the stack, and `step` divides its outputs and, where one scale covers several of them, their number.
Module expert_of(const Module& stack, int64_t expert, int64_t first = 0, int64_t step = 1);

// The name of a module's tensor: "<path>.<word>"; of a stack "<path>_<word>", and the path itself for its "weight".
std::string tensor_name(const Module& module, std::string_view word);

}  // namespace qb::ir

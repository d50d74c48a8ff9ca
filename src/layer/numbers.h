// A weight's codes, scales and zero points as values of a program: read as they are stored, or made by a recipe of the plain numbers that are there.
//
// The one place where the two differ: whoever packs them for a kernel, or keeps them for rows of an embedding, sees values. So a weight that is quantized while
// it is loaded is the weight that would have been stored, block of rows by block of rows, and never more of the plain one than a block is in memory.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ir/checkpoint.h"
#include "prog/program.h"

namespace qb::layer {

struct Numbers {
  struct Part {
    std::string name;  // for messages, and of outputs
    prog::ValueId value = 0;
    Elem elem = Elem::u8;  // integers of any width lie one to a byte: i8
    int64_t rows = 1, cols = 1;
    ir::ScaleForm form = ir::ScaleForm::multiply;
  };
  std::optional<Part> code, scale, zero, order;
  std::optional<Part> global;  // of a weight that is made: one float32, delivered with the first block. A stored one is a fact (ir::Stored::value)
  prog::ValueId next = 0;      // of the next op's result
};

// Begins an empty program over the rows of the module, which has a code part. `moved`: without codes and their order, where something else puts the columns
// into another order.
Numbers numbers_of(const ir::Module& module, bool moved, prog::Program& program);

// The values as outputs of their own.
prog::Output output_of(const Numbers::Part& part);

}  // namespace qb::layer

// What to do where a dialect cannot hold something: stacks apart, or another dialect. Which ones can hold what another one cannot: asked of them, each with
// what it writes of the module alone.
#pragma once

#include "base/diagnostics.h"
#include "dialect/dialect.h"
#include "pass/forms.h"

namespace qb {

// Adds to every scheme-inexpressible problem the dialects besides `target` that could take what it is about: its module, the KV cache, or everything that is
// quantized. Nothing is read: a dialect that would ask about data gets the answer that changes nothing. Equal modules are asked about once.
void name_alternatives(const ir::Checkpoint&, const Dialect& target, const WriteContext&, Diagnostics&);

// Writes a checkpoint with its quantized stacks taken apart, for dialects that have places for linears alone. False: it has none, they cannot be taken apart,
// or the dialect does not hold them even so; `diag` may say why.
bool write_apart(const Dialect&, ir::Checkpoint, const WriteContext&, Export&, std::vector<pass::Reformed>&, std::vector<pass::SmallerBlocks>&,
                 Diagnostics& diag);

}  // namespace qb

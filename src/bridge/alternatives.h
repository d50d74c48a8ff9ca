// Which dialects can hold what another one cannot: asked of them, each with what it writes of the module alone.
#pragma once

#include "base/diagnostics.h"
#include "dialect/dialect.h"

namespace qb {

// Adds to every scheme-inexpressible problem the dialects besides `target` that could take what it is about: its module, the KV cache, or everything that is
// quantized. Nothing is read: a dialect that would ask about data gets the answer that changes nothing. Equal modules are asked about once.
void name_alternatives(const ir::Checkpoint&, const Dialect& target, const WriteContext&, Diagnostics&);

}  // namespace qb

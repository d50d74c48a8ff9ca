// Writing ModelOpt's export format.
#pragma once

#include "dialect/dialect.h"

namespace qb::modelopt {

// Dialect::write. Problems: scheme-inexpressible.
bool write(const ir::Checkpoint&, const WriteContext&, Export&, Diagnostics&);

}  // namespace qb::modelopt

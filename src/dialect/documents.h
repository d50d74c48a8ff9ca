// What dialects share about documents.
#pragma once

#include "io/package.h"

namespace qb {

// A copy of config.json without any quantization keys. Precondition: the package has one.
Json plain_config(const Package&);

}  // namespace qb

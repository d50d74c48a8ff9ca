// What dialects share about documents.
#pragma once

#include "dialect/dialect.h"

namespace qb {

// A copy of config.json without any quantization keys. Precondition: the package has one.
Json plain_config(const Package&);

// Notes the producer's own word for the algorithm and its version in the origin, for the way back.
void note_producer(const ir::Checkpoint&, Export&);

}  // namespace qb

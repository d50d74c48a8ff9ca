// What dialects share about documents.
#pragma once

#include "dialect/dialect.h"

namespace qb {

// quantization_config of config.json; null when there is none.
const Json* quantization_config(const Package&);
// Certain when it has that quant_method.
Match match_quant_method(const Package&, std::string_view method);

// A copy of config.json without any quantization keys. Precondition: the package has one.
Json plain_config(const Package&);

// The scheme that the source had before a dialect wrote it that has no word for all of it; nothing without such a note.
std::optional<ir::Scheme> noted_scheme(const Origin&);

// Notes the producer's own word for the algorithm and its version in the origin, for the way back.
void note_producer(const ir::Checkpoint&, Export&);

}  // namespace qb

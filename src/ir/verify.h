// The verifier: what the tensors mean must make sense as numbers and agree within the model. It is pure: facts in, problems out.
#pragma once

#include "base/diagnostics.h"
#include "ir/checkpoint.h"

namespace qb::ir {

// Modules that are one matrix in engines (q,k,v; gate,up), as indices into Checkpoint::modules.
std::vector<std::vector<size_t>> fused_groups(const Checkpoint&);

// Scalar scales (NaN, infinite, zero, negative, implausible), second-level scales that differ within a fused group, layers without a scheme or a reason,
// tied embeddings. `file_names` are those of the package, by FileId.
void verify(const Checkpoint&, const std::vector<std::string>& file_names, Diagnostics&);

}  // namespace qb::ir

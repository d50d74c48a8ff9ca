// The verifier: what the tensors mean must make sense as numbers and agree within the model. It is pure: facts in, problems out.
#pragma once

#include "base/diagnostics.h"
#include "ir/checkpoint.h"

namespace qb::ir {

// Modules that are one matrix in engines (q,k,v; gate,up), as indices into Checkpoint::modules.
std::vector<std::vector<size_t>> fused_groups(const Checkpoint&);

// Scalars of a fused group that are not one number, though engines take one for all its members.
struct FusedMismatch {
  Role role;                  // global or input_scale
  std::vector<size_t> group;  // as of fused_groups
  size_t largest = 0;         // the module whose scale multiplies by most
};
std::vector<FusedMismatch> fused_mismatches(const Checkpoint&);
const std::string& fused_name(const Checkpoint&, const FusedMismatch&);  // model.layers.0.self_attn.qkv_proj

// A scalar scale as what it multiplies by. Precondition: it has a value.
double multiplier(const Stored&);

// Scalar scales (NaN, infinite, zero, negative, implausible), second-level scales that differ within a fused group, layers without a scheme or a reason,
// tied embeddings. `file_names` are those of the package, by FileId.
void verify(const Checkpoint&, const std::vector<std::string>& file_names, Diagnostics&);

}  // namespace qb::ir

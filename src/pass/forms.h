// The form of matrices that belong together: q, k and v as three or as one, the experts of a layer one by one or stacked. IR to IR.
//
// Goals: names, sizes and groups are those of the family (arch/joined.h), so that what is written reads back; numbers stay as they are. Taking apart is other
// views of the same bytes (ir/parts.h); putting together needs parts that mean the same: equal schemes, equal numbers for the whole. Both do nothing to what
// has the form already.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "base/result.h"
#include "ir/checkpoint.h"
#include "pass/shard.h"
#include "prog/surveyor.h"

namespace qb::pass {

// as_is: as the checkpoint has them.
enum class Form : uint8_t { as_is, separate, joined };
struct Forms {
  Form projections = Form::as_is, experts = Form::as_is;
};

// What users call them: `joined` is what they say of that one ("fused", "stacked").
inline std::map<std::string, Form> form_words(const char* joined) {
  return {{"as-is", Form::as_is}, {"separate", Form::separate}, {joined, Form::joined}};
}

// Modules that were there, and what is there instead of them.
struct Reformed {
  std::vector<std::string> modules;
  int64_t into = 0;  // how many modules
  std::string how;
};

// Reports that it is not (form-inexpressible).
bool is_family_known(const ir::Checkpoint&, Diagnostics&);

// Whether there is anything of the kind to take apart.
bool has_joined(const ir::Checkpoint&, arch::Joined which);

// Takes apart what `which` names. Cuts through blocks whose scales may be repeated make the blocks smaller, which is reported. False (form-inexpressible): a
// cut is not possible, or the family does not say where; nothing is changed.
bool separate(ir::Checkpoint&, arch::Joined which, std::vector<Reformed>&, std::vector<SmallerBlocks>&, Diagnostics&);

// Puts together what `which` names. False (form-inexpressible): parts differ in what one matrix has once; nothing is changed. An Error only where numbers that
// have to be equal cannot be read.
Result<bool> join(ir::Checkpoint&, arch::Joined which, Surveyor&, std::vector<Reformed>&, Diagnostics&);

}  // namespace qb::pass

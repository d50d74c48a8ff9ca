// An opened checkpoint in another basis (pass/rotate.h): its tensors are made while they are read, so whatever opens, measures, quantizes or runs it sees the
// one that `convert` would have written.
#pragma once

#include "bridge/session.h"
#include "exec/context.h"
#include "pass/quant_config.h"

namespace qb {

// The session's package, source and checkpoint become those of the rotated model, and config.json says where its head is one of its own; takes the memory that
// reading them needs out of context.limits. What only a part of can be done is a warning among the session's problems. False: nothing has changed, and the
// session's problems say why (rotation-unsuited). Where nothing is asked for, and what cannot be read at all, it stays as it is. Errors: out_of_memory, the
// budget is too small for a block.
Result<bool> rotate(Session&, pass::Rotation, Context&);

// What the history of what is written begins its sentence about it with.
inline constexpr std::string_view rotated_sentence = "rotated by Hadamard matrices";

}  // namespace qb

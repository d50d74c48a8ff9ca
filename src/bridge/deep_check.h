// Everything that only reading the data shows, in one pass: each tensor is read once, in the order of the files, for its checksum and its numbers alike.
// Read again are only zero scales' codes, sparse weights through their masks, integers that lie across bytes, padded tensors, zero points and orders
// (pass/settle.h), and second-level scales that differ.
#pragma once

#include "bridge/session.h"
#include "bridge/team.h"

namespace qb {

// Adds to session.diag, in the order of the files; gives the bytes that were read. An Error only for the outside world.
// Together: a process reads all tensors of some modules.
Result<uint64_t> deep_check(Session&, Context&, const Together& together);

}  // namespace qb

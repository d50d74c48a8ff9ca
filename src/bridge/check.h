// check: what opening a checkpoint does not see without reading its data.
#pragma once

#include "bridge/session.h"

namespace qb {

struct CheckReport {
  int64_t tensors = 0, modules = 0;
  uint64_t bytes_read = 0;
};

// A stored head beside tied embeddings must hold the same numbers: by its first 64 KiB, or `deep` by all of it.
Result<void> check_tied_head(Session&, bool deep);

// Adds what goes wrong when so many ranks share the model (pass/shard.h), without reading data.
void check_cuts(Session&, arch::Ranks);

// Adds to session.diag. `deep` streams every tensor once: NaN, infinite, zero and negative scales, NaN codes, block scales that can or cannot be rescaled
// exactly, checksums of directories that we wrote. An Error only for the outside world.
Result<CheckReport> check_session(Session&, bool deep, Context&);

}  // namespace qb

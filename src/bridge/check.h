// check: what opening a checkpoint does not see without reading its data.
#pragma once

#include "bridge/session.h"
#include "bridge/team.h"

namespace qb {

struct CheckReport {
  int64_t tensors = 0, modules = 0;
  uint64_t bytes_read = 0;
};

// A stored head beside tied embeddings, which must hold the same numbers; null both where there is none.
struct TiedHead {
  const ir::Stored *head = nullptr, *table = nullptr;
};
TiedHead tied_head(const ir::Checkpoint&);
void report_tied_head(Session&);
// Whether they do, by their first 64 KiB.
Result<void> check_tied_head(Session&);

// Adds what goes wrong when so many ranks share the model (pass/shard.h), without reading data.
void check_cuts(Session&, arch::Ranks);

// Adds to session.diag; `deep` also what only reading all data shows (deep_check.h, judge.h). An Error only for the outside world.
// Together: each process reads some tensors, and all get what all have found, and the bytes of all.
Result<CheckReport> check_session(Session&, bool deep, Context&, const Together& together = {});

}  // namespace qb

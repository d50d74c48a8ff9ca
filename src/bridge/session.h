// One checkpoint, opened: container, dialect, facts, IR, and everything that is wrong with it.
#pragma once

#include <filesystem>
#include <memory>

#include "base/diagnostics.h"
#include "dialect/dialect.h"
#include "exec/context.h"
#include "io/package.h"
#include "ir/checkpoint.h"

namespace qb {

struct Session {
  std::filesystem::path path;
  Package package;
  Facts facts;
  ir::Checkpoint checkpoint;
  const Dialect* dialect = nullptr;  // null: not recognized
  Diagnostics diag;
  bool readable = false;  // the dialect could make an IR of it; problems may still make it unusable
  std::string rotated;    // the basis that it has been brought into (bridge/rotate.h), in words; empty: its own
};

// An Error only for the outside world (path missing, unreadable).
Result<Session> open_session(const std::filesystem::path& path);

// Values of all single-element float tensors, in one batch.
Result<Facts> fetch_facts(const Package&);

// Problems that a conversion may carry over: the values are kept apart as they are, so nothing that the checkpoint means is lost.
bool carried_over(const Problem&);

}  // namespace qb

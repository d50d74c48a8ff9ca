// Repairs: IR to IR, what is wrong with a checkpoint's numbers put right where that can be done. One file each, found through the manifest.
//
// Goals: a repair says what it did and what it cost; the plan that follows shows it, since the numbers are changed while they are read (ir::Stored::times).
// Non-goal: names, ranks, dtypes and lists, which reading normalises.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/result.h"
#include "ir/checkpoint.h"
#include "ir/verify.h"
#include "prog/surveyor.h"

namespace qb::pass {

struct Repaired {
  std::string code;  // of the problem
  std::vector<std::string> modules;
  std::optional<double> max_relative_error = 0;  // of a stored number; nothing where it cannot be known
  std::string how;
};

struct RepairContext {
  Surveyor& surveyor;
  Repair allowed = Repair::exact;  // lossy includes exact
};

struct RepairPass {
  std::string_view name;
  int rank;  // they run in this order
  // Problems that were repaired become warnings. An Error only where data cannot be read.
  Result<void> (*run)(ir::Checkpoint&, const RepairContext&, Diagnostics&, std::vector<Repaired>&);
};

// Registers a repair, at file scope: QB_REPAIR(reconcile) = {...};
#define QB_REPAIR(stem)                  \
  extern const RepairPass repair_##stem; \
  constinit const RepairPass repair_##stem

std::span<const RepairPass* const> repairs();  // the generated manifest

// All of them. Nothing is done where `allowed` is none.
Result<void> repair(ir::Checkpoint&, const RepairContext&, Diagnostics&, std::vector<Repaired>&);

// For repairs: the problem is one no longer, or (`done` false) it takes another level to make it one no longer.
void mark(Diagnostics&, std::string_view code, std::string_view module, Repair level, bool done);

// The largest relative error of a block scale when a group's second-level scales become the largest of them; 0: no dequantized value changes.
Result<double> reconcile_error(const ir::Checkpoint&, const ir::FusedMismatch&, Surveyor&);

}  // namespace qb::pass

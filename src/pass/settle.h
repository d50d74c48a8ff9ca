// What the documents of a checkpoint leave to its tensors.
//
// Some formats store zero points and an order of groups with every weight, also where their config says that there are none. Whether it is right takes reading
// them, a hundredth of the checkpoint: opening one does not do that, whoever goes on to use its weights does. Until then a module keeps those tensors as parts
// that its scheme has no word for. Non-goal: repairing them.
#pragma once

#include "base/diagnostics.h"
#include "base/result.h"
#include "ir/checkpoint.h"
#include "prog/surveyor.h"

namespace qb::pass {

bool is_settled(const ir::Checkpoint&);

// The tensors decide: zero points that are all zero and groups in the columns' order leave the parts, others enter the scheme, and problems say where the
// config promised something else (zero-point-mismatch, group-order-mismatch) or the order names a group that has no scale (group-order-invalid). An Error only
// where they cannot be read.
Result<void> settle(ir::Checkpoint&, Surveyor&, Diagnostics&);

}  // namespace qb::pass

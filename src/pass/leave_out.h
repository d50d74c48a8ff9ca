// What a checkpoint holds beside its weights that no dialect writes.
//
// Goal: it is taken away in one place before any dialect writes, so that whoever calls can say what is lost. Non-goal: what single dialects have no word for.
#pragma once

#include "ir/checkpoint.h"

namespace qb::pass {

// Takes away what was measured for weights that are stored as they were. False where there is none.
bool leave_out_calibration(ir::Checkpoint&);

}  // namespace qb::pass

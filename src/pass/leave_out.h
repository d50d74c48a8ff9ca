// What a checkpoint holds that no dialect writes.
//
// Goal: it is taken away in one place before any dialect writes, so that whoever calls can say what is lost or written otherwise. Non-goal: what single
// dialects have no word for.
#pragma once

#include <string>
#include <vector>

#include "ir/checkpoint.h"

namespace qb::pass {

// Takes away what was measured for weights that are stored as they were. False where there is none.
bool leave_out_calibration(ir::Checkpoint&);

// Weights of which two of every four numbers are 0 and not stored become ordinary ones; their values are the same. The modules, by their scheme (of plain
// weights their format) before.
struct Densified {
  std::string from, to;
  std::vector<std::string> modules;
};
std::vector<Densified> leave_out_sparsity(ir::Checkpoint&);

}  // namespace qb::pass

// Pre-scales folded into what feeds a linear: IR to IR, for dialects that have no word for factors of inputs.
//
// A linear whose inputs are a norm's outputs hands its factors to the norm's weight, if everything else that reads the norm has the same factors. One whose
// inputs are another linear's outputs with nothing but factors between them (arch::ModuleRow::fed_by) hands them to that linear's rows: to its scales, or to a
// plain weight; also where those rows lie in one matrix with others (q, k and v). What is computed stays the same but for the rounding of the numbers that take
// the factors up. Heads of queries that share a head of values (grouped-query attention) have to have the same factors: the row of values is one for all of
// them. Non-goal: a linear's own codes, which would have to be made anew.
#pragma once

#include <string>
#include <vector>

#include "pass/repair.h"

namespace qb::pass {

struct Folded {
  std::vector<std::string> modules;
  ir::Scheme from;   // of the first of them
  std::string into;  // what took the factors up
  double max_relative_error = 0;
};

bool has_prescales(const ir::Checkpoint&);

// What cannot be folded, or only with rounding that is not allowed, stays and is reported (prescale-inexpressible). An Error only where data cannot be read.
Result<void> fold(ir::Checkpoint&, const RepairContext&, Diagnostics&, std::vector<Folded>&);

}  // namespace qb::pass

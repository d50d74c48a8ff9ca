// What a job writes about itself into its output's history.
#pragma once

#include "bridge/job.h"
#include "dialect/history.h"

namespace qb {

// The weights that recipes will make, a sentence for each scheme.
std::vector<std::string> made_text(const ir::Checkpoint&);
// The step that the job is: what it is made from, and what its plan makes, changes, repairs and loses.
HistoryStep step_of(const Session&, const JobOptions&, const Job&, std::vector<std::string> made);

}  // namespace qb

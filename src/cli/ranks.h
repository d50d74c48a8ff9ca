// The processes that run one command together, where a launcher has started several: rank 0 speaks for all, and a rank that cannot go on ends the others.
#pragma once

#include "cli/report.h"
#include "host/communicator.h"

namespace qb::cli {

// Once, before anything else of the command. Errors: several processes, and no MPI in this program.
Result<void> join_ranks();
void leave_ranks();

host::Communicator* ranks();  // null: this process is alone
bool is_speaker();            // alone, or rank 0
// An error that the other ranks do not have, or cannot be told of: says which rank it is and why, and ends them all.
[[noreturn]] void end_ranks(std::string_view command, const Error& error);

}  // namespace qb::cli

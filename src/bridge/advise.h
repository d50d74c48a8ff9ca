// What an engine does with an opened checkpoint, and which conversion would help. A pure function of the session: no data is read.
#pragma once

#include "bridge/session.h"
#include "target/target.h"

namespace qb {

// target::judge's findings. Those that the engine refuses or gets wrong because of a scheme say what to convert to, where a dialect is written here in which
// the engine is known to load all of the checkpoint.
std::vector<target::Finding> advise(const Session&, const target::Target&);

}  // namespace qb

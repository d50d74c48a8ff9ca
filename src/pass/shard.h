// One rank's part of a checkpoint: which cuts are possible, and the checkpoint that one rank has. IR to IR, no data.
//
// Source of truth: how engines share a model among ranks (arch/parallel.h) and what a region of a weight needs (ir/region.h).
#pragma once

#include <vector>

#include "arch/parallel.h"
#include "base/diagnostics.h"
#include "ir/checkpoint.h"

namespace qb::pass {

// What engines would do wrong when so many ranks share the checkpoint; nothing is changed. Problems: share-uneven, cut-through-block (each names a module, how
// many more are like it, and the numbers of ranks that work), family-unknown as an error.
void check_cuts(const ir::Checkpoint&, arch::Ranks, Diagnostics&);

// Leaves what one rank has: modules are regions of what they were, the topology has their sizes. Where a cut goes through a block whose scale can be repeated
// the blocks become smaller, which changes no value and is reported as a change of schemes. False (problems as above): it may not be cut.
struct SmallerBlocks {
  ir::Scheme from, to;
  std::vector<std::string> modules;
};
bool shard(ir::Checkpoint&, const arch::Sharing&, int64_t rank, std::vector<SmallerBlocks>&, Diagnostics&);

}  // namespace qb::pass

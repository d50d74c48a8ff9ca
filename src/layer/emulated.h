// Attention by instructions that few processors have, with functions in place of these instructions: the same loops, which other machines of the tests can run.
// For tests alone.
#pragma once

#include "layer/attention_pass.h"

namespace qb::layer {

// bf16_tiles() over tiles in memory (kernel/emulated_tiles.h). Needs AVX-512 with BF16.
Sweep emulated_bf16_tiles(const KvLayer&);

}  // namespace qb::layer

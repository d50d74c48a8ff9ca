// The gated activation of the feed-forward part.
#pragma once

#include <cstdint>

#include "host/threads.h"
#include "num/isa.h"

namespace qb::layer {

// gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)), in float32.
void silu_mul(float* gate, const float* up, int64_t count, Isa isa, host::ThreadPool& pool);

}  // namespace qb::layer

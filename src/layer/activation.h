// The gated activation of the feed-forward part.
#pragma once

#include <cstdint>

#include "host/threads.h"
#include "num/isa.h"

namespace qb::layer {

enum class Gate : uint8_t {
  silu,       // x / (1 + exp(-x))
  gelu_tanh,  // GELU by its approximation with tanh
  clamped,    // gpt-oss: x / (1 + exp(-1.702 x)) with x at most 7, and what it is multiplied with is 1 more than up, which lies between -7 and 7
};

// out[r,i] = f(gate[r,i]) * up[r,i], in float32. Rows of `gate` and `up` lie `stride` numbers apart, those of `out` n; out may be gate where stride is n.
struct GateArgs {
  Gate gate = Gate::silu;
  const float* x = nullptr;
  const float* up = nullptr;
  int64_t rows = 0, n = 0, stride = 0;
  float* out = nullptr;
};
void gate_mul(const GateArgs& args, Isa isa, host::ThreadPool& pool);

}  // namespace qb::layer

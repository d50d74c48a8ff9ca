#include "layer/feed_forward.h"

namespace qb::layer {

void FeedForward::run(const float* x, int64_t rows, float* y, float* scratch, const Tools& t) const {
  const int64_t n = width();
  float* const act = scratch;
  GateArgs args{.gate = activation, .x = act, .up = act + rows * n, .rows = rows, .n = n, .stride = n, .out = act};
  if (fused) {
    float* const both = act + rows * n;
    gate.run(x, rows, both, t.workspace, t.pool);
    args.x = both;
    args.up = both + n;
    args.stride = 2 * n;
  } else {
    const Linear::Product products[] = {{&gate, act}, {&up, act + rows * n}};
    Linear::run(products, x, rows, t.workspace, t.pool);
  }
  t.pool.expect(down.codes());
  gate_mul(args, t.isa(), t.pool);
  down.run(act, rows, y, t.workspace, t.pool);
}

}  // namespace qb::layer

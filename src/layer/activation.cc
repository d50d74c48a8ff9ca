#include "layer/activation.h"

#include "layer/exp.h"
#include "recipe/loops.h"

namespace qb::layer {
namespace {

struct SiluMul {
  static QB_INLINE void run(float* __restrict gate, const float* __restrict up, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float x = gate[i];
      gate[i] = x / (1.0F + exp_f32(-x)) * up[i];
    }
  }
};

}  // namespace

void silu_mul(float* gate, const float* up, int64_t count, Isa isa, host::ThreadPool& pool) {
  const auto part = [&](int64_t begin, int64_t end) { recipe::run_at<SiluMul>(isa, gate, up, begin, end); };
  if (count <= 8192) return part(0, count);
  pool.ranges(count, 64, part);
}

}  // namespace qb::layer

#include "model/sublayer.h"

namespace qb::model {

layer::KvLayer Step::kv(int64_t kv_heads, int64_t head_dim, float k_scale, float v_scale) const {
  return {.keys = cache.keys(layer, 0),
          .values = cache.values(layer, 0),
          .block_stride = cache.block_stride(),
          .elem = cache.elem(),
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .k_scale = k_scale,
          .v_scale = v_scale,
          .through_e4m3 = reference && quantized_kv};
}

void Step::attend(const layer::AttentionArgs& args) const {
  if (reference) {
    layer::attention_reference(args, tools.pool);
  } else {
    layer::attention(args, tools.isa, tools.pool);
  }
}

}  // namespace qb::model

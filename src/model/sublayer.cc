#include "model/sublayer.h"

namespace qb::model {

layer::KvLayer Step::kv(int64_t kv_heads, int64_t head_dim, const layer::KvScales& k, const layer::KvScales& v) const {
  return {.keys = cache.keys(layer, 0),
          .values = cache.values(layer, 0),
          .block_stride = cache.block_stride(),
          .elem = cache.elem(),
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .k = k,
          .v = v,
          .through = through};
}

void Step::attend(const layer::AttentionArgs& args) const {
  if (reference) {
    layer::attention_reference(args, tools.pool);
  } else {
    layer::attention(args, tools.features, tools.pool);
  }
}

}  // namespace qb::model

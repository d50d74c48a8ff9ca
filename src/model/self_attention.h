// Grouped-query attention as a half of a layer: projections (three matrices, or one, as the checkpoint has them), norms over heads where there are any, rope,
// attention, output projection.
#pragma once

#include <memory>

#include "model/loader.h"
#include "model/sublayer.h"

namespace qb::model {

struct AttentionSpec {
  int64_t hidden = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t window = 0;   // 0: all
  size_t rope = 0;      // which of the model's
  float scale = 0;      // of scores; 0: one over the root of head_dim
  float softcap = 0;    // 0: none
  bool sinks = false;   // a learned one for each head
  float eps = 1e-6F;    // of the norms over heads
  float norm_plus = 0;  // as in Loader::norm
};

// `path`: of the attention module.
Result<std::unique_ptr<Sublayer>> load_self_attention(Loader& loader, const std::string& path, const AttentionSpec& spec);

}  // namespace qb::model

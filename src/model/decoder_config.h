// What config.json says about a dense decoder: read once, everything that the model cannot do is an error that names it.
//
// Source of truth: the configuration classes of transformers 5.17 for llama, mistral, qwen2 and qwen3, defaults included.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "ir/checkpoint.h"
#include "layer/rope.h"

namespace qb::model {

struct DecoderConfig {
  int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0;
  int64_t max_positions = 0;
  float eps = 1e-6F;
  bool tied = false;
  std::vector<int64_t> windows;  // for each layer; 0: it sees everything before it
  layer::Rope rope;
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};

Result<DecoderConfig> read_decoder_config(const Json& config, const arch::Topology& topology);

}  // namespace qb::model

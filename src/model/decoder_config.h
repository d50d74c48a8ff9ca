// What config.json says about a decoder, read once; everything that the model cannot do is an error that names it.
//
// Source of truth: the configuration classes of transformers 5.17, defaults included. What differs between families comes in as data (DecoderRules).
#pragma once

#include <cstdint>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"
#include "ir/checkpoint.h"
#include "layer/activation.h"
#include "layer/rope.h"

namespace qb::model {

// How a family's config is to be read.
struct DecoderRules {
  enum class Windows : uint8_t { none, every_layer, by_layer };
  Windows windows = Windows::none;
  bool switched = false;     // windows are used only where use_sliding_window says so
  int64_t usual_window = 0;  // where sliding_window is absent; 0: none
  int64_t full_every = 0;    // by_layer without layer_types: every so many-th layer sees everything; 0: those before max_window_layers do
  layer::Gate activation = layer::Gate::silu;
  const char* activation_key = "hidden_act";
  int64_t rope_dim = 0;               // 0: head_dim
  std::string_view rope_layers = {};  // whose parameters, where kinds of layers have their own
};

struct DecoderConfig {
  int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden = 0;
  int64_t max_positions = 0;
  float eps = 1e-6F;
  bool tied = false;
  std::vector<int64_t> windows;  // for each layer; 0: it sees everything before it
  layer::Gate activation = layer::Gate::silu;
  layer::Rope rope;
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};

Result<DecoderConfig> read_decoder_config(const Json& config, const arch::Topology& topology, const DecoderRules& rules);

// A number of config.json; `fallback` where it is absent or null. Errors name the key.
Result<int64_t> count_at(const Json& config, const char* key, int64_t fallback);  // a whole number above 0
Result<double> number_at(const Json& config, const char* key, double fallback);   // finite

}  // namespace qb::model

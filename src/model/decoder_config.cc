#include "model/decoder_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/diagnostics.h"
#include "base/json.h"
#include "layer/attention.h"

namespace qb::model {
namespace {

using Windows = DecoderRules::Windows;

Error unsupported(std::string what) {
  return Error{Errc::invalid_argument, "config.json: " + std::move(what)};
}

Result<int64_t> window_size(const Json& config, const DecoderRules& rules) {
  const Json* v = find(config, "sliding_window");
  if (v == nullptr) return rules.usual_window;
  if (v->is_null()) return int64_t{0};
  return count_at(config, "sliding_window", 0);
}

Result<std::vector<int64_t>> read_windows(const Json& config, const arch::Topology& t, const DecoderRules& rules) {
  std::vector<int64_t> windows(static_cast<size_t>(t.layers), 0);
  if (rules.windows == Windows::none) return windows;
  int64_t size = 0;
  if (!rules.switched || bool_at(config, "use_sliding_window", false)) {
    QB_ASSIGN(size, window_size(config, rules));
  }
  if (rules.windows == Windows::every_layer) {
    windows.assign(windows.size(), size);
    return windows;
  }
  const Json* types = find(config, "layer_types");
  if (types == nullptr || types->is_null()) {
    const int64_t from = rules.full_every > 0 ? 0 : std::max<int64_t>(int_at(config, "max_window_layers", 28), 0);
    for (int64_t i = from; i < t.layers; ++i)
      if (rules.full_every == 0 || (i + 1) % rules.full_every != 0) windows[static_cast<size_t>(i)] = size;
    return windows;
  }
  if (!types->is_array() || static_cast<int64_t>(types->size()) != t.layers) return unsupported(fmt::format("layer_types must have {} entries", t.layers));
  for (size_t i = 0; i < windows.size(); ++i) {
    const std::string type = (*types)[i].is_string() ? (*types)[i].get<std::string>() : dump_json((*types)[i], -1);
    if (type == "full_attention") continue;
    if (type != "sliding_attention") return unsupported(fmt::format("layer_types[{}] is '{}'; known are full_attention, sliding_attention", i, escape(type)));
    if (size == 0) return unsupported(fmt::format("layer_types[{}] is sliding_attention, but no sliding window is in use", i));
    windows[i] = size;
  }
  return windows;
}

bool is_gate(std::string_view word, layer::Gate gate) {
  if (gate == layer::Gate::silu) return word == "silu" || word == "swish";
  return word == "gelu_pytorch_tanh" || word == "gelu_tanh";
}

}  // namespace

Result<int64_t> count_at(const Json& config, const char* key, int64_t fallback) {
  const Json* v = find(config, key);
  if (v == nullptr || v->is_null()) return fallback;
  const int64_t n = int_at(config, key, 0);
  if (n > 0 && n <= INT32_MAX) return n;
  return unsupported(fmt::format("{} must be a whole number above 0", key));
}

Result<double> number_at(const Json& config, const char* key, double fallback) {
  const Json* v = find(config, key);
  if (v == nullptr || v->is_null()) return fallback;
  if (v->is_number() && std::isfinite(v->get<double>())) return v->get<double>();
  return unsupported(fmt::format("{} must be a number", key));
}

Result<DecoderConfig> read_decoder_config(const Json& config, const arch::Topology& t, const DecoderRules& rules) {
  DecoderConfig c;
  c.layers = t.layers;
  c.heads = t.heads;
  c.kv_heads = t.kv_heads;
  c.head_dim = t.head_dim;
  c.hidden = t.hidden;
  c.tied = t.tied_embeddings;
  c.activation = rules.activation;
  if (c.kv_heads <= 0 || c.heads % c.kv_heads != 0) return unsupported(fmt::format("{} attention heads cannot share {} KV heads evenly", c.heads, c.kv_heads));
  if (c.head_dim > layer::max_head_dim) return unsupported(fmt::format("head_dim is {}, supported are at most {}", c.head_dim, layer::max_head_dim));
  const char* const usual = c.activation == layer::Gate::silu ? "silu" : "gelu_pytorch_tanh";
  const std::string_view act = string_at(config, rules.activation_key, usual);
  if (!is_gate(act, c.activation)) return unsupported(fmt::format("{} '{}' is not supported, only {}", rules.activation_key, escape(act), usual));
  c.max_positions = int_at(config, "max_position_embeddings", 0);
  if (c.max_positions <= 0 || c.max_positions > INT32_MAX) return unsupported("max_position_embeddings must be a whole number above 0");
  QB_ASSIGN(const double eps, number_at(config, "rms_norm_eps", 1e-6));
  if (eps < 0) return unsupported("rms_norm_eps must not be negative");
  c.eps = static_cast<float>(eps);
  QB_ASSIGN(c.windows, read_windows(config, t, rules));
  QB_ASSIGN(c.rope, layer::Rope::make(config, rules.rope_dim > 0 ? rules.rope_dim : c.head_dim, rules.rope_layers));
  c.max_positions = static_cast<int64_t>(std::min(static_cast<double>(c.max_positions) * c.rope.reach(), static_cast<double>(INT32_MAX)));
  return c;
}

}  // namespace qb::model

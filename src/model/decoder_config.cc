#include "model/decoder_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/diagnostics.h"
#include "base/json.h"
#include "layer/attention.h"

namespace qb::model {
namespace {

Error unsupported(std::string what) {
  return Error{Errc::invalid_argument, "config.json: " + std::move(what)};
}

// How a family's config speaks of sliding windows.
enum class Windows : uint8_t { none, every_layer, by_layer };
Windows windows_of(std::string_view family) {
  return family == "mistral" ? Windows::every_layer : family == "qwen2" || family == "qwen3" ? Windows::by_layer : Windows::none;
}

constexpr int64_t usual_window = 4096;  // of both kinds of config, where the key is absent

Result<int64_t> window_size(const Json& config) {
  const Json* v = find(config, "sliding_window");
  if (v == nullptr) return usual_window;
  if (v->is_null()) return int64_t{0};
  const int64_t n = int_at(config, "sliding_window", 0);
  if (n > 0) return n;
  return unsupported("sliding_window must be null or a whole number above 0");
}

Result<std::vector<int64_t>> read_windows(const Json& config, const arch::Topology& t) {
  std::vector<int64_t> windows(static_cast<size_t>(t.layers), 0);
  const Windows kind = windows_of(t.family->name);
  if (kind == Windows::none) return windows;
  int64_t size = 0;
  if (kind == Windows::every_layer || bool_at(config, "use_sliding_window", false)) {
    QB_ASSIGN(size, window_size(config));
  }
  if (kind == Windows::every_layer) {
    windows.assign(windows.size(), size);
    return windows;
  }
  const Json* types = find(config, "layer_types");
  if (types == nullptr || types->is_null()) {
    for (int64_t i = std::max<int64_t>(int_at(config, "max_window_layers", 28), 0); i < t.layers; ++i) windows[static_cast<size_t>(i)] = size;
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

}  // namespace

Result<DecoderConfig> read_decoder_config(const Json& config, const arch::Topology& t) {
  DecoderConfig c;
  c.layers = t.layers;
  c.heads = t.heads;
  c.kv_heads = t.kv_heads;
  c.head_dim = t.head_dim;
  c.hidden = t.hidden;
  c.tied = t.tied_embeddings;
  if (c.kv_heads <= 0 || c.heads % c.kv_heads != 0) return unsupported(fmt::format("{} attention heads cannot share {} KV heads evenly", c.heads, c.kv_heads));
  if (c.head_dim > layer::max_head_dim) return unsupported(fmt::format("head_dim is {}, supported are at most {}", c.head_dim, layer::max_head_dim));
  const std::string_view act = string_at(config, "hidden_act", "silu");
  if (act != "silu" && act != "swish") return unsupported(fmt::format("hidden_act '{}' is not supported, only silu", escape(act)));
  c.max_positions = int_at(config, "max_position_embeddings", 0);
  if (c.max_positions <= 0 || c.max_positions > INT32_MAX) return unsupported("max_position_embeddings must be a whole number above 0");
  if (const Json* eps = find(config, "rms_norm_eps"); eps != nullptr) {
    if (!eps->is_number() || !(eps->get<double>() >= 0) || !std::isfinite(eps->get<double>())) return unsupported("rms_norm_eps must be a number");
    c.eps = static_cast<float>(eps->get<double>());
  }
  QB_ASSIGN(c.windows, read_windows(config, t));
  QB_ASSIGN(c.rope, layer::Rope::make(config, c.head_dim));
  c.max_positions = static_cast<int64_t>(std::min(static_cast<double>(c.max_positions) * c.rope.reach(), static_cast<double>(INT32_MAX)));
  return c;
}

}  // namespace qb::model

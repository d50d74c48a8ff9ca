// gemma2 and gemma3_text: norms before and after both halves, whose weights are stored less one, GELU, scaled embeddings, capped scores and logits (second
// generation), windows in most layers, which have a rope of their own in the third.
#include <cmath>

#include "base/json.h"
#include "model/decoder.h"

namespace qb::model {
namespace {

// null switches a cap off.
Result<float> cap_at(const Json& config, const char* key, double usual) {
  const Json* v = find(config, key);
  QB_ASSIGN(const double cap, number_at(config, key, v == nullptr ? usual : 0));
  return static_cast<float>(cap);
}

// The config with what the class would add: the texts inside multimodal configs hold only what differs from it.
Json completed(const Json& config, bool third) {
  Json c = config;
  const auto usual = [&c](const char* key, Json value) {
    if (find(c, key) == nullptr) c[key] = std::move(value);
  };
  usual("max_position_embeddings", third ? 131072 : 8192);
  if (third) usual("rope_theta", 1e6);
  return c;
}

// The third generation's rope in layers with a window; in configs before transformers 5 its base stands beside the parameters of the others.
Result<layer::Rope> window_rope(const Json& config, int64_t head_dim) {
  const Json* own = find(config, "rope_parameters");
  if (own != nullptr && own->is_object() && own->contains("sliding_attention")) return layer::Rope::make(config, head_dim, "sliding_attention");
  Json local = Json::object();
  const Json* base = find(config, "rope_local_base_freq");
  local["rope_theta"] = base != nullptr ? *base : Json(10000.0);
  local["max_position_embeddings"] = config["max_position_embeddings"];
  return layer::Rope::make(local, head_dim);
}

Result<DecoderBuilder> begin_gemma(const Loading& loading) {
  QB_ASSIGN(const Json* const document, model_config(loading));
  const bool third = loading.checkpoint.topology.family->name == "gemma3_text";
  const Json config = completed(*document, third);
  if (bool_at(config, "use_bidirectional_attention", false)) return Error{Errc::invalid_argument, "config.json: use_bidirectional_attention is not supported"};
  QB_ASSIGN(const int64_t every, count_at(config, "sliding_window_pattern", third ? 6 : 2));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, config,
                                                    {.windows = DecoderRules::Windows::by_layer,
                                                     .usual_window = 4096,
                                                     .full_every = every,
                                                     .activation = layer::Gate::gelu_tanh,
                                                     .activation_key = "hidden_activation",
                                                     .rope_layers = "full_attention"}));
  if (third) {
    QB_ASSIGN(layer::Rope local, window_rope(config, b.sizes().head_dim));
    b.parts.ropes.push_back(std::move(local));
  }
  b.parts.norm_plus = 1;
  b.parts.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(b.sizes().hidden)));
  QB_ASSIGN(b.parts.logit_softcap, cap_at(config, "final_logit_softcapping", third ? 0 : 30));
  QB_ASSIGN(const float score_cap, cap_at(config, "attn_logit_softcapping", third ? 0 : 50));
  QB_ASSIGN(const double before, number_at(config, "query_pre_attn_scalar", 256));
  if (!(before > 0)) return Error{Errc::invalid_argument, "config.json: query_pre_attn_scalar must be above 0"};
  const auto scale = static_cast<float>(1 / std::sqrt(before));
  b.make_layer = [third, score_cap, scale](DecoderBuilder& at, int64_t i) -> Result<DecoderLayer> {
    AttentionSpec spec = at.attention(i);
    spec.scale = scale;
    spec.softcap = score_cap;
    spec.rope = third && spec.window > 0 ? 1 : 0;
    DecoderLayer layer;
    QB_ASSIGN(layer.attention_norm, at.norm(i, "input_layernorm"));
    QB_ASSIGN(layer.attention, load_self_attention(at.loader(), at.path(i, "self_attn"), spec));
    QB_ASSIGN(layer.attention_out_norm, at.norm(i, "post_attention_layernorm"));
    QB_ASSIGN(layer.feed_forward_norm, at.norm(i, "pre_feedforward_layernorm"));
    QB_ASSIGN(layer.feed_forward, load_feed_forward(at.loader(), at.path(i, "mlp"), at.feed_forward()));
    QB_ASSIGN(layer.feed_forward_out_norm, at.norm(i, "post_feedforward_layernorm"));
    return layer;
  };
  return b;
}

constexpr std::string_view families[] = {"gemma2", "gemma3_text"};

}  // namespace

// clang-format off
QB_MODEL(gemma) = {
    .name = "gemma", .families = families, .begin = begin_gemma};
// clang-format on

}  // namespace qb::model

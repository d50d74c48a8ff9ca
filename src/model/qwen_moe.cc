// qwen2_moe and qwen3_moe: Qwen's attention, a mixture of experts in most layers; in the second generation a part that every token sees stands beside it.
#include "base/json.h"
#include "model/decoder.h"

namespace qb::model {
namespace {

using Windows = DecoderRules::Windows;

DecoderRules rules_of(std::string_view family) {
  return {.windows = family == "qwen2_moe" ? Windows::by_layer : Windows::every_layer, .switched = true, .usual_window = 4096};
}

Result<DecoderBuilder> begin_qwen_moe(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, rules_of(loading.checkpoint.topology.family->name)));
  if (loading.checkpoint.topology.family->name == "qwen2_moe" && bool_at(*config, "use_sliding_window", false) && find(*config, "layer_types") == nullptr) {
    return Error{Errc::invalid_argument, "config.json: use_sliding_window without layer_types is not supported"};
  }
  MixtureSpec spec;
  spec.expert = b.feed_forward();
  const bool known = find(*config, "num_local_experts") != nullptr;
  QB_ASSIGN(spec.routing.experts, count_at(*config, known ? "num_local_experts" : "num_experts", 0));
  QB_ASSIGN(spec.routing.top, count_at(*config, "num_experts_per_tok", loading.checkpoint.topology.family->name == "qwen2_moe" ? 4 : 8));
  spec.routing.normalize = bool_at(*config, "norm_topk_prob", false);
  b.make_layer = [spec](DecoderBuilder& at, int64_t i) mutable -> Result<DecoderLayer> {
    QB_ASSIGN(auto attention, load_self_attention(at.loader(), at.path(i, "self_attn"), at.attention(i)));
    const std::string mlp = at.path(i, "mlp");
    std::unique_ptr<Sublayer> feed_forward;
    if (at.loader().find(mlp + ".gate") != nullptr) {
      spec.router = mlp + ".gate";
      spec.experts = mlp + ".experts";
      const bool shared = at.loader().has(mlp + ".shared_expert.down_proj");
      spec.shared = shared ? mlp + ".shared_expert" : "";
      spec.shared_gate = shared ? mlp + ".shared_expert_gate" : "";
      QB_ASSIGN(feed_forward, load_mixture(at.loader(), spec));
    } else {
      QB_ASSIGN(feed_forward, load_feed_forward(at.loader(), mlp, at.feed_forward()));
    }
    return at.layer(i, std::move(attention), std::move(feed_forward));
  };
  return b;
}

constexpr std::string_view families[] = {"qwen2_moe", "qwen3_moe"};

}  // namespace

// clang-format off
QB_MODEL(qwen_moe) = {
    .name = "qwen_moe", .families = families, .begin = begin_qwen_moe};
// clang-format on

}  // namespace qb::model

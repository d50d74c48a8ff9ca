// deepseek_v2 and deepseek_v3: latent attention, dense layers first, then a mixture of experts beside a part that every token sees. The second generation
// scores experts by softmax, the third by sigmoid with a bias for the choice and groups judged by their two best.
#include <cmath>

#include "base/json.h"
#include "layer/attention.h"
#include "model/decoder.h"
#include "model/latent_attention.h"

namespace qb::model {
namespace {

Error unsupported(std::string what) {
  return Error{Errc::invalid_argument, "config.json: " + std::move(what)};
}

// What yarn multiplies scores with, beside what it does to the rotation.
Result<double> score_factor(const Json& config) {
  const Json* rope = find(config, "rope_scaling");
  if (rope == nullptr || !rope->is_object() || rope->empty()) rope = find(config, "rope_parameters");
  if (rope == nullptr || !rope->is_object()) return 1.0;
  QB_ASSIGN(const double factor, number_at(*rope, "factor", 1));
  QB_ASSIGN(const double mscale, number_at(*rope, "mscale_all_dim", 0));
  if (factor <= 1 || mscale == 0) return 1.0;
  const double m = 0.1 * mscale * std::log(factor) + 1;
  return m * m;
}

Result<LatentSpec> latent_spec(const Json& config, const DecoderConfig& c) {
  LatentSpec s{.hidden = c.hidden, .heads = c.heads, .eps = 1e-6F};  // the norms inside keep their class's epsilon
  QB_ASSIGN(s.q_rank, count_at(config, "q_lora_rank", 0));
  QB_ASSIGN(s.kv_rank, count_at(config, "kv_lora_rank", 0));
  QB_ASSIGN(s.nope, count_at(config, "qk_nope_head_dim", 0));
  QB_ASSIGN(s.rope, count_at(config, "qk_rope_head_dim", 0));
  QB_ASSIGN(s.v, count_at(config, "v_head_dim", 0));
  if (s.kv_rank == 0 || s.nope == 0 || s.rope == 0 || s.v == 0 || s.v > s.key() || s.key() > layer::max_head_dim) {
    return unsupported("kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim and v_head_dim must be given, values not wider than keys and keys at most 256 wide");
  }
  s.neighbours = bool_at(config, "rope_interleave", true);
  QB_ASSIGN(const double factor, score_factor(config));
  s.scale = static_cast<float>(factor / std::sqrt(static_cast<double>(s.key())));
  return s;
}

Result<layer::Routing> routing(const Json& config, bool third) {
  using R = layer::Routing;
  R r;
  QB_ASSIGN(r.experts, count_at(config, "n_routed_experts", 0));
  QB_ASSIGN(r.top, count_at(config, "num_experts_per_tok", 0));
  QB_ASSIGN(const double scale, number_at(config, "routed_scaling_factor", third ? 2.5 : 1.0));
  r.scale = static_cast<float>(scale);
  const std::string_view method = string_at(config, "topk_method", third ? "noaux_tc" : "greedy");
  if (method != "greedy") {
    QB_ASSIGN(r.groups, count_at(config, "n_group", 1));
    QB_ASSIGN(r.top_groups, count_at(config, "topk_group", 1));
  }
  if (third) {
    r.score = R::Score::sigmoid;
    r.judge = R::Judge::best_two;
    r.normalize = bool_at(config, "norm_topk_prob", true);
  }
  if (third ? method != "noaux_tc" : method != "greedy" && method != "group_limited_greedy") return unsupported("topk_method is not one that is known");
  return r;
}

Result<DecoderBuilder> begin_deepseek(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(const int64_t turning, count_at(*config, "qk_rope_head_dim", 64));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, {.rope_dim = turning}));
  const bool third = loading.checkpoint.topology.family->name == "deepseek_v3";
  QB_ASSIGN(const LatentSpec latent, latent_spec(*config, b.sizes()));
  b.parts.kv = {b.sizes().layers, latent.heads, latent.key()};
  MixtureSpec spec;
  spec.expert = b.feed_forward();
  b.make_layer = [spec, latent, third, config](DecoderBuilder& at, int64_t i) mutable -> Result<DecoderLayer> {
    QB_ASSIGN(auto attention, load_latent_attention(at.loader(), at.path(i, "self_attn"), latent));
    const std::string mlp = at.path(i, "mlp");
    std::unique_ptr<Sublayer> feed_forward;
    if (at.loader().find(mlp + ".gate") != nullptr) {
      QB_ASSIGN(spec.routing, routing(*config, third));
      spec.router = mlp + ".gate";
      spec.bias = third ? "e_score_correction_bias" : "";
      spec.experts = mlp + ".experts";
      spec.shared = at.loader().has(mlp + ".shared_experts.down_proj") ? mlp + ".shared_experts" : "";
      QB_ASSIGN(feed_forward, load_mixture(at.loader(), spec));
    } else {
      QB_ASSIGN(feed_forward, load_feed_forward(at.loader(), mlp, at.feed_forward()));
    }
    return at.layer(i, std::move(attention), std::move(feed_forward));
  };
  return b;
}

constexpr std::string_view families[] = {"deepseek_v2", "deepseek_v3"};

}  // namespace

// clang-format off
QB_MODEL(deepseek) = {
    .name = "deepseek", .families = families, .begin = begin_deepseek};
// clang-format on

}  // namespace qb::model

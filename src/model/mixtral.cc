// mixtral: Mistral's attention, a mixture of experts in every layer. Experts have their own words for gate, down and up, or Llama's in files of other tools.
#include "base/json.h"
#include "model/decoder.h"

namespace qb::model {
namespace {

Result<std::unique_ptr<Model>> load_mixtral(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, {.windows = DecoderRules::Windows::every_layer}));
  MixtureSpec spec;
  spec.expert = b.feed_forward();
  QB_ASSIGN(spec.routing.experts, count_at(*config, "num_local_experts", 8));
  QB_ASSIGN(spec.routing.top, count_at(*config, "num_experts_per_tok", 2));
  spec.routing.normalize = true;
  for (int64_t i = 0; i < b.sizes().layers; ++i) {
    QB_ASSIGN(auto attention, load_self_attention(b.loader(), b.path(i, "self_attn"), b.attention(i)));
    const auto has = [&](const char* suffix) { return b.loader().find(b.path(i, suffix)) != nullptr; };
    const char* const block = has("block_sparse_moe.gate") ? "block_sparse_moe" : "mlp";
    spec.router = b.path(i, block) + ".gate";
    spec.experts = b.path(i, block) + ".experts";
    spec.expert.names = b.loader().find(spec.experts + ".0.w1") != nullptr ? FeedForwardNames{"w1", "w3", "w2"} : FeedForwardNames{};
    QB_ASSIGN(auto feed_forward, load_mixture(b.loader(), spec));
    QB_TRY(b.add(i, std::move(attention), std::move(feed_forward)));
  }
  return b.finish();
}

constexpr std::string_view families[] = {"mixtral"};

}  // namespace

// clang-format off
QB_MODEL(mixtral) = {
    .name = "mixtral", .families = families, .load = load_mixtral};
// clang-format on

}  // namespace qb::model

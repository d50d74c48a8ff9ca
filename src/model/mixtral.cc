// mixtral: Mistral's attention, a mixture of experts in every layer. Experts have their own words for gate, down and up, or Llama's in files of other tools.
#include <fmt/format.h>

#include "base/json.h"
#include "model/decoder.h"

namespace qb::model {
namespace {

Result<DecoderBuilder> begin_mixtral(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, {.windows = DecoderRules::Windows::every_layer}));
  MixtureSpec spec;
  spec.expert = b.feed_forward();
  QB_ASSIGN(spec.routing.experts, count_at(*config, "num_local_experts", 8));
  QB_ASSIGN(spec.routing.top, count_at(*config, "num_experts_per_tok", 2));
  spec.routing.normalize = true;
  b.make_layer = [spec](DecoderBuilder& at, int64_t i) mutable -> Result<DecoderLayer> {
    QB_ASSIGN(auto attention, load_self_attention(at.loader(), at.path(i, "self_attn"), at.attention(i)));
    const auto has = [&](const char* suffix) { return at.loader().find(at.path(i, suffix)) != nullptr; };
    const char* const block = has("block_sparse_moe.gate") ? "block_sparse_moe" : "mlp";
    spec.router = at.path(i, block) + ".gate";
    spec.experts = at.path(i, block) + ".experts";
    // Each by itself: in one matrix with another, a linear has its usual name.
    const std::string some = fmt::format("{}.{}", spec.experts, at.loader().experts(spec.routing.experts).first);
    const auto named = [&](const char* own, const char* usual) { return at.loader().has(fmt::format("{}.{}", some, own)) ? own : usual; };
    spec.expert.names = {named("w1", "gate_proj"), named("w3", "up_proj"), named("w2", "down_proj")};
    QB_ASSIGN(auto feed_forward, load_mixture(at.loader(), spec));
    return at.layer(i, std::move(attention), std::move(feed_forward));
  };
  return b;
}

constexpr std::string_view families[] = {"mixtral"};

}  // namespace

// clang-format off
QB_MODEL(mixtral) = {
    .name = "mixtral", .families = families, .begin = begin_mixtral};
// clang-format on

}  // namespace qb::model

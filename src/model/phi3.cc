// phi3: Llama with one matrix for q, k, v and another for gate, up; long contexts by longrope, a part of each head that does not turn in the small models.
#include "model/decoder.h"

namespace qb::model {
namespace {

Result<DecoderBuilder> begin_phi3(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, {.windows = DecoderRules::Windows::every_layer}));
  FeedForwardSpec gated = b.feed_forward();
  gated.fused = true;
  b.make_layer = [gated](DecoderBuilder& at, int64_t i) -> Result<DecoderLayer> {
    AttentionSpec spec = at.attention(i);
    spec.fused = true;
    QB_ASSIGN(auto attention, load_self_attention(at.loader(), at.path(i, "self_attn"), spec));
    QB_ASSIGN(auto feed_forward, load_feed_forward(at.loader(), at.path(i, "mlp"), gated));
    return at.layer(i, std::move(attention), std::move(feed_forward));
  };
  return b;
}

constexpr std::string_view families[] = {"phi3"};

}  // namespace

// clang-format off
QB_MODEL(phi3) = {
    .name = "phi3", .families = families, .begin = begin_phi3};
// clang-format on

}  // namespace qb::model

// phi3: Llama with one matrix for q, k, v and another for gate, up; long contexts by longrope, a part of each head that does not turn in the small models.
#include "model/decoder.h"

namespace qb::model {
namespace {

Result<std::unique_ptr<Model>> load_phi3(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, {.windows = DecoderRules::Windows::every_layer}));
  FeedForwardSpec gated = b.feed_forward();
  gated.fused = true;
  for (int64_t i = 0; i < b.sizes().layers; ++i) {
    AttentionSpec spec = b.attention(i);
    spec.fused = true;
    QB_ASSIGN(auto attention, load_self_attention(b.loader(), b.path(i, "self_attn"), spec));
    QB_ASSIGN(auto feed_forward, load_feed_forward(b.loader(), b.path(i, "mlp"), gated));
    QB_TRY(b.add(i, std::move(attention), std::move(feed_forward)));
  }
  return b.finish();
}

constexpr std::string_view families[] = {"phi3"};

}  // namespace

// clang-format off
QB_MODEL(phi3) = {
    .name = "phi3", .families = families, .load = load_phi3};
// clang-format on

}  // namespace qb::model

// phi3: Llama with one matrix for q, k, v and another for gate, up; long contexts by longrope, a part of each head that does not turn in the small models.
#include "model/decoder.h"

namespace qb::model {
namespace {

Result<DecoderBuilder> begin_phi3(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, {.windows = DecoderRules::Windows::every_layer}));
  b.make_layer = [](DecoderBuilder& at, int64_t i) -> Result<DecoderLayer> {
    QB_ASSIGN(auto attention, load_self_attention(at.loader(), at.path(i, "self_attn"), at.attention(i)));
    QB_ASSIGN(auto feed_forward, load_feed_forward(at.loader(), at.path(i, "mlp"), at.feed_forward()));
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

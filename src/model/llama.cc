// llama, mistral, qwen2 and qwen3: one architecture, whose differences are data. Biases are used where tensors exist, norms of q and k where modules exist,
// windows as the config says.
#include "model/decoder.h"

namespace qb::model {
namespace {

using Windows = DecoderRules::Windows;

DecoderRules rules_of(std::string_view family) {
  if (family == "mistral") return {.windows = Windows::every_layer, .usual_window = 4096};
  if (family == "qwen2" || family == "qwen3") return {.windows = Windows::by_layer, .switched = true, .usual_window = 4096};
  return {};
}

Result<DecoderBuilder> begin_llama(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, rules_of(loading.checkpoint.topology.family->name)));
  b.make_layer = [](DecoderBuilder& at, int64_t i) -> Result<DecoderLayer> {
    QB_ASSIGN(auto attention, load_self_attention(at.loader(), at.path(i, "self_attn"), at.attention(i)));
    QB_ASSIGN(auto feed_forward, load_feed_forward(at.loader(), at.path(i, "mlp"), at.feed_forward()));
    return at.layer(i, std::move(attention), std::move(feed_forward));
  };
  return b;
}

constexpr std::string_view families[] = {"llama", "mistral", "qwen2", "qwen3"};

}  // namespace

// clang-format off
QB_MODEL(llama) = {
    .name = "llama", .families = families, .begin = begin_llama};
// clang-format on

}  // namespace qb::model

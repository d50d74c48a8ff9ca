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

Result<std::unique_ptr<Model>> load_llama(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, rules_of(loading.checkpoint.topology.family->name)));
  for (int64_t i = 0; i < b.sizes().layers; ++i) {
    QB_ASSIGN(auto attention, load_self_attention(b.loader(), b.path(i, "self_attn"), b.attention(i)));
    QB_ASSIGN(auto feed_forward, load_feed_forward(b.loader(), b.path(i, "mlp"), b.feed_forward()));
    QB_TRY(b.add(i, std::move(attention), std::move(feed_forward)));
  }
  return b.finish();
}

constexpr std::string_view families[] = {"llama", "mistral", "qwen2", "qwen3"};

}  // namespace

// clang-format off
QB_MODEL(llama) = {
    .name = "llama", .families = families, .load = load_llama};
// clang-format on

}  // namespace qb::model

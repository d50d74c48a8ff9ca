// gpt_oss: attention with a learned sink for each head and a window in every other layer, a mixture of experts with a clamped activation in every
// layer. The softmax over the chosen experts' scores alone is that over all, normalized.
#include "base/json.h"
#include "model/decoder.h"

namespace qb::model {
namespace {

Result<DecoderBuilder> begin_gpt_oss(const Loading& loading) {
  QB_ASSIGN(const Json* const config, model_config(loading));
  QB_ASSIGN(DecoderBuilder b, DecoderBuilder::begin(loading, *config, {.windows = DecoderRules::Windows::by_layer, .usual_window = 128, .full_every = 2}));
  MixtureSpec spec;
  spec.expert = b.feed_forward();
  spec.expert.activation = layer::Gate::clamped;
  QB_ASSIGN(const double limit, number_at(*config, "swiglu_limit", 7));
  if (limit != 7) return Error{Errc::invalid_argument, "config.json: swiglu_limit is not 7, which the released models have"};
  QB_ASSIGN(spec.routing.experts, count_at(*config, "num_local_experts", 128));
  QB_ASSIGN(spec.routing.top, count_at(*config, "num_experts_per_tok", 4));
  spec.routing.normalize = true;
  b.make_layer = [spec](DecoderBuilder& at, int64_t i) mutable -> Result<DecoderLayer> {
    AttentionSpec attention = at.attention(i);
    attention.sinks = true;
    spec.router = at.path(i, "mlp.router");
    spec.experts = at.path(i, "mlp.experts");
    QB_ASSIGN(auto mixing, load_self_attention(at.loader(), at.path(i, "self_attn"), attention));
    QB_ASSIGN(auto feed_forward, load_mixture(at.loader(), spec));
    return at.layer(i, std::move(mixing), std::move(feed_forward));
  };
  return b;
}

constexpr std::string_view families[] = {"gpt_oss"};

}  // namespace

// clang-format off
QB_MODEL(gpt_oss) = {
    .name = "gpt_oss", .families = families, .begin = begin_gpt_oss};
// clang-format on

}  // namespace qb::model

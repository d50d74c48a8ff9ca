#include "model/decoder.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "host/host.h"
#include "model/ends.h"

namespace qb::model {
namespace {

// How keys and values are quantized. as_bytes: an E4M3 cache holds them; other schemes are rounded into a cache of bfloat16.
struct KvScheme {
  layer::KvRounding rounding = layer::KvRounding::none;
  bool as_bytes = false;
};

class Decoder final : public Model {
 public:
  Decoder(DecoderParts parts, std::vector<DecoderLayer> layers, Ends ends, const Loading& loading, KvScheme kv, size_t resident)
      : p_(std::move(parts)),
        layers_(std::move(layers)),
        ends_(std::move(ends)),
        pool_(loading.pool),
        reference_(loading.options.reference),
        wide_kv_(loading.options.reference || loading.options.wide_kv),
        kv_(kv),
        resident_(resident),
        runner_(p_.config, p_.ropes, loading) {
    runner_.fit(layers_, &ends_.head);
  }

  KvCache::Shape kv_shape() const override { return p_.kv; }
  Elem kv_elem() const override { return wide_kv_ ? Elem::f32 : kv_.as_bytes ? Elem::e4m3 : Elem::bf16; }
  int64_t vocab() const override { return ends_.vocab(); }
  int64_t max_positions() const override { return p_.config.max_positions; }
  Result<std::span<const float>> forward(const Batch& batch, KvCache& cache) override;
  size_t resident_bytes() const override { return resident_; }
  NamedLinears linears() const override {
    NamedLinears all;
    for (const DecoderLayer& l : layers_) l.add_linears(all);
    all.emplace_back(ends_.head_path, &ends_.head);
    return all;
  }

 private:
  void run_pass(const Batch& batch, KvCache& cache, float* logits);

  const DecoderParts p_;
  std::vector<DecoderLayer> layers_;
  Ends ends_;
  host::ThreadPool& pool_;
  bool reference_ = false, wide_kv_ = false;
  KvScheme kv_;
  size_t resident_ = 0;
  LayerRunner runner_;
  Buffer logits_buffer_, words_buffer_;
  float* words_ = nullptr;
};

Result<std::span<const float>> Decoder::forward(const Batch& batch, KvCache& cache) {
  if (cache.shape() != kv_shape() || cache.elem() != kv_elem()) return Error{Errc::invalid_argument, "the KV cache was made for another model or mode"};
  QB_TRY(check_batch(batch, cache, vocab(), max_positions()));
  const auto tokens = static_cast<int64_t>(batch.ids.size());
  QB_TRY(runner_.prepare(std::min(tokens, runner_.pass_rows())));
  const int64_t rows = batch.all_logits ? tokens : static_cast<int64_t>(batch.table.size());
  const auto count = static_cast<size_t>(rows * vocab());
  QB_ASSIGN(std::byte* const space, logits_buffer_.at_least(count * sizeof(float)));
  auto* const logits = reinterpret_cast<float*>(space);
  const auto words = static_cast<size_t>(ends_.scratch(std::min(rows, runner_.pass_rows())));
  QB_ASSIGN(std::byte* const words_space, words_buffer_.at_least(words * sizeof(float)));
  words_ = reinterpret_cast<float*>(words_space);
  float* next = logits;
  for (int64_t begin = 0; begin < tokens; begin += runner_.pass_rows()) {
    runner_.begin(batch, begin, std::min(tokens, begin + runner_.pass_rows()));
    run_pass(batch, cache, next);
    next += static_cast<int64_t>(runner_.pass().wanted.size()) * vocab();
  }
  return std::span<const float>(logits, count);
}

void Decoder::run_pass(const Batch& batch, KvCache& cache, float* logits) {
  const BatchPass& pass = runner_.pass();
  const int64_t hidden = p_.config.hidden;
  ends_.embed(p_, batch.ids.subspan(static_cast<size_t>(pass.begin), static_cast<size_t>(pass.count())), runner_.x());
  Step step = runner_.step(cache, reference_, kv_elem() == Elem::e4m3 ? layer::KvRounding::none : kv_.rounding);
  for (size_t i = 0; i < layers_.size(); ++i) {
    runner_.run(layers_[i], step, i + 1 < layers_.size() ? &layers_[i + 1].attention->first() : &ends_.head);
    ++step.layer;
  }
  const auto wanted = static_cast<int64_t>(pass.wanted.size());
  if (wanted == 0) return;
  float* const normed = runner_.normed();
  for (int64_t i = 0; i < wanted; ++i) runner_.norm(runner_.x() + pass.wanted[static_cast<size_t>(i)] * hidden, ends_.norm, 1, normed + i * hidden);
  ends_.run(normed, wanted, logits, words_, runner_.tools().workspace, pool_);
}

Result<KvScheme> kv_scheme(const Loading& loading) {
  const std::optional<ir::KvCache>& kv = loading.checkpoint.kv;
  KvScheme out;
  if (!kv || !loading.options.quantized_kv) return out;
  const ir::QuantType& t = kv->scheme.type;
  const bool tensor = t.scale == ir::ScaleValues::any && t.block == ir::Block{0, 0} && t.zero == ir::Zero::none && kv->scheme.when == ir::When::fixed;
  if (tensor && t.code == Elem::e4m3)
    out.rounding = layer::KvRounding::fp8;
  else if (tensor && t.code == Elem::i8)
    out.rounding = layer::KvRounding::int8;
  else if (t.code == Elem::e2m1 && t.two_level() && t.block == ir::Block{1, 16})
    out.rounding = layer::KvRounding::nvfp4;
  else
    return Error{Errc::invalid_argument,
                 fmt::format("a KV cache of kind {} is not supported by the runtime; run without a quantized KV cache", to_string(*kv))};
  out.as_bytes = out.rounding == layer::KvRounding::fp8 && !kv->per_head && !kv->affine;
  return out;
}

}  // namespace

Result<const Json*> model_config(const Loading& loading) {
  const Json* config = loading.package.document("config.json");
  if (config == nullptr) return Error{Errc::invalid_argument, "config.json is missing"};
  return &arch::text_config(*config);
}

void DecoderBuilder::load_with(const Loading& loading) {
  loading_ = &loading;
  loader_ = std::make_unique<Loader>(loading);
}

Result<DecoderBuilder> DecoderBuilder::begin(const Loading& loading, const Json& config, const DecoderRules& rules) {
  DecoderBuilder b;
  b.load_with(loading);
  QB_ASSIGN(b.parts.config, read_decoder_config(config, loading.checkpoint.topology, rules));
  b.parts.ropes.push_back(b.parts.config.rope);
  b.parts.kv = {b.sizes().layers, b.sizes().kv_heads, b.sizes().head_dim};
  return b;
}

std::string DecoderBuilder::path(int64_t layer, std::string_view suffix) const {
  return fmt::format("{}.layers.{}.{}", loading_->checkpoint.topology.body, layer, suffix);
}

Result<const float*> DecoderBuilder::norm(int64_t layer, std::string_view suffix) {
  return loader_->norm(path(layer, suffix), sizes().hidden, parts.norm_plus);
}

AttentionSpec DecoderBuilder::attention(int64_t layer) const {
  const DecoderConfig& c = parts.config;
  return {.hidden = c.hidden,
          .heads = c.heads,
          .kv_heads = c.kv_heads,
          .head_dim = c.head_dim,
          .window = c.windows[static_cast<size_t>(layer)],
          .eps = c.eps,
          .norm_plus = parts.norm_plus};
}

FeedForwardSpec DecoderBuilder::feed_forward() const {
  return {.hidden = sizes().hidden, .activation = sizes().activation};
}

Result<DecoderLayer> DecoderBuilder::layer(int64_t layer, std::unique_ptr<Sublayer> attention, std::unique_ptr<Sublayer> feed_forward) {
  DecoderLayer l;
  QB_ASSIGN(l.attention_norm, norm(layer, "input_layernorm"));
  QB_ASSIGN(l.feed_forward_norm, norm(layer, "post_attention_layernorm"));
  l.attention = std::move(attention);
  l.feed_forward = std::move(feed_forward);
  return l;
}

Result<std::unique_ptr<Model>> DecoderBuilder::finish() {
  std::vector<DecoderLayer> layers;
  for (int64_t i = 0; i < sizes().layers; ++i) {
    QB_ASSIGN(DecoderLayer one, make_layer(*this, i));
    layers.push_back(std::move(one));
    host::sample_memory();
  }
  QB_ASSIGN(const KvScheme kv, kv_scheme(*loading_));
  QB_ASSIGN(Ends ends, load_ends(*loader_, loading_->checkpoint.topology, parts));
  return std::unique_ptr<Model>(std::make_unique<Decoder>(std::move(parts), std::move(layers), std::move(ends), *loading_, kv, loader_->resident()));
}

}  // namespace qb::model

#include "model/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "exec/buffer.h"
#include "host/host.h"
#include "layer/embedding.h"
#include "layer/norm.h"

namespace qb::model {
namespace {

using layer::Linear;

constexpr int64_t pass_bytes = 32 << 20, largest_pass = 512, smallest_pass = 16;

struct Ends {
  layer::Embedding embedding;
  Linear head;
  std::string head_path;
  const float* norm = nullptr;
};

// How keys and values are quantized. as_bytes: an E4M3 cache holds them; other schemes are rounded into a cache of bfloat16.
struct KvScheme {
  layer::KvRounding rounding = layer::KvRounding::none;
  bool as_bytes = false;
};

class Decoder final : public Model {
 public:
  Decoder(DecoderParts parts, Ends ends, const Loading& loading, KvScheme kv, size_t resident)
      : p_(std::move(parts)), ends_(std::move(ends)), pool_(loading.pool), reference_(loading.options.reference), kv_(kv), resident_(resident) {
    isa_ = host::covers(loading.options.linear.cpu.features, host::Feature::avx512) ? Isa::avx512
           : host::covers(loading.options.linear.cpu.features, host::Feature::avx2) ? Isa::avx2
                                                                                    : Isa::generic;
    turns_.resize(p_.ropes.size());
    for (const DecoderLayer& l : p_.layers) scratch_per_row_ = std::max({scratch_per_row_, l.attention->scratch_per_row(), l.feed_forward->scratch_per_row()});
    int64_t row = 2 * p_.config.hidden + scratch_per_row_;
    for (const layer::Rope& rope : p_.ropes) row += 2 * rope.half();
    pass_rows_ = std::clamp(pass_bytes / (4 * row) / smallest_pass * smallest_pass, smallest_pass, largest_pass);
  }

  KvCache::Shape kv_shape() const override { return p_.kv; }
  Elem kv_elem() const override { return reference_ ? Elem::f32 : kv_.as_bytes ? Elem::e4m3 : Elem::bf16; }
  int64_t vocab() const override { return ends_.head.n(); }
  int64_t max_positions() const override { return p_.config.max_positions; }
  Result<std::span<const float>> forward(const Batch& batch, KvCache& cache) override;
  size_t resident_bytes() const override { return resident_; }
  NamedLinears linears() const override {
    NamedLinears all;
    for (const DecoderLayer& l : p_.layers) {
      l.attention->add_linears(all);
      l.feed_forward->add_linears(all);
    }
    all.emplace_back(ends_.head_path, &ends_.head);
    return all;
  }

 private:
  Result<void> prepare(int64_t rows);
  void run_pass(const Batch& batch, KvCache& cache, float* logits);
  void half(const Step& step, Sublayer& sublayer, const float* norm, const float* out_norm);
  void norm(const float* x, const float* weight, int64_t rows, float* y) { layer::rms_norm(x, weight, p_.config.eps, rows, p_.config.hidden, y, isa_, pool_); }

  DecoderParts p_;
  Ends ends_;
  host::ThreadPool& pool_;
  Isa isa_ = Isa::generic;
  bool reference_ = false;
  KvScheme kv_;
  size_t resident_ = 0;
  int64_t scratch_per_row_ = 0, pass_rows_ = 0;

  BatchPass pass_;
  Buffer buffer_, workspace_buffer_, logits_buffer_;
  float *x_ = nullptr, *normed_ = nullptr, *scratch_ = nullptr;
  std::vector<std::pair<float*, float*>> turns_;  // cosines and sines of each rope
  std::vector<Step::Turns> step_turns_;
  std::span<std::byte> workspace_;
  int64_t prepared_rows_ = 0;
};

// Buffers for passes of up to `rows` tokens.
Result<void> Decoder::prepare(int64_t rows) {
  if (rows <= prepared_rows_) return {};
  std::vector<std::pair<float**, int64_t>> parts{{&x_, p_.config.hidden}, {&normed_, p_.config.hidden}, {&scratch_, scratch_per_row_}};
  for (size_t i = 0; i < p_.ropes.size(); ++i) {
    parts.emplace_back(&turns_[i].first, p_.ropes[i].half());
    parts.emplace_back(&turns_[i].second, p_.ropes[i].half());
  }
  uint64_t bytes = 0;
  for (const auto& [part, width] : parts) bytes += aligned(static_cast<uint64_t>(width * rows) * sizeof(float));
  prepared_rows_ = 0;
  QB_ASSIGN(std::byte * at, buffer_.at_least(bytes));
  for (const auto& [part, width] : parts) {
    *part = reinterpret_cast<float*>(at);
    at += aligned(static_cast<uint64_t>(width * rows) * sizeof(float));
  }
  step_turns_.clear();
  for (size_t i = 0; i < p_.ropes.size(); ++i) step_turns_.push_back({turns_[i].first, turns_[i].second, p_.ropes[i].half()});
  // A kernel for fewer rows may want more than the one for many.
  size_t most = 0;
  for (const auto& [name, linear] : linears())
    for (int64_t m = rows; m > 0; m = m > 16 ? m / 2 : m - 1) most = std::max(most, linear->workspace_bytes(m));
  QB_ASSIGN(std::byte* const space, workspace_buffer_.at_least(most));
  workspace_ = {space, most};
  prepared_rows_ = rows;
  return {};
}

Result<std::span<const float>> Decoder::forward(const Batch& batch, KvCache& cache) {
  if (cache.shape() != kv_shape() || cache.elem() != kv_elem()) return Error{Errc::invalid_argument, "the KV cache was made for another model or mode"};
  QB_TRY(check_batch(batch, cache, vocab(), max_positions()));
  const auto tokens = static_cast<int64_t>(batch.ids.size());
  QB_TRY(prepare(std::min(tokens, pass_rows_)));
  const int64_t rows = batch.all_logits ? tokens : static_cast<int64_t>(batch.table.size());
  const auto count = static_cast<size_t>(rows * vocab());
  QB_ASSIGN(std::byte* const space, logits_buffer_.at_least(count * sizeof(float)));
  auto* const logits = reinterpret_cast<float*>(space);
  float* next = logits;
  for (int64_t begin = 0; begin < tokens; begin += pass_rows_) {
    pass_.cut(batch, begin, std::min(tokens, begin + pass_rows_));
    run_pass(batch, cache, next);
    next += static_cast<int64_t>(pass_.wanted.size()) * vocab();
  }
  return std::span<const float>(logits, count);
}

void Decoder::run_pass(const Batch& batch, KvCache& cache, float* logits) {
  const int64_t rows = pass_.count(), hidden = p_.config.hidden;
  ends_.embedding.gather(batch.ids.subspan(static_cast<size_t>(pass_.begin), static_cast<size_t>(rows)), x_);
  if (p_.embedding_scale != 1)
    for (int64_t i = 0; i < rows * hidden; ++i) x_[i] *= p_.embedding_scale;
  for (size_t r = 0; r < pass_.runs.size(); ++r) {
    const layer::AttentionRun& run = pass_.runs[r];
    const auto positions = batch.positions.subspan(static_cast<size_t>(pass_.begin + run.first_row), static_cast<size_t>(run.count));
    for (size_t i = 0; i < p_.ropes.size(); ++i) {
      const int64_t at = run.first_row * p_.ropes[i].half();
      p_.ropes[i].table(positions, rope_length(batch, pass_.sequences[r]), turns_[i].first + at, turns_[i].second + at);
    }
  }
  Step step{.pass = pass_,
            .cache = cache,
            .layer = 0,
            .ropes = step_turns_,
            .reference = reference_,
            .through = kv_elem() == Elem::e4m3 ? layer::KvRounding::none : kv_.rounding,
            .tools = {workspace_, isa_, pool_}};
  for (DecoderLayer& l : p_.layers) {
    half(step, *l.attention, l.attention_norm, l.attention_out_norm);
    half(step, *l.feed_forward, l.feed_forward_norm, l.feed_forward_out_norm);
    ++step.layer;
  }
  const auto wanted = static_cast<int64_t>(pass_.wanted.size());
  if (wanted == 0) return;
  for (int64_t i = 0; i < wanted; ++i) norm(x_ + pass_.wanted[static_cast<size_t>(i)] * hidden, ends_.norm, 1, normed_ + i * hidden);
  ends_.head.run(normed_, wanted, logits, workspace_, pool_);
  if (const float cap = p_.logit_softcap; cap > 0)
    pool_.ranges(wanted * vocab(), 1024, [logits, &cap](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) logits[i] = cap * std::tanh(logits[i] / cap);
    });
}

void Decoder::half(const Step& step, Sublayer& sublayer, const float* weight, const float* out_weight) {
  const int64_t rows = pass_.count();
  norm(x_, weight, rows, normed_);
  sublayer.run(step, normed_, scratch_);
  if (out_weight != nullptr) norm(normed_, out_weight, rows, normed_);
  for (int64_t i = 0; i < rows * p_.config.hidden; ++i) x_[i] += normed_[i];
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

Result<Ends> load_ends(Loader& l, const arch::Topology& t, const DecoderParts& parts) {
  Ends e;
  const std::string embed = t.body + ".embed_tokens";
  const ir::Module* own_head = l.find(t.head);
  // A tied head is the embedding, whatever else is stored; one that is quantized means itself.
  const bool shared = parts.config.tied && (own_head == nullptr || !own_head->scheme);
  e.head_path = shared ? embed : t.head;
  QB_ASSIGN(e.head, l.linear(e.head_path, 0, parts.config.hidden));
  QB_ASSIGN(const ir::Module* const table, l.need(embed));
  if (shared && !table->scheme) {
    QB_ASSIGN(e.embedding, layer::Embedding::share(e.head));
  } else {
    QB_ASSIGN(e.embedding, l.embedding(embed));
  }
  if (e.embedding.k() != parts.config.hidden || e.embedding.n() != e.head.n()) {
    return Error{Errc::invalid_argument,
                 fmt::format("{}: the weight is {} x {}, expected {} x {}", embed, e.embedding.n(), e.embedding.k(), e.head.n(), parts.config.hidden)};
  }
  QB_ASSIGN(e.norm, l.norm(t.body + ".norm", parts.config.hidden, parts.norm_plus));
  return e;
}

}  // namespace

Result<const Json*> model_config(const Loading& loading) {
  const Json* config = loading.package.document("config.json");
  if (config == nullptr) return Error{Errc::invalid_argument, "config.json is missing"};
  return &arch::text_config(*config);
}

Result<DecoderBuilder> DecoderBuilder::begin(const Loading& loading, const Json& config, const DecoderRules& rules) {
  DecoderBuilder b;
  b.loading_ = &loading;
  b.config_ = &config;
  b.loader_ = std::make_unique<Loader>(loading);
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

Result<void> DecoderBuilder::add(int64_t layer, std::unique_ptr<Sublayer> attention, std::unique_ptr<Sublayer> feed_forward) {
  DecoderLayer l;
  QB_ASSIGN(l.attention_norm, norm(layer, "input_layernorm"));
  QB_ASSIGN(l.feed_forward_norm, norm(layer, "post_attention_layernorm"));
  l.attention = std::move(attention);
  l.feed_forward = std::move(feed_forward);
  host::sample_memory();
  parts.layers.push_back(std::move(l));
  return {};
}

Result<std::unique_ptr<Model>> DecoderBuilder::finish() {
  QB_ASSIGN(const KvScheme kv, kv_scheme(*loading_));
  QB_ASSIGN(Ends ends, load_ends(*loader_, loading_->checkpoint.topology, parts));
  return std::unique_ptr<Model>(std::make_unique<Decoder>(std::move(parts), std::move(ends), *loading_, kv, loader_->resident()));
}

}  // namespace qb::model

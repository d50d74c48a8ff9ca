// The dense decoder of llama, mistral, qwen2 and qwen3: one architecture, whose differences are data. Biases are used where tensors exist, norms of q and k
// where modules exist, windows as the config says.
//
// Everything between layers is float32. A forward goes through its tokens in passes whose buffers stay below 32 MiB, so that a run needs little besides weights
// and KV cache. Source of truth: the modeling files of transformers 5.17.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <unordered_map>

#include "base/json.h"
#include "exec/buffer.h"
#include "host/host.h"
#include "layer/activation.h"
#include "layer/embedding.h"
#include "layer/norm.h"
#include "model/batch.h"
#include "model/decoder_config.h"
#include "model/model.h"

namespace qb::model {
namespace {

using ir::Role;
using layer::Linear;

constexpr int64_t pass_bytes = 32 << 20, largest_pass = 512, smallest_pass = 16;

struct Block {
  const float *input_norm = nullptr, *post_norm = nullptr, *q_norm = nullptr, *k_norm = nullptr;
  Linear q, k, v, o, gate, up, down;
  int64_t window = 0;
  float k_scale = 1, v_scale = 1;
};

// Named buffers in one allocation.
struct Buffers {
  float *x, *normed, *q, *k, *v, *gate, *up, *cos, *sin;
};

class Decoder final : public Model {
 public:
  Decoder(DecoderConfig config, const Loading& loading) : c_(std::move(config)), pool_(loading.pool), reference_(loading.options.reference) {
    isa_ = host::covers(loading.options.linear.cpu.features, host::Feature::avx512) ? Isa::avx512
           : host::covers(loading.options.linear.cpu.features, host::Feature::avx2) ? Isa::avx2
                                                                                    : Isa::generic;
  }
  Result<void> load(const Loading& loading);

  KvCache::Shape kv_shape() const override { return {c_.layers, c_.kv_heads, c_.head_dim}; }
  Elem kv_elem() const override { return reference_ ? Elem::f32 : quantized_kv_ ? Elem::e4m3 : Elem::bf16; }
  int64_t vocab() const override { return head_.n(); }
  int64_t max_positions() const override { return c_.max_positions; }
  Result<std::span<const float>> forward(const Batch& batch, KvCache& cache) override;
  size_t resident_bytes() const override { return resident_; }
  std::vector<std::pair<std::string, const Linear*>> linears() const override;

 private:
  Result<void> prepare(int64_t rows);
  void run_pass(const Batch& batch, KvCache& cache, float* logits);
  void attend(const Block& block, int64_t index, KvCache& cache);
  void feed_forward(const Block& block);
  void apply(const Linear& linear, const float* x, float* y, int64_t rows) { linear.run(x, rows, y, {workspace_, workspace_bytes_}, pool_); }
  void add(const float* y);

  DecoderConfig c_;
  host::ThreadPool& pool_;
  Isa isa_ = Isa::generic;
  bool reference_ = false, quantized_kv_ = false;
  layer::Embedding embedding_;
  std::vector<Block> blocks_;
  const float* norm_ = nullptr;
  Linear head_;
  bool shared_head_ = false;
  size_t resident_ = 0;
  int64_t intermediate_ = 0, pass_rows_ = 0;

  BatchPass pass_;
  Buffer buffer_, workspace_buffer_, logits_buffer_;
  Buffers b_{};
  std::byte* workspace_ = nullptr;
  size_t workspace_bytes_ = 0;
  int64_t prepared_rows_ = 0;
};

class Loader {
 public:
  explicit Loader(const Loading& loading) : loading_(loading), options_(loading.options.linear) {
    for (const ir::Module& m : loading.checkpoint.modules) modules_.emplace(m.path, &m);
    options_.pool = &loading.pool;
    options_.policy.reference |= loading.options.reference;
  }

  const ir::Module* find(const std::string& path) const {
    auto it = modules_.find(path);
    return it == modules_.end() || it->second->parts.empty() ? nullptr : it->second;
  }
  Result<const ir::Module*> need(const std::string& path) const {
    if (const ir::Module* m = find(path); m != nullptr) return m;
    return Error{Errc::invalid_argument, fmt::format("{}: the checkpoint has no weight for it", path)};
  }
  Result<void> linear(const std::string& path, int64_t n, int64_t k, Linear& out) {
    QB_ASSIGN(const ir::Module* const m, need(path));
    if ((n != 0 && m->n != n) || (k != 0 && m->k != k)) {
      return Error{Errc::invalid_argument, fmt::format("{}: the weight is {} x {}, expected {} x {} by config.json", path, m->n, m->k, n, k)};
    }
    layer::LinearOptions options = options_;
    // Float32 throughout: what the scheme does not quantize is not rounded to bfloat16 either.
    if (loading_.options.reference && options.inputs == kernel::Inputs::as_scheme && (!m->scheme || !m->scheme->input)) options.inputs = kernel::Inputs::f32;
    QB_ASSIGN(out, Linear::load(*m, *loading_.package.source, loading_.arena, options, loading_.context));
    resident += out.bytes();
    return {};
  }
  Result<void> norm(const std::string& path, int64_t n, const float*& out) {
    QB_ASSIGN(const ir::Module* const m, need(path));
    const ir::Stored* weight = m->part(Role::plain);
    if (weight == nullptr || weight->view.dims[0] * weight->view.dims[1] != n) {
      return Error{Errc::invalid_argument, fmt::format("{}: expected a weight of {} numbers", path, n)};
    }
    QB_ASSIGN(out, layer::load_floats(*weight, *loading_.package.source, loading_.arena, loading_.context));
    resident += static_cast<size_t>(n) * sizeof(float);
    return {};
  }
  Result<void> embedding(const ir::Module& m, layer::Embedding& out) {
    QB_ASSIGN(out, layer::Embedding::load(m, *loading_.package.source, loading_.arena, options_, loading_.context));
    resident += out.bytes();
    return {};
  }

  size_t resident = 0;

 private:
  const Loading& loading_;
  layer::LinearOptions options_;
  std::unordered_map<std::string, const ir::Module*> modules_;
};

// The scale of a layer's keys or values; 1 where the checkpoint has none.
Result<float> kv_scale(const ir::Module* attention, Role role) {
  const ir::Stored* s = attention == nullptr ? nullptr : attention->part(role);
  if (s == nullptr || !s->value) return 1.0F;
  const auto x = static_cast<float>(s->form == ir::ScaleForm::divide ? 1.0 / *s->value : *s->value);
  if (x > 0 && x < __builtin_inff()) return x;
  return Error{Errc::invalid_argument, fmt::format("{} is {}, a scale must be a finite number above 0", s->tensor, *s->value)};
}

Result<bool> quantizes_kv(const Loading& loading) {
  const std::optional<ir::KvCache>& kv = loading.checkpoint.kv;
  if (!kv || !loading.options.quantized_kv) return false;
  const ir::QuantType& t = kv->scheme.type;
  if (t.code == Elem::e4m3 && t.scale == ir::ScaleValues::any && t.block == ir::Block{0, 0} && kv->scheme.when == ir::When::fixed) return true;
  return Error{Errc::invalid_argument,
               fmt::format("a KV cache of kind kv:{} is not supported by the runtime; run without a quantized KV cache", to_string(kv->scheme))};
}

Result<void> Decoder::load(const Loading& loading) {
  QB_ASSIGN(quantized_kv_, quantizes_kv(loading));
  Loader l(loading);
  const std::string embed = "model.embed_tokens", head = "lm_head";
  QB_ASSIGN(const ir::Module* const table, l.need(embed));
  const ir::Module* own_head = l.find(head);
  // A tied head is the embedding, whatever else is stored; one that is quantized means itself.
  shared_head_ = c_.tied && (own_head == nullptr || !own_head->scheme);
  QB_TRY(l.linear(shared_head_ ? embed : head, 0, c_.hidden, head_));
  if (shared_head_ && !table->scheme) {
    QB_ASSIGN(embedding_, layer::Embedding::share(head_));
  } else {
    QB_TRY(l.embedding(*table, embedding_));
  }
  if (embedding_.k() != c_.hidden || embedding_.n() != head_.n()) {
    return Error{Errc::invalid_argument,
                 fmt::format("{}: the weight is {} x {}, expected {} x {}", embed, embedding_.n(), embedding_.k(), head_.n(), c_.hidden)};
  }
  QB_TRY(l.norm("model.norm", c_.hidden, norm_));
  blocks_.resize(static_cast<size_t>(c_.layers));
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Block& b = blocks_[i];
    const std::string at = fmt::format("model.layers.{}.", i), attn = at + "self_attn.", mlp = at + "mlp.";
    QB_TRY(l.norm(at + "input_layernorm", c_.hidden, b.input_norm));
    QB_TRY(l.norm(at + "post_attention_layernorm", c_.hidden, b.post_norm));
    if (l.find(attn + "q_norm") != nullptr) QB_TRY(l.norm(attn + "q_norm", c_.head_dim, b.q_norm));
    if (l.find(attn + "k_norm") != nullptr) QB_TRY(l.norm(attn + "k_norm", c_.head_dim, b.k_norm));
    QB_TRY(l.linear(attn + "q_proj", c_.q_width(), c_.hidden, b.q));
    QB_TRY(l.linear(attn + "k_proj", c_.kv_width(), c_.hidden, b.k));
    QB_TRY(l.linear(attn + "v_proj", c_.kv_width(), c_.hidden, b.v));
    QB_TRY(l.linear(attn + "o_proj", c_.hidden, c_.q_width(), b.o));
    QB_TRY(l.linear(mlp + "gate_proj", intermediate_, c_.hidden, b.gate));
    intermediate_ = b.gate.n();
    QB_TRY(l.linear(mlp + "up_proj", intermediate_, c_.hidden, b.up));
    QB_TRY(l.linear(mlp + "down_proj", c_.hidden, intermediate_, b.down));
    b.window = c_.windows[i];
    const ir::Module* attention = l.find(at + "self_attn");
    QB_ASSIGN(b.k_scale, kv_scale(attention, Role::k_scale));
    QB_ASSIGN(b.v_scale, kv_scale(attention, Role::v_scale));
    host::sample_memory();
  }
  resident_ = l.resident;
  const int64_t row = 4 * (2 * c_.hidden + c_.q_width() + 2 * c_.kv_width() + 2 * intermediate_ + c_.head_dim);
  pass_rows_ = std::clamp(pass_bytes / row / smallest_pass * smallest_pass, smallest_pass, largest_pass);
  return {};
}

std::vector<std::pair<std::string, const Linear*>> Decoder::linears() const {
  std::vector<std::pair<std::string, const Linear*>> all;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& b = blocks_[i];
    const std::string attn = fmt::format("model.layers.{}.self_attn.", i), mlp = fmt::format("model.layers.{}.mlp.", i);
    for (const auto& [name, linear] : {std::pair{attn + "q_proj", &b.q},
                                       {attn + "k_proj", &b.k},
                                       {attn + "v_proj", &b.v},
                                       {attn + "o_proj", &b.o},
                                       {mlp + "gate_proj", &b.gate},
                                       {mlp + "up_proj", &b.up},
                                       {mlp + "down_proj", &b.down}})
      all.emplace_back(name, linear);
  }
  all.emplace_back(shared_head_ ? "model.embed_tokens" : "lm_head", &head_);
  return all;
}

// Buffers for passes of up to `rows` tokens.
Result<void> Decoder::prepare(int64_t rows) {
  if (rows <= prepared_rows_) return {};
  const int64_t widths[] = {c_.hidden, c_.hidden, c_.q_width(), c_.kv_width(), c_.kv_width(), intermediate_, intermediate_, c_.rope.half(), c_.rope.half()};
  float** const parts[] = {&b_.x, &b_.normed, &b_.q, &b_.k, &b_.v, &b_.gate, &b_.up, &b_.cos, &b_.sin};
  uint64_t bytes = 0;
  for (const int64_t width : widths) bytes += aligned(static_cast<uint64_t>(width * rows) * sizeof(float));
  prepared_rows_ = 0;
  QB_ASSIGN(std::byte * at, buffer_.at_least(bytes));
  for (size_t i = 0; i < std::size(widths); ++i) {
    *parts[i] = reinterpret_cast<float*>(at);
    at += aligned(static_cast<uint64_t>(widths[i] * rows) * sizeof(float));
  }
  // A kernel for fewer rows may want more than the one for many.
  size_t most = 0;
  for (const auto& [name, linear] : linears())
    for (int64_t m = rows; m > 0; m = m > 16 ? m / 2 : m - 1) most = std::max(most, linear->workspace_bytes(m));
  QB_ASSIGN(workspace_, workspace_buffer_.at_least(most));
  workspace_bytes_ = most;
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
  const int64_t rows = pass_.count();
  embedding_.gather(batch.ids.subspan(static_cast<size_t>(pass_.begin), static_cast<size_t>(rows)), b_.x);
  for (size_t r = 0; r < pass_.runs.size(); ++r) {
    const layer::AttentionRun& run = pass_.runs[r];
    const auto positions = batch.positions.subspan(static_cast<size_t>(pass_.begin + run.first_row), static_cast<size_t>(run.count));
    const int64_t at = run.first_row * c_.rope.half();
    c_.rope.table(positions, rope_length(batch, pass_.sequences[r]), b_.cos + at, b_.sin + at);
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    attend(blocks_[i], static_cast<int64_t>(i), cache);
    feed_forward(blocks_[i]);
  }
  const auto wanted = static_cast<int64_t>(pass_.wanted.size());
  if (wanted == 0) return;
  for (int64_t i = 0; i < wanted; ++i)
    layer::rms_norm(b_.x + pass_.wanted[static_cast<size_t>(i)] * c_.hidden, norm_, c_.eps, 1, c_.hidden, b_.normed + i * c_.hidden, isa_, pool_);
  apply(head_, b_.normed, logits, wanted);
}

void Decoder::attend(const Block& block, int64_t index, KvCache& cache) {
  const int64_t rows = pass_.count();
  layer::rms_norm(b_.x, block.input_norm, c_.eps, rows, c_.hidden, b_.normed, isa_, pool_);
  apply(block.q, b_.normed, b_.q, rows);
  apply(block.k, b_.normed, b_.k, rows);
  apply(block.v, b_.normed, b_.v, rows);
  if (block.q_norm != nullptr) layer::rms_norm(b_.q, block.q_norm, c_.eps, rows * c_.heads, c_.head_dim, b_.q, isa_, pool_);
  if (block.k_norm != nullptr) layer::rms_norm(b_.k, block.k_norm, c_.eps, rows * c_.kv_heads, c_.head_dim, b_.k, isa_, pool_);
  const layer::KvLayer kv{.keys = cache.keys(index, 0),
                          .values = cache.values(index, 0),
                          .block_stride = cache.block_stride(),
                          .elem = cache.elem(),
                          .kv_heads = c_.kv_heads,
                          .head_dim = c_.head_dim,
                          .k_scale = block.k_scale,
                          .v_scale = block.v_scale,
                          .through_e4m3 = reference_ && quantized_kv_};
  struct Call {
    Decoder& d;
    const layer::KvLayer& kv;
  } const call{*this, kv};
  const auto store = [&call](int64_t begin, int64_t end) {
    const DecoderConfig& c = call.d.c_;
    const Buffers& b = call.d.b_;
    const int64_t half = c.rope.half();
    for (const layer::AttentionRun& run : call.d.pass_.runs)
      for (int64_t row = std::max(begin, run.first_row); row < std::min(end, run.first_row + run.count); ++row) {
        layer::rotate(b.q + row * c.q_width(), c.heads, half, b.cos + row * half, b.sin + row * half);
        layer::rotate(b.k + row * c.kv_width(), c.kv_heads, half, b.cos + row * half, b.sin + row * half);
        layer::store_kv(call.kv, run.table, run.first_position + row - run.first_row, b.k + row * c.kv_width(), b.v + row * c.kv_width());
      }
  };
  if (rows == 1) {
    store(0, 1);
  } else {
    pool_.ranges(rows, 1, store);
  }
  const layer::AttentionArgs args{.kv = kv, .heads = c_.heads, .window = block.window, .q = b_.q, .runs = pass_.runs};
  if (reference_) {
    layer::attention_reference(args, pool_);
  } else {
    layer::attention(args, isa_, pool_);
  }
  apply(block.o, b_.q, b_.normed, rows);
  add(b_.normed);
}

void Decoder::feed_forward(const Block& block) {
  const int64_t rows = pass_.count();
  layer::rms_norm(b_.x, block.post_norm, c_.eps, rows, c_.hidden, b_.normed, isa_, pool_);
  apply(block.gate, b_.normed, b_.gate, rows);
  apply(block.up, b_.normed, b_.up, rows);
  layer::silu_mul(b_.gate, b_.up, rows * intermediate_, isa_, pool_);
  apply(block.down, b_.gate, b_.normed, rows);
  add(b_.normed);
}

void Decoder::add(const float* y) {
  float* x = b_.x;
  const int64_t count = pass_.count() * c_.hidden;
  for (int64_t i = 0; i < count; ++i) x[i] += y[i];
}

Result<std::unique_ptr<Model>> load_decoder(const Loading& loading) {
  const Json* config = loading.package.document("config.json");
  if (config == nullptr) return Error{Errc::invalid_argument, "config.json is missing"};
  QB_ASSIGN(DecoderConfig c, read_decoder_config(*config, loading.checkpoint.topology));
  auto model = std::make_unique<Decoder>(std::move(c), loading);
  QB_TRY(model->load(loading));
  return std::unique_ptr<Model>(std::move(model));
}

constexpr std::string_view families[] = {"llama", "mistral", "qwen2", "qwen3"};

}  // namespace

// clang-format off
QB_MODEL(decoder) = {
    .name = "decoder", .families = families, .load = load_decoder};
// clang-format on

}  // namespace qb::model

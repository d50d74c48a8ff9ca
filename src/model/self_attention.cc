#include "model/self_attention.h"

#include <algorithm>

#include "layer/norm.h"

namespace qb::model {
namespace {

using layer::Linear;

class SelfAttention final : public Sublayer {
 public:
  SelfAttention(std::string path, const AttentionSpec& spec) : path_(std::move(path)), s_(spec) {}

  Result<void> load(Loader& l) {
    const int64_t q = s_.heads * s_.head_dim, kv = s_.kv_heads * s_.head_dim;
    fused_ = l.find(path_ + ".qkv_proj") != nullptr;
    if (fused_) {
      QB_ASSIGN(q_, l.linear(path_ + ".qkv_proj", q + 2 * kv, s_.hidden));
    } else {
      QB_ASSIGN(q_, l.linear(path_ + ".q_proj", q, s_.hidden));
      QB_ASSIGN(k_, l.linear(path_ + ".k_proj", kv, s_.hidden));
      QB_ASSIGN(v_, l.linear(path_ + ".v_proj", kv, s_.hidden));
    }
    QB_ASSIGN(o_, l.linear(path_ + ".o_proj", s_.hidden, q));
    if (l.find(path_ + ".q_norm") != nullptr) {
      QB_ASSIGN(q_norm_, l.norm(path_ + ".q_norm", s_.head_dim, s_.norm_plus));
    }
    if (l.find(path_ + ".k_norm") != nullptr) {
      QB_ASSIGN(k_norm_, l.norm(path_ + ".k_norm", s_.head_dim, s_.norm_plus));
    }
    if (s_.sinks) {
      QB_ASSIGN(sinks_, l.plain(path_, "sinks", s_.heads));
    }
    QB_ASSIGN(k_scales_, l.kv_scales(path_, ir::Role::k_scale, ir::Role::k_bias));
    QB_ASSIGN(v_scales_, l.kv_scales(path_, ir::Role::v_scale, ir::Role::v_bias));
    return {};
  }

  int64_t scratch_per_row() const override { return (fused_ ? 2 : 1) * (s_.heads + 2 * s_.kv_heads) * s_.head_dim; }

  const Linear& first() const override { return q_; }
  void add_linears(NamedLinears& out) const override {
    if (fused_) {
      out.emplace_back(path_ + ".qkv_proj", &q_);
    } else {
      out.emplace_back(path_ + ".q_proj", &q_);
      out.emplace_back(path_ + ".k_proj", &k_);
      out.emplace_back(path_ + ".v_proj", &v_);
    }
    out.emplace_back(path_ + ".o_proj", &o_);
  }

  void run(const Step& step, float* x, float* scratch) override {
    const int64_t rows = step.pass.count(), q_width = s_.heads * s_.head_dim, kv_width = s_.kv_heads * s_.head_dim;
    const layer::Tools& t = step.tools;
    float* const q = scratch;
    float* const k = q + rows * q_width;
    float* const v = k + rows * kv_width;
    if (fused_) {
      float* const all = v + rows * kv_width;
      q_.run(x, rows, all, t.workspace, t.pool);
      for (int64_t row = 0; row < rows; ++row) {
        const float* from = all + row * (q_width + 2 * kv_width);
        std::copy_n(from, q_width, q + row * q_width);
        std::copy_n(from + q_width, kv_width, k + row * kv_width);
        std::copy_n(from + q_width + kv_width, kv_width, v + row * kv_width);
      }
    } else {
      const Linear::Product products[] = {{&q_, q}, {&k_, k}, {&v_, v}};
      Linear::run(products, x, rows, t.workspace, t.pool);
    }
    t.pool.expect(o_.codes());
    if (q_norm_ != nullptr) layer::rms_norm(q, q_norm_, s_.eps, rows * s_.heads, s_.head_dim, q, t.isa(), t.pool);
    if (k_norm_ != nullptr) layer::rms_norm(k, k_norm_, s_.eps, rows * s_.kv_heads, s_.head_dim, k, t.isa(), t.pool);
    const layer::KvLayer kv = step.kv(s_.kv_heads, s_.head_dim, k_scales_, v_scales_);
    const Step::Turns& turns = step.ropes[s_.rope];
    step.for_rows([&](int64_t row, int64_t position, std::span<const int32_t> table) {
      const float *cos = turns.cos + row * turns.half, *sin = turns.sin + row * turns.half;
      layer::rotate(q + row * q_width, s_.heads, s_.head_dim, turns.half, cos, sin);
      layer::rotate(k + row * kv_width, s_.kv_heads, s_.head_dim, turns.half, cos, sin);
      layer::store_kv(kv, table, position, k + row * kv_width, v + row * kv_width);
    });
    k_scales_.observe(k, rows, kv_width);
    v_scales_.observe(v, rows, kv_width);
    step.attend({.kv = kv, .heads = s_.heads, .window = s_.window, .scale = s_.scale, .softcap = s_.softcap, .sinks = sinks_, .q = q, .runs = step.pass.runs});
    o_.run(q, rows, x, t.workspace, t.pool);
  }

 private:
  std::string path_;
  AttentionSpec s_;
  Linear q_, k_, v_, o_;
  bool fused_ = false;  // all three are in q_
  const float *q_norm_ = nullptr, *k_norm_ = nullptr, *sinks_ = nullptr;
  layer::KvScales k_scales_, v_scales_;
};

}  // namespace

Result<std::unique_ptr<Sublayer>> load_self_attention(Loader& loader, const std::string& path, const AttentionSpec& spec) {
  auto out = std::make_unique<SelfAttention>(path, spec);
  QB_TRY(out->load(loader));
  return std::unique_ptr<Sublayer>(std::move(out));
}

}  // namespace qb::model

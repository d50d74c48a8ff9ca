#include "model/latent_attention.h"

#include <algorithm>

#include "layer/norm.h"

namespace qb::model {
namespace {

using layer::Linear;

class LatentAttention final : public Sublayer {
 public:
  LatentAttention(std::string path, const LatentSpec& spec) : path_(std::move(path)), s_(spec) {}

  Result<void> load(Loader& l) {
    const int64_t q_width = s_.heads * s_.key();
    if (s_.q_rank > 0) {
      QB_ASSIGN(q_a_, l.linear(path_ + ".q_a_proj", s_.q_rank, s_.hidden));
      QB_ASSIGN(q_norm_, l.norm(path_ + ".q_a_layernorm", s_.q_rank));
      QB_ASSIGN(q_, l.linear(path_ + ".q_b_proj", q_width, s_.q_rank));
    } else {
      QB_ASSIGN(q_, l.linear(path_ + ".q_proj", q_width, s_.hidden));
    }
    QB_ASSIGN(kv_a_, l.linear(path_ + ".kv_a_proj_with_mqa", s_.kv_rank + s_.rope, s_.hidden));
    QB_ASSIGN(kv_norm_, l.norm(path_ + ".kv_a_layernorm", s_.kv_rank));
    QB_ASSIGN(kv_b_, l.linear(path_ + ".kv_b_proj", s_.heads * (s_.nope + s_.v), s_.kv_rank));
    QB_ASSIGN(o_, l.linear(path_ + ".o_proj", s_.hidden, s_.heads * s_.v));
    QB_ASSIGN(k_scales_, l.kv_scales(path_, ir::Role::k_scale, ir::Role::k_bias));
    QB_ASSIGN(v_scales_, l.kv_scales(path_, ir::Role::v_scale, ir::Role::v_bias));
    return {};
  }

  // Queries, keys and values as wide as keys, and what they are made from.
  int64_t scratch_per_row() const override { return 3 * s_.heads * s_.key() + s_.q_rank + 2 * s_.kv_rank + s_.rope + s_.heads * (s_.nope + s_.v); }

  const Linear& first() const override { return s_.q_rank > 0 ? q_a_ : q_; }
  void add_linears(NamedLinears& out) const override {
    if (s_.q_rank > 0) out.emplace_back(path_ + ".q_a_proj", &q_a_);
    out.emplace_back(path_ + (s_.q_rank > 0 ? ".q_b_proj" : ".q_proj"), &q_);
    out.emplace_back(path_ + ".kv_a_proj_with_mqa", &kv_a_);
    out.emplace_back(path_ + ".kv_b_proj", &kv_b_);
    out.emplace_back(path_ + ".o_proj", &o_);
  }

  void run(const Step& step, float* x, float* scratch) override {
    const int64_t rows = step.pass.count(), width = s_.heads * s_.key();
    const layer::Tools& t = step.tools;
    float* next = scratch;
    const auto take = [&](int64_t per_row) {
      float* const here = next;
      next += rows * per_row;
      return here;
    };
    float *const q = take(width), *const keys = take(width), *const values = take(width);
    float *const q_a = take(s_.q_rank), *const kv_a = take(s_.kv_rank + s_.rope), *const latent = take(s_.kv_rank),
                 *const kv = take(s_.heads * (s_.nope + s_.v));
    const Linear::Product products[] = {s_.q_rank > 0 ? Linear::Product{&q_a_, q_a} : Linear::Product{&q_, q}, {&kv_a_, kv_a}};
    Linear::run(products, x, rows, t.workspace, t.pool);
    if (s_.q_rank > 0) {
      layer::rms_norm(q_a, q_norm_, s_.eps, rows, s_.q_rank, q_a, t.isa(), t.pool);
      q_.run(q_a, rows, q, t.workspace, t.pool);
    }
    for (int64_t row = 0; row < rows; ++row) std::copy_n(kv_a + row * (s_.kv_rank + s_.rope), s_.kv_rank, latent + row * s_.kv_rank);
    layer::rms_norm(latent, kv_norm_, s_.eps, rows, s_.kv_rank, latent, t.isa(), t.pool);
    kv_b_.run(latent, rows, kv, t.workspace, t.pool);

    t.pool.expect(o_.codes());
    const layer::KvLayer cached = step.kv(s_.heads, s_.key(), k_scales_, v_scales_);
    const Step::Turns& turns = step.ropes[0];
    step.for_rows([&](int64_t row, int64_t position, std::span<const int32_t> table) {
      float *const k = keys + row * width, *const v = values + row * width, *const turning = kv_a + row * (s_.kv_rank + s_.rope) + s_.kv_rank;
      rotate(q + row * width + s_.nope, s_.heads, turns, row);
      rotate(turning, 1, turns, row);
      const float* from = kv + row * s_.heads * (s_.nope + s_.v);
      for (int64_t h = 0; h < s_.heads; ++h, from += s_.nope + s_.v) {
        std::copy_n(turning, s_.rope, std::copy_n(from, s_.nope, k + h * s_.key()));
        std::fill_n(std::copy_n(from + s_.nope, s_.v, v + h * s_.key()), s_.key() - s_.v, 0.0F);
      }
      layer::store_kv(cached, table, position, k, v);
    });
    k_scales_.observe(keys, rows, width);
    v_scales_.observe(values, rows, width);
    step.attend({.kv = cached, .heads = s_.heads, .scale = s_.scale, .q = q, .runs = step.pass.runs});
    float* const out = keys;  // done with
    for (int64_t i = 0; i < rows * s_.heads; ++i) std::copy_n(q + i * s_.key(), s_.v, out + i * s_.v);
    o_.run(out, rows, x, t.workspace, t.pool);
  }

 private:
  void rotate(float* x, int64_t heads, const Step::Turns& turns, int64_t row) const {
    const float *cos = turns.cos + row * turns.half, *sin = turns.sin + row * turns.half;
    if (s_.neighbours) {
      layer::rotate_neighbours(x, heads, s_.key(), turns.half, cos, sin);
    } else {
      layer::rotate(x, heads, s_.key(), turns.half, cos, sin);
    }
  }

  std::string path_;
  LatentSpec s_;
  Linear q_a_, q_, kv_a_, kv_b_, o_;  // without a q_rank, q_ alone makes the queries
  const float *q_norm_ = nullptr, *kv_norm_ = nullptr;
  layer::KvScales k_scales_, v_scales_;
};

}  // namespace

Result<std::unique_ptr<Sublayer>> load_latent_attention(Loader& loader, const std::string& path, const LatentSpec& spec) {
  auto out = std::make_unique<LatentAttention>(path, spec);
  QB_TRY(out->load(loader));
  return std::unique_ptr<Sublayer>(std::move(out));
}

}  // namespace qb::model

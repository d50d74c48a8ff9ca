// Sizes and rows that decoder families share (Llama's names).
#pragma once

#include <array>

#include "arch/family.h"

namespace qb::arch {

constexpr Dim size(Key key) {
  return {.terms = {key}};
}
inline constexpr Dim dim_hidden = size(Key::hidden), dim_intermediate = size(Key::intermediate), dim_vocab = size(Key::vocab), dim_head = size(Key::head_dim);
inline constexpr Dim dim_q{.times = Key::head_dim, .terms = {Key::heads}}, dim_kv{.times = Key::head_dim, .terms = {Key::kv_heads}};

constexpr ModuleRow norm_row(std::string_view suffix, Dim n = dim_hidden) {
  return {.suffix = suffix, .kind = Kind::norm, .n = n};
}
// A linear that reads a norm's output and is cut along n.
constexpr ModuleRow column_row(std::string_view suffix, Dim n, std::string_view fused, std::string_view input_norm) {
  return {.suffix = suffix, .kind = Kind::linear, .n = n, .k = dim_hidden, .parallel = Parallel::columns, .fused = fused, .input_norm = input_norm};
}
// A linear back into the residual stream, cut along k.
constexpr ModuleRow row_row(std::string_view suffix, Dim k, std::string_view fed_by = {}) {
  return {.suffix = suffix, .kind = Kind::linear, .n = dim_hidden, .k = k, .parallel = Parallel::rows, .fed_by = fed_by};
}
constexpr ModuleRow biased(Given bias, ModuleRow row) {
  row.bias = bias;
  return row;
}
constexpr ModuleRow in(Layers layers, ModuleRow row) {
  row.layers = layers;
  return row;
}

inline constexpr ModuleRow row_input_norm = norm_row("input_layernorm");
inline constexpr ModuleRow row_attention{.suffix = "self_attn", .kind = Kind::attention, .optional = true};
inline constexpr ModuleRow row_q = biased(Given::attention_bias, column_row("self_attn.q_proj", dim_q, "self_attn.qkv_proj", "input_layernorm"));
inline constexpr ModuleRow row_k = biased(Given::attention_bias, column_row("self_attn.k_proj", dim_kv, "self_attn.qkv_proj", "input_layernorm"));
inline constexpr ModuleRow row_v = biased(Given::attention_bias, column_row("self_attn.v_proj", dim_kv, "self_attn.qkv_proj", "input_layernorm"));
inline constexpr ModuleRow row_o = biased(Given::attention_bias, row_row("self_attn.o_proj", dim_q, "self_attn.v_proj"));
// Norms over each head of q and k.
inline constexpr ModuleRow row_q_norm = norm_row("self_attn.q_norm", dim_head), row_k_norm = norm_row("self_attn.k_norm", dim_head);
// Frequencies that early exporters stored; engines recompute them.
inline constexpr ModuleRow row_rotary{.suffix = "self_attn.rotary_emb", .kind = Kind::other, .optional = true};
inline constexpr ModuleRow row_post_norm = norm_row("post_attention_layernorm");
inline constexpr ModuleRow row_gate = biased(Given::mlp_bias, column_row("mlp.gate_proj", dim_intermediate, "mlp.gate_up_proj", "post_attention_layernorm"));
inline constexpr ModuleRow row_up = biased(Given::mlp_bias, column_row("mlp.up_proj", dim_intermediate, "mlp.gate_up_proj", "post_attention_layernorm"));
inline constexpr ModuleRow row_down = biased(Given::mlp_bias, row_row("mlp.down_proj", dim_intermediate, "mlp.up_proj"));

inline constexpr std::array decoder_layer{row_input_norm, row_attention, row_q, row_k, row_v, row_o, row_rotary, row_post_norm, row_gate, row_up, row_down};

inline constexpr std::array decoder_global{
    ModuleRow{.suffix = "model.embed_tokens", .kind = Kind::embedding, .n = dim_vocab, .k = dim_hidden, .parallel = Parallel::vocabulary},
    norm_row("model.norm"),
    ModuleRow{.suffix = "lm_head", .kind = Kind::linear, .n = dim_vocab, .k = dim_hidden, .parallel = Parallel::vocabulary, .input_norm = "model.norm"},
};

}  // namespace qb::arch

// Registers a family: QB_FAMILY(llama) = {...}; the build's manifest finds the line.
#define QB_FAMILY(stem)              \
  extern const Family family_##stem; \
  const Family family_##stem

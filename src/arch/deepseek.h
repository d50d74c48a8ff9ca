// Rows of DeepSeek's second and third generation: latent attention (keys and values come out of one narrow vector, queries too in the large models), dense
// layers first, then experts beside ones that see every token.
#pragma once

#include "arch/experts.h"

namespace qb::arch {

inline constexpr Dim dim_mla_q{.times = Key::heads, .terms = {Key::nope_dim, Key::rope_dim}};
inline constexpr Dim dim_mla_kv{.times = Key::heads, .terms = {Key::nope_dim, Key::v_dim}};
inline constexpr Dim dim_mla_o{.times = Key::heads, .terms = {Key::v_dim}};
inline constexpr Dim dim_mla_down{.terms = {Key::kv_rank, Key::rope_dim}};
inline constexpr Dim dim_shared{.times = Key::shared_experts, .terms = {Key::expert_intermediate}};

constexpr ModuleRow with(Key key, ModuleRow row) {
  row.with = key;
  return row;
}
constexpr ModuleRow up_row(std::string_view suffix, Dim n, Dim k, std::string_view input_norm) {
  return {.suffix = suffix, .kind = Kind::linear, .n = n, .k = k, .parallel = Parallel::columns, .input_norm = input_norm};
}
// Out of the residual stream into a narrow vector: every rank has the whole of it.
constexpr ModuleRow down_row(std::string_view suffix, Dim n) {
  return {.suffix = suffix, .kind = Kind::linear, .n = n, .k = dim_hidden, .fused = "self_attn.fused_qkv_a_proj", .input_norm = "input_layernorm"};
}
constexpr ModuleRow direct_q() {
  ModuleRow row = up_row("self_attn.q_proj", dim_mla_q, dim_hidden, "input_layernorm");
  row.without = Key::q_rank;
  return row;
}
constexpr ModuleRow biased_router() {
  ModuleRow row = row_router;
  row.plain = "e_score_correction_bias";
  row.plain_given = Given::corrected;
  return row;
}
constexpr ModuleRow shared(ModuleRow row) {
  row.layers = Layers::sparse;
  row.with = Key::shared_experts;
  return row;
}

inline constexpr std::array deepseek_layer{
    row_input_norm,
    row_attention,
    direct_q(),
    with(Key::q_rank, down_row("self_attn.q_a_proj", size(Key::q_rank))),
    with(Key::q_rank, norm_row("self_attn.q_a_layernorm", size(Key::q_rank))),
    with(Key::q_rank, up_row("self_attn.q_b_proj", dim_mla_q, size(Key::q_rank), "self_attn.q_a_layernorm")),
    down_row("self_attn.kv_a_proj_with_mqa", dim_mla_down),
    norm_row("self_attn.kv_a_layernorm", size(Key::kv_rank)),
    up_row("self_attn.kv_b_proj", dim_mla_kv, size(Key::kv_rank), "self_attn.kv_a_layernorm"),
    row_row("self_attn.o_proj", dim_mla_o),
    row_rotary,
    row_post_norm,
    row_dense_gate,
    row_dense_up,
    row_dense_down,
    biased_router(),
    row_expert_gate,
    row_expert_up,
    row_expert_down,
    shared(column_row("mlp.shared_experts.gate_proj", dim_shared, "mlp.shared_experts.gate_up_proj", "post_attention_layernorm")),
    shared(column_row("mlp.shared_experts.up_proj", dim_shared, "mlp.shared_experts.gate_up_proj", "post_attention_layernorm")),
    shared(row_row("mlp.shared_experts.down_proj", dim_shared, "mlp.shared_experts.up_proj")),
};

// A layer that predicts one token more, for speculative decoding: its input is the next token's embedding beside the last layer's output.
inline constexpr std::array deepseek_predictor{
    ModuleRow{.suffix = "embed_tokens", .kind = Kind::embedding, .n = dim_vocab, .k = dim_hidden, .parallel = Parallel::vocabulary},
    norm_row("enorm"),
    norm_row("hnorm"),
    ModuleRow{.suffix = "eh_proj", .kind = Kind::linear, .n = dim_hidden, .k = {.terms = {Key::hidden, Key::hidden}}, .exempt = true},
    norm_row("shared_head.norm"),
    ModuleRow{.suffix = "shared_head.head", .kind = Kind::linear, .n = dim_vocab, .k = dim_hidden, .parallel = Parallel::vocabulary, .exempt = true},
};

}  // namespace qb::arch

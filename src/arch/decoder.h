// Rows that the dense decoder families share (Llama's names).
#pragma once

#include <array>

#include "arch/family.h"

namespace qb::arch {

inline constexpr ModuleRow row_input_norm{.suffix = "input_layernorm", .kind = Kind::norm, .n = Dim::hidden, .k = Dim::none};
inline constexpr ModuleRow row_attention{.suffix = "self_attn", .kind = Kind::attention, .n = Dim::none, .k = Dim::none, .optional = true};
inline constexpr ModuleRow row_q{.suffix = "self_attn.q_proj",
                                 .kind = Kind::linear,
                                 .n = Dim::q_width,
                                 .k = Dim::hidden,
                                 .parallel = Parallel::columns,
                                 .fused = "self_attn.qkv_proj",
                                 .input_norm = "input_layernorm"};
inline constexpr ModuleRow row_k{.suffix = "self_attn.k_proj",
                                 .kind = Kind::linear,
                                 .n = Dim::kv_width,
                                 .k = Dim::hidden,
                                 .parallel = Parallel::columns,
                                 .fused = "self_attn.qkv_proj",
                                 .input_norm = "input_layernorm"};
inline constexpr ModuleRow row_v{.suffix = "self_attn.v_proj",
                                 .kind = Kind::linear,
                                 .n = Dim::kv_width,
                                 .k = Dim::hidden,
                                 .parallel = Parallel::columns,
                                 .fused = "self_attn.qkv_proj",
                                 .input_norm = "input_layernorm"};
inline constexpr ModuleRow row_o{.suffix = "self_attn.o_proj", .kind = Kind::linear, .n = Dim::hidden, .k = Dim::q_width, .parallel = Parallel::rows};
// Frequencies that early exporters stored; engines recompute them.
inline constexpr ModuleRow row_rotary{.suffix = "self_attn.rotary_emb", .kind = Kind::other, .n = Dim::none, .k = Dim::none, .optional = true};
inline constexpr ModuleRow row_post_norm{.suffix = "post_attention_layernorm", .kind = Kind::norm, .n = Dim::hidden, .k = Dim::none};
inline constexpr ModuleRow row_gate{.suffix = "mlp.gate_proj",
                                    .kind = Kind::linear,
                                    .n = Dim::intermediate,
                                    .k = Dim::hidden,
                                    .parallel = Parallel::columns,
                                    .fused = "mlp.gate_up_proj",
                                    .input_norm = "post_attention_layernorm"};
inline constexpr ModuleRow row_up{.suffix = "mlp.up_proj",
                                  .kind = Kind::linear,
                                  .n = Dim::intermediate,
                                  .k = Dim::hidden,
                                  .parallel = Parallel::columns,
                                  .fused = "mlp.gate_up_proj",
                                  .input_norm = "post_attention_layernorm"};
inline constexpr ModuleRow row_down{.suffix = "mlp.down_proj", .kind = Kind::linear, .n = Dim::hidden, .k = Dim::intermediate, .parallel = Parallel::rows};

inline constexpr std::array decoder_layer{row_input_norm, row_attention, row_q, row_k, row_v, row_o, row_rotary, row_post_norm, row_gate, row_up, row_down};

inline constexpr std::array decoder_global{
    ModuleRow{.suffix = "model.embed_tokens", .kind = Kind::embedding, .n = Dim::vocab, .k = Dim::hidden, .parallel = Parallel::vocabulary},
    ModuleRow{.suffix = "model.norm", .kind = Kind::norm, .n = Dim::hidden, .k = Dim::none},
    ModuleRow{.suffix = "lm_head", .kind = Kind::linear, .n = Dim::vocab, .k = Dim::hidden, .parallel = Parallel::vocabulary, .input_norm = "model.norm"},
};

}  // namespace qb::arch

// Registers a family: QB_FAMILY(llama) = {...}; the build's manifest finds the line.
#define QB_FAMILY(stem)              \
  extern const Family family_##stem; \
  const Family family_##stem

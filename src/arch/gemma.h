// Rows of Gemma's second and third generation: norms before and after both halves of a layer. The one after the attention has the name of Llama's norm before
// the feed-forward part, which reads pre_feedforward_layernorm here.
#pragma once

#include "arch/decoder.h"

namespace qb::arch {

inline constexpr ModuleRow row_gemma_gate = column_row("mlp.gate_proj", dim_intermediate, "mlp.gate_up_proj", "pre_feedforward_layernorm");
inline constexpr ModuleRow row_gemma_up = column_row("mlp.up_proj", dim_intermediate, "mlp.gate_up_proj", "pre_feedforward_layernorm");
inline constexpr ModuleRow row_pre_feedforward = norm_row("pre_feedforward_layernorm"), row_post_feedforward = norm_row("post_feedforward_layernorm");

}  // namespace qb::arch

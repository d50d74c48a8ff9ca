// Rows that families with experts share: a router and, for each expert, the three linears of a gated feed-forward part.
#pragma once

#include "arch/decoder.h"

namespace qb::arch {

inline constexpr Dim dim_expert = size(Key::expert_intermediate);

// What scores the experts: a few rows, and an error in it sends tokens elsewhere.
constexpr ModuleRow router_row(std::string_view suffix, Dim n = size(Key::experts)) {
  return {.suffix = suffix, .kind = Kind::linear, .n = n, .k = dim_hidden, .input_norm = "post_attention_layernorm", .exempt = true, .layers = Layers::sparse};
}
inline constexpr ModuleRow row_router = router_row("mlp.gate");
// Stacked as transformers has them in memory.
constexpr ModuleRow expert_row(std::string_view stacked, ModuleRow row) {
  row.layers = Layers::sparse;
  row.stacked = stacked;
  return row;
}
inline constexpr std::string_view stacked_gate_up = "mlp.experts.gate_up_proj", stacked_down = "mlp.experts.down_proj";
inline constexpr ModuleRow row_expert_gate =
    expert_row(stacked_gate_up, column_row("mlp.experts.{}.gate_proj", dim_expert, "mlp.experts.{}.gate_up_proj", "post_attention_layernorm"));
inline constexpr ModuleRow row_expert_up =
    expert_row(stacked_gate_up, column_row("mlp.experts.{}.up_proj", dim_expert, "mlp.experts.{}.gate_up_proj", "post_attention_layernorm"));
inline constexpr ModuleRow row_expert_down = expert_row(stacked_down, row_row("mlp.experts.{}.down_proj", dim_expert, "mlp.experts.{}.up_proj"));

// The dense feed-forward part of the layers that have one.
inline constexpr ModuleRow row_dense_gate = in(Layers::dense, row_gate), row_dense_up = in(Layers::dense, row_up), row_dense_down = in(Layers::dense, row_down);

}  // namespace qb::arch

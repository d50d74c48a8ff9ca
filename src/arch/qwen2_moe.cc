// Qwen1.5-MoE and Qwen2-57B-A14B: experts, and one that sees every token behind a gate of its own; layers without experts as decoder_sparse_step and
// mlp_only_layers say.
#include "arch/experts.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"Qwen2MoeForCausalLM"};
constexpr Dim shared = size(Key::shared_intermediate);
constexpr std::array layer{
    row_input_norm,
    row_attention,
    biased(Given::always, row_q),
    biased(Given::always, row_k),
    biased(Given::always, row_v),
    row_o,
    row_rotary,
    row_post_norm,
    row_dense_gate,
    row_dense_up,
    row_dense_down,
    row_router,
    row_expert_gate,
    row_expert_up,
    row_expert_down,
    in(Layers::sparse, column_row("mlp.shared_expert.gate_proj", shared, "mlp.shared_expert.gate_up_proj", "post_attention_layernorm")),
    in(Layers::sparse, column_row("mlp.shared_expert.up_proj", shared, "mlp.shared_expert.gate_up_proj", "post_attention_layernorm")),
    in(Layers::sparse, row_row("mlp.shared_expert.down_proj", shared, "mlp.shared_expert.up_proj")),
    router_row("mlp.shared_expert_gate", {.times = Key::one, .terms = {Key::one}}),
};
}  // namespace

// clang-format off
QB_FAMILY(qwen2_moe) = {
    .name = "qwen2_moe", .architectures = architectures, .layer = layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

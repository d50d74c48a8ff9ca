// Qwen3 with experts (30B-A3B, 235B-A22B): Qwen3's attention; layers without experts as decoder_sparse_step and mlp_only_layers say.
#include "arch/experts.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"Qwen3MoeForCausalLM"};
constexpr std::array layer{
    row_input_norm, row_attention,  row_q,        row_k,          row_v,      row_o,           row_q_norm,    row_k_norm,      row_rotary,
    row_post_norm,  row_dense_gate, row_dense_up, row_dense_down, row_router, row_expert_gate, row_expert_up, row_expert_down,
};
}  // namespace

// clang-format off
QB_FAMILY(qwen3_moe) = {
    .name = "qwen3_moe", .architectures = architectures, .layer = layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

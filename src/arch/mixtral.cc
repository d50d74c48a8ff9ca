// Mixtral: Mistral's attention, every feed-forward part a choice of experts. w1 is the gate, w3 the up, w2 the down projection; files that were written from
// the modules in memory, or by tools without the renaming, have Llama's words.
#include "arch/experts.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"MixtralForCausalLM"};

constexpr ModuleRow expert(std::string_view stacked, ModuleRow row, std::string_view half_renamed, std::string_view in_memory) {
  row = expert_row(stacked, row);
  row.spelled = {half_renamed, in_memory};
  return row;
}
constexpr ModuleRow router() {
  ModuleRow row = router_row("block_sparse_moe.gate");
  row.spelled = {"mlp.gate"};
  return row;
}
constexpr std::string_view both = "block_sparse_moe.experts.{}.w13", norm = "post_attention_layernorm";

constexpr std::array layer{
    row_input_norm,
    row_attention,
    row_q,
    row_k,
    row_v,
    row_o,
    row_rotary,
    row_post_norm,
    router(),
    expert(stacked_gate_up, column_row("block_sparse_moe.experts.{}.w1", dim_intermediate, both, norm), "block_sparse_moe.experts.{}.gate_proj",
           "mlp.experts.{}.gate_proj"),
    expert(stacked_down, row_row("block_sparse_moe.experts.{}.w2", dim_intermediate, "block_sparse_moe.experts.{}.w3"), "block_sparse_moe.experts.{}.down_proj",
           "mlp.experts.{}.down_proj"),
    expert(stacked_gate_up, column_row("block_sparse_moe.experts.{}.w3", dim_intermediate, both, norm), "block_sparse_moe.experts.{}.up_proj",
           "mlp.experts.{}.up_proj"),
};
}  // namespace

// clang-format off
QB_FAMILY(mixtral) = {
    .name = "mixtral", .architectures = architectures, .layer = layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

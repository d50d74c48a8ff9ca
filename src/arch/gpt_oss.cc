// gpt-oss: attention with biases and a learned sink for each head; all experts of a layer stacked in one tensor for gate and up and one for down. Of an
// expert's outputs of gate_up_proj the even ones are the gate's, the odd ones up's. Tools that take linears alone write each expert's for itself.
#include "arch/experts.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"GptOssForCausalLM"};
constexpr ModuleRow attention_with_sinks() {
  ModuleRow row = row_attention;
  row.plain = "sinks";
  row.plain_given = Given::always;
  return row;
}
// To up's outputs 1 is added before they are multiplied: nothing is handed through them.
constexpr ModuleRow expert(ModuleRow row) {
  (row.parallel == Parallel::columns ? row.n : row.k) = dim_intermediate;
  row.fed_by = {};
  return row;
}
constexpr std::array layer{
    row_input_norm,
    attention_with_sinks(),
    biased(Given::always, row_q),
    biased(Given::always, row_k),
    biased(Given::always, row_v),
    biased(Given::always, row_o),
    row_rotary,
    row_post_norm,
    biased(Given::always, router_row("mlp.router")),
    biased(Given::always, expert(row_expert_gate)),
    biased(Given::always, expert(row_expert_up)),
    biased(Given::always, expert(row_expert_down)),
};
}  // namespace

// clang-format off
QB_FAMILY(gpt_oss) = {
    .name = "gpt_oss", .architectures = architectures, .layer = layer, .global = decoder_global, .usual = {.experts = true}, .interleaved = true,
    .inputs_first = true};
// clang-format on

}  // namespace qb::arch

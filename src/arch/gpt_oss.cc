// gpt-oss: attention with biases and a learned sink for each head; all experts of a layer stacked in one tensor for gate and up and one for down. Of an
// expert's outputs of gate_up_proj the even ones are the gate's, the odd ones up's.
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
constexpr ModuleRow stack(std::string_view suffix, Dim n, Dim k, Parallel parallel) {
  return {.suffix = suffix,
          .kind = Kind::expert,
          .n = n,
          .k = k,
          .parallel = parallel,
          .layers = Layers::sparse,
          .bias = Given::always,
          .interleaved = parallel == Parallel::columns};
}
constexpr Dim dim_gate_up{.terms = {Key::intermediate, Key::intermediate}};
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
    stack("mlp.experts.gate_up_proj", dim_gate_up, dim_hidden, Parallel::columns),
    stack("mlp.experts.down_proj", dim_hidden, dim_intermediate, Parallel::rows),
};
}  // namespace

// clang-format off
QB_FAMILY(gpt_oss) = {
    .name = "gpt_oss", .architectures = architectures, .layer = layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

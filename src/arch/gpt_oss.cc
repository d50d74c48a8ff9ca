// gpt-oss: the modules that are ordinary. Attention has a learned sink for each head; the experts of a layer are stacked.
#include "arch/experts.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"GptOssForCausalLM"};
constexpr ModuleRow attention_with_sinks() {
  ModuleRow row = row_attention;
  row.plain = "sinks";
  return row;
}
constexpr std::array layer{
    row_input_norm, attention_with_sinks(), row_q, row_k, row_v, row_o, row_rotary, row_post_norm, router_row("mlp.router"),
};
}  // namespace

// clang-format off
QB_FAMILY(gpt_oss) = {
    .name = "gpt_oss", .architectures = architectures, .layer = layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

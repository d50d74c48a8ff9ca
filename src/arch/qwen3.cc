// Qwen3, dense: Llama's names with an RMSNorm over each head of q and k.
#include "arch/decoder.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"Qwen3ForCausalLM"};
constexpr std::array layer{
    row_input_norm, row_attention, row_q, row_k, row_v, row_o, row_q_norm, row_k_norm, row_rotary, row_post_norm, row_gate, row_up, row_down,
};
}  // namespace

// clang-format off
QB_FAMILY(qwen3) = {
    .name = "qwen3", .architectures = architectures, .layer = layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

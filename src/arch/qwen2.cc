// Qwen2 and Qwen2.5: Llama's names with biases on q, k and v.
#include "arch/decoder.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"Qwen2ForCausalLM"};
constexpr std::array layer{
    row_input_norm,
    row_attention,
    biased(Given::always, row_q),
    biased(Given::always, row_k),
    biased(Given::always, row_v),
    row_o,
    row_rotary,
    row_post_norm,
    row_gate,
    row_up,
    row_down,
};
}  // namespace

// clang-format off
QB_FAMILY(qwen2) = {
    .name = "qwen2", .architectures = architectures, .layer = layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

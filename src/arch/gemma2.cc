// Gemma 2.
#include "arch/gemma.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"Gemma2ForCausalLM"};
constexpr std::array layer{
    row_input_norm, row_attention,        row_q, row_k, row_v, row_o, row_rotary, row_post_norm, row_pre_feedforward, row_gemma_gate, row_gemma_up,
    row_down,       row_post_feedforward,
};
}  // namespace

// clang-format off
QB_FAMILY(gemma2) = {
    .name = "gemma2", .architectures = architectures, .layer = layer, .global = decoder_global, .tied = true, .norm_plus = 1};
// clang-format on

}  // namespace qb::arch

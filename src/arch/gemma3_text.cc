// Gemma 3, the text model: Gemma 2 with norms over each head of q and k. Inside the multimodal checkpoints its config is a text_config that holds only what
// differs from the configuration class.
#include "arch/gemma.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"Gemma3ForCausalLM"};
constexpr std::array layer{
    row_input_norm,
    row_attention,
    row_q,
    row_k,
    row_v,
    row_o,
    row_q_norm,
    row_k_norm,
    row_rotary,
    row_post_norm,
    row_pre_feedforward,
    row_gemma_gate,
    row_gemma_up,
    row_down,
    row_post_feedforward,
};
constexpr Default defaults[] = {{Key::hidden, 2304}, {Key::intermediate, 9216}, {Key::vocab, 262208},
                                {Key::heads, 8},     {Key::kv_heads, 4},        {Key::head_dim, 256}};
}  // namespace

// clang-format off
QB_FAMILY(gemma3_text) = {
    .name = "gemma3_text", .architectures = architectures, .layer = layer, .global = decoder_global, .defaults = defaults, .tied = true, .norm_plus = 1};
// clang-format on

}  // namespace qb::arch

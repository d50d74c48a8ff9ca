// Phi-3 and Phi-4: Llama with q, k, v in one matrix and gate, up in another, on disk too. One module each: nothing else shares its input.
#include "arch/decoder.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"Phi3ForCausalLM"};
constexpr std::array layer{
    row_input_norm,
    row_attention,
    column_row("self_attn.qkv_proj", {.times = Key::head_dim, .terms = {Key::heads, Key::kv_heads, Key::kv_heads}}, "", "input_layernorm"),
    row_o,
    row_rotary,
    row_post_norm,
    column_row("mlp.gate_up_proj", {.terms = {Key::intermediate, Key::intermediate}}, "", "post_attention_layernorm"),
    row_down,
};
}  // namespace

// clang-format off
QB_FAMILY(phi3) = {
    .name = "phi3", .architectures = architectures, .layer = layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

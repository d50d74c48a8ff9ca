// Qwen2 and Qwen2.5: Llama's names with biases on q, k and v.
#include "arch/decoder.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"Qwen2ForCausalLM"};
}

// clang-format off
QB_FAMILY(qwen2) = {
    .name = "qwen2", .architectures = architectures, .layer = decoder_layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

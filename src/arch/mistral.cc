// Mistral 7B and its successors: Llama's names, a sliding window in some configs.
#include "arch/decoder.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"MistralForCausalLM"};
}

// clang-format off
QB_FAMILY(mistral) = {
    .name = "mistral", .architectures = architectures, .layer = decoder_layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

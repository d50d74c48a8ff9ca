// Llama 1 to 3 and the many models that keep its names (SmolLM2, TinyLlama, Yi).
#include "arch/decoder.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"LlamaForCausalLM"};
}

// clang-format off
QB_FAMILY(llama) = {
    .name = "llama", .architectures = architectures, .layer = decoder_layer, .global = decoder_global};
// clang-format on

}  // namespace qb::arch

// Llama 1 to 3 and the many models that keep its names (SmolLM2, TinyLlama, Yi).
#include "arch/decoder.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"LlamaForCausalLM"};
constexpr Default defaults[] = {{Key::hidden, 4096}, {Key::intermediate, 11008}, {Key::vocab, 32000}, {Key::heads, 32}};
}  // namespace

// clang-format off
QB_FAMILY(llama) = {
    .name = "llama", .architectures = architectures, .layer = decoder_layer, .global = decoder_global, .defaults = defaults};
// clang-format on

}  // namespace qb::arch

// Mistral 7B and its successors: Llama's names, a sliding window in some configs.
#include "arch/decoder.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"MistralForCausalLM"};
constexpr Default defaults[] = {{Key::hidden, 4096}, {Key::intermediate, 14336}, {Key::vocab, 32000}, {Key::heads, 32}, {Key::kv_heads, 8}};
}  // namespace

// clang-format off
QB_FAMILY(mistral) = {
    .name = "mistral", .architectures = architectures, .layer = decoder_layer, .global = decoder_global, .defaults = defaults};
// clang-format on

}  // namespace qb::arch

// Phi-3 and Phi-4: Llama with q, k, v in one matrix and gate, up in another, on disk too.
#include "arch/decoder.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"Phi3ForCausalLM"};
}  // namespace

// clang-format off
QB_FAMILY(phi3) = {
    .name = "phi3", .architectures = architectures, .layer = decoder_layer, .global = decoder_global, .usual = {.projections = true}};
// clang-format on

}  // namespace qb::arch

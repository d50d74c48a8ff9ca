// DeepSeek-V3 and R1, and what is built like them (Moonlight, Kimi-K2).
#include "arch/deepseek.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"DeepseekV3ForCausalLM"};
}

// clang-format off
QB_FAMILY(deepseek_v3) = {
    .name = "deepseek_v3", .architectures = architectures, .layer = deepseek_layer, .global = decoder_global, .predictor = deepseek_predictor};
// clang-format on

}  // namespace qb::arch

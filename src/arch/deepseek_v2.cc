// DeepSeek-V2, V2-Lite and V2.5.
#include "arch/deepseek.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"DeepseekV2ForCausalLM"};
}

// clang-format off
QB_FAMILY(deepseek_v2) = {
    .name = "deepseek_v2", .architectures = architectures, .layer = deepseek_layer, .global = decoder_global, .predictor = deepseek_predictor};
// clang-format on

}  // namespace qb::arch

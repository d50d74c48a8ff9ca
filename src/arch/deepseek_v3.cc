// DeepSeek-V3 and R1, and what is built like them (Moonlight, Kimi-K2).
#include "arch/deepseek.h"

namespace qb::arch {
namespace {
constexpr std::string_view architectures[] = {"DeepseekV3ForCausalLM"};
// Its routers always have their correction, whether or not config.json names the method.
constexpr auto corrected_layer() {
  auto layer = deepseek_layer;
  for (ModuleRow& row : layer)
    if (!row.plain.empty()) row.plain_given = Given::always;
  return layer;
}
constexpr auto layer = corrected_layer();
}  // namespace

// clang-format off
QB_FAMILY(deepseek_v3) = {
    .name = "deepseek_v3", .architectures = architectures, .layer = layer, .global = decoder_global, .predictor = deepseek_predictor};
// clang-format on

}  // namespace qb::arch

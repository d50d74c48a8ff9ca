#include "ir/shorthand.h"

#include <algorithm>
#include <array>
#include <vector>

namespace qb::ir {
namespace {

constexpr std::string_view vllm = "vLLM", modelopt = "ModelOpt", ct = "compressed-tensors";
// ModelOpt: the *_CFG names of modelopt.torch.quantization 0.47. compressed-tensors: the preset names of 0.19.
constexpr std::array table{
    Shorthand{"fp8_per_tensor", "fp8_tensor:fp8_tensor_dyn", vllm},
    Shorthand{"fp8_per_channel", "fp8_channel:fp8_token", vllm},
    Shorthand{"fp8_per_block", "fp8_128x128:fp8_g128", vllm},
    Shorthand{"int8_per_channel_weight_only", "int8_channel", vllm},
    Shorthand{"FP8_DEFAULT_CFG", "fp8_tensor:fp8_tensor_static", modelopt},
    Shorthand{"FP8_PER_CHANNEL_PER_TOKEN_CFG", "fp8_channel:fp8_token", modelopt},
    Shorthand{"FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG", "fp8_128x128", modelopt},
    Shorthand{"NVFP4_DEFAULT_CFG", "nvfp4:nvfp4", modelopt},
    Shorthand{"W4A16_NVFP4_CFG", "nvfp4", modelopt},
    Shorthand{"NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG", "nvfp4:nvfp4", modelopt, "nvfp4_mse.modelopt"},
    Shorthand{"NVFP4_FOUR_OVER_SIX_CFG", "nvfp4:nvfp4", modelopt, "nvfp4_four_over_six.modelopt"},
    Shorthand{"W4A8_NVFP4_FP8_CFG", "nvfp4_g32:fp8_tensor_static", modelopt, "nvfp4_fp8_stage.modelopt"},
    Shorthand{"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "int4_g128", modelopt},
    Shorthand{"NVFP4_AWQ_LITE_CFG", "nvfp4:nvfp4", modelopt, {}, "awq"},
    Shorthand{"NVFP4_AWQ_CLIP_CFG", "nvfp4:nvfp4", modelopt, {}, "awq_clip"},
    Shorthand{"NVFP4_AWQ_FULL_CFG", "nvfp4:nvfp4", modelopt, {}, "awq+awq_clip"},
    Shorthand{"INT4_AWQ_CFG", "int4_g128+prescale", modelopt, {}, "awq"},
    Shorthand{"W4A8_AWQ_BETA_CFG", "int4_g128:fp8_tensor_static+prescale", modelopt, {}, "awq"},
    Shorthand{"INT8_DEFAULT_CFG", "int8_channel:int8_tensor_static", modelopt},
    Shorthand{"INT8_SMOOTHQUANT_CFG", "int8_channel:int8_tensor_static+prescale", modelopt, {}, "smoothquant"},
    Shorthand{"INT8_WEIGHT_ONLY_CFG", "int8_channel", modelopt},
    Shorthand{"MXFP8_DEFAULT_CFG", "mxfp8:mxfp8_up", modelopt},
    Shorthand{"MXFP4_DEFAULT_CFG", "mxfp4:mxfp4_up", modelopt},
    Shorthand{"W4A8_MXFP4_FP8_CFG", "mxfp4:fp8_tensor_dyn", modelopt},
    Shorthand{"FP8", "fp8_tensor:fp8_tensor_static", ct},
    Shorthand{"FP8_DYNAMIC", "fp8_channel:fp8_token", ct},
    Shorthand{"FP8_BLOCK", "fp8_128x128:fp8_g128", ct},
    Shorthand{"W8A8", "int8_channel:int8_token", ct},
    Shorthand{"INT8", "int8_channel:int8_token", ct},
    Shorthand{"W8A16", "int8_g128", ct},
    Shorthand{"W4A16", "int4_g128", ct},
    Shorthand{"W4A16_ASYM", "int4_g128_asym", ct},
    Shorthand{"W4A8", "int4_g128:int8_token", ct},
    Shorthand{"W4AFP8", "int4_g128:fp8_token", ct},
    Shorthand{"NVFP4A16", "nvfp4", ct},
    Shorthand{"NVFP4", "nvfp4:nvfp4", ct},
    Shorthand{"MXFP4A16", "mxfp4", ct},
    Shorthand{"MXFP4", "mxfp4:mxfp4", ct},
    Shorthand{"MXFP8A16", "mxfp8", ct},
    Shorthand{"MXFP8", "mxfp8:mxfp8", ct},
};

size_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, 64);
  b = b.substr(0, 64);
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

}  // namespace

std::span<const Shorthand> shorthands() {
  return table;
}

const Shorthand* find_shorthand(std::string_view name) {
  for (const Shorthand& s : table)
    if (s.name == name) return &s;
  return nullptr;
}

std::string near_names(std::string_view word, std::span<const std::string_view> known) {
  std::vector<std::pair<size_t, std::string_view>> scored;
  for (std::string_view k : known) {
    const size_t common = word.size() >= 3 && k.starts_with(word.substr(0, 3)) ? 2 : 0;
    scored.emplace_back(edit_distance(word, k) - std::min(common, edit_distance(word, k)), k);
  }
  std::stable_sort(scored.begin(), scored.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string out;
  for (size_t i = 0; i < std::min<size_t>(5, scored.size()); ++i) out += std::string(i == 0 ? "" : ", ") + std::string(scored[i].second);
  return out;
}

}  // namespace qb::ir

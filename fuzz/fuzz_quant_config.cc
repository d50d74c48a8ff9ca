// Configurations of quantization from strangers: any text, and any settings on top of it, give a configuration or an error that says what is wrong.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "pass/quantize.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  // Lines behind the first one are settings, where the first is no whole object.
  const size_t line = all.find('\n');
  std::vector<std::string> settings;
  for (size_t at = line; at < size && settings.size() < 8;) {
    const size_t end = std::min(all.find('\n', at + 1), size);
    settings.emplace_back(all.substr(at + 1, end - at - 1));
    at = end;
  }
  for (const bool cut : {false, true}) {
    auto config = qb::pass::parse_quant_config(cut ? all.substr(0, line) : all, cut ? settings : std::vector<std::string>{});
    if (!config) {
      if (config.error().what.empty()) std::abort();
      continue;
    }
    if (config->overrides.size() > size || config->ignore.size() > size) std::abort();
    for (const char* numerics : {"", "modelopt", "llm-compressor"}) (void)qb::pass::quantize_options(*config, numerics, "modelopt");
  }
  return 0;
}

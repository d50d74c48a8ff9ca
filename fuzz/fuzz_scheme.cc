// Scheme grammar: whatever parses prints to a text that parses back to the same value.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "ir/types.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto scheme = qb::ir::parse_scheme(text)) {
    auto back = qb::ir::parse_scheme(qb::ir::to_string(*scheme));
    if (!back || !(*back == *scheme)) std::abort();
  }
  if (auto activation = qb::ir::parse_activation(text)) {
    auto back = qb::ir::parse_activation(qb::ir::to_string(*activation));
    if (!back || !(*back == *activation)) std::abort();
  }
  return 0;
}

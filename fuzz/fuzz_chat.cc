// Chat templates: any bytes are parsed and rendered, or refused, within the budgets. Up to the first NUL byte: the template; after it: the variables as JSON.
#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "base/utf8.h"
#include "text/chat.h"

namespace {

constexpr std::string_view usual =
    R"({"messages": [{"role": "system", "content": " s\n"}, {"role": "user", "content": "é <b>'\""}, {"role": "assistant", "content": null,
        "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, true, null], "y": "z"}}}]}, {"role": "tool", "content": ["a", "b"]}],
        "tools": [{"type": "function", "function": {"name": "f"}}], "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>", "n": 3, "e": []})";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\0');
  const auto made = qb::text::ChatTemplate::parse(input.substr(0, cut));
  if (!made) return 0;
  qb::Json variables;
  qb::JsonError error;
  const std::string_view json = cut == std::string_view::npos ? usual : input.substr(cut + 1);
  if (!qb::parse_json(json, variables, error)) return 0;
  const auto text = made->render(variables);
  if (text && qb::find_invalid_utf8(*text) != std::string_view::npos) __builtin_trap();
  return 0;
}

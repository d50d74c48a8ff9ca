// UTF-8, strictly as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace qb {

struct Utf8Char {
  uint32_t point = 0;
  size_t bytes = 0;  // 0: `text` does not start with a valid sequence (or is empty)
};

Utf8Char decode_utf8(std::string_view text);

// Offset of the first byte that is not part of a valid sequence; npos when there is none.
size_t find_invalid_utf8(std::string_view text);

}  // namespace qb

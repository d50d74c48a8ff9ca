// Unicode normalization forms. Source of truth: UAX #15, by utf8proc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace qb::text {

enum class UnicodeForm : uint8_t { nfc, nfd, nfkc, nfkd };

// `text` must be valid UTF-8. More than `most_marks` combining marks in a row are refused: sorting them takes the square of their number.
Result<std::string> to_form(std::string_view text, UnicodeForm form);
// True when no character of `text` can change. False says nothing.
bool is_plainly(std::string_view text, UnicodeForm form);

}  // namespace qb::text

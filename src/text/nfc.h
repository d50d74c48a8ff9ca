// Unicode normalization form C. Source of truth: UAX #15, by utf8proc.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace qb::text {

// `text` must be valid UTF-8. More than `most_marks` combining marks in a row are refused: sorting them takes the square of their number.
Result<std::string> to_nfc(std::string_view text);
// True when no character of `text` can change: all of them are below U+0300.
bool is_plainly_nfc(std::string_view text);

}  // namespace qb::text

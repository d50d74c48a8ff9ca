#include "base/utf8.h"

#include <cstring>

namespace qb {
namespace {

bool continues(unsigned char c) {
  return (c & 0xC0U) == 0x80U;
}

}  // namespace

Utf8Char decode_utf8(std::string_view text) {
  if (text.empty()) return {};
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const uint32_t lead = at(0);
  if (lead < 0x80) return {lead, 1};
  size_t bytes = 0;
  uint32_t point = 0;
  uint32_t least = 0;
  if ((lead & 0xE0U) == 0xC0U) {
    bytes = 2, point = lead & 0x1FU, least = 0x80;
  } else if ((lead & 0xF0U) == 0xE0U) {
    bytes = 3, point = lead & 0x0FU, least = 0x800;
  } else if ((lead & 0xF8U) == 0xF0U) {
    bytes = 4, point = lead & 0x07U, least = 0x10000;
  } else {
    return {};
  }
  if (text.size() < bytes) return {};
  for (size_t i = 1; i < bytes; ++i) {
    if (!continues(at(i))) return {};
    point = (point << 6) | (at(i) & 0x3FU);
  }
  if (point < least || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return {};
  return {point, bytes};
}

size_t find_invalid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    // Eight plain bytes at a time: headers are nearly all ASCII.
    while (text.size() - i >= 8) {
      uint64_t word;
      std::memcpy(&word, text.data() + i, 8);
      if ((word & 0x8080808080808080ULL) != 0) break;
      i += 8;
    }
    if (i >= text.size()) break;
    const Utf8Char c = decode_utf8(text.substr(i));
    if (c.bytes == 0) return i;
    i += c.bytes;
  }
  return std::string_view::npos;
}

}  // namespace qb

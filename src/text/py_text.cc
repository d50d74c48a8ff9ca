#include "text/py_text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <charconv>
#include <cmath>
#include <limits>

#include "base/utf8.h"

namespace qb::text::py {
namespace {

size_t last_point(std::string_view s) {
  size_t i = s.size() - 1;
  while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xC0U) == 0x80U) --i;
  return i;
}

size_t point_bytes(std::string_view s) {
  const size_t n = decode_utf8(s).bytes;
  return n == 0 ? 1 : n;  // texts are valid; one byte keeps loops going if one were not
}

bool is_printable(uint32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

bool is_ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
char ascii_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}
char ascii_upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
}
bool is_ascii(std::string_view s) {
  for (const char c : s) {
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  }
  return true;
}

// SpecialCasing.txt: what becomes more than one character, or depends on what stands around it.
bool special_upper(uint32_t c) {
  return c == 0xDF || c == 0x149 || c == 0x1F0 || c == 0x390 || c == 0x3B0 || c == 0x587 || (c >= 0x1E96 && c <= 0x1E9A) || (c >= 0x1F50 && c <= 0x1FFC) ||
         (c >= 0xFB00 && c <= 0xFB17);
}
bool special_lower(uint32_t c) {
  return c == 0x130 || c == 0x3A3;
}

bool map_case(std::string_view s, bool up, std::string& out) {
  out.clear();
  out.reserve(s.size());
  for (size_t i = 0; i < s.size();) {
    const Utf8Char c = decode_utf8(s.substr(i));
    if (c.bytes <= 1) {
      out += up ? ascii_upper(s[i]) : ascii_lower(s[i]);
      ++i;
      continue;
    }
    if (up ? special_upper(c.point) : special_lower(c.point)) return false;
    const auto point = static_cast<utf8proc_int32_t>(c.point);
    append_point(out, static_cast<uint32_t>(up ? utf8proc_toupper(point) : utf8proc_tolower(point)));
    i += c.bytes;
  }
  return true;
}

}  // namespace

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

size_t count_points(std::string_view s) {
  size_t n = 0;
  for (const char c : s) n += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U ? 1 : 0;
  return n;
}

std::vector<size_t> point_offsets(std::string_view s) {
  std::vector<size_t> out;
  out.reserve(s.size() + 1);
  for (size_t i = 0; i < s.size(); ++i) {
    if ((static_cast<unsigned char>(s[i]) & 0xC0U) != 0x80U) out.push_back(i);
  }
  out.push_back(s.size());
  return out;
}

std::string_view strip(std::string_view s, Side side, std::optional<std::string_view> chars) {
  const auto goes = [&](std::string_view character) {
    return chars ? chars->find(character) != std::string_view::npos : is_space(decode_utf8(character).point);
  };
  while (side != Side::right && !s.empty()) {
    const size_t n = point_bytes(s);
    if (!goes(s.substr(0, n))) break;
    s.remove_prefix(n);
  }
  while (side != Side::left && !s.empty()) {
    const size_t at = last_point(s);
    if (!goes(s.substr(at))) break;
    s = s.substr(0, at);
  }
  return s;
}

std::vector<std::string_view> split(std::string_view s, std::optional<std::string_view> separator, int64_t most) {
  std::vector<std::string_view> out;
  if (separator) {
    while (most < 0 || static_cast<int64_t>(out.size()) < most) {
      const size_t at = s.find(*separator);
      if (at == std::string_view::npos) break;
      out.push_back(s.substr(0, at));
      s.remove_prefix(at + separator->size());
    }
    out.push_back(s);
    return out;
  }
  while (true) {
    s = strip(s, Side::left, std::nullopt);
    if (s.empty()) return out;
    if (most >= 0 && static_cast<int64_t>(out.size()) >= most) {
      out.push_back(s);  // white space at the end stays
      return out;
    }
    size_t end = 0;
    while (end < s.size() && !is_space(decode_utf8(s.substr(end)).point)) end += point_bytes(s.substr(end));
    out.push_back(s.substr(0, end));
    s.remove_prefix(end);
  }
}

std::vector<std::string_view> split_lines(std::string_view s) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t i = 0; i < s.size();) {
    const Utf8Char c = decode_utf8(s.substr(i));
    const size_t n = c.bytes == 0 ? 1 : c.bytes;
    const uint32_t p = c.point;
    if ((p >= 0x0A && p <= 0x0D) || (p >= 0x1C && p <= 0x1E) || p == 0x85 || p == 0x2028 || p == 0x2029) {
      out.push_back(s.substr(begin, i - begin));
      begin = i + n + (p == '\r' && s.substr(i + 1).starts_with('\n') ? 1 : 0);
      i = begin;
    } else {
      i += n;
    }
  }
  if (begin < s.size()) out.push_back(s.substr(begin));
  return out;
}

std::string replace(std::string_view s, std::string_view old, std::string_view with, int64_t most) {
  std::string out;
  int64_t done = 0;
  const auto more = [&] { return most < 0 || done < most; };
  if (old.empty()) {
    while (true) {
      if (more()) out += with, ++done;
      if (s.empty()) return out;
      const size_t n = point_bytes(s);
      out += s.substr(0, n);
      s.remove_prefix(n);
    }
  }
  while (more()) {
    const size_t at = s.find(old);
    if (at == std::string_view::npos) break;
    out += s.substr(0, at);
    out += with;
    s.remove_prefix(at + old.size());
    ++done;
  }
  out += s;
  return out;
}

bool lower(std::string_view s, std::string& out) {
  return map_case(s, false, out);
}
bool upper(std::string_view s, std::string& out) {
  return map_case(s, true, out);
}

bool capitalize(std::string_view s, std::string& out) {
  if (!is_ascii(s)) return false;
  map_case(s, false, out);
  if (!out.empty()) out[0] = ascii_upper(out[0]);
  return true;
}

bool title(std::string_view s, std::string& out) {
  if (!is_ascii(s)) return false;
  out.clear();
  bool inside = false;
  for (const char c : s) {
    out += inside ? ascii_lower(c) : ascii_upper(c);
    inside = is_ascii_letter(c);
  }
  return true;
}

std::string repr(std::string_view s) {
  const char quote = s.find('\'') != std::string_view::npos && s.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < s.size();) {
    const Utf8Char c = decode_utf8(s.substr(i));
    const size_t n = c.bytes == 0 ? 1 : c.bytes;
    const uint32_t p = c.point;
    if (p == '\\' || p == static_cast<uint32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(p);
    } else if (p == '\n') {
      out += "\\n";
    } else if (p == '\r') {
      out += "\\r";
    } else if (p == '\t') {
      out += "\\t";
    } else if (is_printable(p)) {
      out += s.substr(i, n);
    } else if (p < 0x100) {
      out += fmt::format("\\x{:02x}", p);
    } else if (p < 0x10000) {
      out += fmt::format("\\u{:04x}", p);
    } else {
      out += fmt::format("\\U{:08x}", p);
    }
    i += n;
  }
  return out += quote;
}

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  std::string out = fmt::format("{}", d);
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

std::string json_string(std::string_view s, bool ascii) {
  std::string out = "\"";
  for (size_t i = 0; i < s.size();) {
    const Utf8Char c = decode_utf8(s.substr(i));
    const size_t n = c.bytes == 0 ? 1 : c.bytes;
    const uint32_t p = c.point;
    switch (p) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\b':
        out += "\\b";
        break;
      default:
        if (p < 0x20 || (ascii && p >= 0x7F && p < 0x10000)) {
          if (p == 0x7F)
            out += '\x7F';
          else
            out += fmt::format("\\u{:04x}", p);
        } else if (ascii && p >= 0x10000) {
          out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((p - 0x10000) >> 10), 0xDC00 + ((p - 0x10000) & 0x3FF));
        } else {
          out += s.substr(i, n);
        }
    }
    i += n;
  }
  return out += '"';
}

std::optional<int64_t> parse_int(std::string_view s, bool& too_large) {
  too_large = false;
  s = strip(s, Side::both, std::nullopt);
  bool negative = false;
  if (!s.empty() && (s[0] == '+' || s[0] == '-')) {
    negative = s[0] == '-';
    s.remove_prefix(1);
  }
  if (s.empty()) return std::nullopt;
  int64_t value = 0;
  bool digit_before = false;
  for (const char c : s) {
    if (c == '_' && digit_before) {
      digit_before = false;
      continue;
    }
    if (c < '0' || c > '9') return std::nullopt;
    digit_before = true;
    if (too_large) continue;
    if (__builtin_mul_overflow(value, int64_t{10}, &value) || __builtin_add_overflow(value, int64_t{c - '0'}, &value)) too_large = true;
  }
  if (!digit_before) return std::nullopt;
  return negative ? -value : value;
}

std::optional<double> parse_float(std::string_view s) {
  s = strip(s, Side::both, std::nullopt);
  std::string plain;
  bool digit_before = false;
  for (size_t i = 0; i < s.size(); ++i) {
    const bool digit = s[i] >= '0' && s[i] <= '9';
    if (s[i] == '_') {
      if (!digit_before || i + 1 >= s.size() || s[i + 1] < '0' || s[i + 1] > '9') return std::nullopt;
    } else {
      plain += ascii_lower(s[i]);
    }
    digit_before = digit;
  }
  std::string_view t = plain;
  const bool negative = t.starts_with('-');
  if (negative || t.starts_with('+')) t.remove_prefix(1);
  double value = 0;
  if (t == "inf" || t == "infinity") {
    value = std::numeric_limits<double>::infinity();
  } else if (t == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (t.empty() || !((t[0] >= '0' && t[0] <= '9') || t[0] == '.')) return std::nullopt;
    const auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), value);
    if (end != t.data() + t.size() || error == std::errc::invalid_argument) return std::nullopt;
    // Out of range: Python gives infinity or zero, from_chars nothing.
    if (error == std::errc::result_out_of_range) {
      const size_t e = t.find('e');
      value = e != std::string_view::npos && t.substr(e + 1).starts_with('-') ? 0 : std::numeric_limits<double>::infinity();
    }
  }
  return negative ? -value : value;
}

void append_point(std::string& out, uint32_t p) {
  if (p < 0x80) {
    out += static_cast<char>(p);
  } else if (p < 0x800) {
    out += static_cast<char>(0xC0U | (p >> 6));
    out += static_cast<char>(0x80U | (p & 0x3FU));
  } else if (p < 0x10000) {
    out += static_cast<char>(0xE0U | (p >> 12));
    out += static_cast<char>(0x80U | ((p >> 6) & 0x3FU));
    out += static_cast<char>(0x80U | (p & 0x3FU));
  } else {
    out += static_cast<char>(0xF0U | (p >> 18));
    out += static_cast<char>(0x80U | ((p >> 12) & 0x3FU));
    out += static_cast<char>(0x80U | ((p >> 6) & 0x3FU));
    out += static_cast<char>(0x80U | (p & 0x3FU));
  }
}

}  // namespace qb::text::py

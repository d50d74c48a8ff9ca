#include "text/oniguruma.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/diagnostics.h"
#include "base/utf8.h"

namespace qb::text {
namespace {

// White_Space, and what is left without it. PCRE2's own \s also holds U+180E, so both are spelled out. For use inside [].
constexpr std::string_view space = "\\u0009-\\u000d\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
constexpr std::string_view not_space =
    "\\u0000-\\u0008\\u000e-\\u001f\\u0021-\\u0084\\u0086-\\u009f\\u00a1-\\u167f\\u1681-\\u1fff\\u200b-\\u2027\\u202a-\\u202e\\u2030-\\u205e\\u2060-\\u2fff"
    "\\u3001-\\ud7ff\\ue000-\\uffff\xF0\x90\x80\x80-\xF4\x8F\xBF\xBF";

// Properties whose names and meaning both engines share.
constexpr std::array<std::string_view, 56> properties = {
    "L",      "Lu",         "Ll",      "Lt",    "Lm",     "Lo",  "M",     "Mn",      "Mc",       "Me",       "N",        "Nd",       "Nl",        "No",
    "P",      "Pc",         "Pd",      "Ps",    "Pe",     "Pi",  "Pf",    "Po",      "S",        "Sm",       "Sc",       "Sk",       "So",        "Z",
    "Zs",     "Zl",         "Zp",      "Cc",    "Cf",     "Han", "Latin", "Greek",   "Cyrillic", "Arabic",   "Hebrew",   "Hiragana", "Thai",      "Katakana",
    "Hangul", "Devanagari", "Bengali", "Tamil", "Telugu", "Lao", "Khmer", "Myanmar", "Tibetan",  "Georgian", "Armenian", "Ethiopic", "Mongolian", "Bopomofo"};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : all_(pattern), rest_(pattern) {}

  Result<std::string> run() {
    if (find_invalid_utf8(all_) != std::string_view::npos) return refuse("bytes that are not UTF-8");
    while (!rest_.empty()) {
      if (Result<void> r = item(); !r) return r.error();
    }
    if (depth_ != 0) return refuse("a group without an end");
    return std::move(out_);
  }

 private:
  Error refuse(std::string_view what) const {
    return {Errc::invalid_argument, fmt::format("the pattern '{}', offset {}: {} is not supported", escape(all_), all_.size() - rest_.size(), what)};
  }
  bool take(std::string_view s) {
    if (!rest_.starts_with(s)) return false;
    rest_.remove_prefix(s.size());
    return true;
  }
  void copy(size_t n) {
    out_ += rest_.substr(0, n);
    rest_.remove_prefix(n);
  }

  Result<void> item() {
    const char c = rest_.front();
    switch (c) {
      case '\\':
        return escaped(false);
      case '[':
        return set();
      case '(':
        return open();
      case ')':
        if (--depth_ < 0) return refuse("')' without '('");
        copy(1);
        return quantifier();
      case '|':
        copy(1);
        return {};
      // Ruby's anchors are those of lines.
      case '^':
        rest_.remove_prefix(1);
        out_ += "(?m:^)";
        return {};
      case '$':
        rest_.remove_prefix(1);
        out_ += "(?m:$)";
        return {};
      case '*':
      case '+':
      case '?':
        return refuse("a quantifier without anything before it");
      case '{':
      case '}':
        return refuse("a brace that is not part of a quantifier");
      case '#':
      default:
        copy(std::max<size_t>(decode_utf8(rest_).bytes, 1));
        return quantifier();
    }
  }

  Result<void> open() {
    if (++depth_ > 100) return refuse("nesting deeper than 100 groups");
    for (const std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"}) {
      if (rest_.starts_with(known)) {
        copy(known.size());
        return {};
      }
    }
    if (rest_.starts_with("(?") || rest_.starts_with("(*")) return refuse(fmt::format("the group '{}'", escape(rest_.substr(0, 4))));
    copy(1);
    return {};
  }

  // Ruby reads `x{2}+` as (x{2})+ and `{,n}` as {0,n}; PCRE2 does not, so both are refused.
  Result<void> quantifier() {
    if (rest_.empty()) return {};
    if (rest_.front() == '*' || rest_.front() == '+' || rest_.front() == '?') {
      copy(1);
      if (rest_.starts_with("?") || rest_.starts_with("+")) copy(1);
    } else if (rest_.front() == '{') {
      size_t i = 1;
      const auto digits = [&] {
        const size_t first = i;
        while (i < rest_.size() && rest_[i] >= '0' && rest_[i] <= '9') ++i;
        return i - first;
      };
      const size_t low = digits();
      if (low > 0 && i < rest_.size() && rest_[i] == ',') ++i, digits();
      if (low == 0 || i >= rest_.size() || rest_[i] != '}') return refuse("a brace that is not {n}, {n,} or {n,m}");
      copy(i + 1);
      if (rest_.starts_with("?") && out_[out_.size() - 2] != ',') {
        const size_t brace = out_.rfind('{');
        if (out_.find(',', brace) == std::string::npos) return refuse("'{n}?'");  // Ruby: zero or n times
      }
      if (rest_.starts_with("?")) copy(1);
    }
    if (!rest_.empty() && (rest_.front() == '*' || rest_.front() == '+' || rest_.front() == '?' || rest_.front() == '{')) {
      return refuse("a quantifier of a quantifier");
    }
    return {};
  }

  void put(uint32_t point) {
    if (point <= 0xFFFF) {
      out_ += fmt::format("\\u{:04x}", point);
      return;
    }
    out_ += static_cast<char>(0xF0U | (point >> 18));
    out_ += static_cast<char>(0x80U | ((point >> 12) & 0x3FU));
    out_ += static_cast<char>(0x80U | ((point >> 6) & 0x3FU));
    out_ += static_cast<char>(0x80U | (point & 0x3FU));
  }

  // `digits` hexadecimal digits at the start of what is left; -1: fewer.
  int64_t hex(size_t digits) {
    if (rest_.size() < digits) return -1;
    int64_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = rest_[i];
      const int d = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (d < 0) return -1;
      value = value * 16 + d;
    }
    rest_.remove_prefix(digits);
    return value;
  }

  Result<void> escaped(bool in_set) {
    rest_.remove_prefix(1);
    if (rest_.empty()) return refuse("a backslash at the end");
    const char c = rest_.front();
    const auto done = [&]() -> Result<void> {
      if (in_set) return {};
      return quantifier();
    };
    if (c == 'p' || c == 'P') return property(in_set);
    if (c == 'x' || c == 'u') {
      rest_.remove_prefix(1);
      int64_t point = -1;
      if (c == 'x' && take("{")) {
        const size_t end = rest_.find('}');
        if (end != std::string_view::npos && end >= 1 && end <= 8) point = hex(end);
        if (!take("}")) point = -1;
      } else {
        point = hex(c == 'x' ? 2 : 4);
        if (c == 'x' && point > 0x7F) point = -1;  // a byte, not a code point
      }
      if (point < 0 || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return refuse("this \\x or \\u");
      put(static_cast<uint32_t>(point));
      return done();
    }
    rest_.remove_prefix(1);
    switch (c) {
      case 's':
        out_ += in_set ? std::string(space) : fmt::format("[{}]", space);
        return done();
      case 'S':
        out_ += in_set ? std::string(not_space) : fmt::format("[^{}]", space);
        return done();
      case 'd':
        out_ += "\\p{Nd}";
        return done();
      case 'D':
        out_ += "\\P{Nd}";
        return done();
      case 'n':
        put('\n');
        return done();
      case 'r':
        put('\r');
        return done();
      case 't':
        put('\t');
        return done();
      case 'f':
        put('\f');
        return done();
      case 'v':
        put('\v');
        return done();
      default:
        break;
    }
    const bool letter = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter || static_cast<unsigned char>(c) >= 0x80) return refuse(fmt::format("'\\{}'", escape(std::string_view(&c, 1))));
    out_ += '\\';
    out_ += c;
    return done();
  }

  Result<void> property(bool in_set) {
    const char c = rest_.front();
    rest_.remove_prefix(1);
    const size_t end = take("{") ? rest_.find('}') : std::string_view::npos;
    if (end == std::string_view::npos) return refuse("a property without braces");
    const std::string_view name = rest_.substr(0, end);
    if (std::find(properties.begin(), properties.end(), name) == properties.end()) return refuse(fmt::format("the property '{}'", escape(name.substr(0, 40))));
    out_ += fmt::format("\\{}{{{}}}", c, name);
    rest_.remove_prefix(end + 1);
    if (in_set) return {};
    return quantifier();
  }

  Result<void> set() {
    copy(1);
    if (rest_.starts_with("^")) copy(1);
    if (rest_.starts_with("]")) return refuse("']' at the start of a set");
    bool class_before = false;  // a range from or to a class reads differently
    while (!rest_.empty() && rest_.front() != ']') {
      const char c = rest_.front();
      if (c == '[') return refuse("a set in a set");
      if (rest_.starts_with("&&")) return refuse("'&&' in a set");
      if (c == '-' && class_before && !rest_.starts_with("-]")) return refuse("a range of classes");
      if (c == '\\') {
        const bool is_class = rest_.size() > 1 && std::string_view("sSdDpP").find(rest_[1]) != std::string_view::npos;
        if (is_class && out_.ends_with('-') && out_[out_.size() - 2] != '[') return refuse("a range of classes");
        QB_TRY(escaped(true));
        class_before = is_class;
        continue;
      }
      copy(std::max<size_t>(decode_utf8(rest_).bytes, 1));
      class_before = false;
    }
    if (rest_.empty()) return refuse("a set without an end");
    copy(1);
    return quantifier();
  }

  std::string_view all_, rest_;
  std::string out_;
  int depth_ = 0;
};

}  // namespace

Result<std::string> translate_oniguruma(std::string_view pattern) {
  return Translator(pattern).run();
}

Result<std::shared_ptr<const Regex>> compile_oniguruma(std::string_view pattern, RegexCompiler compile) {
  const auto in_file = [](const Error& e) { return Error{Errc::invalid_argument, "tokenizer.json: " + e.what}; };
  auto translated = translate_oniguruma(pattern);
  if (!translated) return in_file(translated.error());
  auto made = compile(*translated);
  if (!made) return in_file(made.error());
  return made;
}

std::string escape_pattern(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (std::string_view("\\^$.|?*+()[]{}-").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace qb::text

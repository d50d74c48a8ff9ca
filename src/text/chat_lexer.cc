#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/diagnostics.h"
#include "base/utf8.h"
#include "text/chat_ast.h"
#include "text/py_text.h"

namespace qb::text::chat {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) {
    // Lines end in \n whatever the file has; the last line end goes.
    for (size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r') {
        text_ += '\n';
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      } else {
        text_ += source[i];
      }
    }
    if (text_.ends_with('\n')) text_.pop_back();
  }

  Result<std::vector<Token>> run() {
    while (at_ < text_.size()) {
      const size_t tag = next_tag();
      std::string_view data = std::string_view(text_).substr(at_, tag - at_);
      if (tag == text_.size()) {
        put_data(data);
        advance(tag);
        break;
      }
      const char kind = text_[tag + 1];
      const char sign = tag + 2 < text_.size() ? text_[tag + 2] : ' ';
      put_data(before_tag(data, sign, kind != '{'));
      advance(tag);
      const bool signed_tag = sign == '-' || sign == '+';
      if (kind == '#') {
        advance(at_ + (signed_tag ? 3 : 2));
        if (!skip_comment()) return error("a comment without '#}'");
      } else if (kind == '%') {
        advance(at_ + (signed_tag ? 3 : 2));
        bool raw = false;
        if (Result<void> r = raw_block(raw); !r) return r.error();
        if (raw) continue;
        put(TokenKind::block_begin);
        if (Result<void> r = inside("%}"); !r) return r.error();
      } else {
        advance(at_ + (signed_tag ? 3 : 2));
        put(TokenKind::variable_begin);
        if (Result<void> r = inside("}}"); !r) return r.error();
      }
    }
    put(TokenKind::end);
    return std::move(tokens_);
  }

 private:
  Error error(std::string_view what) const { return {Errc::invalid_argument, fmt::format("chat template, line {}: {}", line_, what)}; }
  void put(TokenKind kind, std::string text = {}) { tokens_.push_back({kind, line_, std::move(text)}); }
  void put_data(std::string_view data) {
    if (!data.empty()) put(TokenKind::data, std::string(data));
  }
  void advance(size_t to) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_), text_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    if (to > at_) line_starting_ = text_[to - 1] == '\n';
    at_ = to;
  }
  size_t next_tag() const {
    for (size_t i = text_.find('{', at_); i != std::string::npos; i = text_.find('{', i + 1)) {
      if (i + 1 < text_.size() && (text_[i + 1] == '%' || text_[i + 1] == '{' || text_[i + 1] == '#')) return i;
    }
    return text_.size();
  }

  // `-` takes all white space before a tag; else, before blocks and comments, what stands between the line's start and the tag goes if it is white space.
  std::string_view before_tag(std::string_view data, char sign, bool block) const {
    if (sign == '-') return py::strip(data, py::Side::right, std::nullopt);
    if (sign == '+' || !block) return data;
    const size_t newline = data.rfind('\n');
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    if (line == 0 && !line_starting_) return data;
    return py::strip(data.substr(line), py::Side::both, std::nullopt).empty() ? data.substr(0, line) : data;
  }
  void skip_spaces() {
    const std::string_view rest = std::string_view(text_).substr(at_);
    advance(text_.size() - py::strip(rest, py::Side::left, std::nullopt).size());
  }
  // What stands after the end of a block or comment, whose `mark` (two bytes) is at `end`.
  void after_tag(size_t end, bool trim_newline) {
    const char sign = end > at_ ? text_[end - 1] : ' ';
    advance(end + 2);
    if (sign == '-') {
      skip_spaces();
    } else if (trim_newline && sign != '+' && at_ < text_.size() && text_[at_] == '\n') {
      advance(at_ + 1);
    }
  }

  bool skip_comment() {
    const size_t end = text_.find("#}", at_);
    if (end == std::string::npos) return false;
    after_tag(end, true);
    return true;
  }

  // After `{%` and its sign: {% raw %} ... {% endraw %}.
  Result<void> raw_block(bool& raw) {
    size_t i = at_;
    const auto spaces = [&](size_t from) { return text_.size() - py::strip(std::string_view(text_).substr(from), py::Side::left, std::nullopt).size(); };
    const auto view = [&](size_t from) { return std::string_view(text_).substr(from); };
    i = spaces(i);
    if (!view(i).starts_with("raw")) return {};
    i = spaces(i + 3);
    const bool minus = view(i).starts_with("-%}");
    if (!minus && !view(i).starts_with("%}")) return {};
    raw = true;
    advance(i + (minus ? 3 : 2));
    if (minus) skip_spaces();
    for (size_t open = text_.find("{%", at_); open != std::string::npos; open = text_.find("{%", open + 1)) {
      const char sign = open + 2 < text_.size() ? text_[open + 2] : ' ';
      size_t end = spaces(open + (sign == '-' || sign == '+' ? 3 : 2));
      if (!view(end).starts_with("endraw")) continue;
      end = spaces(end + 6);
      if (view(end).starts_with("-%}") || view(end).starts_with("+%}")) ++end;
      if (!view(end).starts_with("%}")) continue;
      put_data(before_tag(view(at_).substr(0, open - at_), sign, true));
      after_tag(end, true);
      return {};
    }
    return error("'raw' without 'endraw'");
  }

  // Tokens up to the closing mark.
  Result<void> inside(std::string_view mark) {
    const bool block = mark == "%}";
    std::string brackets;
    while (true) {
      skip_spaces();
      const std::string_view rest = std::string_view(text_).substr(at_);
      if (rest.empty()) return error(fmt::format("'{}' is missing", mark));
      if (brackets.empty()) {
        const bool sign = rest[0] == '-' || (block && rest[0] == '+');
        if (rest.starts_with(mark) || (sign && rest.substr(1).starts_with(mark))) {
          put(block ? TokenKind::block_end : TokenKind::variable_end);
          after_tag(at_ + (sign ? 1 : 0), block);
          return {};
        }
      }
      const char c = rest[0];
      if (is_digit(c)) {
        QB_TRY(number(rest));
      } else if (is_name(c)) {
        size_t n = 0;
        while (n < rest.size() && is_name(rest[n])) ++n;
        put(TokenKind::name, std::string(rest.substr(0, n)));
        advance(at_ + n);
      } else if (c == '\'' || c == '"') {
        QB_TRY(string(rest));
      } else {
        QB_TRY(op(rest, brackets));
      }
    }
  }

  Result<void> number(std::string_view rest) {
    size_t n = 0;
    bool real = false;
    while (n < rest.size() && is_digit(rest[n])) ++n;
    // A number after a dot is an index: `a.0.1`.
    const bool index = !tokens_.empty() && tokens_.back().kind == TokenKind::op && tokens_.back().text == ".";
    if (!index && n + 1 < rest.size() && rest[n] == '.' && is_digit(rest[n + 1])) {
      real = true;
      ++n;
      while (n < rest.size() && is_digit(rest[n])) ++n;
    }
    if (!index && n + 1 < rest.size() && (rest[n] == 'e' || rest[n] == 'E')) {
      size_t e = n + 1;
      if (rest[e] == '+' || rest[e] == '-') ++e;
      if (e < rest.size() && is_digit(rest[e])) {
        real = true;
        while (e < rest.size() && is_digit(rest[e])) ++e;
        n = e;
      }
    }
    const std::string text(rest.substr(0, n));
    if ((n < rest.size() && is_name(rest[n])) || (!real && n > 1 && text[0] == '0')) return error(fmt::format("the number '{}...' is not supported", text));
    put(real ? TokenKind::real : TokenKind::integer, text);
    Token& token = tokens_.back();
    std::errc failed{};
    if (real)
      failed = std::from_chars(text.data(), text.data() + n, token.real).ec;
    else
      failed = std::from_chars(text.data(), text.data() + n, token.integer).ec;
    if (failed != std::errc()) return error(fmt::format("the number '{}' is out of range", text.substr(0, 40)));
    advance(at_ + n);
    return {};
  }

  Result<void> string(std::string_view rest) {
    const char quote = rest[0];
    std::string value;
    size_t i = 1;
    for (;; ++i) {
      if (i >= rest.size()) return error("a string without an end");
      if (rest[i] == quote) break;
      if (rest[i] != '\\') {
        value += rest[i];
        continue;
      }
      if (++i >= rest.size()) return error("a string without an end");
      QB_TRY(escape_sequence(rest, i, value));
    }
    put(TokenKind::string, std::move(value));
    advance(at_ + i + 1);
    return {};
  }

  // Python's "unicode-escape"; `i` is at the character after the backslash, and left at the last one that was read.
  Result<void> escape_sequence(std::string_view rest, size_t& i, std::string& value) {
    constexpr std::string_view from = "\\'\"abfnrtv", to = "\\'\"\a\b\f\n\r\t\v";
    const char c = rest[i];
    if (const size_t known = from.find(c); known != std::string_view::npos) {
      value += to[known];
      return {};
    }
    if (c == '\n') return {};
    if (c == 'N' || is_digit(c)) return error(fmt::format("the escape '\\{}' in a string is not supported", c));
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      value += '\\';
      value += c;
      return {};
    }
    uint32_t point = 0;
    const std::string_view hex = rest.substr(i + 1).substr(0, digits);
    const auto [end, failed] = std::from_chars(hex.data(), hex.data() + hex.size(), point, 16);
    if (hex.size() != digits || failed != std::errc() || end != hex.data() + digits || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) {
      return error(fmt::format("the escape '\\{}' in a string is not a character", c));
    }
    py::append_point(value, point);
    i += digits;
    return {};
  }

  Result<void> op(std::string_view rest, std::string& brackets) {
    constexpr std::array<std::string_view, 26> ops = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "[",
                                                      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view o : ops) {
      if (!rest.starts_with(o)) continue;
      const char c = o[0];
      if (c == '(') brackets += ')';
      if (c == '[') brackets += ']';
      if (c == '{') brackets += '}';
      if (c == ')' || c == ']' || c == '}') {
        if (brackets.empty() || brackets.back() != c) return error(fmt::format("an unexpected '{}'", c));
        brackets.pop_back();
      }
      put(TokenKind::op, std::string(o));
      advance(at_ + o.size());
      return {};
    }
    return error(fmt::format("an unexpected character '{}'", escape(rest.substr(0, std::max<size_t>(decode_utf8(rest).bytes, 1)))));
  }

  std::string text_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace qb::text::chat

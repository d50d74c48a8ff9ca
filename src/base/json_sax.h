// What every reader of JSON events shares: the position in the text, the first error, and strictness beyond the library's.
//
// Include this in .cc files only. A handler derives from JsonHandler and adds the value events (null, boolean, ...). Returning false from an event stops.
#pragma once

#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>

#include "base/json.h"

namespace qb {

class JsonHandler {
 public:
  using number_integer_t = Json::number_integer_t;
  using number_unsigned_t = Json::number_unsigned_t;
  using number_float_t = Json::number_float_t;
  using string_t = Json::string_t;
  using binary_t = Json::binary_t;

  bool binary(binary_t&) { return false; }  // no JSON text makes one
  bool parse_error(size_t position, const std::string& token, const nlohmann::detail::exception& e);

  const JsonError& error() const { return error_; }
  void set_position(const char* const* at, const char* begin) { at_ = at, begin_ = begin; }

 protected:
  // Records the first error; always false.
  bool fail(std::string_view code, std::string what);
  // Bytes consumed so far.
  size_t position() const { return at_ == nullptr ? 0 : static_cast<size_t>(*at_ - begin_); }

 private:
  JsonError error_;
  const char* const* at_ = nullptr;
  const char* begin_ = nullptr;
};

// Refuses what the library would let through: NUL bytes (it takes one for the end of the text) and a byte order mark. False: `error` is set.
bool is_plain_json_text(std::string_view text, JsonError& error);

namespace json_detail {

// Tells the handler how far the lexer is.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor(const char* at, const char** seen) : at_(at), seen_(seen) {}
  reference operator*() const { return *at_; }
  Cursor& operator++() {
    *seen_ = ++at_;
    return *this;
  }
  Cursor operator++(int) {
    Cursor old = *this;
    ++*this;
    return old;
  }
  bool operator==(const Cursor& other) const { return at_ == other.at_; }
  bool operator!=(const Cursor& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** seen_;
};

}  // namespace json_detail

// Runs `handler` over the whole text. False: it or the text failed, and `error` says why.
template <class Handler>
bool parse_json_events(std::string_view text, Handler& handler, JsonError& error) {
  if (!is_plain_json_text(text, error)) return false;
  const char* seen = text.data();
  handler.set_position(&seen, text.data());
  json_detail::Cursor first(text.data(), &seen);
  json_detail::Cursor last(text.data() + text.size(), &seen);
  const bool ok = Json::sax_parse(first, last, &handler);
  handler.set_position(nullptr, nullptr);
  if (!ok) error = handler.error();
  return ok;
}

}  // namespace qb

// The tree of a chat template, and the lexer and parser that make it.
//
// Source of truth: lexer.py and parser.py of Jinja2 3.1, with trim_blocks and lstrip_blocks on. What is not listed in docs/chat_templates.md is an error.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace qb::text::chat {

enum class TokenKind : uint8_t { data, variable_begin, variable_end, block_begin, block_end, name, string, integer, real, op, end };

struct Token {
  TokenKind kind = TokenKind::end;
  int line = 1;
  std::string text;  // data, name, string (its value), op
  int64_t integer = 0;
  double real = 0;
};

Result<std::vector<Token>> tokenize(std::string_view source);

enum class NodeKind : uint8_t {
  // Expressions
  literal_none,
  literal_bool,
  literal_int,
  literal_float,
  literal_string,
  name,  // text
  list,
  tuple,
  dict,       // key, value, key, value, ...
  attribute,  // [object], text
  item,       // [object, key]
  slice,      // [object, first, last, step], each but the object may be null
  call,       // [callee, positional..., named...], names
  filter,     // [value (may be null), positional..., named...], text, names
  test,       // [value, positional..., named...], text, names
  unary,      // text: - + not
  binary,     // text: + - * / // % ** and or
  concat,     // ~ of all
  compare,    // [first, other...], names: the operators
  condition,  // [then, test, else (may be null)]
  // Statements
  body,        // statements
  data,        // text
  output,      // [expression]
  branch,      // [test, body, test, body, ..., body of else (may be absent)]
  loop,        // [iterable, filter (may be null), body, else (may be null)], names: targets
  set,         // [value], names: targets
  set_member,  // [value], text: namespace, names: {member}
  set_block,   // [filter chain (may be null), body], names: {target}
  macro,       // [body, defaults...], text, names: parameters; the defaults belong to the last ones
  scope,       // [body]: {% generation %}
  break_loop,
  continue_loop,
};

struct Node {
  NodeKind kind;
  int line = 1;
  int depth = 1;
  std::string text;
  int64_t integer = 0;
  double real = 0;
  std::vector<std::unique_ptr<Node>> kids;
  std::vector<std::string> names;
};

Result<std::unique_ptr<Node>> parse_template(std::string_view source);

// Known at parsing, so that an unknown one is refused before anything is rendered.
bool is_filter(std::string_view name);
bool is_test(std::string_view name);

}  // namespace qb::text::chat

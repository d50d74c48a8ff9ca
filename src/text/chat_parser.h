// What the parser of statements and that of expressions share. Include this in chat_*parser.cc only.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/chat_ast.h"

namespace qb::text::chat {

// Enough for any real template; the evaluator and the destructor recurse as deep as the tree.
constexpr int deepest_nesting = 100;

class ExpressionParser {
 protected:
  using Ptr = std::unique_ptr<Node>;

  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& now() const { return tokens_[at_]; }
  const Token& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void next() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool at_op(std::string_view op) const { return now().kind == TokenKind::op && now().text == op; }
  bool at_name(std::string_view name) const { return now().kind == TokenKind::name && now().text == name; }
  bool take_op(std::string_view op) {
    if (!at_op(op)) return false;
    next();
    return true;
  }
  bool take_name(std::string_view name) {
    if (!at_name(name)) return false;
    next();
    return true;
  }
  // The first error stays; afterwards every function returns null soon.
  Ptr fail(std::string_view what);
  std::string described() const;
  bool expect_op(std::string_view op);
  std::string expect_name();
  // A name that may be assigned to.
  std::string target();
  bool end_of_block();

  Ptr make(NodeKind kind, int line);
  // Adds a child; the depth of the tree is bounded here, also where the parser loops instead of recursing.
  bool add(Ptr& parent, Ptr child);

  struct Deeper {
    explicit Deeper(int& depth) : depth_(depth) { ++depth_; }
    ~Deeper() { --depth_; }
    int& depth_;
  };

  // Expressions, from the loosest to the tightest binding.
  Ptr tuple(bool conditional = true, std::string_view end = {}, bool brackets = false);
  Ptr expression();
  Ptr binary(std::string op, Ptr left, Ptr right, int line);
  Ptr disjunction();
  Ptr conjunction();
  Ptr negation();
  Ptr comparison();
  Ptr sum();
  Ptr concatenation();
  Ptr product();
  Ptr power();
  Ptr unary(bool filters);
  Ptr primary();
  Ptr postfix(Ptr node);
  Ptr subscript(Ptr object);
  bool arguments(Ptr& node);
  Ptr call(Ptr callee);
  Ptr filter(Ptr value);
  Ptr test(Ptr value);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  bool failed_ = false;
  std::string error_;
  int error_line_ = 0;
};

}  // namespace qb::text::chat

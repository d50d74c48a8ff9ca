#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/diagnostics.h"
#include "text/chat_parser.h"

namespace qb::text::chat {
namespace {

constexpr std::array<std::string_view, 6> not_names = {"true", "false", "none", "True", "False", "None"};

}  // namespace

std::string ExpressionParser::described() const {
  switch (now().kind) {
    case TokenKind::name:
    case TokenKind::op:
      return fmt::format("'{}'", escape(now().text.substr(0, 40)));
    case TokenKind::variable_end:
      return "'}}'";
    case TokenKind::block_end:
      return "'%}'";
    case TokenKind::end:
      return "the end of the template";
    default:
      return "a literal";
  }
}

std::string ExpressionParser::expect_name() {
  if (now().kind != TokenKind::name) {
    fail(fmt::format("expected a name, found {}", described()));
    return {};
  }
  std::string name = now().text;
  next();
  return name;
}

std::string ExpressionParser::target() {
  std::string name = expect_name();
  const auto in = [&](const auto& list) { return std::find(list.begin(), list.end(), name) != list.end(); };
  if (!failed_ && (in(not_names) || name == "loop")) fail(fmt::format("cannot assign to '{}'", name));
  return name;
}

bool ExpressionParser::expect_op(std::string_view op) {
  if (take_op(op)) return true;
  fail(fmt::format("expected '{}', found {}", op, described()));
  return false;
}

bool ExpressionParser::add(Ptr& parent, Ptr child) {
  if (failed_) return false;
  if (child != nullptr) parent->depth = std::max(parent->depth, child->depth + 1);
  parent->kids.push_back(std::move(child));
  if (parent->depth <= 3 * deepest_nesting) return true;
  fail("nested too deep");
  return false;
}

ExpressionParser::Ptr ExpressionParser::make(NodeKind kind, int line) {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  node->line = line;
  return node;
}

ExpressionParser::Ptr ExpressionParser::fail(std::string_view what) {
  if (!failed_) {
    failed_ = true;
    error_ = what;
    error_line_ = now().line;
  }
  return nullptr;
}

bool ExpressionParser::end_of_block() {
  if (failed_) return false;
  if (now().kind != TokenKind::block_end) {
    fail(fmt::format("expected '%}}', found {}", described()));
    return false;
  }
  next();
  return true;
}

ExpressionParser::Ptr ExpressionParser::tuple(bool conditional, std::string_view end, bool brackets) {
  const int line = now().line;
  Ptr list = make(NodeKind::tuple, line);
  bool comma = false;
  while (!failed_) {
    const bool ended = now().kind == TokenKind::variable_end || now().kind == TokenKind::block_end || at_op(")") || (!end.empty() && at_name(end));
    if (ended) break;
    add(list, conditional ? expression() : disjunction());
    if (!take_op(",")) break;
    comma = true;
  }
  if (failed_) return nullptr;
  if (comma) return list;
  if (list->kids.size() == 1) return std::move(list->kids[0]);
  if (brackets) return list;
  return fail(fmt::format("expected an expression, found {}", described()));
}

ExpressionParser::Ptr ExpressionParser::expression() {
  const Deeper deeper(depth_);
  if (depth_ > deepest_nesting) return fail("nested too deep");
  Ptr value = disjunction();
  while (!failed_ && at_name("if")) {
    Ptr node = make(NodeKind::condition, now().line);
    next();
    add(node, std::move(value));
    add(node, disjunction());
    if (take_name("else"))
      add(node, expression());
    else
      add(node, nullptr);
    value = std::move(node);
  }
  return failed_ ? nullptr : std::move(value);
}

ExpressionParser::Ptr ExpressionParser::binary(std::string op, Ptr left, Ptr right, int line) {
  Ptr node = make(NodeKind::binary, line);
  node->text = std::move(op);
  add(node, std::move(left));
  add(node, std::move(right));
  return failed_ ? nullptr : std::move(node);
}

ExpressionParser::Ptr ExpressionParser::disjunction() {
  Ptr left = conjunction();
  while (!failed_ && at_name("or")) {
    const int line = now().line;
    next();
    left = binary("or", std::move(left), conjunction(), line);
  }
  return left;
}
ExpressionParser::Ptr ExpressionParser::conjunction() {
  Ptr left = negation();
  while (!failed_ && at_name("and")) {
    const int line = now().line;
    next();
    left = binary("and", std::move(left), negation(), line);
  }
  return left;
}
ExpressionParser::Ptr ExpressionParser::negation() {
  if (!at_name("not")) return comparison();
  const Deeper deeper(depth_);
  if (depth_ > deepest_nesting) return fail("nested too deep");
  Ptr node = make(NodeKind::unary, now().line);
  node->text = "not";
  next();
  add(node, negation());
  return node;
}
ExpressionParser::Ptr ExpressionParser::comparison() {
  Ptr first = sum();
  Ptr node;
  while (!failed_) {
    std::string op;
    if (now().kind == TokenKind::op &&
        (now().text == "==" || now().text == "!=" || now().text == "<" || now().text == ">" || now().text == "<=" || now().text == ">=")) {
      op = now().text;
      next();
    } else if (take_name("in")) {
      op = "in";
    } else if (at_name("not") && look().kind == TokenKind::name && look().text == "in") {
      op = "not in";
      next(), next();
    } else {
      break;
    }
    if (node == nullptr) {
      node = make(NodeKind::compare, now().line);
      add(node, std::move(first));
    }
    node->names.push_back(op);
    add(node, sum());
  }
  return node == nullptr ? std::move(first) : std::move(node);
}
ExpressionParser::Ptr ExpressionParser::sum() {
  Ptr left = concatenation();
  while (!failed_ && (at_op("+") || at_op("-"))) {
    std::string op = now().text;
    const int line = now().line;
    next();
    left = binary(std::move(op), std::move(left), concatenation(), line);
  }
  return left;
}
ExpressionParser::Ptr ExpressionParser::concatenation() {
  Ptr first = product();
  if (failed_ || !at_op("~")) return first;
  Ptr node = make(NodeKind::concat, now().line);
  add(node, std::move(first));
  while (!failed_ && take_op("~")) add(node, product());
  return node;
}
ExpressionParser::Ptr ExpressionParser::product() {
  Ptr left = power();
  while (!failed_ && (at_op("*") || at_op("/") || at_op("//") || at_op("%"))) {
    std::string op = now().text;
    const int line = now().line;
    next();
    left = binary(std::move(op), std::move(left), power(), line);
  }
  return left;
}
ExpressionParser::Ptr ExpressionParser::power() {
  Ptr left = unary(true);
  while (!failed_ && at_op("**")) {
    const int line = now().line;
    next();
    left = binary("**", std::move(left), unary(true), line);
  }
  return left;
}
ExpressionParser::Ptr ExpressionParser::unary(bool filters) {
  const Deeper deeper(depth_);
  if (depth_ > deepest_nesting) return fail("nested too deep");
  Ptr node;
  if (at_op("-") || at_op("+")) {
    node = make(NodeKind::unary, now().line);
    node->text = now().text;
    next();
    add(node, unary(false));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  while (filters && !failed_) {
    if (at_op("|"))
      node = filter(std::move(node));
    else if (at_name("is"))
      node = test(std::move(node));
    else if (at_op("("))
      node = call(std::move(node));
    else
      break;
  }
  return failed_ ? nullptr : std::move(node);
}

ExpressionParser::Ptr ExpressionParser::primary() {
  if (failed_) return nullptr;
  const Token& t = now();
  const int line = t.line;
  Ptr node;
  switch (t.kind) {
    case TokenKind::name:
      if (t.text == "true" || t.text == "True" || t.text == "false" || t.text == "False") {
        node = make(NodeKind::literal_bool, line);
        node->integer = t.text == "true" || t.text == "True" ? 1 : 0;
      } else if (t.text == "none" || t.text == "None") {
        node = make(NodeKind::literal_none, line);
      } else if (t.text == "self" || t.text == "varargs" || t.text == "kwargs" || t.text == "caller") {
        return fail(fmt::format("the name '{}' is not supported", t.text));
      } else if (t.text == "and" || t.text == "or") {
        return fail(fmt::format("expected an expression, found '{}'", t.text));
      } else {
        node = make(NodeKind::name, line);
        node->text = t.text;
      }
      next();
      return node;
    case TokenKind::string:
      node = make(NodeKind::literal_string, line);
      while (now().kind == TokenKind::string) {
        node->text += now().text;
        next();
      }
      return node;
    case TokenKind::integer:
      node = make(NodeKind::literal_int, line);
      node->integer = t.integer;
      next();
      return node;
    case TokenKind::real:
      node = make(NodeKind::literal_float, line);
      node->real = t.real;
      next();
      return node;
    default:
      break;
  }
  if (take_op("(")) {
    node = tuple(true, {}, true);
    expect_op(")");
    return failed_ ? nullptr : std::move(node);
  }
  const bool dict = at_op("{");
  if (dict || at_op("[")) {
    next();
    const std::string_view end = dict ? "}" : "]";
    node = make(dict ? NodeKind::dict : NodeKind::list, line);
    while (!failed_ && !at_op(end)) {
      if (!node->kids.empty() && !expect_op(",")) return nullptr;
      if (at_op(end)) break;
      add(node, expression());
      if (!dict) continue;
      if (!expect_op(":")) return nullptr;
      add(node, expression());
    }
    expect_op(end);
    return failed_ ? nullptr : std::move(node);
  }
  return fail(fmt::format("expected an expression, found {}", described()));
}

ExpressionParser::Ptr ExpressionParser::postfix(Ptr node) {
  while (!failed_) {
    if (at_op("(")) {
      node = call(std::move(node));
    } else if (at_op(".")) {
      const int line = now().line;
      next();
      if (now().kind == TokenKind::integer) {
        Ptr key = make(NodeKind::literal_int, line);
        key->integer = now().integer;
        next();
        Ptr item = make(NodeKind::item, line);
        add(item, std::move(node));
        add(item, std::move(key));
        node = std::move(item);
      } else {
        Ptr attribute = make(NodeKind::attribute, line);
        attribute->text = expect_name();
        add(attribute, std::move(node));
        node = std::move(attribute);
      }
    } else if (at_op("[")) {
      node = subscript(std::move(node));
    } else {
      break;
    }
  }
  return failed_ ? nullptr : std::move(node);
}

ExpressionParser::Ptr ExpressionParser::subscript(Ptr object) {
  const int line = now().line;
  next();
  Ptr first;
  if (!at_op(":")) {
    first = expression();
    if (failed_) return nullptr;
    if (take_op("]")) {
      Ptr item = make(NodeKind::item, line);
      add(item, std::move(object));
      add(item, std::move(first));
      return item;
    }
  }
  if (at_op(",")) return fail("a subscript of several parts is not supported");
  if (!expect_op(":")) return nullptr;
  Ptr slice = make(NodeKind::slice, line);
  add(slice, std::move(object));
  add(slice, std::move(first));
  add(slice, at_op("]") || at_op(":") ? nullptr : expression());
  add(slice, take_op(":") && !at_op("]") ? expression() : nullptr);
  expect_op("]");
  return failed_ ? nullptr : std::move(slice);
}

// "(" arguments ")", added to `node`.
bool ExpressionParser::arguments(Ptr& node) {
  if (!expect_op("(")) return false;
  bool first = true;
  while (!failed_ && !at_op(")")) {
    if (!first && !expect_op(",")) return false;
    if (at_op(")")) break;
    first = false;
    if (at_op("*") || at_op("**")) return fail("arguments with a star are not supported"), false;
    if (now().kind == TokenKind::name && look().kind == TokenKind::op && look().text == "=") {
      if (std::find(node->names.begin(), node->names.end(), now().text) != node->names.end())
        return fail(fmt::format("the argument '{}' twice", now().text)), false;
      node->names.push_back(now().text);
      next(), next();
    } else if (!node->names.empty()) {
      return fail("an argument without a name after one with a name"), false;
    }
    if (!add(node, expression())) return false;
  }
  return expect_op(")");
}
ExpressionParser::Ptr ExpressionParser::call(Ptr callee) {
  Ptr node = make(NodeKind::call, now().line);
  add(node, std::move(callee));
  if (!arguments(node)) return nullptr;
  return node;
}
ExpressionParser::Ptr ExpressionParser::filter(Ptr value) {
  Ptr node = make(NodeKind::filter, now().line);
  next();
  node->text = expect_name();
  if (failed_) return nullptr;
  if (!is_filter(node->text)) return fail(fmt::format("the filter '{}' is not supported", node->text));
  add(node, std::move(value));
  if (at_op("(") && !arguments(node)) return nullptr;
  return failed_ ? nullptr : std::move(node);
}
ExpressionParser::Ptr ExpressionParser::test(Ptr value) {
  const int line = now().line;
  next();
  const bool negated = take_name("not");
  Ptr node = make(NodeKind::test, line);
  node->text = expect_name();
  if (failed_) return nullptr;
  if (!is_test(node->text)) return fail(fmt::format("the test '{}' is not supported", node->text));
  add(node, std::move(value));
  const TokenKind k = now().kind;
  if (at_op("(")) {
    if (!arguments(node)) return nullptr;
  } else if ((k == TokenKind::name && !at_name("else") && !at_name("or") && !at_name("and")) || k == TokenKind::string || k == TokenKind::integer ||
             k == TokenKind::real || at_op("[") || at_op("{")) {
    if (at_name("is")) return fail("tests cannot be chained with 'is'");
    Ptr argument = primary();
    add(node, postfix(std::move(argument)));
  }
  if (failed_ || !negated) return failed_ ? nullptr : std::move(node);
  Ptr inverse = make(NodeKind::unary, line);
  inverse->text = "not";
  add(inverse, std::move(node));
  return inverse;
}

}  // namespace qb::text::chat

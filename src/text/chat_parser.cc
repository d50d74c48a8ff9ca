#include "text/chat_parser.h"

#include <fmt/format.h>

#include <array>

#include "base/diagnostics.h"

namespace qb::text::chat {
namespace {

constexpr std::array<std::string_view, 21> known_statements = {"block",      "extends", "print",    "include", "from",  "import",        "with",
                                                               "autoescape", "call",    "filter",   "do",      "trans", "debug",         "endfor",
                                                               "endif",      "endset",  "endmacro", "else",    "elif",  "endgeneration", "raw"};

class Parser : ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  Result<std::unique_ptr<Node>> run() {
    auto body = statements({});
    if (body != nullptr && !failed_ && now().kind != TokenKind::end) fail("the template goes on where it should end");
    for (const std::string& name : filtered_) {
      // A loop's filter is evaluated before the loop's body here, and between its rounds in Jinja.
      if (std::find(namespaces_.begin(), namespaces_.end(), name) != namespaces_.end())
        fail(fmt::format("a loop filter that reads '{}', which is assigned to", name));
    }
    if (failed_) return Error{Errc::invalid_argument, fmt::format("chat template, line {}: {}", error_line_, error_)};
    return body;
  }

 private:
  // Statements up to one of `ends`, which is then the current token.
  Ptr statements(std::initializer_list<std::string_view> ends) {
    const Deeper deeper(depth_);
    if (depth_ > deepest_nesting) return fail("nested too deep");
    Ptr body = make(NodeKind::body, now().line);
    while (!failed_) {
      const int line = now().line;
      switch (now().kind) {
        case TokenKind::data: {
          Ptr data = make(NodeKind::data, line);
          data->text = now().text;
          next();
          add(body, std::move(data));
          break;
        }
        case TokenKind::variable_begin: {
          next();
          Ptr output = make(NodeKind::output, line);
          add(output, tuple());
          if (!failed_ && now().kind != TokenKind::variable_end) return fail(fmt::format("expected '}}}}', found {}", described()));
          next();
          add(body, std::move(output));
          break;
        }
        case TokenKind::block_begin:
          next();
          for (const std::string_view end : ends) {
            if (at_name(end)) return body;
          }
          add(body, statement());
          end_of_block();
          break;
        default:
          if (ends.size() == 0) return body;
          return fail(fmt::format("'{}' is missing", *(ends.end() - 1)));
      }
    }
    return nullptr;
  }
  // The body of a statement: its tag ends, statements follow.
  Ptr body_until(std::initializer_list<std::string_view> ends) {
    take_op(":");
    if (!end_of_block()) return nullptr;
    return statements(ends);
  }

  Ptr statement() {
    const int line = now().line;
    if (now().kind != TokenKind::name) return fail(fmt::format("expected a statement, found {}", described()));
    if (take_name("if")) return branch(line);
    if (take_name("for")) return loop(line);
    if (take_name("set")) return set(line);
    if (take_name("macro")) return macro(line);
    if (at_name("break") || at_name("continue")) {
      if (!in_loop_) return fail(fmt::format("'{}' outside of a loop", now().text));
      Ptr node = make(at_name("break") ? NodeKind::break_loop : NodeKind::continue_loop, line);
      next();
      return node;
    }
    if (take_name("generation")) {
      Ptr node = make(NodeKind::scope, line);
      const bool outer = std::exchange(in_loop_, false);  // its body is a function of its own in Jinja
      add(node, body_until({"endgeneration"}));
      in_loop_ = outer;
      next();
      return node;
    }
    const bool known = std::find(known_statements.begin(), known_statements.end(), now().text) != known_statements.end();
    return fail(fmt::format("the statement '{}' is {}", escape(now().text.substr(0, 40)), known ? "not supported here" : "unknown"));
  }

  Ptr branch(int line) {
    Ptr node = make(NodeKind::branch, line);
    while (!failed_) {
      add(node, tuple(false));
      add(node, body_until({"elif", "else", "endif"}));
      if (failed_) return nullptr;
      if (take_name("elif")) continue;
      if (take_name("else")) add(node, body_until({"endif"}));
      next();
      return node;
    }
    return nullptr;
  }

  Ptr loop(int line) {
    Ptr node = make(NodeKind::loop, line);
    const bool bracket = take_op("(");
    do {
      node->names.push_back(target());
    } while (!failed_ && take_op(","));
    node->integer = node->names.size() > 1 ? 1 : 0;
    if (bracket && !expect_op(")")) return nullptr;
    if (!failed_ && !take_name("in")) return fail(fmt::format("expected 'in', found {}", described()));
    add(node, tuple(false, "recursive"));
    if (!failed_ && take_name("if")) {
      const size_t first = at_;
      add(node, expression());
      for (size_t i = first; i < at_; ++i) {
        if (tokens_[i].kind != TokenKind::name) continue;
        if (tokens_[i].text == "loop") return fail("'loop' in a loop filter");
        filtered_.push_back(tokens_[i].text);
      }
    } else {
      add(node, nullptr);
    }
    if (at_name("recursive")) return fail("recursive loops are not supported");
    const bool outer = std::exchange(in_loop_, true);
    add(node, body_until({"else", "endfor"}));
    in_loop_ = outer;
    if (failed_) return nullptr;
    if (take_name("else"))
      add(node, body_until({"endfor"}));
    else
      add(node, nullptr);
    next();
    return node;
  }

  Ptr set(int line) {
    if (look().kind == TokenKind::op && look().text == ".") {
      Ptr node = make(NodeKind::set_member, line);
      node->text = target();
      next();
      node->names.push_back(expect_name());
      namespaces_.push_back(node->text);
      if (!expect_op("=")) return nullptr;
      add(node, tuple());
      return node;
    }
    Ptr node = make(NodeKind::set, line);
    do {
      node->names.push_back(target());
    } while (!failed_ && take_op(","));
    node->integer = node->names.size() > 1 ? 1 : 0;
    if (take_op("=")) {
      add(node, tuple());
      return node;
    }
    if (failed_ || node->names.size() != 1) return fail("a block cannot be assigned to several names");
    node->kind = NodeKind::set_block;
    Ptr chain;
    while (!failed_ && at_op("|")) chain = filter(std::move(chain));
    add(node, std::move(chain));
    const bool outer = std::exchange(in_loop_, false);
    add(node, body_until({"endset"}));
    in_loop_ = outer;
    next();
    return node;
  }

  Ptr macro(int line) {
    Ptr node = make(NodeKind::macro, line);
    node->text = target();
    if (!expect_op("(")) return nullptr;
    std::vector<Ptr> defaults;
    while (!failed_ && !at_op(")")) {
      if (!node->names.empty() && !expect_op(",")) return nullptr;
      node->names.push_back(target());
      if (take_op("="))
        defaults.push_back(expression());
      else if (!defaults.empty())
        return fail("a parameter without a default after one with a default");
    }
    expect_op(")");
    auto sorted = node->names;
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) return fail("a macro's parameters share a name");
    const bool outer = std::exchange(in_loop_, false);
    add(node, body_until({"endmacro"}));
    in_loop_ = outer;
    for (Ptr& d : defaults) add(node, std::move(d));
    next();
    return node;
  }

  bool in_loop_ = false;
  std::vector<std::string> namespaces_, filtered_;
};

}  // namespace

Result<std::unique_ptr<Node>> parse_template(std::string_view source) {
  auto tokens = tokenize(source);
  if (!tokens) return tokens.error();
  return Parser(std::move(*tokens)).run();
}

}  // namespace qb::text::chat

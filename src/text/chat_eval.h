// Evaluates a chat template.
//
// The first error stays and stops everything: after it, functions return undefined values soon, and no caller needs to check before its own next loop.
// Budgets: steps (an evaluated node or a copied element), bytes of all texts made, depth of the evaluation.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/chat_ast.h"
#include "text/chat_value.h"

namespace qb::text::chat {

constexpr int64_t most_steps = 10'000'000;
constexpr size_t most_bytes = 256U << 20, most_output = 64U << 20;
constexpr int deepest_evaluation = 400;

struct Scope {
  const Scope* outer = nullptr;
  std::vector<std::pair<std::string_view, Value>> names;

  void set(std::string_view name, Value value);
};

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string_view, Value>> named;
};

class Evaluator {
 public:
  explicit Evaluator(const DictData& variables) : variables_(variables) {}
  Result<std::string> run(const Node& root);

 private:
  enum class Flow : uint8_t { next, leave_loop, next_round };
  using Optionals = std::vector<std::optional<Value>>;

  // chat_eval.cc
  Value fail(std::string what);
  bool failed() const { return error_.has_value(); }
  bool charge(size_t steps);
  bool charge_bytes(size_t bytes);
  Value make_string(std::string s);
  Value make_list(Values items, ListKind kind = ListKind::list);
  Value make_dict(DictData dict);
  void write(std::string_view s);
  std::string str(const Value& v);
  bool truth(const Value& v);
  bool same(const Value& a, const Value& b);
  bool is_plain(const Value& v);  // what containers may hold
  Flow execute(const Node& n, Scope& scope);
  Flow execute_loop(const Node& n, Scope& scope);
  void assign(const Node& n, Scope& scope, const Value& value);
  std::string captured(const Node& body, const Scope& outer);
  const Value* find_name(std::string_view name, const Scope& scope) const;

  // chat_expression.cc
  Value evaluate(const Node& n, const Scope& scope);
  Value evaluate_name(const Node& n, const Scope& scope);
  Value evaluate_compare(const Node& n, const Scope& scope);
  Value evaluate_slice(const Node& n, const Scope& scope);
  Value unary(const Node& n, const Scope& scope);
  Value binary(const std::string& op, const Value& a, const Value& b);
  Value integer_operation(const std::string& op, int64_t a, int64_t b);
  Value repeat(const Value& what, int64_t times);
  std::optional<bool> less(const Value& a, const Value& b);  // nullopt: failed
  std::optional<bool> contains(const Value& container, const Value& v);
  Arguments arguments(const Node& n, size_t first, const Scope& scope);

  // chat_access.cc
  Value attribute(const Value& object, std::string_view name);
  Value item(const Value& object, const Value& key);
  std::optional<Value> method_or_refusal(const Value& object, std::string_view name);
  Value call(const Value& callee, Arguments args);
  Value call_macro(const MacroData& macro, Arguments args);
  Value call_function(Function f, Arguments args);
  Value call_method(const Value& self, std::string_view name, const Arguments& args);
  Value string_method(const std::string& s, std::string_view name, const Arguments& args);
  Value strftime_now(const Arguments& args);
  Value range(const Arguments& args);
  // The values of parameters by position or name; false: failed.
  bool bind(std::string_view what, const Arguments& args, std::initializer_list<std::string_view> parameters, Optionals& out);
  std::optional<Values> iterate(const Value& v);  // nullopt: failed
  std::optional<int64_t> length(const Value& v);

  // chat_filters.cc, chat_sequences.cc
  Value filter(std::string_view name, const Value& v, const Arguments& args);
  std::optional<Value> text_filter(std::string_view name, const Value& v, const Arguments& args);
  std::optional<Value> number_filter(std::string_view name, const Value& v, const Arguments& args);
  std::optional<Value> sequence_filter(std::string_view name, const Value& v, const Arguments& args);
  Value case_of(std::string_view name, const std::string& s);
  Value to_json(const Value& v, const Arguments& args);
  Value to_int(const Value& v, const Arguments& args);
  Value round(const Value& v, const Arguments& args);
  Value map(const Value& v, const Arguments& args);
  Value select(std::string_view name, const Value& v, const Arguments& args);
  Value sorted(std::string_view name, const Value& v, const Arguments& args);
  Value unique(const Value& v, const Arguments& args);
  Value extreme(std::string_view name, const Value& v, const Arguments& args);
  Value path(const Value& v, const Value& attribute);
  Value sort_key(const Value& v, bool case_sensitive);
  bool sort_by(Values& items, const Values& keys, bool reverse);
  bool test(std::string_view name, const Value& v, const Arguments& args);

  const DictData& variables_;
  std::string* out_ = nullptr;
  std::optional<std::string> error_;
  int error_line_ = 0, line_ = 0;
  int64_t steps_ = 0;
  size_t bytes_ = 0;
  int depth_ = 0;
};

}  // namespace qb::text::chat

// Values of chat templates, with Python's meaning.
//
// Containers are immutable and of bounded depth; only a namespace changes, and no container holds one, so there are no cycles and destruction is shallow.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/json_fwd.h"
#include "base/result.h"

namespace qb::text::chat {

struct Node;
struct Scope;

enum class Kind : uint8_t { undefined, none, boolean, integer, real, string, list, dict, space, macro, function, method, loop, markup };
// What Python would call a list. A generator can be read once; views, ranges and generators print as objects, which is refused.
enum class ListKind : uint8_t { list, tuple, view, range, generator };
enum class Function : uint8_t { range, raise_exception, strftime_now, name_space, dict };

struct Value;
using Values = std::vector<Value>;

struct StringData;
struct ListData;
struct DictData;
struct SpaceData;
struct MacroData;
struct MethodData;
struct LoopData;

struct Value {
  Kind kind = Kind::undefined;
  int64_t i = 0;  // boolean, integer, function
  double d = 0;
  std::shared_ptr<void> data;

  static Value none() { return {Kind::none}; }
  static Value boolean(bool b) { return {Kind::boolean, b ? 1 : 0}; }
  static Value integer(int64_t n) { return {Kind::integer, n}; }
  static Value real(double r) { return {Kind::real, 0, r}; }
  static Value string(std::string s);
  static Value undefined(std::string_view what);  // what is missing, for the message
  static Value list(Values items, ListKind kind = ListKind::list);
  static Value dict(DictData data);

  bool is(Kind k) const { return kind == k; }
  bool is_number() const { return kind == Kind::boolean || kind == Kind::integer || kind == Kind::real; }
  bool is_int() const { return kind == Kind::boolean || kind == Kind::integer; }
  double number() const { return kind == Kind::real ? d : static_cast<double>(i); }
  const std::string& text() const;  // string, markup; undefined: what is missing
  ListData& items() const;
  const DictData& members() const;
  template <class T>
  T& as() const {
    return *static_cast<T*>(data.get());
  }
  int depth() const;
  size_t weight() const;  // values inside, counted as often as they occur
};

struct ListData {
  Values items;
  ListKind kind = ListKind::list;
  bool used = false;  // a generator that has been read
  int depth = 1;
  size_t weight = 1;
};

// In the order of insertion. Keys are what Python can hash and templates use: strings, numbers, none.
struct DictData {
  std::vector<std::pair<Value, Value>> members;
  std::unordered_map<std::string, size_t> index;
  int depth = 1;
  size_t weight = 1;

  // False: the key cannot be one.
  bool set(Value key, Value value);
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};

struct SpaceData {
  std::vector<std::pair<std::string, Value>> members;
};
struct MacroData {
  const Node* node;
  const Scope* outer;
};
struct MethodData {
  Value self;
  std::string name;
};
struct LoopData {
  const Values* items;
  size_t at = 0;
  int depth = 1;
};

// Bounds of containers. Without the second, `set x = [x, x]` would make a value that takes forever to compare.
constexpr int deepest_value = 100;
constexpr size_t heaviest_value = 4'000'000;

Result<Value> from_json(const Json& json);
bool is_true(const Value& v);
// Python's ==.
bool equal(const Value& a, const Value& b);
std::string_view type_name(const Value& v);

struct JsonStyle {
  int64_t indent = -1;  // < 0: one line
  std::string indent_text;
  std::string item_separator = ", ", key_separator = ": ";
  bool ascii = false, sort_keys = false;
};
// Appending stops with an error where `out` would pass `most` bytes.
Result<void> append_str(const Value& v, std::string& out, size_t most);
Result<void> append_repr(const Value& v, std::string& out, size_t most);
Result<void> append_json(const Value& v, const JsonStyle& style, std::string& out, size_t most, int level = 0);

}  // namespace qb::text::chat

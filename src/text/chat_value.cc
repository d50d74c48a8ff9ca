#include "text/chat_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/diagnostics.h"
#include "base/json.h"
#include "base/utf8.h"
#include "text/py_text.h"

namespace qb::text::chat {
namespace {

Error error(std::string what) {
  return {Errc::invalid_argument, std::move(what)};
}

// Keys that are equal in Python have the same text here: 1, 1.0 and true. Empty: not a key.
std::string key_text(const Value& key) {
  switch (key.kind) {
    case Kind::string:
      return "s" + key.text();
    case Kind::none:
      return "n";
    case Kind::boolean:
    case Kind::integer:
      return fmt::format("i{}", key.i);
    case Kind::real:
      if (std::isnan(key.d)) return {};
      if (std::floor(key.d) == key.d && std::fabs(key.d) < 9e18) return fmt::format("i{}", static_cast<int64_t>(key.d));
      return fmt::format("f{}", key.d);
    default:
      return {};
  }
}

// Saturates: beyond the bound, more makes no difference.
size_t add_weight(size_t a, size_t b) {
  return std::min(a + b, 2 * heaviest_value);
}

Result<Value> convert(const Json& json, int depth) {
  if (depth > deepest_value) return error(fmt::format("a variable is nested more than {} levels deep", deepest_value));
  switch (json.type()) {
    case Json::value_t::null:
      return Value::none();
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return error(fmt::format("the integer {} is too large", json.get<uint64_t>()));
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::real(json.get<double>());
    case Json::value_t::string: {
      const std::string& s = *json.get_ptr<const std::string*>();
      if (const size_t at = find_invalid_utf8(s); at != std::string::npos)
        return error(fmt::format("the text '{}...' is not UTF-8 at byte {}", escape(s.substr(0, 40)), at));
      return Value::string(s);
    }
    case Json::value_t::array: {
      Values items;
      items.reserve(json.size());
      for (const Json& item : json) {
        QB_ASSIGN(Value v, convert(item, depth + 1));
        items.push_back(std::move(v));
      }
      return Value::list(std::move(items));
    }
    case Json::value_t::object: {
      DictData dict;
      for (const auto& [key, value] : *json.get_ptr<const Json::object_t*>()) {
        if (find_invalid_utf8(key) != std::string::npos) return error(fmt::format("the key '{}' is not UTF-8", escape(key.substr(0, 40))));
        QB_ASSIGN(Value v, convert(value, depth + 1));
        dict.set(Value::string(key), std::move(v));
      }
      return Value::dict(std::move(dict));
    }
    default:
      return error("a variable is no JSON value");
  }
}

Result<void> check_size(const std::string& out, size_t most) {
  if (out.size() <= most) return {};
  return error(fmt::format("a text of more than {} bytes", most));
}

}  // namespace

Value Value::string(std::string s) {
  Value v{Kind::string};
  v.data = std::make_shared<std::string>(std::move(s));
  return v;
}
Value Value::undefined(std::string_view what) {
  Value v;
  v.data = std::make_shared<std::string>(what);
  return v;
}
Value Value::list(Values items, ListKind kind) {
  auto data = std::make_shared<ListData>();
  data->kind = kind;
  for (const Value& item : items) {
    data->depth = std::max(data->depth, item.depth() + 1);
    data->weight = add_weight(data->weight, item.weight());
  }
  data->items = std::move(items);
  Value v{Kind::list};
  v.data = std::move(data);
  return v;
}
Value Value::dict(DictData d) {
  Value v{Kind::dict};
  v.data = std::make_shared<DictData>(std::move(d));
  return v;
}

const std::string& Value::text() const {
  static const std::string nothing = "a value";
  return data == nullptr ? nothing : as<std::string>();
}
ListData& Value::items() const {
  return as<ListData>();
}
const DictData& Value::members() const {
  return as<DictData>();
}
int Value::depth() const {
  return kind == Kind::list ? items().depth : kind == Kind::dict ? members().depth : kind == Kind::method ? as<MethodData>().self.depth() + 1 : 1;
}

size_t Value::weight() const {
  return kind == Kind::list ? items().weight : kind == Kind::dict ? members().weight : kind == Kind::method ? as<MethodData>().self.weight() : 1;
}

bool DictData::set(Value key, Value value) {
  std::string text = key_text(key);
  if (text.empty()) return false;
  depth = std::max(depth, value.depth() + 1);
  weight = add_weight(weight, value.weight());
  const auto [at, made] = index.try_emplace(std::move(text), members.size());
  if (made)
    members.emplace_back(std::move(key), std::move(value));
  else
    members[at->second].second = std::move(value);
  return true;
}
const Value* DictData::find(const Value& key) const {
  const auto at = index.find(key_text(key));
  return at == index.end() ? nullptr : &members[at->second].second;
}
const Value* DictData::find(std::string_view key) const {
  std::string text = "s";
  const auto at = index.find(text.append(key));
  return at == index.end() ? nullptr : &members[at->second].second;
}

Result<Value> from_json(const Json& json) {
  return convert(json, 1);
}

bool is_true(const Value& v) {
  switch (v.kind) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return v.i != 0;
    case Kind::real:
      return v.d != 0;
    case Kind::string:
    case Kind::markup:
      return !v.text().empty();
    case Kind::list:
      return v.items().kind == ListKind::generator || !v.items().items.empty();
    case Kind::dict:
      return !v.members().members.empty();
    default:
      return true;
  }
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_int() && b.is_int()) return a.i == b.i;
    // Exact, where one is an integer that a double cannot hold.
    if (a.is_int() || b.is_int()) {
      const double r = a.is_int() ? b.d : a.d;
      const int64_t n = a.is_int() ? a.i : b.i;
      return std::floor(r) == r && std::fabs(r) < 9.2e18 && static_cast<int64_t>(r) == n;
    }
    return a.d == b.d;
  }
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
    case Kind::markup:
      return a.text() == b.text();
    case Kind::list: {
      if (a.data == b.data) return true;
      const ListData &x = a.items(), &y = b.items();
      if (x.kind != y.kind || x.kind == ListKind::view || x.kind == ListKind::generator) return false;
      return x.items.size() == y.items.size() && std::equal(x.items.begin(), x.items.end(), y.items.begin(), equal);
    }
    case Kind::dict: {
      const DictData &x = a.members(), &y = b.members();
      if (x.members.size() != y.members.size()) return false;
      return std::all_of(x.members.begin(), x.members.end(), [&](const auto& m) {
        const Value* other = y.find(m.first);
        return other != nullptr && equal(m.second, *other);
      });
    }
    case Kind::function:
      return a.i == b.i;
    default:
      return a.data == b.data;
  }
}

std::string_view type_name(const Value& v) {
  switch (v.kind) {
    case Kind::undefined:
      return "an undefined value";
    case Kind::none:
      return "none";
    case Kind::boolean:
      return "a boolean";
    case Kind::integer:
      return "an integer";
    case Kind::real:
      return "a float";
    case Kind::string:
      return "a string";
    case Kind::list:
      switch (v.items().kind) {
        case ListKind::list:
          return "a list";
        case ListKind::tuple:
          return "a tuple";
        case ListKind::view:
          return "a view of a dict";
        case ListKind::range:
          return "a range";
        case ListKind::generator:
          return "a generator (write '|list' after it)";
      }
      return "a list";
    case Kind::dict:
      return "a dict";
    case Kind::space:
      return "a namespace";
    case Kind::macro:
      return "a macro";
    case Kind::function:
    case Kind::method:
      return "a function";
    case Kind::loop:
      return "a loop";
    case Kind::markup:
      return "escaped or safe text";
  }
  return "a value";
}

Result<void> append_str(const Value& v, std::string& out, size_t most) {
  if (v.is(Kind::undefined)) return {};
  if (v.is(Kind::string) || v.is(Kind::markup)) {
    out += v.text();
    return check_size(out, most);
  }
  return append_repr(v, out, most);
}

Result<void> append_repr(const Value& v, std::string& out, size_t most) {
  switch (v.kind) {
    case Kind::undefined:
      out += "Undefined";
      break;
    case Kind::none:
      out += "None";
      break;
    case Kind::boolean:
      out += v.i != 0 ? "True" : "False";
      break;
    case Kind::integer:
      out += fmt::format("{}", v.i);
      break;
    case Kind::real:
      out += py::float_repr(v.d);
      break;
    case Kind::string:
      out += py::repr(v.text());
      break;
    case Kind::list: {
      const ListData& list = v.items();
      if (list.kind != ListKind::list && list.kind != ListKind::tuple) return error(fmt::format("cannot print {}", type_name(v)));
      const bool tuple = list.kind == ListKind::tuple;
      out += tuple ? '(' : '[';
      for (size_t i = 0; i < list.items.size(); ++i) {
        if (i > 0) out += ", ";
        QB_TRY(append_repr(list.items[i], out, most));
      }
      if (tuple && list.items.size() == 1) out += ',';
      out += tuple ? ')' : ']';
      break;
    }
    case Kind::dict: {
      out += '{';
      bool first = true;
      for (const auto& [key, value] : v.members().members) {
        if (!std::exchange(first, false)) out += ", ";
        QB_TRY(append_repr(key, out, most));
        out += ": ";
        QB_TRY(append_repr(value, out, most));
      }
      out += '}';
      break;
    }
    default:
      return error(fmt::format("cannot print {}", type_name(v)));
  }
  return check_size(out, most);
}

namespace {

std::string json_float(double d) {
  return std::isnan(d) ? "NaN" : std::isinf(d) ? (d < 0 ? "-Infinity" : "Infinity") : py::float_repr(d);
}

Result<std::string> json_key(const Value& key, bool ascii) {
  switch (key.kind) {
    case Kind::string:
      return py::json_string(key.text(), ascii);
    case Kind::none:
      return std::string("\"null\"");
    case Kind::boolean:
      return std::string(key.i != 0 ? "\"true\"" : "\"false\"");
    case Kind::integer:
      return fmt::format("\"{}\"", key.i);
    case Kind::real:
      return fmt::format("\"{}\"", json_float(key.d));
    default:
      return error(fmt::format("tojson: {} as a key", type_name(key)));
  }
}

}  // namespace

Result<void> append_json(const Value& v, const JsonStyle& style, std::string& out, size_t most, int level) {
  const auto line = [&](int at) {
    if (style.indent < 0) return;
    out += '\n';
    for (int i = 0; i < at; ++i) out += style.indent_text;
  };
  switch (v.kind) {
    case Kind::none:
      out += "null";
      break;
    case Kind::boolean:
      out += v.i != 0 ? "true" : "false";
      break;
    case Kind::integer:
      out += fmt::format("{}", v.i);
      break;
    case Kind::real:
      out += json_float(v.d);
      break;
    case Kind::string:
    case Kind::markup:
      out += py::json_string(v.text(), style.ascii);
      break;
    case Kind::list: {
      const ListData& list = v.items();
      if (list.kind != ListKind::list && list.kind != ListKind::tuple) return error(fmt::format("tojson of {}", type_name(v)));
      if (list.items.empty()) {
        out += "[]";
        break;
      }
      out += '[';
      for (size_t i = 0; i < list.items.size(); ++i) {
        if (i > 0) out += style.item_separator;
        line(level + 1);
        QB_TRY(append_json(list.items[i], style, out, most, level + 1));
      }
      line(level);
      out += ']';
      break;
    }
    case Kind::dict: {
      std::vector<const std::pair<Value, Value>*> members;
      for (const auto& m : v.members().members) members.push_back(&m);
      if (members.empty()) {
        out += "{}";
        break;
      }
      if (style.sort_keys) {
        if (!std::all_of(members.begin(), members.end(), [](const auto* m) { return m->first.is(Kind::string); }))
          return error("tojson: keys to sort that are not all strings");
        std::stable_sort(members.begin(), members.end(), [](const auto* a, const auto* b) { return a->first.text() < b->first.text(); });
      }
      out += '{';
      for (size_t i = 0; i < members.size(); ++i) {
        if (i > 0) out += style.item_separator;
        line(level + 1);
        QB_ASSIGN(const std::string key, json_key(members[i]->first, style.ascii));
        out += key;
        out += style.key_separator;
        QB_TRY(append_json(members[i]->second, style, out, most, level + 1));
      }
      line(level);
      out += '}';
      break;
    }
    default:
      return error(fmt::format("tojson of {}", type_name(v)));
  }
  return check_size(out, most);
}

}  // namespace qb::text::chat

// Attributes, items, calls and methods.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "base/diagnostics.h"
#include "text/chat_eval.h"
#include "text/py_text.h"

namespace qb::text::chat {
namespace {

// All public attributes of Python's types: an attribute hides a key of the same name, so even those that are not supported must be known.
constexpr std::array<std::string_view, 47> str_names = {
    "capitalize",   "casefold", "center",   "count",   "encode",    "endswith",   "expandtabs",   "find",      "format",    "format_map",
    "index",        "isalnum",  "isalpha",  "isascii", "isdecimal", "isdigit",    "isidentifier", "islower",   "isnumeric", "isprintable",
    "isspace",      "istitle",  "isupper",  "join",    "ljust",     "lower",      "lstrip",       "maketrans", "partition", "removeprefix",
    "removesuffix", "replace",  "rfind",    "rindex",  "rjust",     "rpartition", "rsplit",       "rstrip",    "split",     "splitlines",
    "startswith",   "strip",    "swapcase", "title",   "translate", "upper",      "zfill"};
constexpr std::array<std::string_view, 18> str_supported = {"capitalize", "count",        "endswith",     "find",    "join",  "lower",
                                                            "lstrip",     "removeprefix", "removesuffix", "replace", "rfind", "rstrip",
                                                            "split",      "splitlines",   "startswith",   "strip",   "title", "upper"};
constexpr std::array<std::string_view, 11> dict_names = {"clear", "copy",    "fromkeys",   "get",    "items", "keys",
                                                         "pop",   "popitem", "setdefault", "update", "values"};
constexpr std::array<std::string_view, 4> dict_supported = {"get", "items", "keys", "values"};
constexpr std::array<std::string_view, 11> list_names = {"append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 2> tuple_names = {"count", "index"};
constexpr std::array<std::string_view, 9> other_list_names = {"count", "index", "start", "stop", "step", "isdisjoint", "mapping", "send", "close"};
constexpr std::array<std::string_view, 14> number_names = {"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
                                                           "from_bytes",       "fromhex",   "hex",        "imag",      "is_integer",
                                                           "numerator",        "real",      "to_bytes",   "throw"};

template <size_t N>
bool has(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

// The object's own attribute; nullopt: it has none of that name (or it is refused, which is a failure).
std::optional<Value> Evaluator::method_or_refusal(const Value& object, std::string_view name) {
  const auto refuse = [&] { return fail(fmt::format("the attribute '{}' of {} is not supported", escape(name), type_name(object))); };
  const auto method = [&] {
    Value v{Kind::method};
    v.data = std::make_shared<MethodData>(MethodData{object, std::string(name)});
    return v;
  };
  if (name.starts_with('_')) return refuse();
  switch (object.kind) {
    case Kind::string:
      if (has(str_supported, name)) return method();
      if (has(str_names, name)) return refuse();
      return std::nullopt;
    case Kind::dict:
      if (has(dict_supported, name)) return method();
      if (has(dict_names, name)) return refuse();
      return std::nullopt;
    case Kind::list: {
      const ListKind k = object.items().kind;
      if (k == ListKind::list ? has(list_names, name) : k == ListKind::tuple ? has(tuple_names, name) : has(other_list_names, name)) return refuse();
      return std::nullopt;
    }
    case Kind::boolean:
    case Kind::integer:
    case Kind::real:
      if (has(number_names, name)) return refuse();
      return std::nullopt;
    case Kind::space:
      for (const auto& [known, value] : object.as<SpaceData>().members) {
        if (known == name) return value;
      }
      return std::nullopt;
    case Kind::loop: {
      const LoopData& loop = object.as<LoopData>();
      const auto at = static_cast<int64_t>(loop.at), n = static_cast<int64_t>(loop.items->size());
      if (name == "index") return Value::integer(at + 1);
      if (name == "index0") return Value::integer(at);
      if (name == "revindex") return Value::integer(n - at);
      if (name == "revindex0") return Value::integer(n - at - 1);
      if (name == "first") return Value::boolean(at == 0);
      if (name == "last") return Value::boolean(at + 1 == n);
      if (name == "length") return Value::integer(n);
      if (name == "depth") return Value::integer(1);
      if (name == "depth0") return Value::integer(0);
      if (name == "previtem") return at == 0 ? Value::undefined("loop.previtem") : (*loop.items)[loop.at - 1];
      if (name == "nextitem") return at + 1 == n ? Value::undefined("loop.nextitem") : (*loop.items)[loop.at + 1];
      if (name == "cycle") return method();
      return refuse();
    }
    case Kind::none:
      return std::nullopt;
    default:
      return refuse();
  }
}

Value Evaluator::attribute(const Value& object, std::string_view name) {
  if (object.is(Kind::undefined)) return fail(fmt::format("'{}' is undefined, so it has no attribute '{}'", escape(object.text()), escape(name)));
  if (auto own = method_or_refusal(object, name)) return *own;
  if (object.is(Kind::dict)) {
    if (const Value* v = object.members().find(name)) return *v;
  }
  return Value::undefined(name);
}

Value Evaluator::item(const Value& object, const Value& key) {
  if (object.is(Kind::undefined)) return fail(fmt::format("'{}' is undefined, so it has no items", escape(object.text())));
  if (object.is(Kind::dict)) {
    if (const Value* v = object.members().find(key)) return *v;
  } else if (key.is_int() && object.is(Kind::list)) {
    const ListData& list = object.items();
    if (list.kind != ListKind::view && list.kind != ListKind::generator) {
      const auto n = static_cast<int64_t>(list.items.size());
      const int64_t at = key.i < 0 ? key.i + n : key.i;
      if (at >= 0 && at < n) return list.items[static_cast<size_t>(at)];
    }
  } else if (key.is_int() && object.is(Kind::string)) {
    const std::string& s = object.text();
    if (!charge(1 + s.size() / 64)) return {};
    const auto offsets = py::point_offsets(s);
    const auto n = static_cast<int64_t>(offsets.size()) - 1;
    const int64_t at = key.i < 0 ? key.i + n : key.i;
    if (at >= 0 && at < n)
      return make_string(s.substr(offsets[static_cast<size_t>(at)], offsets[static_cast<size_t>(at) + 1] - offsets[static_cast<size_t>(at)]));
  } else if (!object.is(Kind::list) && !object.is(Kind::string) && !object.is(Kind::none) && !object.is(Kind::space) && !object.is_number()) {
    return fail(fmt::format("an item of {}", type_name(object)));
  }
  if (key.is(Kind::string)) {
    if (auto own = method_or_refusal(object, key.text())) return *own;
    return Value::undefined(key.text());
  }
  return Value::undefined("an item");
}

bool Evaluator::bind(std::string_view what, const Arguments& args, std::initializer_list<std::string_view> parameters, Optionals& out) {
  out.assign(parameters.size(), std::nullopt);
  if (failed()) return false;
  if (args.positional.size() > parameters.size()) return fail(fmt::format("'{}' takes at most {} arguments", what, parameters.size())), false;
  for (size_t i = 0; i < args.positional.size(); ++i) out[i] = args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto at = std::find(parameters.begin(), parameters.end(), name);
    if (at == parameters.end() || out[static_cast<size_t>(at - parameters.begin())])
      return fail(fmt::format("'{}' and its argument '{}' do not fit", what, escape(name))), false;
    out[static_cast<size_t>(at - parameters.begin())] = value;
  }
  return true;
}

std::optional<Values> Evaluator::iterate(const Value& v) {
  if (failed()) return std::nullopt;
  switch (v.kind) {
    case Kind::undefined:
      return Values();
    case Kind::list: {
      ListData& list = v.items();
      if (list.kind == ListKind::generator && std::exchange(list.used, true)) {
        fail("a generator is read twice; the second time it is empty: write '|list' after it");
        return std::nullopt;
      }
      if (!charge(list.items.size())) return std::nullopt;
      return list.items;
    }
    case Kind::dict: {
      if (!charge(v.members().members.size())) return std::nullopt;
      Values keys;
      for (const auto& m : v.members().members) keys.push_back(m.first);
      return keys;
    }
    case Kind::string: {
      const std::string& s = v.text();
      if (!charge(s.size()) || !charge_bytes(s.size() * 16)) return std::nullopt;
      const auto offsets = py::point_offsets(s);
      Values out;
      for (size_t i = 0; i + 1 < offsets.size(); ++i) out.push_back(Value::string(s.substr(offsets[i], offsets[i + 1] - offsets[i])));
      return out;
    }
    default:
      fail(fmt::format("{} cannot be iterated", type_name(v)));
      return std::nullopt;
  }
}

std::optional<int64_t> Evaluator::length(const Value& v) {
  switch (v.kind) {
    case Kind::undefined:
      return 0;
    case Kind::string:
      charge(v.text().size() / 64);
      return static_cast<int64_t>(py::count_points(v.text()));
    case Kind::dict:
      return static_cast<int64_t>(v.members().members.size());
    case Kind::list:
      if (v.items().kind != ListKind::generator) return static_cast<int64_t>(v.items().items.size());
      break;
    default:
      break;
  }
  fail(fmt::format("{} has no length", type_name(v)));
  return std::nullopt;
}

Value Evaluator::call(const Value& callee, Arguments args) {
  switch (callee.kind) {
    case Kind::macro:
      return call_macro(callee.as<MacroData>(), std::move(args));
    case Kind::function:
      return call_function(static_cast<Function>(callee.i), std::move(args));
    case Kind::method:
      return call_method(callee.as<MethodData>().self, callee.as<MethodData>().name, args);
    case Kind::undefined:
      return fail(fmt::format("'{}' is undefined, so it cannot be called", escape(callee.text())));
    default:
      return fail(fmt::format("{} cannot be called", type_name(callee)));
  }
}

Value Evaluator::call_macro(const MacroData& macro, Arguments args) {
  const Node& n = *macro.node;
  if (args.positional.size() > n.names.size()) return fail(fmt::format("the macro '{}' takes at most {} arguments", n.text, n.names.size()));
  Optionals values(n.names.size());
  for (size_t i = 0; i < args.positional.size(); ++i) values[i] = std::move(args.positional[i]);
  for (auto& [name, value] : args.named) {
    const auto at = std::find(n.names.begin(), n.names.end(), name);
    if (at == n.names.end() || values[static_cast<size_t>(at - n.names.begin())])
      return fail(fmt::format("the macro '{}' and the argument '{}' do not fit", n.text, name));
    values[static_cast<size_t>(at - n.names.begin())] = std::move(value);
  }
  Scope scope{macro.outer, {}};
  const size_t defaults = n.kids.size() - 1, first_default = n.names.size() - defaults;
  for (size_t i = 0; i < n.names.size(); ++i) {
    Value v = Value::undefined(n.names[i]);
    if (values[i])
      v = std::move(*values[i]);
    else if (i >= first_default)
      v = evaluate(*n.kids[1 + i - first_default], scope);
    scope.set(n.names[i], std::move(v));
  }
  if (failed()) return {};
  return make_string(captured(*n.kids[0], scope));
}

Value Evaluator::call_function(Function f, Arguments args) {
  switch (f) {
    case Function::range:
      return range(args);
    case Function::strftime_now:
      return strftime_now(args);
    case Function::raise_exception: {
      Optionals a;
      if (!bind("raise_exception", args, {"message"}, a)) return {};
      return fail(fmt::format("the template refuses these messages: {}", a[0] ? str(*a[0]) : std::string()));
    }
    case Function::name_space:
    case Function::dict: {
      if (args.positional.size() > 1 || (args.positional.size() == 1 && !args.positional[0].is(Kind::dict)))
        return fail("dict and namespace take a dict and named arguments");
      DictData all;
      if (!args.positional.empty()) all = args.positional[0].members();
      for (auto& [name, value] : args.named) {
        if (!is_plain(value)) return {};
        all.set(Value::string(std::string(name)), std::move(value));
      }
      if (f == Function::dict) return make_dict(std::move(all));
      auto space = std::make_shared<SpaceData>();
      for (auto& [key, value] : all.members) {
        if (!key.is(Kind::string)) return fail("a namespace's members are named by strings");
        space->members.emplace_back(key.text(), value);
      }
      Value v{Kind::space};
      v.data = std::move(space);
      return v;
    }
  }
  return {};
}

Value Evaluator::range(const Arguments& args) {
  const size_t n = args.positional.size();
  if (!args.named.empty() || n == 0 || n > 3) return fail("range takes one to three arguments");
  for (const Value& v : args.positional) {
    if (!v.is_int()) return fail(fmt::format("range of {}", type_name(v)));
  }
  const int64_t first = n == 1 ? 0 : args.positional[0].i, last = args.positional[n == 1 ? 0 : 1].i, step = n == 3 ? args.positional[2].i : 1;
  if (step == 0) return fail("range with a step of zero");
  Values items;
  constexpr size_t longest = 100'000;  // as Jinja's sandbox
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    if (items.size() == longest) return fail(fmt::format("a range of more than {} numbers", longest));
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return make_list(std::move(items), ListKind::range);
}

Value Evaluator::strftime_now(const Arguments& args) {
  Optionals a;
  if (!bind("strftime_now", args, {"format"}, a)) return {};
  if (!a[0] || !a[0]->is(Kind::string)) return fail("strftime_now takes a format");
  const std::string& format = a[0]->text();
  if (format.size() > 256 || format.find('\0') != std::string::npos) return fail("strftime_now: this format is not supported");
  // Those whose meaning C and Python share.
  for (size_t i = format.find('%'); i != std::string::npos; i = format.find('%', i + 2)) {
    if (i + 1 >= format.size() || std::string_view("aAbBcdHIjmMpSUwWxXyYGuV%").find(format[i + 1]) == std::string_view::npos)
      return fail(fmt::format("strftime_now: the format '{}' is not supported", escape(format)));
  }
  if (format.empty()) return make_string({});
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  if (localtime_r(&now, &parts) == nullptr) return fail("strftime_now: no time of day");
  std::array<char, 8192> text{};
  return make_string(std::string(text.data(), std::strftime(text.data(), text.size(), format.c_str(), &parts)));
}

Value Evaluator::call_method(const Value& self, std::string_view name, const Arguments& args) {
  Optionals a;
  if (self.is(Kind::string)) return string_method(self.text(), name, args);
  if (self.is(Kind::loop)) {
    const LoopData& loop = self.as<LoopData>();
    if (!args.named.empty() || args.positional.empty()) return fail("loop.cycle takes values");
    return args.positional[loop.at % args.positional.size()];
  }
  const DictData& dict = self.members();
  if (name == "get") {
    if (!args.named.empty() || args.positional.empty() || args.positional.size() > 2) return fail("get takes a key and a default");
    if (const Value* v = dict.find(args.positional[0])) return *v;
    if (args.positional[0].is(Kind::list) || args.positional[0].is(Kind::dict))
      return fail(fmt::format("{} as a key of a dict", type_name(args.positional[0])));
    return args.positional.size() == 2 ? args.positional[1] : Value::none();
  }
  if (!bind(name, args, {}, a)) return {};
  Values items;
  for (const auto& [key, value] : dict.members) items.push_back(name == "keys" ? key : name == "values" ? value : make_list({key, value}, ListKind::tuple));
  return make_list(std::move(items), ListKind::view);
}

Value Evaluator::string_method(const std::string& s, std::string_view name, const Arguments& args) {
  if (!charge(1 + s.size() / 64)) return {};
  if (!args.named.empty() && name != "split" && name != "splitlines") return fail(fmt::format("'{}' takes no named arguments", name));
  Optionals a;
  const auto text = [&](size_t i) { return a[i] && a[i]->is(Kind::string); };
  const auto wrong = [&] { return fail(fmt::format("the arguments of '{}' are not supported", name)); };
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    if (!bind(name, args, {"chars"}, a)) return {};
    if (a[0] && !a[0]->is(Kind::none) && !text(0)) return wrong();
    const auto side = name == "strip" ? py::Side::both : name == "lstrip" ? py::Side::left : py::Side::right;
    const auto chars = text(0) ? std::optional<std::string_view>(a[0]->text()) : std::nullopt;
    if (chars && !charge_bytes(std::min(s.size(), size_t{1} << 20) * std::min(chars->size(), size_t{1} << 10) / 64)) return {};
    return make_string(std::string(py::strip(s, side, chars)));
  }
  if (name == "startswith" || name == "endswith") {
    if (!bind(name, args, {"prefix"}, a)) return {};
    Values options;
    if (text(0))
      options.push_back(*a[0]);
    else if (a[0] && a[0]->is(Kind::list) && a[0]->items().kind == ListKind::tuple)
      options = a[0]->items().items;
    else
      return wrong();
    bool found = false;
    for (const Value& o : options) {
      if (!o.is(Kind::string)) return wrong();
      found = found || (name == "startswith" ? s.starts_with(o.text()) : s.ends_with(o.text()));
    }
    return Value::boolean(found);
  }
  if (name == "removeprefix" || name == "removesuffix") {
    if (!bind(name, args, {"part"}, a)) return {};
    if (!text(0)) return wrong();
    std::string_view rest = s;
    const std::string& part = a[0]->text();
    if (name == "removeprefix" && rest.starts_with(part)) rest.remove_prefix(part.size());
    if (name == "removesuffix" && rest.ends_with(part)) rest.remove_suffix(part.size());
    return make_string(std::string(rest));
  }
  if (name == "find" || name == "rfind" || name == "count") {
    if (!bind(name, args, {"part"}, a)) return {};
    if (!text(0)) return wrong();
    const std::string& part = a[0]->text();
    if (name == "count") {
      if (part.empty()) return Value::integer(static_cast<int64_t>(py::count_points(s)) + 1);
      return Value::integer(static_cast<int64_t>(py::split(s, part, -1).size()) - 1);
    }
    const size_t at = name == "find" ? s.find(part) : s.rfind(part);
    return Value::integer(at == std::string::npos ? -1 : static_cast<int64_t>(py::count_points(std::string_view(s).substr(0, at))));
  }
  if (name == "split" || name == "splitlines") {
    std::vector<std::string_view> parts;
    if (name == "splitlines") {
      if (!bind(name, args, {}, a)) return {};
      parts = py::split_lines(s);
    } else {
      if (!bind(name, args, {"sep", "maxsplit"}, a)) return {};
      const bool blank = !a[0] || a[0]->is(Kind::none);
      if ((!blank && (!text(0) || a[0]->text().empty())) || (a[1] && !a[1]->is_int())) return wrong();
      parts = py::split(s, blank ? std::nullopt : std::optional<std::string_view>(a[0]->text()), a[1] ? a[1]->i : -1);
    }
    if (!charge(parts.size()) || !charge_bytes(parts.size() * 64)) return {};
    Values items;
    for (const std::string_view part : parts) items.push_back(make_string(std::string(part)));
    return make_list(std::move(items));
  }
  if (name == "replace") {
    if (!bind(name, args, {"old", "new", "count"}, a)) return {};
    if (!text(0) || !text(1) || (a[2] && !a[2]->is_int())) return wrong();
    if (!charge_bytes(s.size() / std::max<size_t>(a[0]->text().size(), 1) * a[1]->text().size())) return {};
    return make_string(py::replace(s, a[0]->text(), a[1]->text(), a[2] ? a[2]->i : -1));
  }
  if (name == "join") {
    if (!bind(name, args, {"values"}, a)) return {};
    const auto items = iterate(a[0] ? *a[0] : Value::none());
    if (!items) return {};
    std::string out;
    for (size_t i = 0; i < items->size(); ++i) {
      if (!(*items)[i].is(Kind::string)) return fail(fmt::format("join of {}", type_name((*items)[i])));
      if (i > 0) out += s;
      out += (*items)[i].text();
      if (out.size() > most_output) return fail("a text that is too long");
    }
    return make_string(std::move(out));
  }
  if (!bind(name, args, {}, a)) return {};
  return case_of(name, s);
}

}  // namespace qb::text::chat

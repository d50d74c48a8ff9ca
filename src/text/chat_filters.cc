// Filters of texts and numbers, and tests. Source of truth: filters.py and tests.py of Jinja2 3.1, and transformers' tojson.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/diagnostics.h"
#include "text/chat_eval.h"
#include "text/py_text.h"

namespace qb::text::chat {
namespace {

constexpr std::array<std::string_view, 37> filters = {
    "abs",  "capitalize", "count",      "d",    "default", "dictsort", "e",     "escape", "first",  "float",      "indent",  "int",     "items",
    "join", "last",       "length",     "list", "lower",   "map",      "max",   "min",    "reject", "rejectattr", "replace", "reverse", "round",
    "safe", "select",     "selectattr", "sort", "string",  "sum",      "title", "tojson", "trim",   "unique",     "upper"};

constexpr std::array<std::string_view, 33> tests = {
    "defined",  "undefined", "none",     "boolean", "true",        "false",       "integer", "float", "number",  "string", "mapping",
    "iterable", "sequence",  "odd",      "even",    "divisibleby", "in",          "==",      "eq",    "equalto", "!=",     "ne",
    "<",        "lt",        "lessthan", ">",       "gt",          "greaterthan", "<=",      "le",    ">=",      "ge",     "callable"};

std::string escaped(std::string_view s) {
  std::string out;
  for (const char c : s) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// The filter: unlike str.title, what follows a blank, bracket, '<' or '-' is a word.
bool title_filter(std::string_view s, std::string& out) {
  std::string rest;
  out.clear();
  if (!py::capitalize(s, rest)) return false;
  bool start = true;
  for (const char c : rest) {
    const bool cut = c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || py::is_space(static_cast<unsigned char>(c));
    out += start && c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
    start = cut;
  }
  return true;
}

}  // namespace

bool is_filter(std::string_view name) {
  return std::find(filters.begin(), filters.end(), name) != filters.end();
}
bool is_test(std::string_view name) {
  return std::find(tests.begin(), tests.end(), name) != tests.end();
}

Value Evaluator::filter(std::string_view name, const Value& v, const Arguments& args) {
  if (!charge(1)) return {};
  if (name == "default" || name == "d") {
    Optionals a;
    if (!bind(name, args, {"default_value", "boolean"}, a)) return {};
    const bool missing = v.is(Kind::undefined) || (a[1] && truth(*a[1]) && !truth(v));
    return !missing ? v : a[0] ? *a[0] : make_string({});
  }
  if (auto r = text_filter(name, v, args)) return *r;
  if (failed()) return {};
  if (auto r = number_filter(name, v, args)) return *r;
  if (failed()) return {};
  if (auto r = sequence_filter(name, v, args)) return *r;
  return fail(fmt::format("the filter '{}' is not supported", escape(name)));
}

Value Evaluator::case_of(std::string_view name, const std::string& s) {
  std::string out;
  const bool ok = name == "lower" ? py::lower(s, out) : name == "upper" ? py::upper(s, out) : name == "title" ? py::title(s, out) : py::capitalize(s, out);
  return ok ? make_string(std::move(out)) : fail(fmt::format("'{}' of this text is not supported: it holds letters whose case is special", name));
}

std::optional<Value> Evaluator::text_filter(std::string_view name, const Value& v, const Arguments& args) {
  Optionals a;
  if (name == "tojson") return to_json(v, args);
  if (name == "string" || name == "lower" || name == "upper" || name == "capitalize") {
    if (!bind(name, args, {}, a)) return Value();
    std::string s = str(v);
    return name == "string" ? make_string(std::move(s)) : case_of(name, s);
  }
  if (name == "title") {
    std::string out;
    if (!bind(name, args, {}, a)) return Value();
    if (!title_filter(str(v), out)) return fail("'title' of this text is not supported: it holds letters whose case is special");
    return make_string(std::move(out));
  }
  if (name == "safe" || name == "e" || name == "escape") {
    if (!bind(name, args, {}, a)) return Value();
    if (v.is(Kind::markup)) return v;
    const std::string s = str(v);
    Value out = make_string(name == "safe" ? s : escaped(s));
    if (out.is(Kind::string)) out.kind = Kind::markup;
    return out;
  }
  if (name != "trim" && name != "replace" && name != "indent") return std::nullopt;
  if (v.is(Kind::markup)) return fail(fmt::format("'{}' of {} is not supported", name, type_name(v)));
  if (name == "trim") {
    if (!bind(name, args, {"chars"}, a)) return Value();
    const bool chars = a[0] && !a[0]->is(Kind::none);
    if (chars && !a[0]->is(Kind::string)) return fail(fmt::format("trim of {}", type_name(*a[0])));
    const std::string s = str(v);
    return make_string(std::string(py::strip(s, py::Side::both, chars ? std::optional<std::string_view>(a[0]->text()) : std::nullopt)));
  }
  if (name == "replace") {
    if (!bind(name, args, {"old", "new", "count"}, a)) return Value();
    if (!a[0] || !a[1] || (a[2] && !a[2]->is_int() && !a[2]->is(Kind::none))) return fail("replace takes two texts and a count");
    const std::string s = str(v), old = str(*a[0]), with = str(*a[1]);
    if (!charge_bytes(s.size() / std::max<size_t>(old.size(), 1) * with.size())) return Value();
    return make_string(py::replace(s, old, with, a[2] && a[2]->is_int() ? a[2]->i : -1));
  }
  if (!bind(name, args, {"width", "first", "blank"}, a)) return Value();
  if (!v.is(Kind::string)) return fail(fmt::format("indent of {}", type_name(v)));
  std::string blanks(4, ' ');
  if (a[0] && a[0]->is(Kind::string))
    blanks = a[0]->text();
  else if (a[0] && a[0]->is_int() && a[0]->i < 10000)
    blanks.assign(static_cast<size_t>(std::max<int64_t>(a[0]->i, 0)), ' ');
  else if (a[0])
    return fail("indent: this width is not supported");
  const bool blank = a[2] && truth(*a[2]);
  const std::string text = v.text() + "\n";
  const auto lines = py::split_lines(text);
  if (!charge(lines.size()) || !charge_bytes(lines.size() * blanks.size())) return Value();
  std::string out = a[1] && truth(*a[1]) ? blanks : std::string();
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (blank || !lines[i].empty())) out += blanks;
    out += lines[i];
  }
  return make_string(std::move(out));
}

Value Evaluator::to_json(const Value& v, const Arguments& args) {
  Optionals a;
  if (!bind("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"}, a)) return {};
  JsonStyle style;
  style.ascii = a[0] && truth(*a[0]);
  style.sort_keys = a[3] && truth(*a[3]);
  if (a[1] && a[1]->is(Kind::string)) {
    style.indent = 0, style.indent_text = a[1]->text();
  } else if (a[1] && a[1]->is_int() && a[1]->i < 1000) {
    style.indent = 0, style.indent_text.assign(static_cast<size_t>(std::max<int64_t>(a[1]->i, 0)), ' ');
  } else if (a[1] && !a[1]->is(Kind::none)) {
    return fail("tojson: this indent is not supported");
  }
  if (style.indent >= 0) style.item_separator = ",";
  if (a[2] && !a[2]->is(Kind::none)) {
    const auto parts = a[2]->is(Kind::list) ? a[2]->items().items : Values();
    if (parts.size() != 2 || !parts[0].is(Kind::string) || !parts[1].is(Kind::string)) return fail("tojson: separators are two strings");
    style.item_separator = parts[0].text(), style.key_separator = parts[1].text();
  }
  std::string out;
  if (!charge(v.weight())) return {};
  if (Result<void> r = append_json(v, style, out, most_output); !r) return fail(r.error().what);
  return make_string(std::move(out));
}

Value Evaluator::to_int(const Value& v, const Arguments& args) {
  Optionals a;
  if (!bind("int", args, {"default", "base"}, a)) return {};
  if (a[1] && !(a[1]->is_int() && a[1]->i == 10)) return fail("int: bases other than 10 are not supported");
  const Value otherwise = a[0] ? *a[0] : Value::integer(0);
  std::optional<double> real;
  if (v.is_int()) return Value::integer(v.i);
  if (v.is(Kind::undefined)) return fail(fmt::format("'{}' is undefined, and 'int' needs a value", escape(v.text())));
  if (v.is(Kind::real)) real = v.d;
  if (v.is(Kind::string)) {
    if (std::any_of(v.text().begin(), v.text().end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }))
      return fail("a number in a text that is not ASCII is not supported");
    bool too_large = false;
    const auto n = py::parse_int(v.text(), too_large);
    if (too_large) return fail("an integer that is too large");
    if (n) return Value::integer(*n);
    real = py::parse_float(v.text());
  }
  if (!real || !std::isfinite(*real)) return v.is(Kind::markup) ? fail("int of safe text is not supported") : otherwise;
  if (std::fabs(*real) >= 9.2e18) return fail("an integer that is too large");
  return Value::integer(static_cast<int64_t>(*real));
}

// Python's round: to the nearest decimal, ties of the binary value to even.
Value Evaluator::round(const Value& v, const Arguments& args) {
  Optionals a;
  if (!bind("round", args, {"precision", "method"}, a)) return {};
  const Value precision = a[0] ? *a[0] : Value::integer(0);
  const std::string method = a[1] && a[1]->is(Kind::string) ? a[1]->text() : a[1] ? "" : "common";
  if (!v.is_number() || !precision.is_int() || precision.i < 0 || precision.i > 20) return fail("round of these values is not supported");
  if (method == "common") {
    if (v.is_int()) return Value::integer(v.i);
    if (!std::isfinite(v.d) || std::fabs(v.d) > 1e15) return fail("round of these values is not supported");
    const std::string text = fmt::format("{:.{}f}", v.d, precision.i);
    double r = 0;
    std::from_chars(text.data(), text.data() + text.size(), r);
    return Value::real(r);
  }
  if (method != "ceil" && method != "floor") return fail("round: the method is common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision.i)), scaled = v.number() * scale;
  if (!std::isfinite(scaled) || std::fabs(scaled) > 9e15 || precision.i > 15) return fail("round of these values is not supported");
  const double r = (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
  return Value::real(r == 0 ? 0.0 : r);
}

std::optional<Value> Evaluator::number_filter(std::string_view name, const Value& v, const Arguments& args) {
  Optionals a;
  if (name == "int") return to_int(v, args);
  if (name == "round") return round(v, args);
  if (name == "float") {
    if (!bind(name, args, {"default"}, a)) return Value();
    if (v.is_number()) return Value::real(v.number());
    if (v.is(Kind::undefined)) return fail(fmt::format("'{}' is undefined, and 'float' needs a value", escape(v.text())));
    if (v.is(Kind::markup)) return fail("float of safe text is not supported");
    if (v.is(Kind::string) && std::any_of(v.text().begin(), v.text().end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) {
      return fail("a number in a text that is not ASCII is not supported");
    }
    if (const auto d = v.is(Kind::string) ? py::parse_float(v.text()) : std::nullopt) return Value::real(*d);
    return a[0] ? *a[0] : Value::real(0);
  }
  if (name == "abs") {
    if (!bind(name, args, {}, a)) return Value();
    if (v.is(Kind::real)) return Value::real(std::fabs(v.d));
    if (!v.is_int()) return fail(fmt::format("abs of {}", type_name(v)));
    return v.i < 0 ? binary("-", Value::integer(0), v) : Value::integer(v.i);
  }
  return std::nullopt;
}

bool Evaluator::test(std::string_view name, const Value& v, const Arguments& args) {
  constexpr std::array<std::string_view, 17> binary_tests = {"divisibleby", "in", "==", "eq",          "equalto", "!=", "ne", "<", "lt",
                                                             "lessthan",    ">",  "gt", "greaterthan", "<=",      "le", ">=", "ge"};
  const bool two = std::find(binary_tests.begin(), binary_tests.end(), name) != binary_tests.end();
  if (!args.named.empty() || args.positional.size() != (two ? 1U : 0U))
    return fail(fmt::format("the test '{}' takes {} argument", escape(name), two ? "one" : "no")), false;
  if (two) {
    const Value& other = args.positional[0];
    if (name == "in") return contains(other, v).value_or(false);
    if (name == "==" || name == "eq" || name == "equalto") return same(v, other);
    if (name == "!=" || name == "ne") return !same(v, other);
    if (name == "divisibleby") return !truth(binary("%", v, other)) && !failed();
    if (name == "<" || name == "lt" || name == "lessthan") return less(v, other).value_or(false);
    if (name == ">" || name == "gt" || name == "greaterthan") return less(other, v).value_or(false);
    const auto strictly = name == "<=" || name == "le" ? less(v, other) : less(other, v);
    return strictly && (*strictly || same(v, other));
  }
  if (name == "odd" || name == "even") {
    const Value rest = v.is_number() ? binary("%", v, Value::integer(2)) : fail(fmt::format("the test '{}' of {}", name, type_name(v)));
    return !failed() && rest.number() == (name == "odd" ? 1 : 0);
  }
  if (name == "defined") return !v.is(Kind::undefined);
  if (name == "undefined") return v.is(Kind::undefined);
  if (name == "none") return v.is(Kind::none);
  if (name == "boolean") return v.is(Kind::boolean);
  if (name == "true") return v.is(Kind::boolean) && v.i != 0;
  if (name == "false") return v.is(Kind::boolean) && v.i == 0;
  if (name == "integer") return v.is(Kind::integer);
  if (name == "float") return v.is(Kind::real);
  if (name == "number") return v.is_number();
  if (name == "string") return v.is(Kind::string) || v.is(Kind::markup);
  if (name == "mapping") return v.is(Kind::dict);
  // Undefined has __call__, __iter__, __len__ and __getitem__ in Jinja.
  if (name == "callable") return v.is(Kind::macro) || v.is(Kind::function) || v.is(Kind::method) || v.is(Kind::undefined) || v.is(Kind::loop);
  if (name == "iterable") return v.is(Kind::list) || v.is(Kind::dict) || v.is(Kind::string) || v.is(Kind::markup) || v.is(Kind::undefined) || v.is(Kind::loop);
  if (name == "sequence") {
    if (v.is(Kind::list)) return v.items().kind != ListKind::view && v.items().kind != ListKind::generator;
    return v.is(Kind::dict) || v.is(Kind::string) || v.is(Kind::markup) || v.is(Kind::undefined);
  }
  return fail(fmt::format("the test '{}' is not supported", escape(name))), false;
}

}  // namespace qb::text::chat

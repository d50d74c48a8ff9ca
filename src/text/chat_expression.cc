#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/diagnostics.h"
#include "text/chat_eval.h"
#include "text/py_text.h"

namespace qb::text::chat {

Arguments Evaluator::arguments(const Node& n, size_t first, const Scope& scope) {
  Arguments args;
  const size_t named = n.kids.size() - n.names.size();
  for (size_t i = first; i < n.kids.size() && !failed(); ++i) {
    Value v = evaluate(*n.kids[i], scope);
    if (i < named)
      args.positional.push_back(std::move(v));
    else
      args.named.emplace_back(n.names[i - named], std::move(v));
  }
  return args;
}

Value Evaluator::evaluate(const Node& n, const Scope& scope) {
  if (!charge(1)) return {};
  line_ = n.line;
  struct Deeper {
    explicit Deeper(int& depth) : depth_(depth) { ++depth_; }
    ~Deeper() { --depth_; }
    int& depth_;
  } const deeper(depth_);
  if (depth_ > deepest_evaluation) return fail("nested too deep");
  switch (n.kind) {
    case NodeKind::literal_none:
      return Value::none();
    case NodeKind::literal_bool:
      return Value::boolean(n.integer != 0);
    case NodeKind::literal_int:
      return Value::integer(n.integer);
    case NodeKind::literal_float:
      return Value::real(n.real);
    case NodeKind::literal_string:
      return make_string(n.text);
    case NodeKind::name:
      return evaluate_name(n, scope);
    case NodeKind::list:
    case NodeKind::tuple: {
      Values items;
      for (const auto& kid : n.kids) {
        items.push_back(evaluate(*kid, scope));
        if (failed()) return {};
      }
      return make_list(std::move(items), n.kind == NodeKind::list ? ListKind::list : ListKind::tuple);
    }
    case NodeKind::dict: {
      DictData dict;
      for (size_t i = 0; i + 1 < n.kids.size(); i += 2) {
        Value key = evaluate(*n.kids[i], scope);
        Value value = evaluate(*n.kids[i + 1], scope);
        if (failed()) return {};
        if (!dict.set(key, std::move(value))) return fail(fmt::format("{} as a key of a dict is not supported", type_name(key)));
      }
      return make_dict(std::move(dict));
    }
    case NodeKind::attribute: {
      const Value object = evaluate(*n.kids[0], scope);
      return failed() ? Value() : attribute(object, n.text);
    }
    case NodeKind::item: {
      const Value object = evaluate(*n.kids[0], scope);
      const Value key = evaluate(*n.kids[1], scope);
      return failed() ? Value() : item(object, key);
    }
    case NodeKind::slice:
      return evaluate_slice(n, scope);
    case NodeKind::call: {
      const Value callee = evaluate(*n.kids[0], scope);
      Arguments args = arguments(n, 1, scope);
      if (failed()) return {};
      line_ = n.line;
      return call(callee, std::move(args));
    }
    case NodeKind::filter: {
      const Value v = evaluate(*n.kids[0], scope);
      const Arguments args = arguments(n, 1, scope);
      line_ = n.line;
      return failed() ? Value() : filter(n.text, v, args);
    }
    case NodeKind::test: {
      const Value v = evaluate(*n.kids[0], scope);
      const Arguments args = arguments(n, 1, scope);
      return failed() ? Value() : Value::boolean(test(n.text, v, args));
    }
    case NodeKind::unary:
      return unary(n, scope);
    case NodeKind::binary: {
      const Value a = evaluate(*n.kids[0], scope);
      if (failed()) return {};
      if (n.text == "and") return truth(a) ? evaluate(*n.kids[1], scope) : a;
      if (n.text == "or") return truth(a) ? a : evaluate(*n.kids[1], scope);
      const Value b = evaluate(*n.kids[1], scope);
      line_ = n.line;
      return failed() ? Value() : binary(n.text, a, b);
    }
    case NodeKind::concat: {
      std::string out;
      for (const auto& kid : n.kids) {
        const Value v = evaluate(*kid, scope);
        if (failed()) return {};
        if (v.is(Kind::string))
          out += v.text();
        else
          out += str(v);
        if (out.size() > most_output) return fail("a text that is too long");
      }
      return make_string(std::move(out));
    }
    case NodeKind::compare:
      return evaluate_compare(n, scope);
    case NodeKind::condition: {
      const bool yes = truth(evaluate(*n.kids[1], scope));
      if (failed()) return {};
      if (yes) return evaluate(*n.kids[0], scope);
      if (n.kids[2] != nullptr) return evaluate(*n.kids[2], scope);
      return Value::undefined("the inline if without an else");
    }
    default:
      return fail("a statement where an expression is expected");
  }
}

Value Evaluator::evaluate_name(const Node& n, const Scope& scope) {
  if (const Value* v = find_name(n.text, scope)) return *v;
  constexpr std::pair<std::string_view, Function> functions[] = {{"range", Function::range},
                                                                 {"raise_exception", Function::raise_exception},
                                                                 {"strftime_now", Function::strftime_now},
                                                                 {"namespace", Function::name_space},
                                                                 {"dict", Function::dict}};
  for (const auto& [name, f] : functions) {
    if (name == n.text) return {Kind::function, static_cast<int64_t>(f)};
  }
  for (const std::string_view other : {"cycler", "joiner", "lipsum"}) {
    if (other == n.text) return fail(fmt::format("the function '{}' is not supported", n.text));
  }
  return Value::undefined(n.text);
}

Value Evaluator::evaluate_compare(const Node& n, const Scope& scope) {
  Value left = evaluate(*n.kids[0], scope);
  for (size_t i = 0; i < n.names.size(); ++i) {
    Value right = evaluate(*n.kids[i + 1], scope);
    if (failed()) return {};
    const std::string& op = n.names[i];
    std::optional<bool> yes;
    if (op == "==")
      yes = same(left, right);
    else if (op == "!=")
      yes = !same(left, right);
    else if (op == "<")
      yes = less(left, right);
    else if (op == ">")
      yes = less(right, left);
    else if (op == "in" || op == "not in")
      yes = contains(right, left);
    else if (op == "<=" || op == ">=") {
      // Not the inverse of the other order: NaN is neither.
      yes = op == "<=" ? less(left, right) : less(right, left);
      if (yes && !*yes) yes = same(left, right);
    }
    if (!yes || failed()) return {};
    if (op == "not in") yes = !*yes;
    if (!*yes) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

std::optional<bool> Evaluator::less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_int() && b.is_int()) return a.i < b.i;
    return a.number() < b.number();
  }
  if (a.is(Kind::string) && b.is(Kind::string)) return charge(1 + a.text().size() / 64) && a.text() < b.text();  // UTF-8 sorts as code points do
  fail(fmt::format("cannot order {} and {}", type_name(a), type_name(b)));
  return std::nullopt;
}

std::optional<bool> Evaluator::contains(const Value& container, const Value& v) {
  if (container.is(Kind::string)) {
    if (!v.is(Kind::string)) {
      fail(fmt::format("'in' a string needs a string, not {}", type_name(v)));
      return std::nullopt;
    }
    charge(container.text().size() / 64);
    return container.text().find(v.text()) != std::string::npos;
  }
  if (container.is(Kind::dict)) {
    if (v.is(Kind::list) || v.is(Kind::dict)) {
      fail(fmt::format("{} as a key of a dict", type_name(v)));
      return std::nullopt;
    }
    return container.members().find(v) != nullptr;
  }
  const auto items = container.is(Kind::list) || container.is(Kind::undefined) ? iterate(container) : std::nullopt;
  if (!items) {
    fail(fmt::format("'in' {}", type_name(container)));
    return std::nullopt;
  }
  for (const Value& item : *items) {
    if (same(item, v)) return true;
    if (failed()) return std::nullopt;
  }
  return false;
}

Value Evaluator::unary(const Node& n, const Scope& scope) {
  const Value v = evaluate(*n.kids[0], scope);
  if (failed()) return {};
  if (n.text == "not") return Value::boolean(!truth(v));
  if (!v.is_number()) return fail(fmt::format("'{}' before {}", n.text, type_name(v)));
  if (n.text == "+") return v.is_int() ? Value::integer(v.i) : v;
  if (v.is(Kind::real)) return Value::real(-v.d);
  if (v.i == std::numeric_limits<int64_t>::min()) return fail("an integer that is too large");
  return Value::integer(-v.i);
}

Value Evaluator::repeat(const Value& what, int64_t times) {
  times = std::max<int64_t>(times, 0);
  const size_t one = what.is(Kind::list) ? what.items().items.size() : what.text().size();
  if (one != 0 && static_cast<uint64_t>(times) > most_output / one) return fail("a value that is too large");
  const size_t n = one == 0 ? 0 : static_cast<size_t>(times);
  if (what.is(Kind::list)) {
    if (!charge(one * n)) return {};
    Values items;
    for (size_t i = 0; i < n; ++i) items.insert(items.end(), what.items().items.begin(), what.items().items.end());
    return make_list(std::move(items), what.items().kind);
  }
  if (!charge_bytes(one * n)) return {};
  std::string out;
  for (size_t i = 0; i < n; ++i) out += what.text();
  return Value::string(std::move(out));
}

Value Evaluator::integer_operation(const std::string& op, int64_t a, int64_t b) {
  int64_t r = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &r);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &r);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &r);
  } else if (op == "**") {
    if (b < 0) return a == 0 ? fail("division by zero") : Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
    r = 1;
    for (int64_t i = 0; i < b && !overflow; ++i) {
      if (a == 0 || a == 1 || a == -1) {
        r = a == 0 ? 0 : (a == 1 || b % 2 == 0) ? 1 : -1;
        break;
      }
      overflow = __builtin_mul_overflow(r, a, &r);
    }
  } else {
    if (b == 0) return fail("division by zero");
    if (a == std::numeric_limits<int64_t>::min() && b == -1) return op == "%" ? Value::integer(0) : fail("an integer that is too large");
    const int64_t rest = a % b;
    const bool down = rest != 0 && (rest < 0) != (b < 0);  // Python rounds towards minus infinity
    r = op == "%" ? rest + (down ? b : 0) : a / b - (down ? 1 : 0);
  }
  return overflow ? fail("an integer that is too large") : Value::integer(r);
}

Value Evaluator::binary(const std::string& op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_int() && b.is_int() && op != "/") return integer_operation(op, a.i, b.i);
    const double x = a.number(), y = b.number();
    if (op == "+") return Value::real(x + y);
    if (op == "-") return Value::real(x - y);
    if (op == "*") return Value::real(x * y);
    if (op == "**") {
      const double r = std::pow(x, y);
      // Python: complex numbers, division by zero and overflow.
      if ((x < 0 && std::floor(y) != y) || (x == 0 && y < 0) || (std::isinf(r) && std::isfinite(x) && std::isfinite(y)))
        return fail("this power is not a float");
      return Value::real(r);
    }
    if (y == 0) return fail("division by zero");
    if (op == "/") {
      constexpr int64_t exact = int64_t{1} << 53;
      if (a.is_int() && b.is_int() && (a.i > exact || a.i < -exact || b.i > exact || b.i < -exact)) return fail("integers that are too large to divide");
      return Value::real(x / y);
    }
    // CPython's float_divmod.
    double mod = std::fmod(x, y);
    double quotient = (x - mod) / y;
    if (mod != 0) {
      if ((y < 0) != (mod < 0)) mod += y, quotient -= 1;
    } else {
      mod = std::copysign(0.0, y);
    }
    if (op == "%") return Value::real(mod);
    if (quotient == 0) return Value::real(std::copysign(0.0, x / y));
    double floor = std::floor(quotient);
    if (quotient - floor > 0.5) floor += 1;
    return Value::real(floor);
  }
  if (op == "+" && a.is(Kind::string) && b.is(Kind::string)) return make_string(a.text() + b.text());
  if (op == "+" && a.is(Kind::list) && b.is(Kind::list) && a.items().kind == b.items().kind &&
      (a.items().kind == ListKind::list || a.items().kind == ListKind::tuple)) {
    if (!charge(a.items().items.size() + b.items().items.size())) return {};
    Values items = a.items().items;
    items.insert(items.end(), b.items().items.begin(), b.items().items.end());
    return make_list(std::move(items), a.items().kind);
  }
  const auto repeats = [](const Value& v) {
    return v.is(Kind::string) || (v.is(Kind::list) && (v.items().kind == ListKind::list || v.items().kind == ListKind::tuple));
  };
  if (op == "*" && repeats(a) && b.is_int()) return repeat(a, b.i);
  if (op == "*" && repeats(b) && a.is_int()) return repeat(b, a.i);
  if (a.is(Kind::undefined) || b.is(Kind::undefined)) {
    return fail(fmt::format("'{}' is undefined, and '{}' needs a value", escape((a.is(Kind::undefined) ? a : b).text()), op));
  }
  return fail(fmt::format("'{}' of {} and {} is not supported", op, type_name(a), type_name(b)));
}

Value Evaluator::evaluate_slice(const Node& n, const Scope& scope) {
  const Value object = evaluate(*n.kids[0], scope);
  std::optional<int64_t> part[3];
  for (size_t i = 0; i < 3; ++i) {
    if (n.kids[i + 1] == nullptr) continue;
    const Value v = evaluate(*n.kids[i + 1], scope);
    if (failed()) return {};
    if (v.is(Kind::none)) continue;
    if (!v.is_int()) return fail(fmt::format("{} as a bound of a slice", type_name(v)));
    part[i] = v.i;
  }
  if (failed()) return {};
  const bool text = object.is(Kind::string);
  if (!text && !(object.is(Kind::list) && object.items().kind != ListKind::view && object.items().kind != ListKind::generator)) {
    return fail(fmt::format("a slice of {}", type_name(object)));
  }
  const int64_t step = part[2].value_or(1);
  if (step == 0) return fail("a slice with a step of zero");
  std::vector<size_t> offsets;
  if (text) offsets = py::point_offsets(object.text());
  const auto size = static_cast<int64_t>(text ? offsets.size() - 1 : object.items().items.size());
  if (!charge(static_cast<size_t>(size) / (text ? 64 : 1))) return {};
  // PySlice_AdjustIndices.
  const auto bound = [&](std::optional<int64_t> b, int64_t otherwise) {
    if (!b) return otherwise;
    const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? size - 1 : size;
    if (*b < 0) return *b < -size ? low : std::max(low, *b + size);
    return std::min(*b, high);
  };
  const int64_t first = bound(part[0], step < 0 ? size - 1 : 0), last = bound(part[1], step < 0 ? -1 : size);
  if (text && step == 1) {
    if (first >= last) return make_string({});
    return make_string(object.text().substr(offsets[static_cast<size_t>(first)], offsets[static_cast<size_t>(last)] - offsets[static_cast<size_t>(first)]));
  }
  std::string out;
  Values items;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    const auto at = static_cast<size_t>(i);
    if (text)
      out += object.text().substr(offsets[at], offsets[at + 1] - offsets[at]);
    else
      items.push_back(object.items().items[at]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return text ? make_string(std::move(out)) : make_list(std::move(items), object.items().kind);
}

}  // namespace qb::text::chat

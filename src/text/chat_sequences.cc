// Filters of lists and dicts. Source of truth: filters.py of Jinja2 3.1.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/diagnostics.h"
#include "text/chat_eval.h"
#include "text/py_text.h"

namespace qb::text::chat {

// environment.getitem along "a.b.0".
Value Evaluator::path(const Value& v, const Value& attribute) {
  if (attribute.is(Kind::integer)) return item(v, attribute);
  if (!attribute.is(Kind::string)) return fail(fmt::format("{} as the name of an attribute", type_name(attribute)));
  Value at = v;
  for (const std::string_view part : py::split(attribute.text(), ".", -1)) {
    const bool number = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string_view::npos;
    bool too_large = false;
    at = item(at, number ? Value::integer(*py::parse_int(part, too_large)) : Value::string(std::string(part)));
    if (failed()) return {};
  }
  return at;
}

Value Evaluator::map(const Value& v, const Arguments& args) {
  const auto items = iterate(v);
  if (!items) return {};
  Values out;
  if (args.positional.empty()) {
    Optionals a;
    if (!bind("map", args, {"attribute", "default"}, a)) return {};
    if (!a[0]) return fail("map takes a filter or an attribute");
    if (a[1] && a[0]->is(Kind::string) && a[0]->text().find('.') != std::string::npos) return fail("map: a default for a path is not supported");
    for (const Value& i : *items) {
      Value found = path(i, *a[0]);
      if (failed()) return {};
      out.push_back(found.is(Kind::undefined) && a[1] && !a[1]->is(Kind::none) ? *a[1] : std::move(found));
    }
  } else {
    const Value& name = args.positional[0];
    if (!name.is(Kind::string) || !is_filter(name.text())) return fail("map: this filter is not supported");
    if (++depth_ > deepest_evaluation) return fail("nested too deep");
    const Arguments rest{{args.positional.begin() + 1, args.positional.end()}, args.named};
    for (const Value& i : *items) {
      out.push_back(filter(name.text(), i, rest));
      if (failed()) return {};
    }
    --depth_;
  }
  return make_list(std::move(out), ListKind::generator);
}

Value Evaluator::select(std::string_view name, const Value& v, const Arguments& args) {
  const bool by_attribute = name.ends_with("attr"), keep = name.starts_with("select");
  const size_t at = by_attribute ? 1 : 0;
  if (args.positional.size() < at) return fail(fmt::format("'{}' takes an attribute", name));
  const bool tested = args.positional.size() > at;
  if (tested && (!args.positional[at].is(Kind::string) || !is_test(args.positional[at].text())))
    return fail(fmt::format("'{}': this test is not supported", name));
  if (!tested && !args.named.empty()) return fail(fmt::format("'{}' takes no named arguments", name));
  Arguments rest;
  if (tested) rest = {{args.positional.begin() + static_cast<std::ptrdiff_t>(at) + 1, args.positional.end()}, args.named};
  const auto items = iterate(v);
  if (!items) return {};
  Values out;
  for (const Value& i : *items) {
    const Value tried = by_attribute ? path(i, args.positional[0]) : i;
    if (failed()) return {};
    const bool yes = tested ? test(args.positional[at].text(), tried, rest) : truth(tried);
    if (failed()) return {};
    if (yes == keep) out.push_back(i);
  }
  return make_list(std::move(out), ListKind::generator);
}

Value Evaluator::sort_key(const Value& v, bool case_sensitive) {
  return case_sensitive || !v.is(Kind::string) ? v : case_of("lower", v.text());
}

// Sorts `items` by `keys`: all numbers, or all texts.
bool Evaluator::sort_by(Values& items, const Values& keys, bool reverse) {
  if (failed()) return false;
  const auto number = [](const Value& k) { return k.is_number() && !(k.is(Kind::real) && std::isnan(k.d)); };
  const auto text = [](const Value& k) { return k.is(Kind::string); };
  if (keys.size() > 1 && !std::all_of(keys.begin(), keys.end(), number) && !std::all_of(keys.begin(), keys.end(), text)) {
    return fail("sorting is supported for numbers and for strings"), false;
  }
  if (!charge(keys.size() * 16)) return false;
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto before = [&](size_t x, size_t y) {
    const Value &a = keys[reverse ? y : x], &b = keys[reverse ? x : y];
    if (a.is(Kind::string) && b.is(Kind::string)) return a.text() < b.text();
    return a.is_int() && b.is_int() ? a.i < b.i : a.number() < b.number();
  };
  std::stable_sort(order.begin(), order.end(), before);
  Values out;
  for (const size_t i : order) out.push_back(items[i]);
  items = std::move(out);
  return true;
}

Value Evaluator::sorted(std::string_view name, const Value& v, const Arguments& args) {
  Optionals a;
  Values items, keys;
  if (name == "dictsort") {
    if (!bind(name, args, {"case_sensitive", "by", "reverse"}, a)) return {};
    if (!v.is(Kind::dict)) return fail(fmt::format("dictsort of {}", type_name(v)));
    const std::string by = a[1] ? (a[1]->is(Kind::string) ? a[1]->text() : std::string()) : "key";
    if (by != "key" && by != "value") return fail("dictsort sorts by 'key' or 'value'");
    for (const auto& [key, value] : v.members().members) {
      items.push_back(make_list({key, value}, ListKind::tuple));
      keys.push_back(sort_key(by == "key" ? key : value, a[0] && truth(*a[0])));
    }
    return sort_by(items, keys, a[2] && truth(*a[2])) ? make_list(std::move(items)) : Value();
  }
  if (!bind(name, args, {"reverse", "case_sensitive", "attribute"}, a)) return {};
  auto all = iterate(v);
  if (!all) return {};
  if (a[2] && a[2]->is(Kind::string) && a[2]->text().find(',') != std::string::npos) return fail("sort: several attributes are not supported");
  for (const Value& i : *all) {
    keys.push_back(sort_key(a[2] && !a[2]->is(Kind::none) ? path(i, *a[2]) : i, a[1] && truth(*a[1])));
    if (failed()) return {};
  }
  return sort_by(*all, keys, a[0] && truth(*a[0])) ? make_list(std::move(*all)) : Value();
}

Value Evaluator::unique(const Value& v, const Arguments& args) {
  Optionals a;
  if (!bind("unique", args, {"case_sensitive", "attribute"}, a)) return {};
  const auto items = iterate(v);
  if (!items) return {};
  DictData seen;
  Values out;
  for (const Value& i : *items) {
    const Value key = sort_key(a[1] && !a[1]->is(Kind::none) ? path(i, *a[1]) : i, a[0] && truth(*a[0]));
    if (failed()) return {};
    if (seen.find(key) != nullptr) continue;
    if (!seen.set(key, Value::none())) return fail(fmt::format("unique of {} is not supported", type_name(key)));
    out.push_back(i);
  }
  return make_list(std::move(out), ListKind::generator);
}

Value Evaluator::extreme(std::string_view name, const Value& v, const Arguments& args) {
  Optionals a;
  if (!bind(name, args, {"case_sensitive", "attribute"}, a)) return {};
  const auto items = iterate(v);
  if (!items) return {};
  if (items->empty()) return Value::undefined("the largest or smallest of nothing");
  size_t best = 0;
  Value best_key;
  for (size_t i = 0; i < items->size(); ++i) {
    Value key = sort_key(a[1] && !a[1]->is(Kind::none) ? path((*items)[i], *a[1]) : (*items)[i], a[0] && truth(*a[0]));
    if (failed()) return {};
    if (i > 0) {
      const auto better = name == "max" ? less(best_key, key) : less(key, best_key);
      if (!better) return {};
      if (!*better) continue;
    }
    best = i;
    best_key = std::move(key);
  }
  return (*items)[best];
}

std::optional<Value> Evaluator::sequence_filter(std::string_view name, const Value& v, const Arguments& args) {
  Optionals a;
  if (name == "map") return map(v, args);
  if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") return select(name, v, args);
  if (name == "sort" || name == "dictsort") return sorted(name, v, args);
  if (name == "unique") return unique(v, args);
  if (name == "min" || name == "max") return extreme(name, v, args);
  if (name == "join") {
    if (!bind(name, args, {"d", "attribute"}, a)) return Value();
    const auto items = iterate(v);
    if (!items) return Value();
    const std::string between = a[0] ? str(*a[0]) : std::string();
    std::string out;
    for (size_t i = 0; i < items->size(); ++i) {
      const Value part = a[1] && !a[1]->is(Kind::none) ? path((*items)[i], *a[1]) : (*items)[i];
      if (i > 0) out += between;
      out += str(part);
      if (out.size() > most_output) return fail("a text that is too long");
      if (failed()) return Value();
    }
    return make_string(std::move(out));
  }
  if (name == "sum") {
    if (!bind(name, args, {"attribute", "start"}, a)) return Value();
    const auto items = iterate(v);
    if (!items) return Value();
    Value total = a[1] ? *a[1] : Value::integer(0);
    if (total.is(Kind::string)) return fail("sum of strings");
    bool reals = false;
    for (const Value& i : *items) {
      const Value part = a[0] && !a[0]->is(Kind::none) ? path(i, *a[0]) : i;
      // Newer versions of Python compensate the rounding of such sums.
      if (std::exchange(reals, reals || part.is(Kind::real)) && part.is(Kind::real)) return fail("sum of several floats is not supported");
      if (failed()) return Value();
      total = binary("+", total, part);
    }
    return total;
  }
  if (!bind(name, args, {}, a)) return Value();
  if (name == "length" || name == "count") {
    const auto n = length(v);
    return n ? Value::integer(*n) : Value();
  }
  if (name == "items") {
    if (v.is(Kind::undefined)) return make_list({}, ListKind::generator);
    if (!v.is(Kind::dict)) return fail(fmt::format("items of {}", type_name(v)));
    Value view = call_method(v, "items", {});
    return failed() ? Value() : make_list(view.items().items, ListKind::generator);
  }
  if (name == "reverse" && v.is(Kind::string)) {
    std::string out;
    const auto offsets = py::point_offsets(v.text());
    for (size_t i = offsets.size() - 1; i > 0; --i) out += v.text().substr(offsets[i - 1], offsets[i] - offsets[i - 1]);
    return make_string(std::move(out));
  }
  if (name != "list" && name != "first" && name != "last" && name != "reverse") return std::nullopt;
  const bool generator = v.is(Kind::list) && v.items().kind == ListKind::generator;
  if (name == "last" && (generator || v.is(Kind::undefined))) return fail(fmt::format("'last' of {}", type_name(v)));
  auto items = iterate(v);
  if (!items) return Value();
  if (name == "list") return make_list(std::move(*items));
  if (name == "reverse") {
    std::reverse(items->begin(), items->end());
    return make_list(std::move(*items), generator ? ListKind::list : ListKind::generator);
  }
  if (items->empty()) return Value::undefined(name == "first" ? "the first item of nothing" : "the last item of nothing");
  return name == "first" ? items->front() : items->back();
}

}  // namespace qb::text::chat

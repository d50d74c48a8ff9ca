#include "calib/range_observer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "ir/shorthand.h"

namespace qb::calib {

Result<ChosenObserver> parse_observer(std::string_view text, recipe::Numerics numerics) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  std::vector<std::string_view> known;
  ChosenObserver out;
  for (const ObserverKind* kind : observers()) {
    if (kind->numerics && *kind->numerics != numerics) continue;
    known.push_back(kind->name);
    if (kind->name == name) out = {kind, kind->argument.usual};
  }
  if (out.kind == nullptr)
    return Error{Errc::invalid_argument, fmt::format("unknown observer '{}'; near names: {}", escape(name), ir::near_names(name, known))};
  if (colon == text.npos) return out;
  const std::string_view argument = text.substr(colon + 1);
  const ObserverKind::Argument& a = out.kind->argument;
  if (a.what.empty()) return Error{Errc::invalid_argument, fmt::format("'{}': {} takes no argument", escape(text), name)};
  const auto [end, error] = std::from_chars(argument.data(), argument.data() + argument.size(), out.argument);
  if (error != std::errc() || end != argument.data() + argument.size() || !(out.argument > a.least) || !(out.argument <= a.most))
    return Error{Errc::invalid_argument,
                 fmt::format("'{}': {} takes {}, a number above {} and up to {}: {}:{}", escape(text), name, a.what, a.least, a.most, name, a.usual)};
  return out;
}

// Sixteen side by side: one after the other would wait for each comparison. NaN is found on its own, since comparisons pass over it.
recipe::Range range_of(const float* x, int64_t count) {
  constexpr int64_t lanes = 16;
  float least[lanes], most[lanes];
  int32_t nan[lanes]{};
  recipe::Range r;
  std::fill_n(least, lanes, r.least);
  std::fill_n(most, lanes, r.most);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes)
    for (int64_t j = 0; j < lanes; ++j) {
      const float v = x[i + j];
      least[j] = v < least[j] ? v : least[j];
      most[j] = v > most[j] ? v : most[j];
      nan[j] |= v != v ? 1 : 0;
    }
  for (int64_t j = 0; i + j < count; ++j) {
    const float v = x[i + j];
    least[j] = v < least[j] ? v : least[j];
    most[j] = v > most[j] ? v : most[j];
    nan[j] |= v != v ? 1 : 0;
  }
  r = {*std::min_element(least, least + lanes), *std::max_element(most, most + lanes)};
  if (std::any_of(nan, nan + lanes, [](int32_t n) { return n != 0; })) r = {-__builtin_inff(), __builtin_inff()};  // as unusable as infinity
  return r;
}

}  // namespace qb::calib

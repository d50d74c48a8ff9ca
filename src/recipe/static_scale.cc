#include "recipe/static_scale.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qb::recipe {
namespace {

constexpr float e2m1_top = 6, e4m3_top = 448, e5m2_top = 57344;

// The number that the largest magnitude becomes. llm-compressor takes half of the distance from the least to the largest code.
float top_of(Elem code, Numerics numerics) {
  if (code == Elem::e4m3) return e4m3_top;
  if (code == Elem::e5m2) return e5m2_top;
  const auto codes = static_cast<float>(1 << bits(code));
  return numerics == Numerics::modelopt ? codes / 2 - 1 : (codes - 1) / 2;
}

std::optional<StaticScale> usable(StaticScale s) {
  if (std::isfinite(s.scale) && s.scale > 0) return s;
  return std::nullopt;
}

}  // namespace

bool has_static_scale(const ir::QuantType& t, Numerics numerics) noexcept {
  if (t.two_level()) return t.code == Elem::e2m1;
  const bool known = t.code == Elem::e4m3 || t.code == Elem::e5m2 || is_integer_code(t.code);
  if (!known || t.scale != ir::ScaleValues::any || !(t.block == ir::Block{0, 0})) return false;
  return t.zero == ir::Zero::none || (is_integer_code(t.code) && numerics == Numerics::llm_compressor);
}

std::optional<StaticScale> static_scale(const ir::QuantType& t, Numerics numerics, Range r) noexcept {
  if (r.empty() || !std::isfinite(r.least) || !std::isfinite(r.most)) return std::nullopt;
  const float amax = std::max(std::abs(r.least), std::abs(r.most));
  if (numerics == Numerics::modelopt) return usable({.scale = amax / (t.two_level() ? e2m1_top * e4m3_top : top_of(t.code, numerics))});
  if (t.two_level()) {
    const float g = e4m3_top * e2m1_top / std::max(amax, std::numeric_limits<float>::min());
    return usable({.scale = std::isfinite(g) ? g : 1.0F, .divides = true});
  }
  const auto not_zero = [](float scale) { return scale == 0 ? std::numeric_limits<float>::epsilon() : scale; };
  if (t.zero == ir::Zero::none) return usable({.scale = not_zero(amax / top_of(t.code, numerics))});
  // 0 is always a number of the type.
  const float least = std::min(r.least, 0.0F), most = std::max(r.most, 0.0F);
  const auto codes = static_cast<float>(1 << bits(t.code));
  const float low = -codes / 2, high = codes / 2 - 1, scale = (most - least) / (codes - 1);
  const float zero = scale == 0 ? 0.0F : std::nearbyint(std::clamp(low - least / scale, low, high));
  return usable({.scale = not_zero(scale), .zero = static_cast<int>(zero)});
}

}  // namespace qb::recipe

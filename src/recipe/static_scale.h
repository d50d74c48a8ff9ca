// Static scales of activations, keys and values, from the range that was measured, by the formulas of a named producer.
//
// Both producers measure the unquantized model. Sources of truth: get_activation_scaling_factor and postprocess_state_dict of ModelOpt 0.47; calculate_qparams
// and generate_gparam of compressed-tensors 0.19 (llm-compressor 0.14). They work in the model's dtype; here everything is float32, and so is what is stored.
#pragma once

#include <optional>

#include "ir/types.h"
#include "recipe/recipe.h"

namespace qb::recipe {

// Of everything that was seen. Empty while least > most.
struct Range {
  float least = __builtin_inff(), most = -__builtin_inff();
  bool empty() const { return !(least <= most); }
  void add(const Range& other) {
    least = other.least < least ? other.least : least;
    most = other.most > most ? other.most : most;
  }
  friend bool operator==(const Range&, const Range&) = default;
};

struct StaticScale {
  float scale = 0;  // a finite number above 0
  bool divides = false;
  std::optional<int> zero = {};  // of types with zero points
};

// One scale for a tensor, or the second level of a two-level type.
bool has_static_scale(const ir::QuantType&, Numerics) noexcept;
// Nothing where the range gives no scale: ModelOpt has none for inputs that are always 0, and nobody has one for NaN or infinity. Precondition:
// has_static_scale.
std::optional<StaticScale> static_scale(const ir::QuantType&, Numerics, Range) noexcept;

}  // namespace qb::recipe

#include "recipe/recipe.h"

#include <numeric>

#include "recipe/loops.h"

namespace qb::recipe {
namespace {

template <class S>
struct AbsMax {
  static QB_INLINE float run(const std::byte* data, int64_t count) { return S::value(max_magnitude<S>(data, count, 0)); }
};

}  // namespace

std::string_view to_string(Numerics n) {
  return n == Numerics::modelopt ? "modelopt" : "llm_compressor";
}

const Recipe* find_recipe(std::string_view name) {
  for (const Recipe* r : recipes()) {
    if (r->name == name) return r;
  }
  return nullptr;
}

const Recipe* find_recipe(const ir::QuantType& type, Numerics numerics) {
  for (const Recipe* r : recipes()) {
    if (r->numerics == numerics && r->makes(type)) return r;
  }
  return nullptr;
}

int64_t row_multiple(const Recipe& recipe, const ir::QuantType& type) {
  return std::lcm(recipe.row_multiple, type.block.rows > 0 ? int64_t{type.block.rows} : int64_t{1});
}

float absmax(const void* data, Elem elem, int64_t count, Isa isa) noexcept {
  const std::byte* p = static_cast<const std::byte*>(data);
  if (elem == Elem::bf16) return run_at<AbsMax<Bf16>>(isa, p, count);
  if (elem == Elem::f16) return run_at<AbsMax<F16>>(isa, p, count);
  return run_at<AbsMax<F32>>(isa, p, count);
}

}  // namespace qb::recipe

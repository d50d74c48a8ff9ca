// Algorithms that make better weights than rounding does, from what flows into the linears. One file each, found through the manifest.
//
// Two kinds. `codes`: the algorithm decides the codes of weights that read the same inputs; scales are the recipe's. `factors`: it finds a factor for each
// column of weights that read the same inputs; they are multiplied by it, what feeds them is divided by it, and the recipe makes their codes afterwards. Both
// are pure: numbers in, numbers out. Non-goals: which weights belong together, and where the results go (bridge/weights_work.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "calib/statistics.h"
#include "ir/checkpoint.h"
#include "recipe/recipe.h"

namespace qb::calib {

// A weight of plain numbers while an algorithm works on it.
struct Weight {
  std::string path;
  int64_t n = 0, k = 0;
  Elem elem = Elem::bf16;                  // bf16, f16 or f32
  std::vector<std::byte> numbers;          // [n, k]
  const recipe::Recipe* recipe = nullptr;  // null: it stays plain and is here for its inputs' sake
  ir::QuantType type;
};

// What a recipe makes of a weight's numbers, or an algorithm in its place.
struct Made {
  std::vector<std::byte> codes;   // as recipe::Args has them
  std::vector<std::byte> scales;  // of recipe->scale_elem(weight.elem)
  std::vector<std::byte> zeros;   // i8, of types with zero points
  float global = 0;
  std::vector<int32_t> order;  // the group of each column, where groups do not follow each other; else empty
};
// The recipe's own. `amax` as recipe::Args has it; `numbers` [n, k] in place of the weight's.
Made make(const Weight& weight, const std::byte* numbers, float amax, Isa isa);

// What takes up the factors by which weights are multiplied. feeders: the norm or the linear before them, or there are none. unfed: a norm, or a linear where
// the producer's export folds them into it; else they stay beside the weight (ir::Role::prescale). nobody: they always stay.
enum class TakenBy : uint8_t { feeders, unfed, nobody };

struct Algorithm {
  std::string_view name;
  std::string_view source;                   // where the formulas come from
  std::optional<recipe::Numerics> numerics;  // for weights of these recipes; absent: of any
  enum class Kind : uint8_t { codes, factors } kind;
  bool products;                                               // it needs Statistics::products
  std::string_view (*refuses)(const ir::QuantType&) noexcept;  // which types it makes instead; empty: this one
  // codes: what it makes of each weight; takes the products. Errors: inputs that are not finite.
  Result<std::vector<Made>> (*solve)(std::span<const Weight>, Statistics&, const Tools&) = nullptr;
  // factors: one for each column, positive and finite; takes the products. Errors likewise.
  Result<std::vector<float>> (*balance)(std::span<const Weight>, Statistics&, const Tools&) = nullptr;
  // factors of what a norm feeds, where the producer judges them by what comes out behind attention or the feed-forward part: those to choose from, in order.
  // The products are not needed. Null: balance finds them by the outputs of the weights themselves.
  std::vector<std::vector<float>> (*candidates)(std::span<const Weight>, const Statistics&) = nullptr;
  TakenBy taken_by = TakenBy::feeders;
  bool mixtures = true;  // factors: also of what the experts of a mixture share
  bool linears = true;   // factors: also of inputs that come from another linear (arch::ModuleRow::fed_by), not from a norm
};

// Registers an algorithm, at file scope: QB_ALGORITHM(gptq) = {...};
#define QB_ALGORITHM(stem)                 \
  extern const Algorithm algorithm_##stem; \
  constinit const Algorithm algorithm_##stem

std::span<const Algorithm* const> algorithms();  // the generated manifest
// Those of a text like "smoothquant+gptq", in this order, for weights of recipes with these numerics; at most one of each kind, factors first. Errors:
// invalid_argument with near names.
Result<std::vector<const Algorithm*>> parse_algorithms(std::string_view text, recipe::Numerics numerics);

}  // namespace qb::calib

// Turns plain linears into weights to be quantized by a recipe: IR to IR, no data.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/regex.h"
#include "base/result.h"
#include "ir/checkpoint.h"
#include "recipe/recipe.h"

namespace qb::pass {

struct QuantizeOptions {
  ir::Scheme scheme;
  recipe::Numerics numerics = recipe::Numerics::modelopt;
  std::string recipe;               // by name, where a producer has several for the scheme; empty: the first one that makes it with the numerics
  std::vector<std::string> ignore;  // exact names, shell patterns, "re:" regexes or fused names, besides the default lm_head
  RegexCompiler regex = nullptr;
};

// What users ask for: a scheme or a shorthand (which may name a recipe), numerics ("modelopt", "llm-compressor"; empty: those of the recipe, else of the
// dialect that is written) and a recipe (empty: see above). The other options are left as they are.
Result<QuantizeOptions> quantize_options(std::string_view scheme, std::string_view numerics, std::string_view recipe, std::string_view dialect);

// Every linear that no rule names gets the scheme. Problems: calibration-needed (static activation scales), recipe-missing (no recipe makes the type under
// these numerics, or the one that is named makes another), already-quantized, pattern-invalid, group-does-not-divide, ignore-ghost (a rule that names nothing).
bool quantize(ir::Checkpoint&, const QuantizeOptions&, Diagnostics&);

}  // namespace qb::pass

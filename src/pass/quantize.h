// Turns plain linears into weights to be quantized by a recipe: IR to IR, no data.
#pragma once

#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "base/regex.h"
#include "ir/checkpoint.h"
#include "recipe/recipe.h"

namespace qb::pass {

struct QuantizeOptions {
  ir::Scheme scheme;
  recipe::Numerics numerics = recipe::Numerics::modelopt;
  std::vector<std::string> ignore;  // exact names, shell patterns, "re:" regexes or fused names, besides the default lm_head
  RegexCompiler regex = nullptr;
};

// Every linear that no rule names gets the scheme. Problems: calibration-needed (static activation scales), recipe-missing (no recipe makes the type under
// these numerics), already-quantized, pattern-invalid, group-does-not-divide, ignore-ghost (a rule that names nothing).
bool quantize(ir::Checkpoint&, const QuantizeOptions&, Diagnostics&);

}  // namespace qb::pass

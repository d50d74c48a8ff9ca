// Turns plain linears into weights to be quantized by recipes, and changes what activations of quantized ones are: IR to IR, no data.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/diagnostics.h"
#include "base/regex.h"
#include "base/result.h"
#include "ir/checkpoint.h"
#include "pass/calibration.h"
#include "pass/overlay.h"
#include "pass/quant_config.h"
#include "recipe/recipe.h"

namespace qb::pass {

struct QuantizeOptions {
  QuantConfig config;
  recipe::Numerics numerics = recipe::Numerics::modelopt;  // of weights for which no recipe is named
  RegexCompiler regex = nullptr;
  std::optional<Ranges> ranges;    // what was measured, for static scales
  std::optional<Overlay> overlay;  // what algorithms have made, for weights that name one
};

// Whether k columns are whole groups of the type, where a recipe wants them to be.
bool whole_groups(const ir::QuantType& type, int64_t k);

// Numerics ("modelopt", "llm-compressor"; empty: those of the dialect that is written) for a configuration, whose recipes are checked.
Result<QuantizeOptions> quantize_options(QuantConfig config, std::string_view numerics, std::string_view dialect);
// One scheme or shorthand (which may name a recipe) for everything; `recipe` by name, where a producer has several for it, else empty: its numerics count then.
Result<QuantizeOptions> quantize_options(std::string_view scheme, std::string_view numerics, std::string_view recipe, std::string_view dialect);

// Every linear gets what the configuration says of it (assignment.h). Weights that the checkpoint has quantized keep their scheme: activations alone may become
// others, or none, and stored scales of activations are left out then. Plain ones with a Module::make were others, and may become quantized beside them.
// Problems: calibration-needed (static activation scales, and nothing measured), those of give_scales, kv-latent, recipe-missing (no recipe makes the type
// under these numerics, or the one that is named makes another), already-quantized, pattern-invalid, group-does-not-divide, ignore-ghost and quantization-ghost
// (what names nothing), experts-stay-plain, experts-stacked, kv-disagrees, nothing-to-quantize.
bool quantize(ir::Checkpoint&, const QuantizeOptions&, Diagnostics&);

}  // namespace qb::pass

// Names that users know from elsewhere, as schemes: vLLM's online quantization names, ModelOpt's recipe names, compressed-tensors' presets.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace qb::ir {

struct Shorthand {
  std::string_view name;
  std::string_view scheme;
  std::string_view from;            // whose name it is
  std::string_view recipe = {};     // the one that the name means, where the scheme does not say it
  std::string_view algorithm = {};  // likewise, that makes it from data (calib/algorithm.h)
};

std::span<const Shorthand> shorthands();
const Shorthand* find_shorthand(std::string_view name);  // case counts; null when unknown

// Up to five of `known` that are nearest to `word` by edit distance, joined by commas.
std::string near_names(std::string_view word, std::span<const std::string_view> known);

}  // namespace qb::ir

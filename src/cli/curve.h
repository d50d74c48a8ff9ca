// The curve of quantize --auto as a picture: bits for a weight, and what is lost, on a logarithmic axis.
#pragma once

#include <string>

#include "bridge/mix.h"

namespace qb::cli {

// An SVG file without fonts, scripts or links of its own; readable in both themes. `loss` names the vertical axis.
std::string curve_svg(const Mixed&, std::string_view loss);

}  // namespace qb::cli

// How eval --layers shows what each layer does wrong.
#pragma once

#include <span>
#include <string>

#include "base/json_fwd.h"
#include "bridge/layer_errors.h"

namespace qb::cli {

// A line for each layer: its own error, the error with what comes from the layers before it, and the errors of its linears, without what their names share.
std::string layer_table(std::span<const LayerError>);
// [ {layer, error, total, linears: {path: error}} ]; an error without bound is null.
Json to_json(std::span<const LayerError>);

}  // namespace qb::cli

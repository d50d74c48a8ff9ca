#pragma once

#include <nlohmann/json_fwd.hpp>

namespace qb {
using Json = nlohmann::ordered_json;
}
